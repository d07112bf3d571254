//! kubectl, as the cluster's administrator.

use std::path::Path;
use std::process::Command;

use super::layout::Layout;
use super::sh;

/// Runs kubectl on the cluster and gives what it printed.
///
/// # Errors
/// When kubectl cannot be had or fails; with what it said.
pub fn admin(layout: &Layout, arguments: &[&str]) -> anyhow::Result<String> {
    with(&layout.kubeconfig("admin"), arguments)
}

/// Runs kubectl with a kubeconfig.
///
/// # Errors
/// As [`admin`].
pub fn with(kubeconfig: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let mut kubectl = Command::new(crate::kubetools::kubectl()?);
    kubectl
        .arg("--kubeconfig")
        .arg(kubeconfig)
        .arg("--request-timeout=20s")
        .args(arguments);
    // A proxy cannot reach addresses of this machine.
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
        kubectl.env_remove(name);
    }
    sh::output(&mut kubectl)
}
