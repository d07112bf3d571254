//! A proxy before ClickHouse that misbehaves on request: it refuses connections, resets them, holds replies
//! back or loses them, and answers with errors of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, Response, StatusCode, header, request, response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BACKLOG: u32 = 1024;

/// How long a fault may take to happen: writers wait longer each time they fail.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the proxy does with what passes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Forwards everything.
    Honest,
    /// Forwards requests, keeps replies until the mood changes.
    Holding,
    /// Closes every connection and does not listen: new ones are refused.
    Away,
}

/// What is done to an insert.
#[derive(Debug, Clone)]
pub enum Misdeed {
    /// ClickHouse gets half of it, and both sides a reset.
    ResetMidRequest,
    /// It is committed, and its sender gets a reset.
    LoseReply,
    /// It is committed, and the reply comes after this time.
    SlowReply(Duration),
    /// It is not committed, and this is the reply.
    Answer(Answer),
    /// It is committed, and this is the reply all the same.
    CommitAndAnswer(Answer),
}

/// A reply that ClickHouse, or what stands before it, could have given.
#[derive(Debug, Clone)]
pub struct Answer {
    status: StatusCode,
    code: Option<u32>,
    text: String,
}

impl Answer {
    /// An answer that is not ClickHouse's own.
    pub fn status(status: u16) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap(),
            code: None,
            text: "<html>injected</html>".to_owned(),
        }
    }

    /// ClickHouse's error of this number.
    pub fn code(code: u32) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: Some(code),
            text: format!("Code: {code}. DB::Exception: injected. (INJECTED) (version 26.1)\n"),
        }
    }

    /// The same when ClickHouse has begun to answer with success already: the body says it.
    pub fn late_code(code: u32) -> Self {
        Self {
            status: StatusCode::OK,
            code: None,
            text: format!(
                "Code: {code}. DB::Exception: injected. (version 26.1 (official build))\n"
            ),
        }
    }

    /// The same error with this text in it.
    pub fn saying(mut self, text: &str) -> Self {
        self.text = self.text.replace("injected", text);
        self
    }

    fn response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.text)));
        *response.status_mut() = self.status;
        if let Some(code) = self.code {
            let name = HeaderName::from_static("x-clickhouse-exception-code");
            response.headers_mut().insert(name, code.into());
        }
        response
    }
}

/// Misdeeds that are still to be done.
#[derive(Debug)]
struct Plan {
    misdeed: Misdeed,
    left: usize,
    /// To inserts into this table only.
    table: Option<&'static str>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    mood: watch::Sender<Mood>,
    listening: watch::Sender<bool>,
    plan: Mutex<Option<Plan>>,
    /// Misdeeds done so far.
    done: watch::Sender<usize>,
    /// Inserts that ClickHouse has confirmed so far, whatever was replied.
    committed: watch::Sender<usize>,
}

/// The proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Listens before `upstream`, like `127.0.0.1:8123`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = bound((Ipv4Addr::LOCALHOST, 0).into())
            .listen(BACKLOG)
            .unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            upstream,
            // A connection for each request: one that ClickHouse closes as it is used would be a fault that
            // nobody has asked for.
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build_http(),
            mood: watch::Sender::new(Mood::Honest),
            listening: watch::Sender::new(true),
            plan: Mutex::default(),
            done: watch::Sender::new(0),
            committed: watch::Sender::new(0),
        });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, state.clone()));
        Self {
            address,
            state,
            _task: task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the mood; when it returns, new connections meet it.
    pub async fn set(&self, mood: Mood) {
        self.state.mood.send_replace(mood);
        let mut listening = self.state.listening.subscribe();
        let wanted = mood != Mood::Away;
        listening
            .wait_for(|listening| *listening == wanted)
            .await
            .unwrap();
    }

    /// The next `count` replies to inserts never arrive.
    pub fn lose_replies(&self, count: usize) {
        self.misbehave(Misdeed::LoseReply, count, None);
    }

    /// Does this to the next `count` inserts, of one table or of all.
    pub fn misbehave(&self, misdeed: Misdeed, count: usize, table: Option<&'static str>) {
        let plan = Plan {
            misdeed,
            left: count,
            table,
        };
        *self.state.plan() = Some(plan);
    }

    /// What was not done yet is not done any more.
    pub fn forgive(&self) {
        *self.state.plan() = None;
    }

    /// Misdeeds so far.
    pub fn done(&self) -> usize {
        *self.state.done.borrow()
    }

    /// Waits for that many misdeeds.
    pub async fn wait_done(&self, count: usize) {
        reaches(&self.state.done, count, "misdeeds").await;
    }

    /// Waits until ClickHouse has confirmed so many more inserts.
    pub async fn wait_committed(&self, more: usize) {
        let enough = *self.state.committed.borrow() + more;
        reaches(&self.state.committed, enough, "inserts").await;
    }
}

/// Waits for a counter.
///
/// # Panics
/// When that takes too long.
async fn reaches(counter: &watch::Sender<usize>, enough: usize, what: &str) {
    let mut counter = counter.subscribe();
    let waiting = counter.wait_for(|count| *count >= enough);
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{enough} {what} have not come");
}

