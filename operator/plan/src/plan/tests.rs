//! What a plan makes of a schema that is not made.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use serde_json::json;

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
    let pipeline = pipeline(json!({}));
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
