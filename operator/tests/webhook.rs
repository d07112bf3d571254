//! The webhook over HTTPS, asked as the API server asks it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may stop on the first surprise

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use kube::runtime::watcher::Event;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use spanloom_operator::certificates::Authority;
use spanloom_operator::settings::ReleaseSettings;
use spanloom_operator::webhook::{Answerer, Known, Metrics, Server, Settings, not_ready};
use spanloom_tls::{ClientTls, Connector};

const NAME: &str = "spanloom-webhook.tracing.svc";

/// A webhook that runs, and a client that trusts it.
struct Rig {
    known: Arc<Known>,
    registry: Registry,
    settings: Settings,
    server: Server,
    client: Client<Connector, Full<Bytes>>,
    _files: tempfile::TempDir,
}

fn write_certificate(directory: &Path, names: &[&str], now: i64) {
    let authority = Authority::new(now).unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = authority.leaf(&names, now).unwrap();
    std::fs::write(directory.join("tls.crt"), leaf.certificate).unwrap();
    std::fs::write(directory.join("tls.key"), leaf.key).unwrap();
    std::fs::write(directory.join("ca.crt"), authority.bundle()).unwrap();
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

impl Rig {
    async fn start(names: &[&str], made: i64) -> Self {
        let files = tempfile::tempdir().unwrap();
        write_certificate(files.path(), names, made);
        let settings = Settings {
            of: ReleaseSettings {
                namespace: "tracing".to_owned(),
                release: "spanloom".to_owned(),
                pipeline_namespaces: vec!["team".to_owned()],
                admin: ([127, 0, 0, 1], 0).into(),
            },
            listen: ([127, 0, 0, 1], 0).into(),
            tls_dir: files.path().to_owned(),
            drain_delay_seconds: 0,
        };
        let mut registry = Registry::default();
        let known = Arc::new(Known::default());
        let with = Answerer {
            known: Arc::clone(&known),
            metrics: Metrics::new(&mut registry),
        };
        let server = Server::start(settings.listen, &settings.tls_dir, with);
        let server = server.await.unwrap();
        let trust = ClientTls::with_ca_file(files.path().join("ca.crt")).unwrap();
        let client = Client::builder(TokioExecutor::new()).build(Connector::new(Some(trust)));
        Self {
            known,
            registry,
            settings,
            server,
            client,
            _files: files,
        }
    }

    /// One that serves, with two pipelines and two namespaces known.
    async fn ready() -> Self {
        let rig = Self::start(&[NAME, "localhost"], now()).await;
        rig.list();
        assert_eq!(rig.not_ready(), None);
        rig
    }

    fn list(&self) {
        let release = self.settings.release();
        let pipeline = |event| self.known.take_pipeline(event, &release);
        pipeline(Event::Init);
        for (namespace, name, created) in [
            ("tracing", "traces", "2026-01-01T00:00:00Z"),
            ("tracing", "younger", "2026-02-01T00:00:00Z"),
            ("elsewhere", "not-served", "2025-01-01T00:00:00Z"),
        ] {
            let metadata = json!({
                "namespace": namespace, "name": name, "uid": name, "creationTimestamp": created,
            });
            let object = json!({"metadata": metadata, "spec": {}});
            pipeline(Event::InitApply(serde_json::from_value(object).unwrap()));
        }
        pipeline(Event::InitDone);
        self.known.take_namespace(Event::Init);
        for (name, labels) in [
            ("shop", json!({"spanloom.dev/trace": "enabled"})),
            ("other", json!({})),
        ] {
            let object = json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                "metadata": {"name": name, "labels": labels},
            });
            let event = Event::InitApply(serde_json::from_value(object).unwrap());
            self.known.take_namespace(event);
        }
        self.known.take_namespace(Event::InitDone);
    }

    fn not_ready(&self) -> Option<String> {
        not_ready(&self.settings, &self.known, self.server.tls())
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> (StatusCode, Vec<u8>) {
        let uri = format!("https://localhost:{}{path}", self.server.address().port());
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap();
        (status, body.to_bytes().to_vec())
    }

    /// The answer to a review, without its frame.
    async fn review(&self, path: &str, request: &Value) -> Value {
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request,
        });
        let body = serde_json::to_vec(&review).unwrap();
        let (status, body) = self.send(Method::POST, path, body).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        let answer = answer["response"].take();
        assert_eq!(answer["uid"], request["uid"]);
        assert_eq!(answer["allowed"], true);
        answer
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// How often a reason was counted for a pipeline.
    fn counted(&self, pipeline: &str, reason: &str) -> u64 {
        let labels = format!("pipeline=\"{pipeline}\",reason=\"{reason}\"}} ");
        let metrics = self.metrics();
        let line = metrics.lines().find_map(|line| line.split_once(&labels));
        line.map_or(0, |(_, count)| count.parse().unwrap())
    }
}

