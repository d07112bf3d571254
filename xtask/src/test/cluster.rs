//! The stage `cluster`: scenarios on a real Kubernetes.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cluster::{self, Provider};
use crate::images::{self, Profile};
use crate::kubetools;

/// Names another cluster than this machine's own: `kind`, `current`.
const PROVIDER: &str = "SPANLOOM_CLUSTER";

/// Starts the cluster unless one runs, puts the images on it, runs the scenarios, and takes away
/// what it started.
///
/// # Errors
/// When something fails; and where the cluster cannot run, if this is CI.
pub fn run() -> anyhow::Result<()> {
    use clap::ValueEnum;
    if let Some(named) = std::env::var_os(PROVIDER).filter(|named| !named.is_empty()) {
        let named = named.to_string_lossy();
        let provider = Provider::from_str(&named, true)
            .map_err(|_| anyhow::anyhow!("{PROVIDER} is {named:?}, not own, kind or current"))?;
        return run_on(provider);
    }
    if let Some(reason) = cluster::why_not_here() {
        if super::is_ci() {
            bail!("{reason}, and CI must not pass these scenarios over");
        }
        println!("SKIPPED: {reason}.");
        println!("Where Docker is, run the scenarios on kind:");
        println!("  {}", cluster::kind_command());
        println!("  {PROVIDER}=kind cargo xtask test --only cluster");
        return Ok(());
    }
    run_on(Provider::Own)
}

fn run_on(provider: Provider) -> anyhow::Result<()> {
    let was_up = provider != Provider::Own || cluster::is_up()?;
    let before = cluster::remains()?;
    let kubeconfig = cluster::up(provider)?;
    let done = scenarios(provider, &kubeconfig);
    if was_up {
        // What the developer had started stays.
        return done;
    }
    let down = cluster::down(provider).context("cannot take the cluster away");
    done.and(down).and_then(|()| nothing_is_left(&before))
}

/// After the cluster there is nothing that was not there before it.
fn nothing_is_left(before: &BTreeSet<String>) -> anyhow::Result<()> {
    let after = cluster::remains()?;
    let left: Vec<_> = after.difference(before).cloned().collect();
    ensure!(left.is_empty(), "the cluster left {}", left.join(", "));
    println!("the cluster left nothing behind");
    Ok(())
}

/// This program's file. Linux marks the path of one that was built anew meanwhile.
fn this_program() -> anyhow::Result<std::path::PathBuf> {
    let path = std::env::current_exe().context("cannot tell where this program is")?;
    let name = path.to_string_lossy();
    Ok(name.strip_suffix(" (deleted)").unwrap_or(&name).into())
}

fn scenarios(provider: Provider, kubeconfig: &std::path::Path) -> anyhow::Result<()> {
    let folder = super::target_dir().join("images/test");
    // What the stages before have compiled.
    let mut archives = images::make(&folder, Profile::Debug)?;
    archives.extend(images::demo::make(&folder)?);
    if provider != Provider::Current {
        cluster::load(provider, &archives)?;
    }
    let mut command: Command =
        super::cargo(["test", "--workspace", "--locked", "--test", "kubernetes"]);
    command
        // Each has a store, collectors and apps of its own: more at once take as long and time out.
        .args(["--", "--test-threads", "3"])
        .env("KUBECONFIG", kubeconfig)
        .env("SPANLOOM_KUBECTL", kubetools::kubectl()?)
        .env("SPANLOOM_HELM", kubetools::helm()?)
        .env("SPANLOOM_IMAGES", &folder);
    if provider == Provider::Own {
        command.env("SPANLOOM_XTASK", this_program()?);
        super::with_faketime(&mut command)?;
    }
    super::sh(command)
}
