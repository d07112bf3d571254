//! Once: whatever becomes of replies, on either side, each span is in the table and in the rollups
//! exactly once, and nothing is acknowledged that is not stored.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops on the first surprise

mod accounts;
#[cfg(feature = "control-runs")]
mod control;
mod faults;
mod letters;
mod proxy;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus_client::registry::Registry;
use prost::Message;
use spanloom_collector::{Collector, CollectorConfig, StartError, StoreAddress};
use spanloom_crds::TracingPipeline;
use spanloom_engine::testing::TestEngine;
use spanloom_program::memory;
use spanloom_store::Connection;
use tokio::sync::OnceCell;

use proxy::{Mood, Proxy};

static ENGINE: OnceCell<TestEngine> = OnceCell::const_new();

/// Spans in each request.
const SPANS: u64 = 120;

/// Tables that a batch is written to, each by an insert of its own.
const TABLES: usize = 6;

/// A database with its tables, and the way to it.
struct Ground {
    proxy: Proxy,
    store: StoreAddress,
    document: TracingPipeline,
    /// To ClickHouse itself, not through the proxy.
    direct: clickhouse::Client,
}

impl Ground {
    async fn with(spec: &str) -> Self {
        let engine = ENGINE.get_or_init(TestEngine::start).await;
        Self::on(&engine.url(), engine.user(), engine.password(), spec).await
    }

    /// The same on this engine.
    async fn on(url: &str, user: &str, password: &str, spec: &str) -> Self {
        let upstream = url.trim_start_matches("http://").parse().unwrap();
        let proxy = Proxy::start(upstream).await;
        let store = StoreAddress {
            url: proxy.url(),
            user: user.to_owned(),
            password: password.to_owned(),
            credentials_dir: None,
            database: format!("once_{:016x}", rand::random::<u64>()),
            cluster: None,
            ca_file: None,
        };
        let document = spanloom_crds::parse_document(&format!(
            "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nmetadata: {{name: test}}\n\
             spec: {{{spec}}}\n"
        ))
        .unwrap();
        spanloom_collector::migrate(&store, &document, "test")
            .await
            .unwrap();
        let connection = Connection {
            url: url.to_owned(),
            user: store.user.clone(),
            password: store.password.clone(),
            tls: None,
        };
        let direct = connection.client().with_database(&store.database);
        Self {
            proxy,
            store,
            document,
            direct,
        }
    }
}

/// A collector behind a proxy, writing to a database of its own.
struct Setup {
    proxy: Proxy,
    collector: Collector,
    registry: Registry,
    /// To ClickHouse itself, not through the proxy.
    direct: clickhouse::Client,
}

impl Setup {
    async fn new(memory_limit_bytes: u64) -> Self {
        Self::with("", memory_limit_bytes).await
    }

    /// The same, with this spec.
    async fn with(spec: &str, memory_limit_bytes: u64) -> Self {
        Self::started(spec, memory_limit_bytes, Collector::start).await
    }

    /// The same, started in another way.
    async fn started(
        spec: &str,
        memory_limit_bytes: u64,
        start: impl AsyncFnOnce(CollectorConfig, &mut Registry) -> Result<Collector, StartError>,
    ) -> Self {
        let Ground {
            proxy,
            store,
            document,
            direct,
        } = Ground::with(spec).await;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut registry = Registry::default();
        let config = CollectorConfig {
            otlp_grpc: any,
            otlp_http: any,
            cors_origins: Vec::new(),
            memory: memory::Collector::of(memory_limit_bytes),
            store,
            document,
            agent: "collector-1".to_owned(),
            log: None,
            sidecars: None,
        };
        let collector = start(config, &mut registry).await.unwrap();
        Self {
            proxy,
            collector,
            registry,
            direct,
        }
    }

    async fn send(&self, body: &[u8]) -> Response<Bytes> {
        post(self.collector.http_address(), PROTOBUF, body.to_vec()).await
    }

    async fn number(&self, sql: &str) -> u64 {
        number(&self.direct, sql).await
    }

