//! What is written, and what waits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::retry::ErrorClass;
use serde_json::json;

fn pipeline(spec: Value) -> Pipeline {
    Pipeline::read(&json!({
        "metadata": {"name": "prod", "namespace": "tracing", "uid": "u"}, "spec": spec,
    }))
    .unwrap()
}

fn object(stage: Stage, kind: &str, name: &str) -> Desired {
    Desired {
        stage,
        object: json!({
            "kind": kind,
            "metadata": {
                "name": name, "annotations": {APPLIED_HASH: "h"},
                "ownerReferences": [{"uid": "u"}],
            },
            "spec": {"x": 1, "replicas": 1},
        }),
    }
}

fn all() -> Vec<Desired> {
    vec![
        object(Stage::Base, "ConfigMap", "a"),
        object(Stage::Store, "StatefulSet", "s"),
        object(Stage::Schema, "Job", "j"),
        object(Stage::Agents, "DaemonSet", "d"),
        object(Stage::Query, "Deployment", "q"),
    ]
}

/// As they were applied.
fn owned(desired: &[Desired]) -> Owned {
    desired
        .iter()
        .map(|d| {
            let mut object = d.object.clone();
            object["metadata"]["uid"] = json!(d.name());
            (key(d), object)
        })
        .collect()
}

struct Case {
    spec: Value,
    owned: Owned,
    schema: JobState,
    claim: Option<Value>,
    settled: Settled,
    refusals: Refusals,
    now: Instant,
    time: i64,
}

impl Case {
    fn new(schema: JobState) -> Self {
        Self {
            spec: json!({}),
            owned: Owned::new(),
            schema,
            claim: None,
            settled: Settled::default(),
            refusals: Refusals::default(),
            now: Instant::now(),
            time: 0,
        }
    }

    fn steps(&self, desired: &[Desired]) -> (Vec<Step>, Vec<String>) {
        let pipeline = pipeline(self.spec.clone());
        steps(
            desired,
            &Surroundings {
                pipeline: &pipeline,
                owned: &self.owned,
                schema: self.schema,
                claim: self.claim.as_ref(),
                holds_agents: false,
                settled: &self.settled,
                refusals: &self.refusals,
                now: self.now,
                time: Timestamp::from_second(self.time).unwrap(),
            },
        )
    }

    /// The steps, each as a word and a name.
    fn does(&self, desired: &[Desired]) -> Vec<String> {
        let (steps, _) = self.steps(desired);
        let word = |step: &Step| match step {
            Step::Apply { is_new: true, .. } => "make",
            Step::Apply { .. } => "change",
            Step::Delete { .. } => "delete",
            Step::Grow { .. } => "grow",
        };
        steps
            .iter()
            .map(|step| format!("{} {}", word(step), step.key().1))
            .collect()
    }
}

#[test]
fn a_stage_waits_for_the_one_before() {
    let desired = all();
    let mut case = Case::new(JobState::Missing);
    assert_eq!(case.does(&desired), ["make a", "make s"]);
    case.owned = owned(&desired[..2]);
    assert_eq!(case.does(&desired), [""; 0]);
    let set = case.owned.get_mut(&key(&desired[1])).unwrap();
    set["spec"]["replicas"] = json!(1);
    set["status"] = json!({"updatedReplicas": 1, "readyReplicas": 1});
    assert_eq!(case.does(&desired), ["make j"]);
    // A store of another form is not the one to wait for.
    let mut newer = desired.clone();
    newer[1].object["metadata"]["annotations"][APPLIED_HASH] = json!("i");
    assert_eq!(case.does(&newer), ["change s"]);
    case.schema = JobState::Running;
    case.owned = owned(&desired[..3]);
    assert_eq!(case.does(&desired), [""; 0]);
    case.schema = JobState::Complete;
    assert_eq!(case.does(&desired), ["make d", "make q"]);
    case.owned = owned(&desired);
    assert_eq!(case.does(&desired), [""; 0]);
    // Without a store of ours the schema does not wait.
    let external: Vec<_> = desired
        .iter()
        .filter(|d| d.stage != Stage::Store)
        .cloned()
        .collect();
    assert_eq!(
        Case::new(JobState::Missing).does(&external),
        ["make a", "make j"]
    );
}

