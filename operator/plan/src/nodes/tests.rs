//! Collectors on nodes that are Ready, and on others.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use spanloom_crds::agent::{AgentStatus, ConfigStatus};

const SINCE: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(SINCE + second).unwrap()
}

/// A collector: on this node, of this template, with this configuration.
fn agent(node: &str, revision: &str, applied: &str) -> Agent {
    Agent {
        pod: Pod {
            name: format!("{node}-{revision}"),
            node: Some(node.to_owned()),
            revision: Some(revision.to_owned()),
            ready: !applied.is_empty(),
            ..Pod::default()
        },
        status: (!applied.is_empty()).then(|| AgentStatus {
            config: ConfigStatus {
                applied: Some(applied.to_owned()),
                ..ConfigStatus::default()
            },
            ..AgentStatus::default()
        }),
    }
}

fn refusing(mut agent: Agent, refused: &str) -> Agent {
    let config = &mut agent.status.as_mut().unwrap().config;
    config.refused = Some(refused.to_owned());
    config.error = Some("no".to_owned());
    agent
}

fn crashing(mut agent: Agent) -> Agent {
    agent.pod.restarts = 3;
    agent.pod.last_crash = Some(at(5));
    agent.pod.trouble = Some("exited with code 1: x".to_owned());
    agent
}

fn nodes(names: &[(&str, bool)]) -> Nodes {
    Nodes::of(
        names
            .iter()
            .map(|(name, is_ready)| ((*name).to_owned(), *is_ready)),
    )
}

fn set(desired: i64) -> Workload {
    Workload {
        exists: true,
        observed: true,
        desired,
        revision: Some("new".to_owned()),
        ..Workload::default()
    }
}

fn see(desired: i64, agents: &[Agent], nodes: &Nodes) -> (Collectors, Facts) {
    let wanted = Wanted {
        revision: "new",
        config: "c",
        since: Some(at(0)),
    };
    look(&set(desired), agents, nodes, wanted)
}

const BOTH: [(&str, bool); 2] = [("a", true), ("b", true)];
const ONE: [(&str, bool); 2] = [("a", true), ("b", false)];

#[test]
fn complete_is_new_ready_and_configured_on_every_ready_node() {
    #[track_caller]
    fn check(agents: &[Agent], names: &[(&str, bool)], expected: (i64, i64, bool)) {
        let (_, facts) = see(2, agents, &nodes(names));
        assert_eq!(
            (facts.done, facts.waiting, facts.complete),
            expected,
            "{facts:?}"
        );
    }
    let good = [agent("a", "new", "c"), agent("b", "new", "c")];
    check(&good, &BOTH, (2, 0, true));
    check(
        &[good[0].clone(), agent("b", "old", "c")],
        &BOTH,
        (1, 1, false),
    );
    check(
        &[good[0].clone(), agent("b", "new", "before")],
        &BOTH,
        (1, 1, false),
    );
    check(
        &[good[0].clone(), agent("b", "new", "")],
        &BOTH,
        (1, 1, false),
    );
    // No pod on the second node yet.
    check(&good[..1], &BOTH, (1, 1, false));
    // The second node is dead: its old collector, a new one that waits there, or both.
    check(
        &[good[0].clone(), agent("b", "old", "")],
        &ONE,
        (1, 0, true),
    );
    let both = [
        good[0].clone(),
        agent("b", "old", ""),
        agent("b", "new", ""),
    ];
    check(&both, &ONE, (1, 0, true));
    // A node that is gone is no better.
    check(&both, &ONE[..1], (1, 0, true));
    // Every node dead: nothing was seen to work.
    check(&both, &[("a", false), ("b", false)], (0, 0, false));
    // An old one beside its successor does no harm, one that ends does not count.
    let mut ending = agent("b", "new", "c");
    ending.pod.ending = true;
    check(
        &[good[0].clone(), good[1].clone(), agent("b", "old", "c")],
        &BOTH,
        (2, 0, true),
    );
    check(&[good[0].clone(), ending], &BOTH, (1, 1, false));
}

#[test]
fn without_a_right_to_watch_nodes_every_node_counts() {
    let agents = [agent("a", "new", "c"), agent("b", "old", "")];
    let (collectors, facts) = see(2, &agents, &Nodes::default());
    assert_eq!(
        (facts.waiting, collectors.wanted, collectors.dead.len()),
        (1, 2, 0)
    );
    assert!(!Nodes::default().ready().any(|_| true));
}

#[test]
fn what_kubernetes_does_not_have_is_not_placed() {
    let wanted = Wanted {
        revision: "new",
        config: "c",
        since: None,
    };
    let agents = [agent("a", "new", "c")];
    for (set, is_placed) in [
        (set(1), true),
        (
            Workload {
                observed: false,
                ..set(1)
            },
            false,
        ),
        (
            Workload {
                exists: false,
                ..set(1)
            },
            false,
        ),
        (
            Workload {
                revision: Some("old".to_owned()),
                ..set(1)
            },
            false,
        ),
    ] {
        let (_, facts) = look(&set, &agents, &nodes(&BOTH), wanted);
        assert_eq!(
            (facts.is_placed, facts.complete),
            (is_placed, is_placed),
            "{set:?}"
        );
    }
    let (_, facts) = look(&set(0), &[], &nodes(&BOTH), wanted);
    assert!(facts.complete && facts.done == 0);
}