    async fn check_stored_once(&self, spans: u64) {
        check_stored_once(&self.direct, spans).await;
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

async fn number(client: &clickhouse::Client, sql: &str) -> u64 {
    client.query(sql).fetch_one().await.unwrap()
}

/// Rows of spans, and what the rollups say of them.
async fn check_stored_once(client: &clickhouse::Client, spans: u64) {
    let counts = [
        ("SELECT count() FROM spans", spans),
        ("SELECT uniqExact(span_id) FROM spans", spans),
        ("SELECT toUInt64(sum(count)) FROM red", spans),
        (
            "SELECT toUInt64(sum(arraySum(mapValues(buckets)))) FROM red",
            spans,
        ),
        ("SELECT toUInt64(sum(count)) FROM red_hours", spans),
        (
            "SELECT toUInt64(sum(arraySum(mapValues(buckets)))) FROM red_hours",
            spans,
        ),
        ("SELECT toUInt64(sum(span_count)) FROM trace_index", spans),
        // Each span may be the end of a call.
        ("SELECT count() FROM half_edges", spans),
    ];
    for (sql, expected) in counts {
        assert_eq!(number(client, sql).await, expected, "{sql}");
    }
}

const PROTOBUF: &str = "application/x-protobuf";

async fn post(address: SocketAddr, content_type: &str, body: Vec<u8>) -> Response<Bytes> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::post(format!("http://{address}/v1/traces"))
        .header("content-type", content_type)
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let (head, body) = client.request(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_nanos() as u64
}

/// `SPANS` spans of distinct ids, a third each of clients, servers and internal ones, padded to make
/// the request larger where that matters.
fn request(seed: u64, padding: usize) -> Vec<u8> {
    request_from("shop", seed, padding)
}

/// The same from this service.
fn request_from(service: &str, seed: u64, padding: usize) -> Vec<u8> {
    let now = now_ns();
    let text = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value)),
        }),
        ..KeyValue::default()
    };
    let spans = (0..SPANS).map(|n| Span {
        trace_id: [seed.to_be_bytes(), (n / 3 + 1).to_be_bytes()].concat(),
        span_id: (seed ^ (n + 1)).to_be_bytes().to_vec(),
        parent_span_id: if n % 3 == 0 {
            Vec::new()
        } else {
            (seed ^ n).to_be_bytes().to_vec()
        },
        name: format!("operation {}", n % 3),
        kind: [1, 3, 2][(n % 3) as usize],
        start_time_unix_nano: now,
        end_time_unix_nano: now + 1_000_000 * (n + 1),
        attributes: vec![text("padding", "x".repeat(padding))],
        ..Span::default()
    });
    let scope = ScopeSpans {
        spans: spans.collect(),
        ..ScopeSpans::default()
    };
    let resource = Resource {
        attributes: vec![text("service.name", service.to_owned())],
        ..Resource::default()
    };
    let resource_spans = ResourceSpans {
        resource: Some(resource),
        scope_spans: vec![scope],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
    .encode_to_vec()
}

/// Full success: no `partial_success`.
fn assert_stored(response: &Response<Bytes>) {
    assert_eq!(
        (response.status(), response.body().len()),
        (StatusCode::OK, 0),
        "{response:?}"
    );
}

const PLENTY: u64 = 128 << 20;

/// Longer than a stop takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn replies_lost_after_the_commit_store_nothing_twice() {
    let setup = Setup::new(PLENTY).await;
    setup.proxy.lose_replies(TABLES);
    assert_stored(&setup.send(&request(1 << 40, 0)).await);
    assert_eq!(setup.proxy.done(), TABLES);
    setup.check_stored_once(SPANS).await;
    // The token is the batch's, not the collector's: more spans are not mistaken for repeats.
    assert_stored(&setup.send(&request(2 << 40, 0)).await);
    setup.check_stored_once(2 * SPANS).await;
}

#[tokio::test]
async fn a_client_that_got_no_answer_and_repeats_is_stored_once() {
    let setup = Setup::new(PLENTY).await;
    let body = request(3 << 40, 0);
    setup.proxy.set(Mood::Holding).await;
    let unanswered = tokio::spawn(post(setup.collector.http_address(), PROTOBUF, body.clone()));
    // The insert is in, its reply is held back: now the client goes away.
    while setup.number("SELECT count() FROM spans").await < SPANS {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unanswered.abort();
    assert!(unanswered.await.unwrap_err().is_cancelled());
    let repeated = tokio::spawn(post(setup.collector.http_address(), PROTOBUF, body.clone()));
    setup.proxy.set(Mood::Honest).await;
    assert_stored(&repeated.await.unwrap());
    // And once more, long after.
    assert_stored(&setup.send(&body).await);
    setup.check_stored_once(SPANS).await;
}

#[tokio::test]
async fn while_clickhouse_is_away_a_client_is_not_told_to_retry_at_once() {
    let setup = Setup::new(PLENTY).await;
    setup.proxy.set(Mood::Away).await;
    let body = request(50 << 40, 0);
    // As long as SDKs wait. The official ones try six times with a second between: answers that come sooner use
    // these up before a store that restarts is back.
    let waiting = post(setup.collector.http_address(), PROTOBUF, body.clone());
    let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    assert!(answer.is_err(), "{answer:?}");
    setup.proxy.set(Mood::Honest).await;
    assert_stored(&setup.send(&body).await);
    setup.check_stored_once(SPANS).await;
    setup.collector.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn while_clickhouse_is_away_clients_are_told_to_retry_and_memory_is_bounded() {
    let limit = 8 << 20;
    let setup = Setup::new(limit).await;
    setup.proxy.set(Mood::Away).await;
    let body = request(4 << 40, 0);
    let mut senders = tokio::task::JoinSet::new();
    senders.spawn(post(setup.collector.http_address(), PROTOBUF, body.clone()));
    // Each about 500 kB: far more than fits.
    for seed in 5..45 {
        let large = request(seed << 40, 4_000);
        senders.spawn(post(setup.collector.http_address(), PROTOBUF, large));
    }
    while let Some(response) = senders.join_next().await {
        let response = response.unwrap();
        let status = response.status();
        let retryable = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::SERVICE_UNAVAILABLE,
        ];
        assert!(retryable.contains(&status), "{response:?}");
        let seconds = response.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u64>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0), "{response:?}");
        assert!(admitted_bytes(&setup.metrics()) <= limit as f64);
    }
    assert_eq!(setup.number("SELECT count() FROM spans").await, 0);
    setup.proxy.set(Mood::Honest).await;
    assert_stored(&setup.send(&body).await);
    setup.check_stored_once(SPANS).await;
    setup.collector.shutdown(DEADLINE).await.unwrap();
}

/// The memory that requests hold, as the metrics say.
fn admitted_bytes(metrics: &str) -> f64 {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("spanloom_admission_bytes "));
    line.expect("the metric is there").parse().unwrap()
}
