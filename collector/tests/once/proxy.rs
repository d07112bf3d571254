//! A proxy before ClickHouse that misbehaves on request: it loses replies after the commit, holds
//! them back, or is away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BACKLOG: u32 = 1024;

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

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    mood: watch::Sender<Mood>,
    listening: watch::Sender<bool>,
    /// Replies to inserts that will still be lost.
    lose: AtomicUsize,
    lost: AtomicUsize,
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
            mood: watch::Sender::new(Mood::Honest),
            listening: watch::Sender::new(true),
            lose: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
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
        self.state.lose.store(count, Ordering::SeqCst);
    }

    /// Replies lost so far.
    pub fn lost(&self) -> usize {
        self.state.lost.load(Ordering::SeqCst)
    }
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
            changed = mood.changed() => if changed.is_err() { return },
        }
    }
}

/// Ends, and so closes both sides, when either closes or a reply is lost.
async fn connection(client: TcpStream, state: Arc<State>) {
    let mut mood = state.mood.subscribe();
    let away = async move { mood.wait_for(|mood| *mood == Mood::Away).await.is_ok() };
    let Ok(server) = TcpStream::connect(state.upstream).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whether the request under way is an insert.
    let insert = Arc::new(AtomicUsize::new(0));
    tokio::select! {
        _ = away => {}
        () = requests(from_client, to_server, insert.clone()) => {}
        () = replies(from_server, to_client, state.clone(), insert) => {}
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, insert: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let part = &buffer[..read];
        // A request's head comes in one piece: our client writes it with one call.
        if part.starts_with(b"POST ") {
            let head = String::from_utf8_lossy(part);
            let first = head.lines().next().unwrap_or_default().to_owned();
            insert.store(usize::from(first.contains("INSERT")), Ordering::SeqCst);
        }
        if to.write_all(part).await.is_err() {
            return;
        }
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    state: Arc<State>,
    insert: Arc<AtomicUsize>,
) {
    let mut mood = state.mood.subscribe();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let one_less = |left: usize| left.checked_sub(1);
        let is_insert = insert.load(Ordering::SeqCst) == 1;
        if is_insert
            && state
                .lose
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
                .is_ok()
        {
            state.lost.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if mood.wait_for(|mood| *mood != Mood::Holding).await.is_err()
            || to.write_all(&buffer[..read]).await.is_err()
        {
            return;
        }
    }
}
