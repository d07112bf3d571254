//! Collectors judged by the nodes that they are on: a node that is not Ready neither counts nor takes a
//! slot of a rollout.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::observe::{Agent, Pod, Workload, trouble};
use crate::rollout::Facts;

/// Which nodes are Ready, by name; not known where the operator may not watch nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes(Option<BTreeMap<String, bool>>);

impl Nodes {
    /// These nodes, and whether each is Ready.
    pub fn of(nodes: impl IntoIterator<Item = (String, bool)>) -> Self {
        Self(Some(nodes.into_iter().collect()))
    }

    /// Whether a pod's node is Ready. A node that is gone is not; without any knowledge every node is,
    /// and so is that of a pod which has none yet.
    pub fn is_ready(&self, node: Option<&str>) -> bool {
        match (&self.0, node) {
            (Some(nodes), Some(node)) => nodes.get(node).copied().unwrap_or(false),
            _ => true,
        }
    }

    /// Whether a pod's node is there and not Ready.
    fn hangs(&self, node: Option<&str>) -> bool {
        match (&self.0, node) {
            (Some(nodes), Some(node)) => nodes.get(node) == Some(&false),
            _ => false,
        }
    }

    /// The nodes that are Ready.
    pub fn ready(&self) -> impl Iterator<Item = &String> {
        let all = self.0.iter().flatten();
        all.filter(|(_, is_ready)| **is_ready).map(|(name, _)| name)
    }
}

/// Whether a Node object says that it is Ready.
pub fn node_is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is_ready))
}

/// What collectors should be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Names the pod template.
    pub revision: &'a str,
    /// Names the configuration.
    pub config: &'a str,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// What is known of the collectors on their nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collectors {
    /// Nodes that should have one, those that are not Ready aside.
    pub wanted: i64,
    /// Ready nodes with one that is ready, whichever it is.
    pub serving: i64,
    /// Nodes with one that are not Ready, in order.
    pub dead: Vec<String>,
}

/// A collector of a pipeline, and whether it is as it should be.
struct Placed<'a> {
    agent: &'a Agent,
    is_new: bool,
    is_good: bool,
    has_crashed: bool,
}

/// The collectors on Ready nodes, by node.
type OnReady<'a> = BTreeMap<&'a str, Vec<Placed<'a>>>;

/// What is to be known of the collectors' rollout.
pub fn look(
    daemon_set: &Workload,
    agents: &[Agent],
    nodes: &Nodes,
    wanted: Wanted<'_>,
) -> (Collectors, Facts) {
    let mut on_ready = OnReady::new();
    let mut dead: Vec<String> = Vec::new();
    for agent in agents {
        let node = agent.pod.node.as_deref();
        if agent.pod.ending {
            // On a node that hangs it never ends.
            if nodes.hangs(node) {
                dead.push(node.unwrap_or_default().to_owned());
            }
        } else if nodes.is_ready(node) {
            let placed = placed(agent, wanted);
            on_ready
                .entry(node.unwrap_or_default())
                .or_default()
                .push(placed);
        } else {
            dead.push(node.unwrap_or_default().to_owned());
        }
    }
    dead.sort();
    dead.dedup();
    let absent = i64::try_from(dead.len()).unwrap_or(i64::MAX);
    let collectors = Collectors {
        wanted: (daemon_set.desired - absent).max(0),
        serving: count(&on_ready, |placed| placed.agent.pod.ready),
        dead,
    };
    let done = count(&on_ready, |placed| placed.is_good);
    let is_placed = daemon_set.exists
        && daemon_set.observed
        && daemon_set.revision.as_deref() == Some(wanted.revision);
    let waiting = (collectors.wanted - done).max(0);
    let all: Vec<&Placed<'_>> = on_ready.values().flatten().collect();
    let facts = Facts {
        complete: is_placed && waiting == 0 && (done > 0 || daemon_set.desired == 0),
        is_placed,
        done,
        waiting,
        refused: refused(agents, wanted),
        crashed: crashed(&on_ready, collectors.wanted),
        trouble: hindrance(&all, done, collectors.wanted),
    };
    (collectors, facts)
}

