//! Passes over a pipeline: what is written, in which order, and what happens when the API server does
//! not play along.

use std::time::Duration;

use http::Method;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use spanloom_operator::controller::{self, Work};
use spanloom_operator::leadership::Leadership;
use spanloom_operator::metrics::Metrics;
use spanloom_plan::Release;
use spanloom_plan::lease::Term;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Rule, Seen, Trouble};

pub const PIPELINE: &str = "/apis/spanloom.dev/v1alpha1/namespaces/tracing/tracingpipelines/prod";
pub const CORE: &str = "/api/v1/namespaces/tracing";
pub const APPS: &str = "/apis/apps/v1/namespaces/tracing";

pub struct Run {
    pub api: Api,
    stop: CancellationToken,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An operator at work on one pipeline, as the only leader.
fn run(spec: Value) -> Run {
    let api = Api::new();
    api.put(
        PIPELINE,
        json!({
            "apiVersion": "spanloom.dev/v1alpha1", "kind": "TracingPipeline",
            "metadata": {"name": "prod", "namespace": "tracing"}, "spec": spec,
        }),
    );
    run_with(api, leading())
}

/// The only leader, for longer than any test.
pub fn leading() -> Leadership {
    let leadership = Leadership::default();
    leadership.renewed(Term {
        duration: Duration::from_secs(1_000_000),
        renewed: Instant::now().into_std(),
    });
    leadership
}

fn run_with(api: Api, leadership: Leadership) -> Run {
    start(api, leadership, false)
}

/// The same, in a release with a webhook or without one.
pub fn start(api: Api, leadership: Leadership, webhook: bool) -> Run {
    let stop = CancellationToken::new();
    let work = Work {
        client: api.client("operator"),
        watching: api.client("operator"),
        release: Release {
            namespace: "tracing".to_owned(),
            name: "spanloom".to_owned(),
            namespaces: vec!["tracing".to_owned()],
            image_registry: "example.test".to_owned(),
            image_tag: "1".to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            clickhouse_image: "example.test/clickhouse:1".to_owned(),
            rollout_deadline: Duration::from_secs(300),
            webhook,
            ..Release::default()
        },
        pod_name: "operator-1".to_owned(),
        concurrency: 4,
        metrics: Metrics::new(&mut Registry::default()),
        leadership,
    };
    tokio::spawn(controller::run(work, stop.clone()));
    Run { api, stop }
}

impl Run {
    pub async fn wait(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub fn condition(&self, type_: &str) -> Value {
        let pipeline = self.api.get(PIPELINE).unwrap();
        let conditions = pipeline["status"]["conditions"].as_array().cloned();
        let conditions = conditions.unwrap_or_default();
        let found = conditions.into_iter().find(|c| c["type"] == type_);
        found.unwrap_or_else(|| panic!("no condition {type_}: {pipeline}"))
    }

    fn has(&self, path: &str) -> bool {
        self.api.get(path).is_some()
    }

    fn store_is_ready(&self) {
        let path = format!("{APPS}/statefulsets/prod-clickhouse");
        let generation = self.api.get(&path).unwrap()["metadata"]["generation"].clone();
        let ready = json!({"status": {"observedGeneration": generation, "replicas": 1,
            "updatedReplicas": 1, "readyReplicas": 1}});
        self.api.change(&path, &ready);
    }

    fn schema_is(&self, condition: &str) {
        let jobs = self.api.paths("/jobs/prod-migrate-");
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        let conditions = json!([{"type": condition, "status": "True"}]);
        let status = json!({"status": {"conditions": conditions}});
        self.api.change(&jobs[0], &status);
    }
}

/// How often this was written.
pub fn writes(seen: &[Seen], path: &str) -> usize {
    let is = |seen: &&Seen| seen.method == Method::PATCH && seen.path.contains(path);
    seen.iter().filter(is).count()
}

#[tokio::test(start_paused = true)]
async fn one_stage_comes_after_the_other() {
    let run = run(json!({}));
    run.wait(5).await;
    let job = || !run.api.paths("/jobs/").is_empty();
    let set = format!("{APPS}/daemonsets/prod-collector");
    assert!(run.has(&format!("{CORE}/secrets/prod-clickhouse")));
    assert!(run.has(&format!("{APPS}/statefulsets/prod-clickhouse")));
    assert!(!job() && !run.has(&set), "{:?}", run.api.paths(""));
    assert_eq!(run.condition("StoreReady")["status"], "False");
    run.store_is_ready();
    run.wait(3).await;
    assert!(job() && !run.has(&set));
    assert_eq!(run.condition("SchemaReady")["reason"], "Migrating");
    run.schema_is("Complete");
    run.wait(3).await;
    assert!(run.has(&set) && run.has(&format!("{APPS}/deployments/prod-query")));
    assert_eq!(run.condition("SchemaReady")["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_or_changed_comes_back() {
    let run = run(json!({}));
    run.wait(5).await;
    let binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/spanloom-collectors";
    let subjects = run.api.get(binding).unwrap()["subjects"].clone();
    assert_eq!(subjects[0]["name"], "prod-collector");
    let authority = format!("{CORE}/secrets/spanloom-ca");
    let before = run.api.get(&authority).unwrap()["data"].clone();
    for path in [
        format!("{CORE}/services/prod-collector"),
        format!("{CORE}/configmaps/prod-clickhouse"),
        format!("{APPS}/statefulsets/prod-clickhouse"),
        "/apis/rbac.authorization.k8s.io/v1/namespaces/tracing/roles/prod-collector".to_owned(),
    ] {
        run.api.delete(&path);
        run.wait(3).await;
        assert!(run.has(&path), "{path}");
    }
    run.api.delete(&authority);
    run.wait(30).await;
    assert_eq!(run.api.get(&authority).unwrap()["data"], before);
    let password = format!("{CORE}/secrets/prod-clickhouse");
    let before = run.api.get(&password).unwrap()["data"].clone();
    run.api.delete(&password);
    run.wait(50).await;
    assert_eq!(run.api.get(&password).unwrap()["data"], before);
    let service = format!("{CORE}/services/prod-query");
    let port = json!({"spec": {"ports": [{"name": "http", "port": 1}]}});
    run.api.change(&service, &port);
    run.wait(3).await;
    let port = run.api.get(&service).unwrap()["spec"]["ports"][0]["port"].clone();
    assert_eq!(port, 3200);
}

#[tokio::test(start_paused = true)]
async fn with_another_password_only_who_reads_it_once_is_renewed() {
    let run = run(json!({}));
    run.wait(5).await;
    run.store_is_ready();
    run.wait(3).await;
    run.schema_is("Complete");
    run.wait(3).await;
    let templates = || {
        [
            "statefulsets/prod-clickhouse",
            "daemonsets/prod-collector",
            "deployments/prod-query",
        ]
        .map(|path| run.api.get(&format!("{APPS}/{path}")).unwrap()["spec"]["template"].clone())
    };
    let before = templates();
    // Somebody deletes the Secret while the operator is away, so nobody remembers it.
    run.stop.cancel();
    run.wait(1).await;
    run.api.delete(&format!("{CORE}/secrets/prod-clickhouse"));
    let run = run_with(run.api.clone(), leading());
    run.wait(5).await;
    run.store_is_ready();
    run.wait(3).await;
    let jobs = run.api.paths("/jobs/prod-migrate-");
    assert_eq!(jobs.len(), 1, "the Job of before is still there: {jobs:?}");
    run.schema_is("Complete");
    run.wait(3).await;
    let path =
        |path: &str| run.api.get(&format!("{APPS}/{path}")).unwrap()["spec"]["template"].clone();
    assert_ne!(path("statefulsets/prod-clickhouse"), before[0]);
    // These have it as files, which the kubelet renews.
    assert_eq!(path("daemonsets/prod-collector"), before[1]);
    assert_eq!(path("deployments/prod-query"), before[2]);
}

#[tokio::test(start_paused = true)]
async fn one_object_that_is_refused_keeps_no_other_and_is_tried_less_and_less() {
    for (code, message, most) in [
        (403, "exceeded quota: pods", 8),
        (422, "spec.x: Invalid value", 8),
        (500, "etcdserver: leader changed", 16),
    ] {
        let run = run(json!({}));
        run.api.rule(Rule {
            client: "",
            method: Method::PATCH,
            path: "statefulsets",
            times: None,
            trouble: Trouble::Status(code, message),
        });
        run.wait(600).await;
        assert!(run.has(&format!("{CORE}/services/prod-query")));
        let ready = run.condition("Ready");
        assert_eq!(ready["reason"], "ApplyFailed");
        assert!(
            ready["message"].as_str().unwrap().contains(message),
            "{ready}"
        );
        let tries = writes(&run.api.take_seen(), "statefulsets");
        assert!(
            tries > 2 && tries <= most,
            "{code}: {tries} tries in 10 minutes"
        );
        run.api.end_rules();
        run.wait(610).await;
        assert!(run.has(&format!("{APPS}/statefulsets/prod-clickhouse")));
        assert_eq!(run.condition("StoreReady")["reason"], "NotReady");
    }
}

#[tokio::test(start_paused = true)]
async fn conflicts_delays_and_silence_are_overcome() {
    for trouble in [
        Trouble::Status(409, "the object has been modified"),
        Trouble::Late(Duration::from_secs(5)),
        Trouble::Hang,
        Trouble::HangAfter,
        Trouble::Status(503, "apiserver is shutting down"),
    ] {
        for (method, path) in [
            (Method::PATCH, "configmaps"),
            (Method::PATCH, "secrets"),
            (Method::GET, "secrets"),
            (Method::PATCH, "tracingpipelines"),
            (Method::PATCH, "clusterrolebindings"),
        ] {
            let run = run(json!({}));
            run.api.rule(Rule {
                client: "",
                method,
                path,
                times: Some(2),
                trouble: trouble.clone(),
            });
            run.wait(200).await;
            let set = format!("{APPS}/statefulsets/prod-clickhouse");
            assert!(run.has(&set), "{trouble:?} {path}");
            assert_eq!(run.condition("StoreReady")["reason"], "NotReady");
            let ca = format!("{CORE}/configmaps/prod-ca");
            assert!(run.has(&ca), "{trouble:?} {path}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_stays_as_it_is() {
    let run = run(json!({}));
    run.stop.cancel();
    let path = format!("{CORE}/services/prod-query");
    let theirs = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "prod-query", "namespace": "tracing"}, "spec": {"x": 1}});
    run.api.put(&path, theirs);
    let run = run_with(run.api.clone(), leading());
    run.wait(60).await;
    assert_eq!(run.api.get(&path).unwrap()["spec"], json!({"x": 1}));
    let message = run.condition("Ready")["message"].clone();
    assert!(
        message
            .as_str()
            .unwrap()
            .contains("does not belong to this pipeline"),
        "{message}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_named_where_it_stops_pods() {
    let run = run(json!({}));
    run.wait(5).await;
    let set = run
        .api
        .get(&format!("{APPS}/statefulsets/prod-clickhouse"))
        .unwrap();
    run.api.put(
        &format!("{CORE}/events/a"),
        json!({"metadata": {"name": "a"}, "type": "Warning", "reason": "FailedCreate",
            "message": "create Pod failed: exceeded quota: pods",
            "involvedObject": {"uid": set["metadata"]["uid"]},
            "lastTimestamp": "2026-01-01T00:00:00Z"}),
    );
    run.wait(70).await;
    let message = run.condition("StoreReady")["message"].clone();
    assert!(
        message.as_str().unwrap().contains("exceeded quota"),
        "{message}"
    );
    assert_eq!(run.condition("Ready")["message"], message);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_lead_writes_nothing() {
    let run = run(json!({}));
    run.wait(5).await;
    run.stop.cancel();
    run.wait(1).await;
    let run = run_with(run.api.clone(), Leadership::default());
    run.api.delete(&format!("{CORE}/services/prod-query"));
    run.api.take_seen();
    run.wait(300).await;
    let seen = run.api.take_seen();
    let written: Vec<_> = seen.iter().filter(|s| s.method != Method::GET).collect();
    assert!(written.is_empty(), "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn at_rest_little_is_asked_and_nothing_written() {
    let run = run(json!({}));
    run.wait(120).await;
    run.api.take_seen();
    let minutes = 20;
    run.wait(60 * minutes).await;
    let seen = run.api.take_seen();
    let written: Vec<_> = seen.iter().filter(|s| s.method != Method::GET).collect();
    assert!(written.is_empty(), "{written:?}");
    let mut paths = std::collections::BTreeMap::new();
    for seen in &seen {
        *paths.entry(&seen.path).or_insert(0) += 1;
    }
    let a_minute = seen.len() as u64 / minutes;
    // As said of a pipeline in docs/operate.md, beside the Lease.
    assert!(a_minute < 10, "{a_minute} requests a minute: {paths:?}");
}
