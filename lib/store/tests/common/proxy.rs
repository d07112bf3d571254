//! A proxy between the writer and ClickHouse that does as it is told.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// What happens to one insert.
#[derive(Clone)]
pub enum Action {
    /// It goes through.
    Forward,
    /// ClickHouse stores it, and the answer is lost.
    LoseReply,
    /// The connection breaks before ClickHouse has it.
    LoseRequest,
    /// ClickHouse never sees it; this is the answer: status, a header, body.
    Answer(u16, Option<(&'static str, &'static str)>, &'static str),
}

/// An insert that came by.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub table: String,
    pub token: String,
    pub body: Bytes,
}

/// What ClickHouse did not store although it went through: the machine was too busy for it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub table: String,
    /// What was said instead.
    #[expect(dead_code, reason = "a failed assertion prints it")]
    pub reason: String,
}

type Script = dyn Fn(&str, usize) -> Action + Send + Sync;

struct State {
    upstream: String,
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    attempts: Mutex<HashMap<String, usize>>,
    failures: Mutex<Vec<Failure>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A running proxy; its tasks end with the test's runtime.
pub struct Proxy {
    pub url: String,
    state: Arc<State>,
}

impl Proxy {
    /// `script` is asked for each insert: its table, and how many came for that before.
    pub async fn start(
        upstream: &str,
        script: impl Fn(&str, usize) -> Action + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            script: Box::new(script),
            seen: Mutex::default(),
            attempts: Mutex::default(),
            failures: Mutex::default(),
            // A connection that ClickHouse closes while it is idle would be one more fault.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
        });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| handle(Arc::clone(&state), request));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, state }
    }

    /// The inserts so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state
            .seen
            .lock()
            .expect("no test panicked here")
            .clone()
    }

    /// The inserts that failed although they went through.
    pub fn failures(&self) -> Vec<Failure> {
        self.state
            .failures
            .lock()
            .expect("no test panicked here")
            .clone()
    }
}

impl State {
    fn failed(&self, table: &str, reason: String) {
        let failure = Failure {
            table: table.to_owned(),
            reason,
        };
        self.failures
            .lock()
            .expect("no test panicked here")
            .push(failure);
    }
}

fn token(query: &str) -> String {
    let (_, rest) = query
        .split_once("insert_deduplication_token=")
        .unwrap_or_default();
    rest.split('&')
        .next()
        .unwrap_or_default()
        .replace("%3A", ":")
}

async fn handle(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let lost = |_| std::io::Error::other("the connection breaks");
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(lost)?.to_bytes();
    let token = token(parts.uri.query().unwrap_or_default());
    let table = token.split_once('-').map_or("", |(_, table)| table);
    let table = table.split(':').next().unwrap_or_default().to_owned();
    let attempt = {
        let mut attempts = state.attempts.lock().expect("no test panicked here");
        let attempt = attempts.entry(table.clone()).or_default();
        *attempt += 1;
        *attempt - 1
    };
    let action = (state.script)(&table, attempt);
    let seen = Seen {
        table: table.clone(),
        token,
        body: body.clone(),
    };
    state.seen.lock().expect("no test panicked here").push(seen);
    match action {
        Action::LoseRequest => return Err(std::io::Error::other("the connection breaks")),
        Action::Answer(status, header, text) => {
            let mut answer = Response::builder().status(status);
            if let Some((name, value)) = header {
                answer = answer.header(name, value);
            }
            return Ok(answer.body(Full::from(text)).expect("a response"));
        }
        Action::Forward | Action::LoseReply => {}
    }
    let uri = format!("{}{}", state.upstream, parts.uri);
    let mut forwarded = Request::builder().method(parts.method).uri(uri);
    for (name, value) in &parts.headers {
        if name != "host" && name != "transfer-encoding" && name != "content-length" {
            forwarded = forwarded.header(name, value);
        }
    }
    let forwarded = forwarded.body(Full::new(body)).expect("a request");
    // A reply that is lost makes the writer repeat the insert, whatever it was.
    let is_forwarded = matches!(action, Action::Forward);
    let broken = |error: &dyn std::error::Error| {
        if is_forwarded {
            state.failed(&table, error.to_string());
        }
        std::io::Error::other("the connection to ClickHouse breaks")
    };
    let answer = state.client.request(forwarded).await;
    let (parts, body) = answer.map_err(|error| broken(&error))?.into_parts();
    let body = body
        .collect()
        .await
        .map_err(|error| broken(&error))?
        .to_bytes();
    if is_forwarded && !parts.status.is_success() {
        state.failed(&table, String::from_utf8_lossy(&body).into_owned());
    }
    if !is_forwarded {
        return Err(std::io::Error::other("the reply is lost"));
    }
    Ok(Response::from_parts(parts, Full::new(body)))
}
