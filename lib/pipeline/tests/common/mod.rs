//! A pipeline that listens, a store that does as it is told, and clients.

#![allow(dead_code)] // each test file uses its part

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus_client::registry::Registry;
use prost::Message as _;
use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_pipeline::config::Listener;
use spanloom_pipeline::durable::History;
use spanloom_pipeline::measure::{AccountRow, Measures};
use spanloom_pipeline::receive::Transport;
use spanloom_pipeline::{Batch, Config, Export, ExportOutcome, Freeze, Server, Trouble};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

/// The spans of a batch by their ids.
pub struct FakeBatch {
    pub id: u128,
    pub spans: Vec<[u8; 8]>,
    /// The services, one for each resource.
    pub services: Vec<String>,
    /// Sealing it panics.
    pub cannot_be_sealed: bool,
    /// Freezing it panics.
    pub cannot_be_frozen: bool,
}

impl Default for FakeBatch {
    fn default() -> Self {
        Self {
            id: rand::random(),
            spans: Vec::new(),
            services: Vec::new(),
            cannot_be_sealed: false,
            cannot_be_frozen: false,
        }
    }
}

/// What a batch becomes.
pub struct FakeFrozen {
    id: u128,
    spans: Vec<[u8; 8]>,
    services: Vec<String>,
    measures: Measures,
}

impl SpanSink for FakeBatch {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.services.push(resource.service.to_owned());
    }

    fn scope(&mut self, _: &ScopeRecord<'_>) {}
    fn span(&mut self, span: &SpanRecord<'_>) {
        if span.name == "panic" {
            panic!("as the test asked");
        }
        self.cannot_be_sealed |= span.name == "panic when sealed";
        self.cannot_be_frozen |= span.name == "panic when frozen";
        self.spans.push(span.span_id);
    }
}

impl Batch for FakeBatch {
    type Frozen = FakeFrozen;

    fn id(&self) -> u128 {
        self.id
    }

    fn set_id(&mut self, id: u128) {
        self.id = id;
    }

    fn rows(&self) -> usize {
        self.spans.len()
    }

    fn bytes(&self) -> usize {
        self.spans.len() * 500
    }

    fn seal(&mut self, measures: Measures) -> Freeze<Self::Frozen> {
        assert!(!self.cannot_be_sealed, "as the test asked");
        let poisoned = std::mem::take(&mut self.cannot_be_frozen);
        let frozen = FakeFrozen {
            id: std::mem::replace(&mut self.id, rand::random()),
            spans: std::mem::take(&mut self.spans),
            services: std::mem::take(&mut self.services),
            measures,
        };
        Box::new(move || {
            assert!(!poisoned, "as the test asked");
            frozen
        })
    }
}

type Behave = Box<dyn Fn(&[[u8; 8]]) -> ExportOutcome + Send + Sync>;

/// Remembers what was stored; how exports end, and when, is for the test to say.
pub struct Store {
    pub stored: Mutex<Vec<[u8; 8]>>,
    pub measured: Mutex<u64>,
    /// The batches that are stored, by their ids.
    pub batch_ids: Mutex<HashMap<u128, Vec<[u8; 8]>>>,
    pub services: Mutex<Vec<String>>,
    pub accounts: Mutex<Vec<AccountRow>>,
    pub batches: watch::Sender<usize>,
    pub trouble: Mutex<Option<Trouble>>,
    behave: Mutex<Behave>,
    /// A permit for each export that may end.
    pub gate: Option<Semaphore>,
}

#[derive(Clone)]
pub struct FakeExport(pub Arc<Store>);

impl Export for FakeExport {
    type Frozen = FakeFrozen;

    fn trouble(&self) -> Option<Trouble> {
        self.0.trouble.lock().unwrap().clone()
    }

    async fn export(&self, frozen: FakeFrozen, _: &History) -> ExportOutcome {
        let FakeFrozen {
            id,
            spans,
            services,
            measures,
        } = frozen;
        let store = &self.0;
        store.batches.send_modify(|batches| *batches += 1);
        if let Some(gate) = &store.gate {
            gate.acquire().await.unwrap().forget();
        }
        let outcome = {
            // A test may have it panic.
            let behave = store.behave.lock().unwrap_or_else(PoisonError::into_inner);
            behave(&spans)
        };
        if let ExportOutcome::Unavailable(_) = outcome {
            return outcome;
        }
        // As ClickHouse does with what it has of a token.
        if store
            .batch_ids
            .lock()
            .unwrap()
            .insert(id, spans.clone())
            .is_some()
        {
            return outcome;
        }
        *store.measured.lock().unwrap() += measures.red.iter().map(|cell| cell.count).sum::<u64>();
        store.accounts.lock().unwrap().extend(measures.accounts);
        store.services.lock().unwrap().extend(services);
        store.stored.lock().unwrap().extend(spans);
        outcome
    }
}

impl Store {
    pub fn behave(&self, behave: impl Fn(&[[u8; 8]]) -> ExportOutcome + Send + Sync + 'static) {
        let mut current = self.behave.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Box::new(behave);
    }

