//! What a plan makes of a schema that is not made, and of collectors that cannot store spans.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use serde_json::json;
use spanloom_crds::agent::{AgentStatus, Impairment, Undelivered};

use super::*;
use crate::observe::Pod;
use crate::rollout::{PROGRESSING, ROLLED_BACK};

const DEADLINE: Duration = Duration::from_secs(300);

fn pipeline(spec: Value) -> Pipeline {
    Pipeline::read(&json!({
        "metadata": {"name": "prod", "namespace": "tracing", "uid": "u", "generation": 2},
        "spec": spec,
    }))
    .unwrap()
}

fn release() -> Release {
    Release {
        rollout_deadline: DEADLINE,
        ..Release::default()
    }
}

/// The collectors of the first spec, which work.
fn last_good(release: &Release) -> LastGood {
    last_good_of(json!({}), release)
}

fn last_good_of(spec: Value, release: &Release) -> LastGood {
    let pipeline = pipeline(spec);
    let desired = render(&pipeline, release, &Known::default());
    let hash = agents_hash(&desired, &pipeline.agent_config());
    good(&pipeline, &desired, &hash).unwrap()
}

/// How the rollout of a spec with another registry stands while its migration's pod says this, looked at
/// after each of these seconds.
fn rollout(
    trouble: Option<&str>,
    has_last_good: bool,
    seconds: &[i64],
) -> Option<(String, String)> {
    let release = release();
    let pipeline = pipeline(json!({"images": {"registry": "example.test/nowhere"}}));
    let known = Known {
        last_good: has_last_good.then(|| last_good(&release)),
        ..Known::default()
    };
    let jobs = render(&pipeline, &release, &known).into_iter();
    let job = jobs.filter(|object| object.stage == Stage::Schema);
    let owned: Owned = job.map(|job| (key(&job), job.object)).collect();
    assert_eq!(owned.len(), 1, "there is a migration");
    let pod = Pod {
        name: "migrate".to_owned(),
        trouble: trouble.map(str::to_owned),
        ..Pod::default()
    };
    let mut previous = Status::default();
    for second in seconds {
        let plan = plan(Observed {
            pipeline: &pipeline,
            release: &release,
            previous: &previous,
            now: Timestamp::from_second(1_800_000_000 + second).unwrap(),
            instant: Instant::now(),
            owned: &owned,
            known: known.clone(),
            pods: &[("migrate".to_owned(), pod.clone())].into_iter().collect(),
            agents: &[],
            told: &Told::default(),
            nodes: &Nodes::of([("a".to_owned(), true)]),
            has_changed: false,
            claim: None,
            settled: &Settled::default(),
            refusals: &Refusals::default(),
        });
        previous.rollout = plan.seen.rollout;
    }
    let rollout = previous.rollout?;
    Some((rollout.state, rollout.cause.unwrap_or_default()))
}

#[test]
fn a_migration_that_cannot_start_is_taken_back_and_a_long_one_is_not() {
    let image = Some("ImagePullBackOff: no such image");
    let check = |trouble, has_last_good, seconds: &[i64], state: Option<&str>| {
        let found = rollout(trouble, has_last_good, seconds);
        let found_state = found.as_ref().map(|(state, _)| state.as_str());
        assert_eq!(found_state, state, "{trouble:?} {seconds:?}");
        found.map(|(_, cause)| cause).unwrap_or_default()
    };
    check(image, true, &[0, 299], Some(PROGRESSING));
    let cause = check(image, true, &[0, 150, 300], Some(ROLLED_BACK));
    assert!(
        cause.contains("schema") && cause.contains("no such image"),
        "{cause}"
    );
    // It is at work: its own deadline counts.
    check(None, true, &[0, 300, 3_000], None);
    // There is nothing to return to, and the collectors have not begun.
    check(image, false, &[0, 300, 3_000], None);
}

/// A collector that says this.
fn agent(impairment: Option<(bool, &str)>, oldest_seconds: Option<u64>) -> Agent {
    Agent {
        pod: Pod {
            name: "prod-collector-x".to_owned(),
            ready: true,
            node: Some("a".to_owned()),
            ..Pod::default()
        },
        status: Some(AgentStatus {
            impairment: impairment.map(|(store_full, message)| Impairment {
                store_full,
                message: message.to_owned(),
            }),
            undelivered: oldest_seconds.map(|oldest_seconds| Undelivered {
                requests: 1,
                oldest_seconds,
            }),
            ..AgentStatus::default()
        }),
    }
}

/// Whether the DaemonSet is changed by a spec with another registry, and what is seen, while its collectors
/// are these.
fn changed(agents: &[Agent], previous: &Rollout, retry: Option<&str>) -> (bool, Seen) {
    let to = json!({"images": {"registry": "example.test/nowhere"}});
    changed_from((json!({}), to), agents, previous, retry)
}

