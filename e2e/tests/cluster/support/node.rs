//! Nodes of `cargo xtask cluster`, whose processes can be reached: they hang, and their pods are killed.

use std::process::Command;

use super::want;

const XTASK: &str = "SPANLOOM_XTASK";

/// Whether the cluster is one of those.
pub fn can_be_reached() -> bool {
    std::env::var_os(XTASK).is_some()
}

fn tell(what: &str, node: &str, pod: &str) -> Result<(), String> {
    let xtask = std::env::var_os(XTASK).ok_or_else(|| format!("no {XTASK}"))?;
    let arguments = ["cluster", what, node, pod];
    let output = Command::new(xtask).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    want(output.status.success(), || {
        format!("{what} of {node}: {said}")
    })
}

/// Kills the containers of the pod with this uid; they start again.
pub fn kill_containers(node: &str, pod: &str) {
    tell("kill", node, pod).unwrap();
}

/// A node that hangs until this goes.
pub struct Frozen {
    node: String,
    collector: String,
}

impl Frozen {
    /// Stops its kubelet and its collector, whose uid this is.
    pub fn freeze(node: &str, collector: &str) -> Self {
        let frozen = Self {
            node: node.to_owned(),
            collector: collector.to_owned(),
        };
        tell("freeze", node, collector).unwrap();
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // In the middle of a failure, a second one would hide the first.
        if let Err(error) = tell("thaw", &self.node, &self.collector) {
            eprintln!("{error}");
        }
    }
}
