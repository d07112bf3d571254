//! One cgroup a node, below the root of every controller, for its pods to live in.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::layout::{NODES, Node};

/// Where distributions mount cgroups.
const ROOT: &str = "/sys/fs/cgroup";

/// The roots of the hierarchies: one a controller with version 1, one alone with version 2.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").is_file() {
        return Ok(vec![root.to_owned()]);
    }
    let mut all = Vec::new();
    for entry in root
        .read_dir()
        .with_context(|| format!("there are no cgroups at {ROOT}"))?
    {
        let path = entry?.path();
        // `cpu,cpuacct` has links beside it that name the same.
        if path.is_dir() && !path.is_symlink() && path.join("cgroup.procs").is_file() {
            all.push(path);
        }
    }
    Ok(all)
}

fn of(node: Node, hierarchy: &Path) -> PathBuf {
    hierarchy.join(node.cgroup().trim_start_matches('/'))
}

/// The cgroups of a node's pod, one a hierarchy.
fn of_pod(node: Node, uid: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        for class in ["", "burstable", "besteffort"] {
            let pods = of(node, &hierarchy).join("kubepods").join(class);
            let folder = pods.join(format!("pod{uid}"));
            if folder.is_dir() {
                found.push(folder);
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no pod {uid} has a cgroup");
    Ok(found)
}

/// Stops the processes of a node's pods with these uids where they are, or lets them go on.
///
/// # Errors
/// When there is no such pod, or cgroups of version 1 alone.
pub fn freeze(node: Node, uids: &[String], is_frozen: bool) -> anyhow::Result<()> {
    for uid in uids {
        let mut files = of_pod(node, uid)?;
        files.iter_mut().for_each(|path| path.push("cgroup.freeze"));
        files.retain(|file| file.is_file());
        anyhow::ensure!(!files.is_empty(), "the cgroup of {uid} cannot be frozen");
        for file in files {
            let value = if is_frozen { "1" } else { "0" };
            std::fs::write(&file, value)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}

/// Kills the containers of a node's pods with these uids: the kubelet starts them again.
///
/// # Errors
/// When there is no such pod.
pub fn kill_containers(node: Node, uids: &[String]) -> anyhow::Result<()> {
    for uid in uids {
        for folder in of_pod(node, uid)? {
            let containers = folder.read_dir()?.flatten().map(|entry| entry.path());
            for container in containers.filter(|path| path.is_dir()) {
                // The one that holds the pod's namespaces stays.
                if !members(&container).iter().any(|pid| is_pause(pid)) {
                    kill_below(&container);
                }
            }
        }
    }
    Ok(())
}

fn is_pause(pid: &str) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "pause")
}

/// Makes the nodes' cgroups.
///
/// # Errors
/// When the kernel refuses one.
pub fn up() -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        delegate(&hierarchy)?;
        for node in NODES {
            let folder = of(node, &hierarchy);
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
            // Version 1 lets no process in before these are set.
            for file in ["cpuset.mems", "cpuset.cpus"] {
                let (from, to) = (hierarchy.join(file), folder.join(file));
                if from.is_file() {
                    let value = std::fs::read_to_string(&from)?;
                    std::fs::write(&to, value.trim())
                        .with_context(|| format!("cannot set {}", to.display()))?;
                }
            }
            delegate(&folder)?;
        }
    }
    Ok(())
}

/// Version 2: a group's children have only the controllers that it hands down.
fn delegate(folder: &Path) -> anyhow::Result<()> {
    let Ok(controllers) = std::fs::read_to_string(folder.join("cgroup.controllers")) else {
        return Ok(());
    };
    let control = folder.join("cgroup.subtree_control");
    for controller in controllers.split_whitespace() {
        // Some kernels refuse single ones (a real-time scheduler's, for one); the kubelet says what it misses.
        let _ = std::fs::write(&control, format!("+{controller}"));
    }
    Ok(())
}

/// Ends what runs in them: the cluster's containers.
///
/// # Errors
/// When the cgroups cannot be read.
pub fn kill() -> anyhow::Result<()> {
    let Ok(hierarchies) = hierarchies() else {
        return Ok(());
    };
    for hierarchy in hierarchies {
        for node in NODES {
            kill_below(&of(node, &hierarchy));
        }
    }
    Ok(())
}

fn kill_below(folder: &Path) {
    kill_members(folder);
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            kill_below(&entry.path());
        }
    }
}

/// Ends what still runs in them and removes them.
///
/// # Errors
/// When one is there and stays.
pub fn down() -> anyhow::Result<()> {
    let Ok(hierarchies) = hierarchies() else {
        return Ok(());
    };
    for hierarchy in hierarchies {
        for node in NODES {
            let folder = of(node, &hierarchy);
            if folder.is_dir() {
                remove(&folder)
                    .with_context(|| format!("cannot remove the cgroup {}", folder.display()))?;
            }
        }
    }
    Ok(())
}

/// The nodes' cgroups that are there now.
pub fn present() -> Vec<PathBuf> {
    let all = hierarchies().unwrap_or_default().into_iter();
    all.flat_map(|hierarchy| NODES.map(|node| of(node, &hierarchy)))
        .filter(|folder| folder.is_dir())
        .collect()
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            remove(&path)?;
        }
    }
    // A killed process leaves its group a moment later.
    let mut tries = 0;
    loop {
        match std::fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if tries >= 100 => return Err(error.into()),
            Err(_) => {
                tries += 1;
                kill_members(folder);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
    }
}

/// Only what lives in a node's group: the test cluster's own containers.
fn kill_members(folder: &Path) {
    for pid in members(folder) {
        let _ = super::sh::line(&format!("kill -KILL {pid}"));
    }
}

/// The ids of the processes in a group; none where it is gone.
fn members(folder: &Path) -> Vec<String> {
    let members = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let seen = members.lines().filter(|pid| *pid != "0");
    seen.map(str::to_owned).collect()
}