impl State {
    fn plan(&self) -> std::sync::MutexGuard<'_, Option<Plan>> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done to this request.
    fn misdeed(&self, request: &request::Parts) -> Option<Misdeed> {
        let table = inserted_into(request)?;
        let mut plan = self.plan();
        let next = plan.as_mut()?;
        if next.table.is_some_and(|wanted| wanted != table) {
            return None;
        }
        let misdeed = next.misdeed.clone();
        next.left -= 1;
        if next.left == 0 {
            *plan = None;
        }
        Some(misdeed)
    }
}

/// The table of an insert, which our client names in the query of its URL.
fn inserted_into(request: &request::Parts) -> Option<String> {
    let query = request.uri.query()?;
    let (_, statement) = query.split_once("query=INSERT")?;
    let statement = statement.split('&').next()?;
    // `database`.`table` (columns…, with every mark escaped or not.
    let plain = statement.replace("%60", "`").replace("%2E", ".");
    let (_, table) = plain.split_once('.')?;
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    Some(
        table
            .trim_start_matches('`')
            .chars()
            .take_while(is_name)
            .collect(),
    )
}

/// A socket at the address, also while another of ours has it.
fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    let mut mood = state.mood.subscribe();
    let mut connections = JoinSet::new();
    loop {
        if *mood.borrow_and_update() == Mood::Away {
            // A socket that is bound and does not listen refuses connections and reserves the port.
            let reserved = bound(address);
            drop(listener.take());
            connections.shutdown().await;
            state.listening.send_replace(false);
            if mood.wait_for(|mood| *mood != Mood::Away).await.is_err() {
                return;
            }
            listener = Some(reserved.listen(BACKLOG).unwrap());
            state.listening.send_replace(true);
        }
        let Some(open) = &listener else { return };
        tokio::select! {
            accepted = open.accept() => {
                let Ok((client, _)) = accepted else { return };
                connections.spawn(connection(client, state.clone()));
            }
            // Those that have ended are of no more use.
            Some(_) = connections.join_next() => {}
            changed = mood.changed() => if changed.is_err() { return },
        }
    }
}

/// Closed without a word when a request ends without a response.
async fn connection(client: TcpStream, state: Arc<State>) {
    // Closed is reset: what the proxy closes by itself it means to break off.
    if client.set_zero_linger().is_err() {
        return;
    }
    let service = service_fn(|request| handle(request, &state));
    let served = http1::Builder::new().serve_connection(TokioIo::new(client), service);
    // Its end is the client's, or a misdeed.
    let _ = served.await;
}

/// The connection is to be closed.
#[derive(Debug, thiserror::Error)]
#[error("broken off")]
struct BrokenOff;

async fn handle(
    request: Request<Incoming>,
    state: &State,
) -> Result<Response<Full<Bytes>>, BrokenOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| BrokenOff)?.to_bytes();
    let misdeed = state.misdeed(&head);
    let count = || state.done.send_modify(|done| *done += 1);
    match &misdeed {
        Some(Misdeed::ResetMidRequest) => {
            half(state.upstream, &head, &body).await;
            count();
            return Err(BrokenOff);
        }
        Some(Misdeed::Answer(answer)) => {
            count();
            return Ok(answer.clone().response());
        }
        _ => {}
    }
    let is_insert = inserted_into(&head).is_some();
    let (head, body) = forward(state, head, body).await.ok_or(BrokenOff)?;
    if is_insert && head.status.is_success() {
        state.committed.send_modify(|committed| *committed += 1);
    }
    let honest = Response::from_parts(head, Full::new(body));
    match misdeed {
        None => {}
        Some(Misdeed::LoseReply) => {
            count();
            return Err(BrokenOff);
        }
        Some(Misdeed::CommitAndAnswer(answer)) => {
            count();
            return Ok(answer.response());
        }
        Some(Misdeed::SlowReply(time)) => {
            count();
            tokio::time::sleep(time).await;
        }
        Some(Misdeed::ResetMidRequest | Misdeed::Answer(_)) => unreachable!("done before"),
    }
    let mut mood = state.mood.subscribe();
    let told = mood.wait_for(|mood| *mood != Mood::Holding).await;
    told.map_err(|_| BrokenOff)?;
    Ok(honest)
}

/// The response to a request; none if the connection fails.
async fn forward(
    state: &State,
    mut head: request::Parts,
    body: Bytes,
) -> Option<(response::Parts, Bytes)> {
    let path = head.uri.path_and_query()?;
    head.uri = format!("http://{}{path}", state.upstream).parse().ok()?;
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::HOST);
    let request = Request::from_parts(head, Full::new(body));
    let (mut head, body) = state.client.request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    head.headers.remove(header::TRANSFER_ENCODING);
    head.headers.remove(header::CONTENT_LENGTH);
    Some((head, body))
}

/// Sends half of a request and then a reset.
async fn half(upstream: SocketAddr, head: &request::Parts, body: &Bytes) {
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    let mut bytes = format!(
        "{} {} HTTP/1.1\r\nhost: {upstream}\r\n",
        head.method, head.uri
    );
    for (name, value) in &head.headers {
        if ![
            header::HOST,
            header::TRANSFER_ENCODING,
            header::CONTENT_LENGTH,
        ]
        .contains(name)
        {
            let value = String::from_utf8_lossy(value.as_bytes());
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    bytes.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let mut bytes = bytes.into_bytes();
    bytes.extend_from_slice(&body[..body.len() / 2]);
    // ClickHouse may be away as well.
    let _ = server.write_all(&bytes).await;
    let _ = server.set_zero_linger();
}
