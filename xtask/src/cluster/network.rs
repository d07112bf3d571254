//! The bridge and the nodes' network namespaces: made by `up`, taken away by `down`.

use std::process::Command;

use anyhow::Context;

use super::layout::{BRIDGE, HOST_IP, NODES, Node};
use super::sh;

/// A command that runs in a node's network namespace. Not `ip netns exec`: that mounts `/sys` anew,
/// where the kubelet then finds no cgroups.
pub fn inside(node: Node, program: &std::path::Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", node.netns()))
        .arg("--")
        .arg(program);
    command
}

/// Makes the bridge and the namespaces.
///
/// # Errors
/// When `ip` refuses something, or the addresses are taken.
pub fn up() -> anyhow::Result<()> {
    refuse_taken_addresses()?;
    for command in [
        format!("ip link add {BRIDGE} type bridge"),
        format!("ip addr add {HOST_IP}/24 dev {BRIDGE}"),
        format!("ip link set {BRIDGE} up"),
    ] {
        sh::line(&command)?;
    }
    for node in NODES {
        add_node(node).with_context(|| format!("cannot make the network of {}", node.name()))?;
    }
    // Pods' addresses lie behind their node, for this machine and for the other nodes.
    for node in NODES {
        let (range, ip) = (node.pod_range(), node.ip());
        sh::line(&format!("ip route add {range} via {ip} dev {BRIDGE}"))?;
        for other in NODES.into_iter().filter(|other| *other != node) {
            let netns = other.netns();
            sh::line(&format!(
                "ip -n {netns} route add {range} via {ip} dev eth0"
            ))?;
        }
    }
    Ok(())
}

fn add_node(node: Node) -> anyhow::Result<()> {
    let (netns, cable, ip) = (node.netns(), node.host_cable(), node.ip());
    for command in [
        format!("ip netns add {netns}"),
        format!("ip link add {cable} type veth peer name eth0 netns {netns}"),
        format!("ip link set {cable} master {BRIDGE} up"),
        format!("ip -n {netns} link set lo up"),
        format!("ip -n {netns} addr add {ip}/24 dev eth0"),
        format!("ip -n {netns} link set eth0 up"),
        format!("ip -n {netns} route add default via {HOST_IP}"),
        // A pod has a route of its own. Whoever still connects to one that is gone, by a rule that is about to
        // change, is told so at once; without this the packets go round until they expire, and an SDK waits
        // for as long as an export may take, and gives its spans up.
        format!("ip -n {netns} route add unreachable {}", node.pod_range()),
    ] {
        sh::line(&command)?;
    }
    // A namespace has network settings of its own.
    let mut forward = inside(node, std::path::Path::new("sh"));
    sh::run(forward.args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]))
}

/// Another network here may use these addresses: then packets would go astray, silently.
fn refuse_taken_addresses() -> anyhow::Result<()> {
    let ours = |text: &str| text.starts_with("172.30.0.") || text.starts_with("10.244.");
    let routes = sh::line("ip -4 route show")?;
    let taken = routes
        .lines()
        .find(|line| line.split_whitespace().next().is_some_and(ours));
    match taken {
        None => Ok(()),
        Some(line) => anyhow::bail!(
            "this machine has a route of its own to the test cluster's addresses: `{line}`; \
             `cargo xtask cluster down` removes what an earlier cluster left"
        ),
    }
}

/// Takes all of it away. The pods' namespaces are mounted below the cluster's own folder and go with it.
///
/// # Errors
/// When something is there and stays.
pub fn down() -> anyhow::Result<()> {
    for node in NODES {
        let netns = node.netns();
        if std::path::Path::new("/run/netns").join(&netns).exists() {
            sh::line(&format!("ip netns del {netns}"))?;
        }
    }
    remove_empty_folder();
    for link in NODES
        .map(Node::host_cable)
        .into_iter()
        .chain([BRIDGE.to_owned()])
    {
        // A cable goes with the namespace at its other end, perhaps in this moment.
        let there = || sh::succeeds(&format!("ip link show {link}"));
        if there()
            && let Err(error) = sh::line(&format!("ip link del {link}"))
            && there()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// `ip` has made the folder of network namespaces, a mount of its own, and never takes it away.
fn remove_empty_folder() {
    let folder = std::path::Path::new("/run/netns");
    let is_empty = |folder: &std::path::Path| {
        folder
            .read_dir()
            .is_ok_and(|mut entries| entries.next().is_none())
    };
    if is_empty(folder) {
        // Refused where it is none, or in use.
        let _ = sh::line("umount /run/netns");
        let _ = std::fs::remove_dir(folder);
    }
}
