//! Takes the cluster away: processes, containers, mounts, networks, cgroups, files. What is not
//! there any more is no error, so it also cleans up after a cluster that came up in part.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::layout::Layout;
use super::process::{self, Process};
use super::{cgroups, network, sh};

/// Those that start containers end first, or they would start them again.
const ENDED_FIRST: &[&str] = &[
    "kubelet",
    "kube-proxy",
    "kube-scheduler",
    "controller-manager",
];

/// Programs of a cluster, by which leftovers of one that was not written down are known, together
/// with the cluster's own folders in their arguments.
const PROGRAMS: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "containerd",
    "containerd-shim-runc-v2",
];

/// How long the containers' shims may take to be gone.
const SHIM_LIMIT: Duration = Duration::from_secs(20);

/// Removes all of it.
///
/// # Errors
/// When something stays; the folders stay then too, for a second try.
pub fn run(layout: &Layout) -> anyhow::Result<()> {
    let mut processes = process::recorded(layout);
    for found in leftovers(layout) {
        if !processes.iter().any(|known| known.pid == found.pid) {
            processes.push(found);
        }
    }
    let (first, rest): (Vec<_>, Vec<_>) = processes
        .into_iter()
        .filter(|process| !process.name.ends_with("shim"))
        .partition(|process| ENDED_FIRST.iter().any(|name| process.name.contains(name)));
    end_all(&first)?;
    // Containers before their runtime, which then still sees them end.
    cgroups::kill()?;
    end_all(&rest)?;
    end_shims(layout)?;
    unmount_below(layout)?;
    network::down()?;
    cgroups::down()?;
    for folder in [layout.run(), layout.state().to_owned()] {
        remove_folder(&folder)?;
    }
    remove_kubelet_litter(layout);
    remove_network_results(layout)
}

/// All get their signal at once, then all are waited for.
fn end_all(processes: &[Process]) -> anyhow::Result<()> {
    processes.iter().for_each(Process::kill);
    processes.iter().try_for_each(Process::end)
}

/// Running programs of a cluster whose arguments name this cluster's folders.
pub fn leftovers(layout: &Layout) -> Vec<Process> {
    let Ok(entries) = Path::new("/proc").read_dir() else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let program = arguments.split(|byte| *byte == 0).next()?;
            let name = Path::new(std::ffi::OsStr::from_bytes(program)).file_name()?;
            let name = name.to_str().filter(|name| PROGRAMS.contains(name))?;
            let ours = [layout.state().to_owned(), layout.run()];
            let names_ours = |folder: &PathBuf| {
                let folder = folder.as_os_str().as_bytes();
                arguments.windows(folder.len()).any(|part| part == folder)
            };
            if !ours.iter().any(names_ours) {
                return None;
            }
            let name = name.replace("containerd-shim-runc-v2", "shim");
            Process::running(&name, pid)
        })
        .collect()
}

/// Shims outlive their runtime by design.
fn end_shims(layout: &Layout) -> anyhow::Result<()> {
    let until = Instant::now() + SHIM_LIMIT;
    loop {
        let left = leftovers(layout);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            let names: Vec<_> = left
                .iter()
                .map(|p| format!("{} {}", p.name, p.pid))
                .collect();
            bail!("these do not end: {}", names.join(", "));
        }
        for process in &left {
            process.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Mount points below the cluster's folders, the latest first.
///
/// # Errors
/// When the kernel's table cannot be read.
pub fn mounts_below(layout: &Layout) -> anyhow::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .context("cannot read the table of mounts")?;
    let ours = [layout.state().to_owned(), layout.run()];
    let mut mounts: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(unescape(path)))
        .filter(|path| ours.iter().any(|folder| path.starts_with(folder)))
        .collect();
    mounts.reverse();
    Ok(mounts)
}

/// The kernel writes blanks and their like as octal numbers.
fn unescape(path: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (from, to)| path.replace(from, to))
}

fn unmount_below(layout: &Layout) -> anyhow::Result<()> {
    for mount in mounts_below(layout)? {
        let mount = mount.display().to_string();
        let unmount =
            |flag: &[&str]| sh::run(std::process::Command::new("umount").args(flag).arg(&mount));
        // Lazily when something holds it: its files are to be removed from the folder below.
        if unmount(&[]).is_err() {
            let _ = unmount(&["--lazy"]);
        }
    }
    let left = mounts_below(layout)?;
    if let Some(mount) = left.first() {
        bail!("{} cannot be unmounted", mount.display());
    }
    Ok(())
}

/// Folders that the kubelet makes wherever its own are: removed when nothing of another kubelet's
/// is in them.
fn remove_kubelet_litter(layout: &Layout) {
    let logs = Path::new("/var/log/containers");
    for entry in logs.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if path
            .read_link()
            .is_ok_and(|to| to.starts_with(layout.state()))
        {
            let _ = std::fs::remove_file(&path);
        }
    }
    let socket = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    if socket.exists() && UnixStream::connect(socket).is_err() {
        let _ = std::fs::remove_file(socket);
    }
    for folder in [
        "/var/log/containers",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
        "/var/lib/kubelet",
    ] {
        // Refused when it holds something.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Where the container runtime's network library notes what plugins answered. It has no setting, and what
/// is killed does not tidy up.
const NETWORK_RESULTS: &str = "/var/lib/cni/results";

/// Those notes that are about pods of this cluster: each names the pod's network namespace.
pub fn network_results(layout: &Layout) -> Vec<PathBuf> {
    let ours = format!("\"netns\":\"{}/", layout.run().display());
    let files = Path::new(NETWORK_RESULTS).read_dir().into_iter().flatten();
    files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&ours)))
        .collect()
}

fn remove_network_results(layout: &Layout) -> anyhow::Result<()> {
    for path in network_results(layout) {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for folder in [NETWORK_RESULTS, "/var/lib/cni"] {
        // Refused when it holds something.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/a\\040b/c"), "/a b/c");
        assert_eq!(unescape("/plain"), "/plain");
    }
}