#[test]
fn what_is_no_longer_wanted_goes_if_it_is_ours() {
    let desired = all();
    let mut case = Case::new(JobState::Complete);
    case.owned = owned(&desired);
    assert_eq!(case.does(&desired[..4]), ["delete q"]);
    let q = case.owned.get_mut(&key(&desired[4])).unwrap();
    q["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(case.does(&desired[..4]), [""; 0]);
    let q = case.owned.get_mut(&key(&desired[4])).unwrap();
    q["metadata"] = json!({"name": "q", "ownerReferences": [{"uid": "other"}]});
    assert_eq!(case.does(&desired[..4]), [""; 0]);
}

#[test]
fn a_failed_job_stays_for_a_while_and_is_made_anew() {
    let desired = all();
    let mut case = Case::new(JobState::Failed);
    case.owned = owned(&desired[..3]);
    let job = case.owned.get_mut(&key(&desired[2])).unwrap();
    job["status"]["conditions"] = json!([
        {"type": "FailureTarget", "lastTransitionTime": "1970-01-01T00:00:00Z"},
        {"type": "Failed", "lastTransitionTime": "1970-01-01T00:01:00Z"},
    ]);
    case.time = 359;
    assert_eq!(case.does(&desired), [""; 0]);
    case.time = 360;
    assert_eq!(case.does(&desired), ["delete j"]);
    let (steps, _) = case.steps(&desired);
    assert!(matches!(&steps[0], Step::Delete { uid: Some(uid), .. } if uid == "j"));
}

#[test]
fn what_the_server_keeps_in_its_own_form_is_written_once() {
    let desired = all();
    let mut case = Case::new(JobState::Missing);
    case.owned = owned(&desired[..2]);
    let live = case.owned.get_mut(&key(&desired[0])).unwrap();
    live["spec"]["x"] = json!("one");
    let live = live.clone();
    assert_eq!(case.does(&desired), ["change a"]);
    case.settled.applied(&desired[0], &live);
    assert_eq!(case.does(&desired), [""; 0]);
    // Somebody changes it, or something else is wanted.
    case.owned.get_mut(&key(&desired[0])).unwrap()["spec"]["x"] = json!("two");
    assert_eq!(case.does(&desired), ["change a"]);
    case.owned.insert(key(&desired[0]), live);
    let mut newer = desired.clone();
    newer[0].object["spec"]["x"] = json!(2);
    assert_eq!(case.does(&newer), ["change a"]);
    case.settled.applied(&desired[0], &desired[0].object);
    assert_eq!(case.settled, Settled::default());
}

#[test]
fn what_was_refused_is_held_back_with_its_cause() {
    let desired = all();
    let mut case = Case::new(JobState::Missing);
    let (steps, held) = case.steps(&desired);
    assert!(held.is_empty());
    let (key, wanted) = (steps[0].key(), steps[0].wanted());
    case.refusals
        .failed(key, &wanted, ErrorClass::User, "quota", case.now);
    assert_eq!(case.does(&desired), ["make s"]);
    assert_eq!(case.steps(&desired).1, ["quota"]);
    case.now += Duration::from_secs(15);
    assert_eq!(case.does(&desired), ["make a", "make s"]);
}

#[test]
fn the_claim_grows_and_never_shrinks() {
    let sized = json!({"storage": {"managed": {"size": "50Gi"}}});
    for (has, spec, grows) in [
        ("1Gi", &sized, true),
        ("50Gi", &sized, false),
        ("80Gi", &sized, false),
        ("51200Mi", &sized, false),
        // Nobody asked for the default.
        ("1Gi", &json!({}), false),
    ] {
        let mut case = Case::new(JobState::Missing);
        case.spec.clone_from(spec);
        case.claim = Some(json!({"metadata": {"name": "data"},
            "spec": {"resources": {"requests": {"storage": has}}}}));
        let does = case.does(&[]);
        assert_eq!(does == ["grow data"], grows, "{has}: {does:?}");
    }
}
