//! What a cluster of ours leaves on the machine if nobody takes it away, by the names that it gives:
//! looked for before `up` and after `down`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::layout::{BRIDGE, Layout, NODES, Node};
use super::{cgroups, sh, teardown};

/// Everything of a cluster's that is there now, each as a sentence's subject.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn look(layout: &Layout) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for process in teardown::leftovers(layout) {
        all.insert(format!("the process {} {}", process.name, process.pid));
    }
    for mount in teardown::mounts_below(layout)? {
        all.insert(format!("the mount {}", mount.display()));
    }
    for folder in [layout.state().to_owned(), layout.run()] {
        if folder.exists() {
            all.insert(format!("the folder {}", folder.display()));
        }
    }
    for file in teardown::network_results(layout) {
        all.insert(format!("the file {}", file.display()));
    }
    for group in cgroups::present() {
        all.insert(format!("the cgroup {}", group.display()));
    }
    all.extend(network()?);
    Ok(all)
}

/// Namespaces, links, routes and packet filters. Pods' namespaces are mounts, and where a program is not
/// installed, no cluster of ours has used it.
fn network() -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    let folder = Path::new("/run/netns");
    if folder.exists() {
        all.push("the folder of network namespaces".to_owned());
    }
    for entry in folder.read_dir().into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if NODES.iter().any(|node| node.netns() == name) {
            all.push(format!("the network namespace {name}"));
        }
    }
    let ours = NODES.map(Node::host_cable);
    for line in said("ip", &["-o", "link", "show"]).lines() {
        let name = link_name(line);
        if name == BRIDGE || ours.iter().any(|cable| cable == name) {
            all.push(format!("the link {name}"));
        }
    }
    for line in said("ip", &["-4", "route", "show"]).lines() {
        if line.contains(BRIDGE) {
            all.push(format!("the route {}", line.trim()));
        }
    }
    // The proxies work in the nodes' own namespaces. Another cluster's chains come and go, so that only
    // the first is news.
    if said("iptables-save", &[]).contains("\n:KUBE-") {
        all.push("chains of a Kubernetes".to_owned());
    }
    Ok(all)
}

fn said(program: &str, arguments: &[&str]) -> String {
    let program = sh::which(program);
    let said = program.and_then(|program| sh::output(Command::new(program).args(arguments)).ok());
    said.unwrap_or_default()
}

/// `7: spanloom-n1@if2: <BROADCAST,…` is `spanloom-n1`.
fn link_name(line: &str) -> &str {
    let name = line.split(": ").nth(1).unwrap_or_default();
    name.split('@').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_names() {
        assert_eq!(
            link_name("7: spanloom-n1@if2: <UP> mtu 1500"),
            "spanloom-n1"
        );
        assert_eq!(link_name("6: spanloom0: <UP> mtu 1500"), "spanloom0");
        assert_eq!(link_name(""), "");
    }
}
