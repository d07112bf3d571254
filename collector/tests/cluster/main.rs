//! A collector in a cluster: it follows its configuration object and its node's pods, and leaves in
//! good order. The API server is one of the tests' own; ClickHouse is the embedded one.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops on the first surprise

mod access;
mod api;
mod gate;
mod log;
mod objects;
mod sending;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use spanloom_collector::{Cluster, Collector, CollectorConfig, StoreAddress};
use spanloom_crds::TracingPipeline;
use spanloom_crds::agent::{AgentConfig, CONFIG_VERSION};
use spanloom_engine::testing::TestEngine;
use spanloom_program::memory;
use spanloom_rules::ValuePattern;
use tokio::sync::OnceCell;

use api::Api;
use objects::{config, pod};
use sending::{Sender, request};

static ENGINE: OnceCell<TestEngine> = OnceCell::const_new();

/// Longer than anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

struct Setup {
    api: Api,
    config: CollectorConfig,
    collector: Collector,
    registry: Registry,
    direct: clickhouse::Client,
}

impl Setup {
    /// A collector whose cluster has no configuration object yet.
    async fn new() -> Self {
        Self::changed(|_| {}).await
    }

    /// The same, started with something else.
    async fn changed(change: impl FnOnce(&mut CollectorConfig)) -> Self {
        spanloom_program::logs::init("warn");
        let engine = ENGINE.get_or_init(TestEngine::start).await;
        let store = StoreAddress {
            url: engine.url(),
            user: engine.user().to_owned(),
            password: engine.password().to_owned(),
            credentials_dir: None,
            database: format!("cluster_{:016x}", rand::random::<u64>()),
            cluster: None,
            ca_file: None,
        };
        spanloom_collector::migrate_agent(&store, &config(1, ""))
            .await
            .unwrap();
        let direct = spanloom_store::connection::client(None)
            .with_url(&store.url)
            .with_user(&store.user)
            .with_password(&store.password)
            .with_database(&store.database);
        let api = Api::start().await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = CollectorConfig {
            otlp_grpc: any,
            otlp_http: any,
            cors_origins: Vec::new(),
            memory: memory::Collector::of(128 << 20),
            store,
            document: TracingPipeline::default(),
            agent: "collector-1".to_owned(),
            log: None,
            sidecars: None,
        };
        change(&mut config);
        let mut registry = Registry::default();
        let collector = Collector::start_in(cluster(&api), config.clone(), &mut registry).await;
        Self {
            api,
            config,
            collector: collector.unwrap(),
            registry,
            direct,
        }
    }

    /// The same, with a configuration of this spec in force and these pods known.
    async fn with(spec: &str, pods: &[Value]) -> Self {
        let setup = Self::new().await;
        for pod in pods {
            setup.api.put("pods", pod.clone());
        }
        setup.configure(&config(1, spec)).await;
        setup.ready().await;
        setup
    }

    fn put_config(&self, text: &str) {
        self.api.put(
            "configmaps",
            json!({"metadata": {"name": "prod-collector", "namespace": "tracing"},
                "data": {"config.json": text}}),
        );
    }

    /// Changes the object and waits until it is in force.
    async fn configure(&self, config: &AgentConfig) {
        self.put_config(&serde_json::to_string(config).unwrap());
        let status = self.collector.status();
        until("the configuration is in force", || {
            status().config.applied.as_deref() == Some(&config.hash)
        })
        .await;
    }

    async fn ready(&self) {
        let health = self.collector.health();
        until("the collector is ready", || health.not_ready().is_none()).await;
    }

    fn sender(&self, from: &str) -> Sender {
        Sender::new(self.collector.http_address(), from)
    }

    async fn text(&self, sql: &str) -> String {
        self.direct.query(sql).fetch_one().await.unwrap()
    }

    async fn number(&self, sql: &str) -> u64 {
        self.direct.query(sql).fetch_one().await.unwrap()
    }

