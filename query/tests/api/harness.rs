//! An engine with our schema, a query service on it, and ways to put spans in.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use prometheus_client::registry::Registry;
use serde_json::Value;
use spanloom_engine::testing::TestEngine;
use spanloom_query::{Access, ClickHouseConfig, Health, Limits, Metrics, QueryConfig, Server};
use spanloom_store::migrate::statements;
use spanloom_store::schema::SchemaOptions;

use crate::schema;

/// A minute in 2026, so that windows in tests are easy to write.
pub const T0: i64 = 1_780_000_020;

/// Nanoseconds of a time `offset_ms` after [`T0`].
pub fn at_ms(offset_ms: i64) -> i64 {
    T0 * 1_000_000_000 + offset_ms * 1_000_000
}

/// What an answer is.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub headers: http::HeaderMap,
    pub body: Value,
    pub text: String,
}

/// A query service and the engine below it.
pub struct Service {
    pub address: SocketAddr,
    clickhouse: clickhouse::Client,
    config: ClickHouseConfig,
    document: Value,
    _server: Server,
    _engine: TestEngine,
}

impl Service {
    pub async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        spanloom_program::logs::init("warn");
        let engine = TestEngine::start().await;
        let clickhouse = clickhouse::Client::default()
            .with_url(engine.url())
            .with_user(engine.user())
            .with_password(engine.password());
        // The spans of these tests are of a fixed day, which must not be past its retention.
        let ten_years = Duration::from_secs(10 * 365 * 86_400);
        let options = SchemaOptions {
            retention: ten_years,
            ..SchemaOptions::default()
        };
        for statement in statements(&options) {
            clickhouse
                .query_raw(&statement)
                .execute()
                .await
                .expect(&statement);
        }
        // Tests insert equal rows, which a table that remembers its inserts would leave out.
        let clickhouse = clickhouse
            .with_database("spanloom")
            .with_setting("deduplicate_insert", "disable");
        let config = ClickHouseConfig {
            url: engine.url(),
            user: engine.user().to_owned(),
            password: engine.password().to_owned(),
            credentials_dir: None,
            database: "spanloom".to_owned(),
            ca_file: None,
        };
        let server = serve(config.clone(), limits).await;
        let address = server.address();
        let document = ask(address, "GET", "/api/v1/openapi.json").await.body;
        Self {
            address,
            clickhouse,
            config,
            document,
            _server: server,
            _engine: engine,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The engine below it.
    pub fn clickhouse(&self) -> ClickHouseConfig {
        self.config.clone()
    }

    /// Another query service on the same engine.
    pub async fn beside(&self, access: Access) -> Server {
        serve_to(self.config.clone(), Limits::default(), access).await
    }

    /// Runs a statement beside the service.
    pub async fn sql(&self, statement: &str) {
        self.clickhouse
            .query_raw(statement)
            .execute()
            .await
            .expect(statement);
    }

    /// Inserts spans, and what the writer would put beside them.
    pub async fn insert(&self, spans: &[Span]) {
        let columns =
            |span: &Span| -> Vec<_> { span.columns().into_iter().map(|(name, _)| name).collect() };
        // An insert's rows have the same columns; more than 500 make a long statement.
        for chunk in spans.chunk_by(|one, next| columns(one) == columns(next)) {
            for chunk in chunk.chunks(500) {
                let mut sql = format!("INSERT INTO spans ({})", columns(&chunk[0]).join(", "));
                for (place, span) in chunk.iter().enumerate() {
                    let values: Vec<_> =
                        span.columns().into_iter().map(|(_, value)| value).collect();
                    let union = if place == 0 { " " } else { " UNION ALL " };
                    write!(sql, "{union}SELECT {}", values.join(", ")).unwrap();
                }
                self.sql(&sql).await;
            }
        }
        self.index().await;
    }

    /// Fills the trace index and the RED rollup from all spans.
    pub async fn index(&self) {
        self.sql("TRUNCATE TABLE trace_index").await;
        self.sql("TRUNCATE TABLE red").await;
        self.sql("TRUNCATE TABLE red_hours").await;
        self.sql(
            "INSERT INTO trace_index (day, trace_id, start, end, root_service, root_name, \
             span_count, error_count) SELECT toDate(min(time)), trace_id, min(time), \
             fromUnixTimestamp64Nano(max(toUnixTimestamp64Nano(time) + toInt64(duration_ns))), \
             max(if(parent_span_id = toFixedString('', 8), toString(service), '')), \
             max(if(parent_span_id = toFixedString('', 8), toString(name), '')), \
             count(), countIf(status = 'ERROR') FROM spans GROUP BY trace_id",
        )
        .await;
        self.sql(
            "INSERT INTO red (minute, service, name, kind, status, count, duration_sum_ns, buckets, \
             duration_min_ns, duration_max_ns) \
             SELECT toStartOfMinute(time) AS minute, service, name, kind, status, count(), \
             sum(duration_ns), sumMap(map(toInt16(greatest(-168, least(240, \
             ceil(8 * log2(duration_ns / 2000000))))), toUInt64(1))), \
             min(duration_ns), max(duration_ns) FROM spans GROUP BY minute, service, name, kind, status",
        )
        .await;
    }

    /// Asks for `path`, which begins with a slash.
    pub async fn ask(&self, path: &str) -> Answer {
        ask(self.address, "GET", path).await
    }

    /// Asks the API for `route` (a path pattern of the document) and checks the answer against it.
    pub async fn get(&self, route: &str, path: &str) -> Value {
        let answer = self.ask(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert_eq!(answer.content_type, "application/json", "{path}");
        schema::check_answer(&self.document, route, "200", &answer.body);
        answer.body
    }

    /// Searches with `query` over the hours around [`T0`].
    pub async fn search(&self, query: &str) -> Value {
        let window = format!("start={}&end={}", T0 - 7200, T0 + 7200);
        self.get(
            "/api/v1/traces",
            &format!("/api/v1/traces?{window}&{query}"),
        )
        .await
    }
}

/// A query service on a free port.
pub async fn serve(clickhouse: ClickHouseConfig, limits: Limits) -> Server {
    serve_to(clickhouse, limits, Access::default()).await
}

/// The same, with who may ask.
pub async fn serve_to(clickhouse: ClickHouseConfig, limits: Limits, access: Access) -> Server {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let config = QueryConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        clickhouse,
        limits,
        access,
    };
    Server::start(config, metrics, Arc::new(registry), Health::new(|| None))
        .await
        .unwrap()
}

/// Sends one request.
pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    ask_as(address, method, path, None).await
}