fn placed<'a>(agent: &'a Agent, wanted: Wanted<'_>) -> Placed<'a> {
    let pod = &agent.pod;
    let is_new = pod.revision.as_deref() == Some(wanted.revision);
    let config = agent.status.as_ref().map(|status| &status.config);
    let uses = config.is_some_and(|config| config.applied.as_deref() == Some(wanted.config));
    Placed {
        agent,
        is_new,
        is_good: is_new && uses && pod.ready,
        has_crashed: pod.has_crashed_since(wanted.since),
    }
}

/// The first refusal by a collector of the new form. An older one that refuses keeps its last good
/// configuration until it is replaced.
fn refused(agents: &[Agent], wanted: Wanted<'_>) -> Option<String> {
    let is_current = |pod: &Pod| !pod.ending && pod.revision.as_deref() == Some(wanted.revision);
    let mut current = agents.iter().filter(|agent| is_current(&agent.pod));
    current.find_map(|agent| {
        let config = &agent.status.as_ref()?.config;
        let error = config.error.clone().unwrap_or_default();
        (config.refused.as_deref() == Some(wanted.config))
            .then(|| format!("{}: {error}", agent.pod.name))
    })
}

/// What the new collectors say when they crash as the old ones do not, on more than one node where there
/// are more.
fn crashed(on_ready: &OnReady<'_>, wanted: i64) -> Option<String> {
    let new = count(on_ready, |placed| placed.is_new);
    let new_crashed = count(on_ready, |placed| placed.is_new && placed.has_crashed);
    let old = count(on_ready, |placed| !placed.is_new);
    let old_crashed = count(on_ready, |placed| !placed.is_new && placed.has_crashed);
    let is_enough = new_crashed >= wanted.clamp(1, 2);
    let is_worse = old == 0 || new_crashed * old > old_crashed * new;
    if !is_enough || !is_worse {
        return None;
    }
    let mut all = on_ready.values().flatten();
    let first = all.find(|placed| placed.is_new && placed.has_crashed)?;
    let pod = &first.agent.pod;
    let why = pod.trouble.as_deref();
    let why = why.unwrap_or("it keeps restarting");
    Some(format!("pod {}: {why}", pod.name))
}

/// On how many nodes there is one of which this is true.
fn count(on_ready: &OnReady<'_>, is: impl Fn(&Placed<'_>) -> bool) -> i64 {
    let nodes = on_ready.values().filter(|placed| placed.iter().any(&is));
    i64::try_from(nodes.count()).unwrap_or(i64::MAX)
}

/// What stands in the way, in words.
fn hindrance(all: &[&Placed<'_>], done: i64, wanted: i64) -> String {
    let late = || all.iter().filter(|placed| !placed.is_good);
    let new: Vec<Pod> = late()
        .filter(|p| p.is_new)
        .map(|p| p.agent.pod.clone())
        .collect();
    if let Some(text) = trouble(&new) {
        return text;
    }
    let slow = late().find(|placed| placed.is_new).map(|placed| {
        let said = match &placed.agent.status {
            None => "its status is not available",
            Some(_) => "does not use the new configuration yet",
        };
        format!("pod {}: {said}", placed.agent.pod.name)
    });
    slow.unwrap_or_else(|| format!("{done} of {wanted} Ready nodes have the new collector"))
}

/// How many nodes may have two collectors at once during a rollout. The collectors on nodes that are not
/// Ready come on top: each holds a place until its node is back.
pub fn max_surge(given: &Value, desired: i64, collectors: &Collectors, on_one_node: bool) -> Value {
    let dead = i64::try_from(collectors.dead.len()).unwrap_or(i64::MAX);
    if dead == 0 && !on_one_node {
        return given.clone();
    }
    let percent = given
        .as_str()
        .and_then(|text| text.trim_end_matches('%').parse::<i64>().ok());
    let count = match (given.as_i64(), percent) {
        _ if on_one_node => 1,
        (Some(count), _) => count,
        (None, Some(percent)) => (desired.saturating_mul(percent) + 99) / 100,
        (None, None) => 1,
    };
    json!(count.max(1).saturating_add(dead))
}

#[cfg(test)]
#[path = "nodes/tests.rs"]
mod tests;
