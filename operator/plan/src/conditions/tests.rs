//! What is said, of what was seen.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use serde_json::json;

fn pipeline(spec: serde_json::Value) -> Pipeline {
    Pipeline::read(&json!({
        "apiVersion": "spanloom.dev/v1alpha1", "kind": "TracingPipeline",
        "metadata": {"name": "prod", "namespace": "tracing", "uid": "u", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn workload(count: i64) -> Workload {
    Workload {
        exists: true,
        observed: true,
        desired: count,
        updated: count,
        ready: count,
        ..Workload::default()
    }
}

fn well() -> Seen {
    Seen {
        store: Some(workload(1)),
        schema: Some(JobState::Complete),
        agents: workload(2),
        collectors: Collectors {
            wanted: 2,
            serving: 2,
            ..Collectors::default()
        },
        rollout: Some(Rollout {
            state: COMPLETE.to_owned(),
            ..Rollout::default()
        }),
        query: workload(1),
        probe: Probed::All(2),
        ..Seen::default()
    }
}

fn of(seen: &Seen) -> Vec<(String, String, String)> {
    status(&pipeline(json!({})), seen, &Status::default(), now())
        .conditions
        .into_iter()
        .map(|c| (c.type_, c.status, c.reason))
        .collect()
}

#[track_caller]
fn says(seen: &Seen, type_: &str, status: &str, reason: &str) {
    let conditions = of(seen);
    let found = conditions
        .iter()
        .find(|(found, ..)| found == type_)
        .unwrap();
    assert_eq!((found.1.as_str(), found.2.as_str()), (status, reason));
    let ready = conditions.last().unwrap();
    assert_eq!(ready.0, "Ready");
    assert_eq!(ready.1 == "True", status == "True");
}

#[test]
fn all_is_well_only_when_all_is_well() {
    says(&well(), "Ready", "True", "Ready");
    let but = |change: &dyn Fn(&mut Seen)| {
        let mut seen = well();
        change(&mut seen);
        seen
    };
    let store = but(&|seen| seen.store = Some(Workload::default()));
    says(&store, "StoreReady", "False", "NotReady");
    let starting = but(&|seen| seen.store.as_mut().unwrap().ready = 0);
    says(&starting, "StoreReady", "False", "NotReady");
    let schema = but(&|seen| seen.schema = Some(JobState::Running));
    says(&schema, "SchemaReady", "False", "Migrating");
    let agents = but(&|seen| seen.waiting = 1);
    says(&agents, "CollectorsReady", "False", "NotReady");
    // Of four nodes that are not Ready, three by name: they change nothing.
    let dead = but(&|seen| {
        seen.agents.ready = 1;
        seen.collectors.dead = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
    });
    says(&dead, "CollectorsReady", "True", "Ready");
    let status = status(&pipeline(json!({})), &dead, &Status::default(), now());
    let condition = status
        .conditions
        .iter()
        .find(|c| c.type_ == "CollectorsReady");
    let message = &condition.unwrap().message;
    assert!(
        message.ends_with("; not Ready: a, b, c and 1 more"),
        "{message}"
    );
    let none = but(&|seen| seen.agents = workload(0));
    says(&none, "CollectorsReady", "False", "NoNodes");
    let back = but(&|seen| seen.rollout.as_mut().unwrap().state = ROLLED_BACK.to_owned());
    says(&back, "CollectorsReady", "False", "RolledBack");
    let failed = but(&|seen| seen.rollout.as_mut().unwrap().state = FAILED.to_owned());
    says(&failed, "CollectorsReady", "False", "RolloutFailed");
    let query = but(&|seen| seen.query.ready = 0);
    says(&query, "QueryReady", "False", "NotReady");
    // A new pod cannot start, and the earlier one answers in its place.
    let rolling = but(&|seen| seen.query.outdated = 1);
    says(&rolling, "QueryReady", "False", "RollingOut");
    let lost = but(&|seen| seen.probe = Probed::Lost("x".to_owned()));
    says(&lost, "DataFlowing", "False", "ProbeLost");
    let not_yet = but(&|seen| seen.probe = Probed::NotYet);
    says(&not_yet, "DataFlowing", "Unknown", "NotProbedYet");
}

#[test]
fn a_level_is_written_only_when_it_is_clearly_another() {
    let mut status = Status::default();
    let mut levels = Vec::new();
    for used in [
        None,
        Some(42),
        Some(38),
        Some(44),
        Some(45),
        Some(43),
        Some(42),
        None,
        Some(91),
    ] {
        let seen = Seen {
            store_used: used,
            ..well()
        };
        status = super::status(&pipeline(json!({})), &seen, &status, now());
        levels.push(status.store_used_percent);
    }
    let expected = [
        None,
        Some(40),
        Some(40),
        Some(40),
        Some(45),
        Some(45),
        Some(40),
        Some(40),
        Some(90),
    ];
    assert_eq!(levels, expected);
    let store = &status.conditions[1];
    assert!(store.message.contains("90% full; increase"), "{store:?}");
    assert_eq!(store.status, "True");
    // Another's server is not ours to measure.
    let external = Seen {
        store: None,
        ..well()
    };
    let status = super::status(&pipeline(json!({})), &external, &status, now());
    assert_eq!(status.store_used_percent, None);
}

#[test]
fn a_pipeline_that_is_off_is_not_ready() {
    let status = status(
        &pipeline(json!({"enabled": false})),
        &well(),
        &Status::default(),
        now(),
    );
    let ready = status.conditions.last().unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "Disabled")
    );
}

#[test]
fn a_second_look_changes_nothing() {
    let pipeline = pipeline(json!({}));
    let first = status(&pipeline, &well(), &Status::default(), now());
    let later = Timestamp::from_second(now().as_second() + 77).unwrap();
    let second = status(&pipeline, &well(), &first, later);
    assert!(!differs(&first, &second));
    // Since when a condition holds is not when it was looked at.
    assert_eq!(first.conditions, second.conditions);
    assert_eq!(
        first.endpoints.unwrap(),
        Endpoints {
            otlp_grpc: "http://prod-collector.tracing.svc:4317".to_owned(),
            otlp_http: "http://prod-collector.tracing.svc:4318".to_owned(),
            query: "http://prod-query.tracing.svc:3200".to_owned(),
        }
    );
    assert_eq!(first.collectors.unwrap().summary, "2/2");
}

#[test]
fn what_could_not_be_written_is_not_ready() {
    let seen = Seen {
        failed: Some("cannot apply the Job a: no".to_owned()),
        ..well()
    };
    let conditions = of(&seen);
    let find = |type_: &str| {
        conditions
            .iter()
            .find(|(t, ..)| t == type_)
            .unwrap()
            .clone()
    };
    assert_eq!(find("Ready").1, "False");
    assert_eq!(find("Ready").2, "ApplyFailed");
    assert_eq!(find("Accepted").1, "True");
    let before = status(&pipeline(json!({})), &well(), &Status::default(), now());
    let after = stuck(3, "ReconcileFailed", "no", &before, now());
    assert_eq!(after.conditions.last().unwrap().reason, "ReconcileFailed");
    assert_eq!(after.conditions[..6], before.conditions[..6]);
}

#[test]
fn a_refused_document_leaves_the_rest_as_it_is() {
    let before = status(&pipeline(json!({})), &well(), &Status::default(), now());
    let why = Unusable {
        reason: "InvalidFilter",
        message: "spec.processing.drop[0]: …".to_owned(),
    };
    let after = refused(4, &why, &before, now());
    let find = |type_: &str| after.conditions.iter().find(|c| c.type_ == type_).unwrap();
    assert_eq!(find("Accepted").reason, "InvalidFilter");
    assert_eq!(find("Accepted").observed_generation, Some(4));
    assert_eq!(find("Ready").status, "False");
    assert_eq!(find("CollectorsReady").status, "True");
    assert_eq!(find("CollectorsReady").observed_generation, Some(3));
    let types =
        |status: &Status| -> Vec<_> { status.conditions.iter().map(|c| c.type_.clone()).collect() };
    assert_eq!(types(&after), types(&before));
}

#[test]
fn an_external_store_says_itself_why_it_is_not_reached() {
    let mut seen = Seen {
        store: None,
        schema: Some(JobState::Running),
        ..well()
    };
    says(&seen, "StoreReady", "Unknown", "NotReachedYet");
    seen.schema_trouble = Some("pod a: exited with code 1: wrong password".to_owned());
    says(&seen, "StoreReady", "False", "NotReached");
    let status = status(&pipeline(json!({})), &seen, &Status::default(), now());
    let ready = status.conditions.last().unwrap();
    assert!(
        ready.message.ends_with("wrong password"),
        "{}",
        ready.message
    );
    seen.schema = Some(JobState::Complete);
    says(&seen, "StoreReady", "True", "Reached");
}

#[test]
fn what_needs_a_person_is_a_warning() {
    #[track_caller]
    fn check(before: &Seen, after: &Seen, expected: &[(&str, bool)]) {
        let pipeline = pipeline(json!({}));
        let before = status(&pipeline, before, &Status::default(), now());
        let after = status(&pipeline, after, &before, now());
        let turned: Vec<_> = turned(&before, &after)
            .into_iter()
            .filter(|turned| turned.is_told)
            .map(|turned| (turned.condition.type_.as_str(), turned.is_bad))
            .collect();
        assert_eq!(turned, expected);
    }
    let but = |change: &dyn Fn(&mut Seen)| {
        let mut seen = well();
        change(&mut seen);
        seen
    };
    check(&well(), &well(), &[]);
    let no_store = but(&|seen| seen.store = Some(Workload::default()));
    check(&well(), &no_store, &[("StoreReady", true), ("Ready", true)]);
    check(
        &no_store,
        &well(),
        &[("StoreReady", false), ("Ready", false)],
    );
    let lost = but(&|seen| seen.probe = Probed::Lost("x".to_owned()));
    check(&well(), &lost, &[("DataFlowing", true), ("Ready", true)]);
    let no_query = but(&|seen| seen.query.ready = 0);
    check(&well(), &no_query, &[("QueryReady", true), ("Ready", true)]);
    // The volume fills: a person is told at 80 and at 90 percent.
    let used = |percent: u8| but(&|seen| seen.store_used = Some(percent));
    check(&well(), &used(79), &[]);
    check(&used(79), &used(80), &[("StoreReady", true)]);
    check(&used(80), &used(93), &[("StoreReady", true)]);
    check(&used(93), &used(97), &[]);
    check(&used(93), &used(40), &[("StoreReady", false)]);
    // A rollout is no trouble, until it is taken back.
    let rolling = but(&|seen| seen.rollout.as_mut().unwrap().state = "Progressing".to_owned());
    check(
        &well(),
        &rolling,
        &[("CollectorsReady", false), ("Ready", false)],
    );
    let back = but(&|seen| seen.rollout.as_mut().unwrap().state = ROLLED_BACK.to_owned());
    check(&rolling, &back, &[("CollectorsReady", true)]);
    // Of a new pipeline only what is known is told.
    let turned_first = |seen: &Seen| {
        let status = status(&pipeline(json!({})), seen, &Status::default(), now());
        let told = turned(&Status::default(), &status);
        told.iter().filter(|turned| turned.is_told).count()
    };
    assert_eq!(turned_first(&well()), 8);
    let unknown = but(&|seen| seen.probe = Probed::NotYet);
    assert_eq!(turned_first(&unknown), 7);
}

#[test]
fn a_store_that_takes_nothing_is_not_ready() {
    for store in [Some(workload(1)), None] {
        let seen = Seen {
            store,
            impairment: Some((
                STORE_FULL,
                "1 of 2 collectors cannot store spans".to_owned(),
            )),
            ..well()
        };
        let conditions = of(&seen);
        let store = conditions.iter().find(|(type_, ..)| type_ == "StoreReady");
        let (_, status, reason) = store.unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "StoreFull"));
        let (_, status, reason) = conditions.last().unwrap();
        assert_eq!((status.as_str(), reason.as_str()), ("False", "StoreFull"));
    }
    let seen = Seen {
        held: Some("waiting".to_owned()),
        ..well()
    };
    let conditions = of(&seen);
    let agents = conditions
        .iter()
        .find(|(type_, ..)| type_ == "CollectorsReady");
    assert_eq!(agents.unwrap().2, "WaitingForLogs");
}

#[test]
fn whether_pods_are_injected_is_said_beside_the_rest() {
    let seen = |ready, is_asked| Webhook::Seen { ready, is_asked };
    for (spec, webhook, status_is, reason) in [
        (json!({}), seen(2, true), "True", "Ready"),
        (json!({}), seen(0, true), "False", "WebhookNotReady"),
        (
            json!({}),
            seen(2, false),
            "False",
            "WaitingForConfiguration",
        ),
        (json!({}), Webhook::Unknown, "Unknown", "NotSeenYet"),
        (json!({}), Webhook::None, "False", "NoWebhook"),
        (
            json!({"injection": {"mode": "None"}}),
            Webhook::None,
            "True",
            "Off",
        ),
        (json!({"enabled": false}), seen(2, false), "True", "Off"),
        (json!({}), Webhook::Missing, "False", "WebhookMissing"),
    ] {
        let seen = Seen { webhook, ..well() };
        let status = status(&pipeline(spec.clone()), &seen, &Status::default(), now());
        let found = |type_: &str| {
            let mut conditions = status.conditions.iter();
            conditions.find(|c| c.type_ == type_).unwrap().clone()
        };
        let injection = found("InjectionReady");
        let said = (injection.status.as_str(), injection.reason.as_str());
        assert_eq!(said, (status_is, reason), "{spec}");
        // A pipeline without a webhook takes spans all the same.
        if spec != json!({"enabled": false}) {
            assert_eq!(found("Ready").status, "True", "{spec}");
        }
    }
}
