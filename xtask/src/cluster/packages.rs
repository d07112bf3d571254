//! Programs that come from the distribution: found, or installed by name where that is possible.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::sh;

/// A program and the Debian package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("runc", "runc"),
    ("conntrack", "conntrack"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// Where distributions put the CNI plugins.
const CNI_FOLDERS: &[&str] = &["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"];

/// Installs what is missing.
///
/// # Errors
/// When something is missing and cannot be installed here; names the packages.
pub fn install() -> anyhow::Result<()> {
    let missing = missing();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if sh::which("apt-get").is_none() {
        bail!(
            "the cluster needs programs that are not here; install what Debian calls {names}, \
             then try again"
        );
    }
    println!("installing {names} …");
    let mut update = Command::new("apt-get");
    // An old list may still do; the installation says what is wrong.
    let updated = sh::run(update.args(["update", "-qq"]));
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        // Another installation may be at work.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Run level 1: packages do not start their services, of which etcd is one.
        .env("RUNLEVEL", "1");
    sh::run(&mut install).with_context(|| match updated {
        Ok(()) => format!("cannot install {names}"),
        Err(error) => format!("cannot install {names} (nor update the list: {error:#})"),
    })?;
    let still = self::missing();
    if !still.is_empty() {
        bail!(
            "{} are installed but their programs are not found",
            still.join(" ")
        );
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    let mut packages: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _)| sh::which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if cni_folder().is_err() {
        packages.push("containernetworking-plugins");
    }
    packages
}

/// The folder of the CNI plugins.
///
/// # Errors
/// When there is none.
pub fn cni_folder() -> anyhow::Result<&'static str> {
    CNI_FOLDERS
        .iter()
        .find(|folder| {
            ["ptp", "host-local", "loopback"]
                .iter()
                .all(|plugin| Path::new(folder).join(plugin).is_file())
        })
        .copied()
        .context("there are no CNI plugins; install what Debian calls containernetworking-plugins")
}

/// The path of one of these programs.
///
/// # Errors
/// When it is missing.
pub fn program(name: &str) -> anyhow::Result<std::path::PathBuf> {
    sh::which(name).with_context(|| format!("{name} is missing; install it, then try again"))
}