#[test]
fn only_a_new_collector_refuses_for_the_new_form() {
    let refused = |agents: &[Agent]| see(2, agents, &nodes(&BOTH)).1.refused;
    let new = refusing(agent("a", "new", "before"), "c");
    assert_eq!(refused(&[new]).as_deref(), Some("a-new: no"));
    // An older one keeps its last good configuration until it is replaced.
    assert_eq!(refused(&[refusing(agent("a", "old", "before"), "c")]), None);
    // What it refused once before is not this configuration.
    assert_eq!(refused(&[refusing(agent("a", "new", "c"), "x")]), None);
    let mut ending = refusing(agent("a", "new", "before"), "c");
    ending.pod.ending = true;
    assert_eq!(refused(&[ending]), None);
}

#[test]
fn crashes_are_harm_where_the_old_ones_do_not_crash() {
    let crashed = |desired: i64, agents: &[Agent], names: &[(&str, bool)]| {
        see(desired, agents, &nodes(names)).1.crashed
    };
    let new = |node: &str| crashing(agent(node, "new", "c"));
    let old = |node: &str| crashing(agent(node, "old", "c"));
    let says = Some("pod a-new: exited with code 1: x".to_owned());
    assert_eq!(crashed(2, &[new("a"), new("b")], &BOTH), says);
    // One of two may be its node's fault.
    assert_eq!(crashed(2, &[new("a"), agent("b", "old", "c")], &BOTH), None);
    assert_eq!(crashed(1, &[new("a")], &BOTH[..1]), says);
    // The other node is dead: there is no more than one.
    assert_eq!(crashed(2, &[new("a"), agent("b", "old", "")], &ONE), says);
    assert_eq!(
        crashed(4, &[new("a"), new("b"), old("c"), old("d")], &four()),
        None
    );
    let some = [new("a"), new("b"), old("c"), agent("d", "old", "c")];
    assert_eq!(crashed(4, &some, &four()), says);
    // Crashes from before, and one that was once.
    let mut before = [new("a"), new("b")];
    before
        .iter_mut()
        .for_each(|agent| agent.pod.last_crash = Some(at(-1)));
    assert_eq!(crashed(2, &before, &BOTH), None);
    let mut once = [new("a"), new("b")];
    once.iter_mut().for_each(|agent| agent.pod.restarts = 1);
    assert_eq!(crashed(2, &once, &BOTH), None);
}

fn four() -> [(&'static str, bool); 4] {
    ["a", "b", "c", "d"].map(|name| (name, true))
}

#[test]
fn what_stands_in_the_way_is_named() {
    let trouble =
        |agents: &[Agent], names: &[(&str, bool)]| see(2, agents, &nodes(names)).1.trouble;
    let mut waits = agent("b", "new", "");
    waits.pod.trouble = Some("ImagePullBackOff".to_owned());
    let good = agent("a", "new", "c");
    assert_eq!(
        trouble(&[good.clone(), waits.clone()], &BOTH),
        "pod b-new: ImagePullBackOff"
    );
    // Not that of a dead node.
    assert_eq!(
        trouble(&[good.clone(), waits], &ONE),
        "1 of 1 Ready nodes have the new collector"
    );
    let slow = agent("b", "new", "before");
    let says = "pod b-new: does not use the new configuration yet";
    assert_eq!(trouble(&[good.clone(), slow], &BOTH), says);
    let mute = agent("b", "new", "");
    assert_eq!(
        trouble(&[good, mute], &BOTH),
        "pod b-new: its status is not available"
    );
}

#[test]
fn a_dead_node_takes_no_slot() {
    #[track_caller]
    fn check(given: Value, desired: i64, dead: usize, on_one_node: bool, expected: Value) {
        let collectors = Collectors {
            dead: (0..dead).map(|node| node.to_string()).collect(),
            ..Collectors::default()
        };
        assert_eq!(
            max_surge(&given, desired, &collectors, on_one_node),
            expected
        );
    }
    check(json!("10%"), 500, 0, false, json!("10%"));
    check(json!("10%"), 500, 3, false, json!(53));
    check(json!("10%"), 501, 1, false, json!(52));
    check(json!("10%"), 2, 1, false, json!(2));
    check(json!("10%"), 0, 1, false, json!(2));
    check(json!(4), 500, 0, false, json!(4));
    check(json!(4), 500, 2, false, json!(6));
    check(json!("x"), 500, 2, false, json!(3));
    // On one node first: the dead ones come on top here, too.
    check(json!("10%"), 500, 0, true, json!(1));
    check(json!(4), 500, 2, true, json!(3));
}

#[test]
fn a_node_says_whether_it_is_ready() {
    let node = |status: &str| {
        json!({"status": {"conditions": [
            {"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": status},
        ]}})
    };
    assert!(node_is_ready(&node("True")));
    assert!(!node_is_ready(&node("Unknown")) && !node_is_ready(&node("False")));
    assert!(!node_is_ready(&json!({})));
    let nodes = nodes(&ONE);
    assert!(nodes.is_ready(Some("a")) && !nodes.is_ready(Some("b")) && !nodes.is_ready(Some("c")));
    assert!(nodes.is_ready(None));
    assert_eq!(nodes.ready().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_collector_that_cannot_end_on_a_node_that_hangs_names_it() {
    let ending = |node: &str| {
        let mut agent = agent(node, "old", "c");
        agent.pod.ending = true;
        agent
    };
    let new = agent("a", "new", "c");
    let (collectors, facts) = see(2, &[new.clone(), ending("b")], &nodes(&ONE));
    assert_eq!(collectors.dead, ["b"]);
    assert_eq!((collectors.wanted, facts.complete), (1, true));
    // Of a node that is gone nothing is waited for, and nothing is said.
    let (collectors, _) = see(1, &[new, ending("c")], &nodes(&BOTH[..1]));
    assert!(collectors.dead.is_empty(), "{collectors:?}");
    assert_eq!(collectors.wanted, 1);
}