fn request(namespace: &str, pod: &Value) -> Value {
    json!({"uid": "1-2", "operation": "CREATE", "namespace": namespace, "object": pod})
}

fn pod() -> Value {
    json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}})
}

fn patch(answer: &Value) -> Value {
    let Some(patch) = answer["patch"].as_str() else {
        assert!(answer["patchType"].is_null());
        return Value::Null;
    };
    assert_eq!(answer["patchType"], "JSONPatch");
    serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap()
}

#[tokio::test]
async fn a_pod_is_answered_with_a_patch() {
    let rig = Rig::ready().await;
    let answer = rig
        .review("/inject/tracing/traces", &request("shop", &pod()))
        .await;
    let operations = patch(&answer);
    assert_eq!(operations[0]["op"], "add");
    assert_eq!(operations[0]["path"], "/spec/containers/0/env");
    assert_eq!(answer["auditAnnotations"]["reason"], "Injected");
    assert_eq!(rig.counted("traces", "Injected"), 1);
    assert!(
        rig.metrics()
            .contains("spanloom_webhook_admission_seconds_count 1")
    );

    let younger = rig
        .review("/inject/tracing/younger", &request("shop", &pod()))
        .await;
    assert_eq!(patch(&younger), Value::Null);
    assert_eq!(rig.counted("younger", "PipelineConflict"), 1);
    rig.server.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_is_not_selected_stays_as_it_is() {
    let rig = Rig::ready().await;
    let path = "/inject/tracing/traces";
    for (path, request) in [
        (path, request("other", &pod())),
        // Made a moment ago, and not known yet.
        (path, request("new", &pod())),
        ("/inject/tracing/gone", request("shop", &pod())),
        ("/inject/elsewhere/not-served", request("shop", &pod())),
        (
            path,
            json!({"uid": "", "operation": "UPDATE", "namespace": "shop", "object": pod()}),
        ),
    ] {
        let answer = rig.review(path, &request).await;
        assert_eq!(patch(&answer), Value::Null, "{path} {request}");
    }
    // No pod at all.
    let nothing = json!({"uid": "x", "operation": "CREATE", "namespace": "shop"});
    let answer = rig.review(path, &nothing).await;
    assert_eq!(patch(&answer), Value::Null);
    // A dry run is answered like any other, and leaves no trace.
    let before = rig.counted("traces", "Injected");
    let mut dry = request("shop", &pod());
    dry["dryRun"] = json!(true);
    assert!(patch(&rig.review(path, &dry).await).is_array());
    assert_eq!(rig.counted("traces", "Injected"), before);
}

#[tokio::test]
async fn what_is_no_review_is_refused() {
    let rig = Rig::ready().await;
    let valid = serde_json::to_vec(&json!({"request": request("shop", &pod())})).unwrap();
    let path = "/inject/tracing/traces";
    for (method, path, body, status, says) in [
        (Method::GET, path, vec![], 405, "only POST"),
        (
            Method::POST,
            path,
            b"{".to_vec(),
            400,
            "not an AdmissionReview",
        ),
        (
            Method::POST,
            path,
            b"[]".to_vec(),
            400,
            "not an AdmissionReview",
        ),
        (
            Method::POST,
            "/inject/tracing",
            valid.clone(),
            400,
            "expected /inject/",
        ),
        (
            Method::POST,
            "/inject/a/b/c",
            valid.clone(),
            400,
            "expected /inject/",
        ),
        (Method::POST, "/", valid, 400, "expected /inject/"),
        (
            Method::POST,
            path,
            vec![b' '; 5 << 20],
            413,
            "is longer than",
        ),
    ] {
        let (found, text) = rig.send(method, path, body).await;
        let text = String::from_utf8_lossy(&text);
        assert_eq!(found.as_u16(), status, "{path}: {text}");
        assert!(text.contains(says), "{path}: {text}");
    }
    // It goes on answering.
    let answer = rig.review(path, &request("shop", &pod())).await;
    assert!(patch(&answer).is_array());
}

#[tokio::test]
async fn it_is_ready_when_it_knows_all_and_is_trusted() {
    let rig = Rig::start(&[NAME, "localhost"], now()).await;
    assert_eq!(
        rig.not_ready().as_deref(),
        Some("the pipelines have not been listed yet")
    );
    rig.list();
    assert_eq!(rig.not_ready(), None);
    // A year later, with the same certificate.
    let expired = Rig::start(&[NAME], now() - 365 * 86_400).await;
    expired.list();
    let why = expired.not_ready().unwrap();
    assert!(why.contains("expired"), "{why}");
    let other = Rig::start(&["another.tracing.svc"], now()).await;
    other.list();
    let why = other.not_ready().unwrap();
    assert!(why.contains(NAME), "{why}");
}

#[tokio::test]
async fn a_pipeline_that_changes_counts_at_once() {
    let rig = Rig::ready().await;
    let release = rig.settings.release();
    let path = "/inject/tracing/traces";
    let put = |spec: Value| {
        let metadata = json!({
            "namespace": "tracing", "name": "traces", "uid": "traces",
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        let object = json!({"metadata": metadata, "spec": spec});
        let event = Event::Apply(serde_json::from_value(object).unwrap());
        rig.known.take_pipeline(event, &release);
    };
    for spec in [
        json!({"injection": {"mode": "None"}}),
        json!({"enabled": false}),
        json!({"injection": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}),
        // Of another version, and not readable here.
        json!({"injection": {"mode": "Later"}}),
        json!({"injection": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}),
    ] {
        put(spec.clone());
        let answer = rig.review(path, &request("shop", &pod())).await;
        assert_eq!(patch(&answer), Value::Null, "{spec}");
        put(json!({}));
        let answer = rig.review(path, &request("shop", &pod())).await;
        assert!(patch(&answer).is_array(), "{spec}");
    }
}

/// A mistake elsewhere in the spec, which the operator refuses: what runs goes on, and so does injection.
#[tokio::test]
async fn a_mistake_elsewhere_in_the_spec_stops_nothing() {
    let rig = Rig::ready().await;
    let metadata = json!({
        "namespace": "tracing", "name": "traces", "uid": "traces",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    let spec = json!({"processing": {"drop": ["{ nonsense"]}, "later": true});
    let object = json!({"metadata": metadata, "spec": spec});
    let event = Event::Apply(serde_json::from_value(object).unwrap());
    rig.known.take_pipeline(event, &rig.settings.release());
    let answer = rig
        .review("/inject/tracing/traces", &request("shop", &pod()))
        .await;
    assert!(patch(&answer).is_array());
}

/// A pod of which every byte makes as much as it can of the memory that a replica has: 128 MiB.
#[tokio::test]
async fn a_large_pod_takes_little_memory() {
    let rig = Rig::ready().await;
    let mut large = pod();
    large["spec"]["volumes"] = json!(vec![json!({"": 0}); 100_000]);
    large["spec"]["containers"][0]["env"] = json!(vec![json!({"": 0}); 100_000]);
    let answer = rig
        .review("/inject/tracing/traces", &request("shop", &large))
        .await;
    assert!(patch(&answer).is_array());
}
