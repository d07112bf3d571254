//! The load generator: seeded OTLP over gRPC, as cheap for the sender as can be.
//!
//! Bodies are encoded and compressed once ([`body`]); sending one copies a few bytes. The generator runs on
//! a thread of its own with a single-threaded runtime, so that its share of the machine can be read and
//! pinned apart from the collector's.

pub mod body;
mod corpus;
mod grpc;
pub mod rng;

use anyhow::Context;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

use body::{Body, Compression};
use grpc::{Answer, Connection};

/// What to send.
#[derive(Debug, Clone)]
pub struct Load {
    /// Prepared bodies, sent in turn.
    pool: Vec<Body>,
    compression: Compression,
}

/// How fast to send it.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// As fast as answers come back, with so many requests under way.
    Closed {
        /// Requests under way at once.
        in_flight: usize,
    },
    /// So many spans a second, whatever the answers are, up to a limit of requests under way (a real
    /// crowd of senders has one too: its own queues).
    Open {
        /// Spans a second.
        spans_per_second: f64,
        /// Requests under way at once; a tick that finds none free is counted as not sent.
        in_flight: usize,
    },
}

/// What became of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Spans acknowledged.
    pub acked: u64,
    /// Spans in requests refused with leave to retry.
    pub retryable: u64,
    /// Spans in requests refused for good.
    pub refused: u64,
    /// Spans in requests whose answer never came: their connection broke.
    pub lost: u64,
    /// Connections that broke and were opened again.
    pub reconnects: u64,
    /// Spans an open pace should have sent while all places were taken.
    pub not_sent: u64,
    /// How long it took.
    pub seconds: f64,
    /// How long each acknowledgement took from the moment its request was sent, in milliseconds.
    pub acked_after_ms: Vec<f64>,
}

const CONNECTIONS: usize = 4;
/// When the server names no delay.
const DEFAULT_RETRY: Duration = Duration::from_millis(100);

impl Load {
    /// Prepares `pool` bodies of spans of `payload_bytes`.
    pub fn new(
        seed: u64,
        pool: usize,
        payload_bytes: usize,
        compression: Compression,
    ) -> anyhow::Result<Self> {
        let spans = corpus::spans_per_request(payload_bytes);
        Self::of(seed, pool, spans, payload_bytes, compression)
    }

    /// Prepares `pool` bodies of so many spans of `payload_bytes`.
    pub fn of(
        seed: u64,
        pool: usize,
        spans: usize,
        payload_bytes: usize,
        compression: Compression,
    ) -> anyhow::Result<Self> {
        // Receivers may refuse spans of long ago, so the clock is the one thing that is not seeded.
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_nanos() as u64;
        let pool = corpus::requests(seed, pool, spans, payload_bytes, now)
            .into_iter()
            .map(|request| Body::new(request.bytes, request.spans, compression))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { pool, compression })
    }

    /// Sends for `time` from a thread of its own and waits for the last answer.
    pub fn run(&self, to: SocketAddr, pace: Pace, time: Duration) -> anyhow::Result<Outcome> {
        let load = self.clone();
        let sender = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, load.send(to, pace, time))
            })?;
        sender
            .join()
            .map_err(|_| anyhow::anyhow!("the load generator panicked"))?
    }

    async fn send(self, to: SocketAddr, pace: Pace, time: Duration) -> anyhow::Result<Outcome> {
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(Connection::open(to, self.compression).await?);
        }
        let shared = Rc::new(Shared {
            load: self,
            // Of this moment, so that a second run against the same collector repeats nothing.
            counter: Cell::new(
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)?
                    .as_nanos() as u64,
            ),
            outcome: RefCell::default(),
            said: Cell::default(),
        });
        let started = Instant::now();
        let end = started + time;
        match pace {
            Pace::Closed { in_flight } => {
                let mut workers = JoinSet::new();
                for index in 0..in_flight {
                    let connection = connections
                        .get(index % CONNECTIONS)
                        .context("a connection")?
                        .clone();
                    workers.spawn_local(closed(Rc::clone(&shared), connection, end));
                }
                while let Some(done) = workers.join_next().await {
                    done??;
                }
            }
            Pace::Open {
                spans_per_second,
                in_flight,
            } => {
                let senders = Senders {
                    to,
                    connections,
                    in_flight,
                };
                open(&shared, senders, spans_per_second, end).await?;
            }
        }
        let mut outcome = shared.outcome.take();
        outcome.seconds = started.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