    /// The resource attributes of the one span of this name.
    async fn resource(&self, span: &str) -> Value {
        let sql = format!("SELECT toString(resource) FROM spans WHERE name = '{span}'");
        serde_json::from_str(&self.text(&sql).await).unwrap()
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn cluster(api: &Api) -> Cluster {
    Cluster {
        client: api.client(),
        namespace: "tracing".to_owned(),
        name: "prod-collector".to_owned(),
        node: "node-a".to_owned(),
    }
}

#[tokio::test]
async fn a_configuration_is_live_without_a_restart_and_a_bad_one_is_refused() {
    let setup = Setup::new().await;
    let (health, status) = (setup.collector.health(), setup.collector.status());
    let app = setup.sender("127.0.0.1");
    // Before the first one: told to retry, and not ready.
    until("it says what is missing", || {
        health.not_ready().is_some_and(|why| {
            why.contains(
                "the ConfigMap tracing/prod-collector does not \
                                                    exist",
            )
        })
    })
    .await;
    assert_eq!(
        app.send(&request("early", &[])).await,
        StatusCode::SERVICE_UNAVAILABLE
    );

    setup.configure(&config(1, "")).await;
    setup.ready().await;
    assert_eq!(app.send(&request("first", &[])).await, StatusCode::OK);

    // Each of these is in force for the next request on the same connection.
    let begun = Instant::now();
    let changed = "processing: {resource: {team: blue}, drop: ['{ name = \"noise\" }']}";
    setup.configure(&config(2, changed)).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(app.send(&request("second", &[])).await, StatusCode::OK);
    assert_eq!(app.send(&request("noise", &[])).await, StatusCode::OK);
    assert_eq!(setup.resource("second").await["team"], "blue");
    assert_eq!(
        setup
            .number("SELECT count() FROM spans WHERE name = 'noise'")
            .await,
        0
    );

    // Refused, each for its own reason; the last good one stays.
    let mut bad_filter = config(3, "");
    bad_filter.resolved.processing.rules.drop = vec!["{ name = ".to_owned()];
    let mut future = config(4, "");
    future.version = 3;
    // A class of text that only a later version knows; this one must not take it for something else.
    let mut later = config(6, "");
    later.resolved.processing.rules.redact_values = vec![ValuePattern::Class("iban".to_owned())];
    later = AgentConfig {
        hash: "hash-6".to_owned(),
        ..AgentConfig::new(later.pipeline, true, later.resolved)
    };
    assert_eq!(later.version, CONFIG_VERSION);
    for (text, hash, why) in [
        (
            serde_json::to_string(&bad_filter).unwrap(),
            "hash-3",
            "drop",
        ),
        (
            serde_json::to_string(&future).unwrap(),
            "hash-4",
            "version 3 is not supported",
        ),
        (
            serde_json::to_string(&later).unwrap(),
            "hash-6",
            "it requires processing.redact.values.iban, which this collector does not support",
        ),
        (
            "{".to_owned(),
            "unknown",
            "not a valid configuration in JSON",
        ),
    ] {
        setup.put_config(&text);
        until("it is refused", || {
            status().config.refused.as_deref() == Some(hash)
        })
        .await;
        let config = status().config;
        assert!(config.error.as_ref().unwrap().contains(why), "{config:?}");
        assert_eq!(config.applied.as_deref(), Some("hash-2"));
        assert_eq!(health.not_ready(), None);
    }
    assert_eq!(app.send(&request("third", &[])).await, StatusCode::OK);
    assert_eq!(setup.resource("third").await["team"], "blue");

    // A good one after it clears the refusal, and the status says what it uses.
    setup.configure(&config(5, changed)).await;
    let said = status();
    assert_eq!(said.config.refused, None);
    assert_eq!(said.config.generation, Some(5));
    assert_eq!(said.config.uses, ["processing.resource", "processing.drop"]);
    let understands = |name: &String| said.understands.contains(name);
    assert!(said.config.uses.iter().all(understands), "{said:?}");
    setup.collector.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_pipeline_that_is_not_enabled_answers_success_and_counts() {
    let setup = Setup::with("", &[]).await;
    let (app, status) = (setup.sender("127.0.0.1"), setup.collector.status());
    let mut off = config(2, "");
    off.enabled = false;
    setup.configure(&off).await;
    assert_eq!(app.send(&request("off", &[])).await, StatusCode::OK);
    assert_eq!((status().spans_received, status().spans_discarded), (1, 1));
    setup.configure(&config(3, "")).await;
    assert_eq!(app.send(&request("on", &[])).await, StatusCode::OK);
    assert_eq!((status().spans_received, status().spans_discarded), (2, 1));
    assert_eq!(
        setup
            .text("SELECT arrayStringConcat(groupArray(name)) FROM spans")
            .await,
        "on"
    );
    assert_eq!(
        setup.number("SELECT toUInt64(sum(count)) FROM red").await,
        1
    );
    // The accounts say so too, in the node's name.
    let direct = setup.direct.clone();
    setup.collector.shutdown(DEADLINE).await.unwrap();
    let accounts = "SELECT concat(node, ' ', agent, ' ', reason, ' ', toString(sum(spans))) FROM accounts \
                    GROUP BY node, agent, reason ORDER BY reason";
    let accounts: Vec<String> = direct.query(accounts).fetch_all().await.unwrap();
    let expect = ["disabled", "stored"].map(|reason| format!("node-a collector-1 {reason} 1"));
    assert_eq!(accounts, expect);
}

#[tokio::test]
async fn spans_are_signed_with_the_pod_that_sent_them() {
    let pods = [
        pod("web-abc12-1", "127.0.0.2", &["app"]),
        pod("web-abc12-2", "127.0.0.3", &["app", "proxy"]),
    ];
    let chosen = "processing: {resource: {k8s.cluster.name: c1, k8s.pod.name: no}, \
                  kubernetes: {labels: [app.kubernetes.io/version]}}";
    let setup = Setup::with(chosen, &pods).await;
    let claims = [
        ("service.name", "unknown_service:node"),
        ("k8s.pod.name", "somebody-else"),
        ("k8s.pod.uid", "forged"),
        ("k8s.statefulset.name", "forged"),
        ("k8s.container.name", "proxy"),
        ("host.name", "kept"),
    ];
    let expect = |pod: &str, container: &str| {
        json!({
            "service.name": "web",
            "k8s.namespace.name": "shop",
            "k8s.pod.name": pod,
            "k8s.pod.uid": format!("uid-of-{pod}"),
            "k8s.node.name": "node-a",
            "k8s.deployment.name": "web",
            "k8s.replicaset.name": "web-abc12",
            "k8s.container.name": container,
            "k8s.pod.label.app.kubernetes.io/version": "1.2",
            "k8s.cluster.name": "c1",
            "host.name": "kept",
        })
    };
    // The only container, whatever it says; of two, the one that it says.
    for (from, name, container) in [
        ("127.0.0.2", "web-abc12-1", "app"),
        ("127.0.0.3", "web-abc12-2", "proxy"),
    ] {
        let sender = setup.sender(from);
        assert_eq!(sender.send(&request(name, &claims)).await, StatusCode::OK);
        let resource = setup.resource(name).await;
        assert_eq!(resource, expect(name, container));
    }
    // A name of its own stays.
    let named = setup.sender("127.0.0.2");
    named
        .send(&request("named", &[("service.name", "cart")]))
        .await;
    let service = setup
        .text("SELECT service FROM spans WHERE name = 'named'")
        .await;
    assert_eq!(service, "cart");
}

#[tokio::test]
async fn only_a_gateway_speaks_for_others() {
    let chosen =
        "processing: {kubernetes: {gateways: [{namespace: shop, podLabels: {app: gateway}}]}}";
    let mut gateway = pod("gateway", "127.0.0.8", &["otelcol"]);
    gateway["metadata"]["labels"] = json!({"app": "gateway"});
    let setup = Setup::with(chosen, &[gateway, pod("web", "127.0.0.9", &["app"])]).await;
    let claims = [
        ("service.name", "far"),
        ("k8s.pod.name", "far-1"),
        ("k8s.pod.label.team", "a"),
        ("k8s.cluster.name", "c1"),
    ];
    // The third is no known pod.
    for (from, name, pod, label) in [
        ("127.0.0.8", "by gateway", Some("far-1"), Some("a")),
        ("127.0.0.9", "by web", Some("web"), None),
        ("127.0.0.10", "unidentified", None, None),
    ] {
        let sender = setup.sender(from);
        assert_eq!(sender.send(&request(name, &claims)).await, StatusCode::OK);
        let resource = setup.resource(name).await;
        let text = |key: &str| resource.get(key).and_then(Value::as_str);
        assert_eq!(text("k8s.pod.name"), pod, "{name}: {resource}");
        assert_eq!(text("k8s.pod.label.team"), label, "{name}: {resource}");
        assert_eq!(text("k8s.cluster.name"), Some("c1"), "{name}: {resource}");
    }
}

#[tokio::test]
async fn pods_come_and_go() {
    let setup = Setup::with("", &[]).await;
    // A pod whose address the API server tells a moment after its first span is on its way.
    let late = setup.sender("127.0.0.4");
    let api = setup.api.clone();
    let body = request("late", &[]);
    let (status, ()) = tokio::join!(late.send(&body), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.put("pods", pod("late", "127.0.0.4", &["app"]));
    });
    assert_eq!(status, StatusCode::OK);
    assert_eq!(setup.resource("late").await["k8s.pod.name"], "late");

    // One that nobody knows is stored all the same, and waited for only once.
    let stranger = setup.sender("127.0.0.5");
    stranger.send(&request("stranger", &[])).await;
    let begun = Instant::now();
    stranger.send(&request("stranger again", &[])).await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        setup.resource("stranger again").await.get("k8s.pod.name"),
        None
    );

    // The API server goes away and comes back having forgotten what happened meanwhile: pods that
    // went are gone, and an address has a new owner.
    setup
        .api
        .break_with(Some(StatusCode::INTERNAL_SERVER_ERROR));
    setup.api.delete("pods", "late");
    setup.api.put("pods", pod("next", "127.0.0.4", &["app"]));
    setup.api.compact();
    late.send(&request("last known", &[])).await;
    assert_eq!(setup.resource("last known").await["k8s.pod.name"], "late");
    setup.api.break_with(None);
    let begun = Instant::now();
    for n in 0.. {
        let name = format!("after {n}");
        late.send(&request(&name, &[])).await;
        if setup.resource(&name).await["k8s.pod.name"] == "next" {
            break;
        }
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Other nodes' pods are nothing to us.
    let mut elsewhere = pod("elsewhere", "127.0.0.6", &["app"]);
    elsewhere["spec"]["nodeName"] = "node-b".into();
    setup.api.put("pods", elsewhere);
    let other = setup.sender("127.0.0.6");
    other.send(&request("elsewhere", &[])).await;
    assert_eq!(setup.resource("elsewhere").await.get("k8s.pod.name"), None);
}

#[tokio::test]
async fn a_collector_that_may_not_see_pods_takes_spans_without_their_attributes() {
    let setup = Setup::new().await;
    setup.api.put("pods", pod("web", "127.0.0.7", &["app"]));
    setup.api.deny(Some("pods"));
    setup.configure(&config(1, "")).await;
    setup.ready().await;
    let sender = setup.sender("127.0.0.7");
    let begun = Instant::now();
    assert_eq!(sender.send(&request("denied", &[])).await, StatusCode::OK);
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(2),
        "waited {waited:?} for a pod"
    );
    assert_eq!(setup.resource("denied").await.get("k8s.pod.name"), None);

    setup.api.deny(None);
    let begun = Instant::now();
    for n in 0.. {
        let name = format!("allowed {n}");
        sender.send(&request(&name, &[])).await;
        if setup.resource(&name).await["k8s.pod.name"] == "web" {
            break;
        }
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn probes_are_stored_whatever_the_rules_say_and_measured_nowhere() {
    let strict = "processing: {drop: ['{ }'], resource: {service.name: other}}, \
                  sampling: {head: {ratio: 0}}";
    let setup = Setup::with(strict, &[]).await;
    let operator = setup.sender("127.0.0.1");
    let probe = [
        ("service.name", "spanloom-probe"),
        ("spanloom.probe", "uid-of-prod"),
    ];
    assert_eq!(
        operator.send(&request("probe", &probe)).await,
        StatusCode::OK
    );
    // Without the uid it is a span like others.
    let forged = [("service.name", "spanloom-probe"), ("spanloom.probe", "x")];
    assert_eq!(
        operator.send(&request("forged", &forged)).await,
        StatusCode::OK
    );
    let stored = "SELECT concat(service, ' ', name) FROM spans";
    assert_eq!(setup.text(stored).await, "spanloom-probe probe");
    for table in ["trace_index", "tags", "red", "half_edges"] {
        assert_eq!(
            setup.number(&format!("SELECT count() FROM {table}")).await,
            0,
            "{table}"
        );
    }
    assert_eq!(setup.collector.status()().spans_received, 1);
}

/// Whoever reaches the admin port is not asked who they are.
#[tokio::test]
async fn the_admin_pages_say_nothing_of_traces() {
    const SECRET: &str = "canary";
    let rules = "processing: {redact: [{values: email}], drop: ['{ name = \"canary dropped\" }']}";
    let setup = Setup::with(rules, &[pod("canary-pod", "127.0.0.9", &["app"])]).await;
    let resource = [
        ("service.name", "canary-service"),
        ("canary.key", "canary value"),
        ("k8s.pod.name", "canary-forged"),
        ("user", "canary@example.com"),
    ];
    for from in ["127.0.0.9", "127.0.0.8"] {
        let sender = setup.sender(from);
        for name in ["canary", "canary dropped", ""] {
            let status = sender.send(&request(name, &resource)).await;
            assert_eq!(status, StatusCode::OK);
        }
        // A body that breaks off in the middle of a name.
        let mut cut = request("canary in a broken body", &resource);
        cut.truncate(cut.len() - 30);
        assert_eq!(sender.send(&cut).await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(setup.number("SELECT count() FROM spans").await, 4);

    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &setup.registry).unwrap();
    assert!(
        metrics.contains("otelcol_receiver_accepted_spans"),
        "{metrics}"
    );
    let status = serde_json::to_string(&setup.collector.status()()).unwrap();
    let reason = setup.collector.health().not_ready().unwrap_or_default();
    let id = setup
        .text("SELECT lower(hex(any(trace_id))) FROM spans")
        .await;
    for page in [metrics, status, reason] {
        for word in [SECRET, "127.0.0.", &id] {
            assert!(!page.contains(word), "{word} is in\n{page}");
        }
    }
}

#[tokio::test]
async fn a_collector_that_leaves_serves_until_nobody_comes() {
    let setup = Setup::with("", &[]).await;
    let app = setup.sender("127.0.0.1");
    assert!(!app.exchange(&request("before", &[])).await.closes());
    setup.collector.leave();
    assert_eq!(
        setup.collector.health().not_ready().as_deref(),
        Some("draining")
    );
    // The connection that is open is asked to end with an answer, not under one.
    let answer = app.exchange(&request("during", &[])).await;
    assert_eq!((answer.status, answer.closes()), (StatusCode::OK, true));
    // Whoever does not know yet is served.
    let newcomer = setup.sender("127.0.0.1");
    assert_eq!(
        newcomer.send(&request("newcomer", &[])).await,
        StatusCode::OK
    );
    setup.collector.shutdown(DEADLINE).await.unwrap();
    let names = "SELECT arrayStringConcat(arraySort(groupArray(name)), ' ') FROM spans";
    assert_eq!(
        setup
            .direct
            .query(names)
            .fetch_one::<String>()
            .await
            .unwrap(),
        "before during newcomer"
    );
}