/// The same of one spec to another.
fn changed_from(
    (from, to): (Value, Value),
    agents: &[Agent],
    previous: &Rollout,
    retry: Option<&str>,
) -> (bool, Seen) {
    let release = release();
    let mut pipeline = pipeline(to);
    pipeline.retry = retry.map(str::to_owned);
    let last_good = last_good_of(from, &release);
    let old = last_good.daemon_set.clone();
    let known = Known {
        last_good: Some(last_good),
        ..Known::default()
    };
    let mut owned: Owned = render(&pipeline, &release, &known)
        .into_iter()
        .map(|object| (key(&object), object.object))
        .collect();
    let job = owned.iter_mut().find(|((kind, _), _)| kind == "Job");
    job.unwrap().1["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
    owned.insert(("DaemonSet".to_owned(), pipeline.object("collector")), old);
    let stores = |((kind, _), _): &(&(String, String), &mut Value)| kind == "StatefulSet";
    if let Some((_, store)) = owned.iter_mut().find(stores) {
        store["status"] = json!({"replicas": 1, "readyReplicas": 1, "updatedReplicas": 1});
    }
    let plan = plan(Observed {
        pipeline: &pipeline,
        release: &release,
        previous: &Status {
            rollout: Some(previous.clone()),
            ..Status::default()
        },
        now: Timestamp::from_second(1_800_000_000).unwrap(),
        instant: Instant::now(),
        owned: &owned,
        known,
        pods: &Pods::default(),
        agents,
        told: &Told::default(),
        nodes: &Nodes::of([("a".to_owned(), true)]),
        has_changed: false,
        claim: None,
        settled: &Settled::default(),
        refusals: &Refusals::default(),
    });
    let is_set = |step: &Step| step.key().0 == "DaemonSet" && matches!(step, Step::Apply { .. });
    (plan.steps.iter().any(is_set), plan.seen)
}

#[test]
fn pods_whose_logs_cannot_be_stored_are_not_replaced() {
    let complete = Rollout {
        state: rollout::COMPLETE.to_owned(),
        ..Rollout::default()
    };
    let full = Some((true, "the store's disk is full"));
    let (is_changed, seen) = changed(&[agent(full, Some(300))], &complete, None);
    assert!(!is_changed);
    let held = seen.held.unwrap();
    assert!(
        held.contains("such as prod-collector-x, hold spans"),
        "{held}"
    );
    assert!(held.contains("the store's disk is full"), "{held}");
    assert_eq!(seen.rollout, Some(complete.clone()), "nothing has begun");
    let (reason, message) = seen.impairment.unwrap();
    assert_eq!(reason, STORE_FULL);
    assert!(
        message.starts_with("1 of 1 collectors cannot store spans"),
        "{message}"
    );
    // Logs that drain, and pods without one, are replaced; so are those that the annotation asks for.
    for (agent, retry) in [
        (agent(None, Some(2)), None),
        (agent(full, None), None),
        (agent(full, Some(300)), Some("now")),
    ] {
        let (is_changed, seen) = changed(&[agent], &complete, retry);
        assert!(is_changed, "{retry:?}");
        assert_eq!(seen.held, None);
    }
    // Another Secret waits as well, and what to do is said.
    let external = |secret: &str| {
        json!({"storage": {"external": {
            "url": "https://ch.example:8443", "credentialsSecret": {"name": secret},
        }}})
    };
    let other = (external("old"), external("new"));
    let (is_changed, seen) = changed_from(other, &[agent(full, Some(300))], &complete, None);
    assert!(!is_changed);
    let held = seen.held.unwrap();
    assert!(held.contains("log in with the Secret old"), "{held}");
    // A log on the node is the next pod's, if that looks for it there.
    let kept = |path: &str, registry: &str| json!({"collector": {"log": {"hostPath": path}}, "images": {"registry": registry}});
    for (from, to, is_held) in [
        (kept("/a", "one"), kept("/a", "two"), false),
        (kept("/a", "one"), kept("/b", "one"), true),
        (kept("/a", "one"), json!({}), true),
        (json!({}), kept("/a", "one"), true),
    ] {
        let (_, seen) = changed_from((from, to), &[agent(full, Some(300))], &complete, None);
        assert_eq!(seen.held.is_some(), is_held);
    }
    // What was taken back is not held as well: its configuration is the last good one.
    let back = Rollout {
        state: ROLLED_BACK.to_owned(),
        ..Rollout::default()
    };
    let (_, seen) = changed(&[agent(full, Some(300))], &back, None);
    assert_eq!(seen.held, None);
}
