//! Programs and libraries that come from the distribution: found, or installed by name where that is possible.

use std::path::{Path, PathBuf};
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

/// Where Debian puts the library that sets a clock for one process.
const FAKETIME: (&str, &str) = ("/usr/lib", "faketime/libfaketime.so.1");

/// Installs what the cluster lacks.
///
/// # Errors
/// When something is missing and cannot be installed here; names the packages.
pub fn install() -> anyhow::Result<()> {
    install_missing(missing)
}

/// Installs the library that sets a clock for one process.
///
/// # Errors
/// When it is missing and cannot be installed here; names the package.
pub fn install_faketime() -> anyhow::Result<()> {
    install_missing(|| match faketime() {
        Some(_) => Vec::new(),
        None => vec!["libfaketime"],
    })
}

/// The library that sets a clock for one process.
pub fn faketime() -> Option<PathBuf> {
    // Between the two is the name of the architecture.
    let (before, after) = FAKETIME;
    let folders = std::fs::read_dir(before).ok()?;
    let mut paths = folders.flatten().map(|folder| folder.path().join(after));
    paths.find(|path| path.is_file())
}

fn install_missing(missing: impl Fn() -> Vec<&'static str>) -> anyhow::Result<()> {
    let names = missing();
    if names.is_empty() {
        return Ok(());
    }
    let words = names.join(" ");
    if sh::which("apt-get").is_none() {
        bail!("what Debian calls {words} is not here; install it, then try again");
    }
    println!("installing {words} …");
    let mut update = Command::new("apt-get");
    // An old list may still do; the installation says what is wrong.
    let updated = sh::run(update.args(["update", "-qq"]));
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        // Another installation may be at work.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(&names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Run level 1: packages do not start their services, of which etcd is one.
        .env("RUNLEVEL", "1");
    sh::run(&mut install).with_context(|| match updated {
        Ok(()) => format!("cannot install {words}"),
        Err(error) => format!("cannot install {words} (nor update the list: {error:#})"),
    })?;
    let still = missing();
    if !still.is_empty() {
        bail!(
            "{} are installed but what they bring is not found",
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
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    sh::which(name).with_context(|| format!("{name} is missing; install it, then try again"))
}