/// Sends one request with an `Authorization` header.
pub async fn ask_as(
    address: SocketAddr,
    method: &str,
    path: &str,
    authorization: Option<&str>,
) -> Answer {
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = client.request(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let content_type = parts
        .headers
        .get("content-type")
        .map(|value| value.to_str().unwrap());
    Answer {
        status: parts.status.as_u16(),
        content_type: content_type.unwrap_or_default().to_owned(),
        headers: parts.headers.clone(),
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    }
}

/// A span to insert; what a test does not say is ordinary.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: u128,
    pub id: u64,
    pub parent: u64,
    pub start_ns: i64,
    pub duration_ns: u64,
    pub service: String,
    pub name: String,
    pub kind: &'static str,
    pub status: &'static str,
    /// Columns and the SQL of their values.
    pub more: Vec<(&'static str, String)>,
}

pub fn span(trace: u128, id: u64, parent: u64, start_ms: i64) -> Span {
    Span {
        trace,
        id,
        parent,
        start_ns: at_ms(start_ms),
        duration_ns: 5_000_000,
        service: "cart".to_owned(),
        name: "GET /cart".to_owned(),
        kind: "SERVER",
        status: "UNSET",
        more: Vec::new(),
    }
}

impl Span {
    pub fn service(mut self, service: &str) -> Self {
        self.service = service.to_owned();
        self
    }

    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    pub fn takes_ms(mut self, ms: u64) -> Self {
        self.duration_ns = ms * 1_000_000;
        self
    }

    pub fn is(mut self, kind: &'static str, status: &'static str) -> Self {
        self.kind = kind;
        self.status = status;
        self
    }

    /// A column with the SQL of its value.
    pub fn with(mut self, column: &'static str, value: &str) -> Self {
        self.more.push((column, value.to_owned()));
        self
    }

    fn columns(&self) -> Vec<(&'static str, String)> {
        let text = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let id = |id: u64| format!("toFixedString(unhex('{id:016x}'), 8)");
        let mut columns = vec![
            (
                "time",
                format!("fromUnixTimestamp64Nano(toInt64({}))", self.start_ns),
            ),
            ("duration_ns", format!("toUInt64({})", self.duration_ns)),
            ("service", text(&self.service)),
            ("name", text(&self.name)),
            ("kind", text(self.kind)),
            ("status", text(self.status)),
            (
                "trace_id",
                format!("toFixedString(unhex('{:032x}'), 16)", self.trace),
            ),
            ("span_id", id(self.id)),
            ("parent_span_id", id(self.parent)),
        ];
        let mut more = self.more.clone();
        let given = |name: &str| self.more.iter().any(|(column, _)| *column == name);
        if !given("resource") {
            let json = format!(
                "{{\"service.name\":\"{}\",\"cloud.zone\":\"z1\"}}",
                self.service
            );
            more.push(("resource", text(&json)));
        }
        columns.extend(more);
        columns
    }
}