/// Who sends at an open pace.
struct Senders {
    to: SocketAddr,
    connections: Vec<Connection>,
    in_flight: usize,
}

struct Shared {
    load: Load,
    counter: Cell<u64>,
    outcome: RefCell<Outcome>,
    said: Cell<bool>,
}

impl Shared {
    /// The next body and its counter.
    fn next(&self) -> anyhow::Result<(Body, u64)> {
        let counter = self.counter.get();
        self.counter.set(counter.wrapping_add(1));
        let pool = &self.load.pool;
        let body = pool
            .get(counter as usize % pool.len().max(1))
            .context("an empty pool")?;
        Ok((body.clone(), counter))
    }

    fn count(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.outcome.borrow_mut());
    }

    fn acked(&self, spans: u64, sent: Instant) {
        let took = sent.elapsed().as_secs_f64() * 1e3;
        self.count(|o| {
            o.acked += spans;
            o.acked_after_ms.push(took);
        });
    }
}

/// Sends one body after the other until `end`; what is refused with leave to retry is sent again.
async fn closed(
    shared: Rc<Shared>,
    mut connection: Connection,
    end: Instant,
) -> anyhow::Result<()> {
    while Instant::now() < end {
        let (body, counter) = shared.next()?;
        loop {
            let sent = Instant::now();
            match connection.export(body.frame(counter)).await? {
                Answer::Ok => {
                    shared.acked(body.spans, sent);
                    break;
                }
                Answer::Retry(delay) => {
                    shared.count(|o| o.retryable += body.spans);
                    tokio::time::sleep(delay.unwrap_or(DEFAULT_RETRY)).await;
                    if Instant::now() >= end {
                        break;
                    }
                }
                Answer::Refused { code, message } => {
                    anyhow::bail!("an export was refused for good: status {code}, {message}");
                }
            }
        }
    }
    Ok(())
}

/// What a sender would not expect is said, once.
fn say_first(answer: &anyhow::Result<Answer>, said: &Cell<bool>) {
    let what = match answer {
        Ok(Answer::Refused { code, message }) => format!("refused for good: {code}, {message}"),
        Err(error) => format!("no answer: {error:#}"),
        Ok(_) => return,
    };
    if !said.replace(true) {
        eprintln!("the first export that should not have ended so was {what}");
    }
}

/// Sends on a clock until `end`; a refused body is dropped, as the next one is already due.
async fn open(
    shared: &Rc<Shared>,
    senders: Senders,
    spans_per_second: f64,
    end: Instant,
) -> anyhow::Result<()> {
    let Senders {
        to,
        mut connections,
        in_flight,
    } = senders;
    let spans = shared.load.pool.first().context("an empty pool")?.spans;
    let period = Duration::from_secs_f64(spans as f64 / spans_per_second.max(1.0));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let mut under_way = JoinSet::new();
    let mut next = 0_usize;
    while Instant::now() < end {
        ticks.tick().await;
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= in_flight {
            shared.count(|o| o.not_sent += spans);
            continue;
        }
        let connection = connections
            .get_mut(next % CONNECTIONS)
            .context("a connection")?;
        next = next.wrapping_add(1);
        if connection.is_closed() {
            *connection = Connection::open(to, shared.load.compression).await?;
            shared.count(|o| o.reconnects += 1);
        }
        let mut connection = connection.clone();
        let (body, counter) = shared.next()?;
        let shared = Rc::clone(shared);
        under_way.spawn_local(async move {
            let sent = Instant::now();
            let answer = connection.export(body.frame(counter)).await;
            match &answer {
                Ok(Answer::Ok) => shared.acked(body.spans, sent),
                Ok(Answer::Retry(_)) => shared.count(|o| o.retryable += body.spans),
                Ok(Answer::Refused { .. }) => shared.count(|o| o.refused += body.spans),
                Err(_) => shared.count(|o| o.lost += body.spans),
            }
            say_first(&answer, &shared.said);
        });
    }
    while under_way.join_next().await.is_some() {}
    Ok(())
}
