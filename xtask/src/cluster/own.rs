//! The cluster on this machine: up, down, load.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

use super::go::{self, Programs};
use super::layout::{Layout, NODES, Node};
use super::{base, control_plane, kubectl, network, node, packages, pki, process, sh, teardown};

/// Starts the cluster unless it runs.
///
/// # Errors
/// When it does not come up.
pub fn up(layout: &Layout) -> anyhow::Result<PathBuf> {
    let _lock = lock(layout)?;
    // First, since they take longest to fail: everything that is fetched or built.
    packages::install()?;
    let programs = go::programs(layout)?;
    crate::kubetools::kubectl()?;
    let begun = Instant::now();
    if is_up(layout) && std::fs::read_to_string(layout.complete())? == programs.identity() {
        base::renew_volumes(layout)?;
        println!("the cluster is up");
        return Ok(layout.kubeconfig("admin"));
    }
    // What an earlier one left, wholly or in part.
    teardown::run(layout).context("cannot remove what an earlier cluster left")?;
    if let Err(error) = start(layout, &programs) {
        keep_logs(layout);
        if let Err(left) = teardown::run(layout) {
            eprintln!("and it cannot be removed: {left:#}");
        }
        return Err(error.context("the cluster did not come up"));
    }
    std::fs::write(layout.complete(), programs.identity())?;
    println!(
        "Kubernetes is up after {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(layout.kubeconfig("admin"))
}

fn start(layout: &Layout, programs: &Programs) -> anyhow::Result<()> {
    for folder in [layout.state().to_owned(), layout.logs(), layout.run()] {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    pki::write(layout)?;
    network::up()?;
    // The nodes' runtimes and the API start side by side.
    std::thread::scope(|scope| {
        let api = scope.spawn(|| control_plane::up(layout, programs));
        let images = base::images(layout, programs);
        let runtimes = images.and_then(|images| {
            node::start_runtimes(layout, programs)?;
            load_with(layout, programs, &images)
        });
        let api = api
            .join()
            .unwrap_or_else(|_| bail!("starting the API server panicked"));
        api.and(runtimes)
    })?;
    base::apply(layout)?;
    node::join(layout, programs)?;
    base::wait(layout)
}

/// Whether the cluster is up: all that was started runs, and the API answers.
pub fn is_up(layout: &Layout) -> bool {
    let processes = process::recorded(layout);
    layout.complete().is_file()
        && !processes.is_empty()
        && processes.iter().all(process::Process::is_alive)
        && kubectl::admin(layout, &["get", "--raw", "/readyz"]).is_ok()
}

/// Takes it away.
///
/// # Errors
/// When something stays.
pub fn down(layout: &Layout) -> anyhow::Result<()> {
    if let Some(reason) = super::why_not_here() {
        bail!("{reason}");
    }
    let _lock = lock(layout)?;
    teardown::run(layout)?;
    println!("there is no cluster now");
    Ok(())
}

/// Puts images on both nodes; those that are there already are passed over.
///
/// # Errors
/// When there is no cluster, or containerd refuses one.
pub fn load(layout: &Layout, archives: &[PathBuf]) -> anyhow::Result<()> {
    if !is_up(layout) {
        bail!("there is no cluster; `cargo xtask cluster up` starts one");
    }
    load_with(layout, &go::programs(layout)?, archives)
}

fn load_with(layout: &Layout, programs: &Programs, archives: &[PathBuf]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let loads: Vec<_> = NODES
            .into_iter()
            .map(|node| scope.spawn(move || load_on(layout, programs, node, archives)))
            .collect();
        loads
            .into_iter()
            .try_for_each(|load| load.join().unwrap_or_else(|_| bail!("a load panicked")))
    })
}

fn load_on(
    layout: &Layout,
    programs: &Programs,
    node: Node,
    archives: &[PathBuf],
) -> anyhow::Result<()> {
    let known = sh::output(node::ctr(layout, programs, node)?.args(["images", "list"]))?;
    for archive in archives {
        let (name, digest) = name_and_digest(archive)?;
        let is_there = known
            .lines()
            .any(|line| line.starts_with(&format!("{name} ")) && line.contains(&digest));
        if is_there {
            continue;
        }
        sh::run(
            node::ctr(layout, programs, node)?
                .args(["images", "import"])
                .arg(archive),
        )
        .with_context(|| format!("cannot load {} on {}", archive.display(), node.name()))?;
    }
    Ok(())
}

/// What an archive's index says.
fn name_and_digest(path: &Path) -> anyhow::Result<(String, String)> {
    let read = || -> anyhow::Result<(String, String)> {
        let mut archive = tar::Archive::new(File::open(path)?);
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.path()?.to_str() != Some("index.json") {
                continue;
            }
            let index: serde_json::Value = serde_json::from_reader(entry)?;
            let first = &index["manifests"][0];
            let name = &first["annotations"]["io.containerd.image.name"];
            return Ok((
                name.as_str().context("the image has no name")?.to_owned(),
                first["digest"].as_str().context("no digest")?.to_owned(),
            ));
        }
        bail!("it has no index.json")
    };
    read().with_context(|| format!("{} is no OCI archive", path.display()))
}

/// Two of these commands must not work at once.
fn lock(layout: &Layout) -> anyhow::Result<File> {
    let path = layout.lock();
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("waiting for another `cargo xtask cluster` to finish …");
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// The logs of a start that failed outlive its removal.
fn keep_logs(layout: &Layout) {
    let kept = layout.cache().join("last-failure");
    let _ = std::fs::remove_dir_all(&kept);
    if std::fs::rename(layout.logs(), &kept).is_ok() {
        eprintln!("the logs are in {}", kept.display());
    }
}
