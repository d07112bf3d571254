//! The same on kind, for machines that have Docker. Written from kind's documentation: where this
//! project is tested there is no Docker, so it has not been run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::layout::Layout;
use super::sh;

/// What to type where the cluster of our own cannot run.
pub const UP: &str = "cargo xtask cluster up --provider kind";

/// The cluster's name.
const NAME: &str = "spanloom";

/// Creates the cluster unless it is there.
///
/// # Errors
/// When kind is missing or fails.
pub fn up(layout: &Layout) -> anyhow::Result<PathBuf> {
    let clusters = sh::output(Command::new("kind").args(["get", "clusters"]))
        .context("kind is needed, and Docker; it comes from the Go module sigs.k8s.io/kind")?;
    if !clusters.lines().any(|name| name == NAME) {
        let config = spanloom_e2e::workspace().join("e2e/cluster/kind.yaml");
        sh::run(
            Command::new("kind")
                .args(["create", "cluster", "--name", NAME, "--wait", "180s"])
                .arg("--config")
                .arg(config),
        )?;
    }
    kubeconfig(layout)
}

/// Deletes the cluster.
///
/// # Errors
/// When kind is missing or fails.
pub fn down() -> anyhow::Result<()> {
    sh::run(Command::new("kind").args(["delete", "cluster", "--name", NAME]))
}

/// Puts images on every node.
///
/// # Errors
/// When kind is missing or fails.
pub fn load(archives: &[PathBuf]) -> anyhow::Result<()> {
    for archive in archives {
        sh::run(
            Command::new("kind")
                .args(["load", "image-archive", "--name", NAME])
                .arg(archive),
        )?;
    }
    Ok(())
}

/// Writes the kubeconfig to a file of its own.
///
/// # Errors
/// When there is no such cluster.
pub fn kubeconfig(layout: &Layout) -> anyhow::Result<PathBuf> {
    let text = sh::output(Command::new("kind").args(["get", "kubeconfig", "--name", NAME]))?;
    let path = layout.cache().join("kind-kubeconfig.yaml");
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