    pub fn len(&self) -> usize {
        self.stored.lock().unwrap().len()
    }

    /// The accounts: spans by stage and reason.
    pub fn account(&self, stage: &str, reason: &str) -> u64 {
        let rows = self.accounts.lock().unwrap();
        let matching = rows
            .iter()
            .filter(|row| (&*row.stage, &*row.reason) == (stage, reason));
        matching.map(|row| row.spans).sum()
    }

    /// Waits until so many exports have begun.
    pub async fn begun(&self, batches: usize) {
        self.batches
            .subscribe()
            .wait_for(|&seen| seen >= batches)
            .await
            .unwrap();
    }
}

/// A listening pipeline and its store.
pub struct Pipeline {
    pub server: Server,
    pub store: Arc<Store>,
    pub registry: Registry,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

pub fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A configuration that answers fast.
pub fn quick() -> Config {
    let mut config = Config {
        listeners: vec![Listener::grpc(any_port()), Listener::http(any_port())],
        workers: 2,
        ..Config::default()
    };
    config.batch.max_age = Duration::from_millis(10);
    config
}

pub fn start(config: Config) -> Pipeline {
    start_gated(config, None)
}

/// Exports end only when the test gives permits to the gate.
pub fn start_gated(config: Config, gate: Option<Semaphore>) -> Pipeline {
    start_on(config, new_store(gate))
}

/// A trouble that passes, or does not.
pub fn trouble(message: &str, lasts: bool) -> Option<Trouble> {
    let message = message.to_owned();
    Some(Trouble { message, lasts })
}

/// A store that takes everything.
pub fn new_store(gate: Option<Semaphore>) -> Arc<Store> {
    Arc::new(Store {
        batch_ids: Mutex::default(),
        stored: Mutex::default(),
        measured: Mutex::default(),
        services: Mutex::default(),
        accounts: Mutex::default(),
        batches: watch::channel(0).0,
        trouble: Mutex::default(),
        behave: Mutex::new(Box::new(|_| ExportOutcome::Stored)),
        gate,
    })
}

/// A pipeline before a store that is there already.
pub fn start_on(config: Config, store: Arc<Store>) -> Pipeline {
    let listeners = config.listeners.clone();
    let mut registry = Registry::default();
    let export = FakeExport(Arc::clone(&store));
    let server = Server::start(config, FakeBatch::default, export, &mut registry).unwrap();
    // Of the test's own listeners, the first of each kind.
    let address_of = |transport| {
        let found = listeners.iter().position(|it| it.transport == transport);
        found.map_or_else(any_port, |at| server.addresses()[at])
    };
    let (grpc, http) = (address_of(Transport::Grpc), address_of(Transport::Http));
    Pipeline {
        server,
        store,
        registry,
        grpc,
        http,
    }
}

impl Pipeline {
    /// The value of a metric line that begins with `line`.
    pub fn metric(&self, line: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let found = text.lines().find(|candidate| candidate.starts_with(line));
        let value = found.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or(0)
    }

    pub async fn post(&self, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        request(self.http, Method::POST, "/v1/traces", headers, body).await
    }

    pub async fn protobuf(&self, body: impl Into<Bytes>) -> Answer {
        self.post(&[("content-type", "application/x-protobuf")], body)
            .await
    }

    pub async fn json(&self, body: impl Into<Bytes>) -> Answer {
        self.post(&[("content-type", "application/json")], body)
            .await
    }

    pub async fn export(&self, message: &[u8]) -> Answer {
        self.export_with(&[], message, 0).await
    }

    pub async fn export_with(&self, headers: &[(&str, &str)], message: &[u8], flag: u8) -> Answer {
        grpc(self.grpc, TRACES, headers, framed(flag, message)).await
    }
}

pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &len[..], message].concat()
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name).or_else(|| self.trailers.get(name))?;
        Some(value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The message of a gRPC answer.
    pub fn message(&self) -> &[u8] {
        &self.body[5..]
    }

    pub fn grpc_status(&self) -> i32 {
        self.header("grpc-status").unwrap().parse().unwrap()
    }
}

pub async fn collect(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    }
}

pub async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    collect(sender.send_request(request).await.unwrap()).await
}

pub type GrpcClient = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

pub async fn grpc_client(address: SocketAddr) -> GrpcClient {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

pub async fn grpc_call(
    client: &mut GrpcClient,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let mut request = Request::post(format!("http://test{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    client.ready().await.unwrap();
    collect(client.send_request(request).await.unwrap()).await
}

pub async fn grpc(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    grpc_call(&mut grpc_client(address).await, path, headers, body).await
}

pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64
}

/// A span whose id is this number.
pub fn span(id: u64) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: id.to_be_bytes().to_vec(),
        name: "GET".into(),
        start_time_unix_nano: now_ns(),
        end_time_unix_nano: now_ns() + 1000,
        ..Span::default()
    }
}

pub fn request_of(spans: Vec<Span>) -> Vec<u8> {
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// A request of so many spans with ids from `first` on.
pub fn spans(first: u64, count: u64) -> Vec<u8> {
    request_of((first..first + count).map(span).collect())
}
