//! Senders: each sends requests of unique spans, one after the other, and repeats what was not acknowledged, as
//! SDKs do. What was sent and what was acknowledged is kept, for the checker.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::super::{PROTOBUF, SPANS, request_from};

/// How long a sender waits for an answer, as SDKs do.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits before it repeats. Less than it is told: a scenario must not take all day.
const PAUSE: Duration = Duration::from_millis(200);

/// How requests are sent.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Senders at a time.
    pub senders: u32,
    /// Spans a second of all of them together; none: as fast as they are answered.
    pub spans_per_second: Option<u32>,
    /// Bytes that are added to each span.
    pub padding: usize,
    /// Whether what is not acknowledged is sent again.
    pub repeat: bool,
}

impl Pace {
    /// So many spans a second, from a few senders.
    pub fn of(spans_per_second: u32) -> Self {
        Self {
            senders: 4,
            spans_per_second: Some(spans_per_second),
            padding: 0,
            repeat: true,
        }
    }

    /// As many as are taken.
    pub fn closed(senders: u32, padding: usize) -> Self {
        Self {
            senders,
            spans_per_second: None,
            padding,
            repeat: true,
        }
    }

    /// The time between two requests of one sender.
    fn period(&self) -> Option<Duration> {
        let spans = f64::from(self.spans_per_second?);
        let requests = spans / SPANS as f64 / f64::from(self.senders);
        Some(Duration::from_secs_f64(1.0 / requests))
    }
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The phase that it belongs to.
    pub phase: usize,
    pub acknowledged: bool,
}

/// A part of a scenario, for which spans are counted apart: they are of a service of its name.
#[derive(Debug, Clone)]
pub struct Phase {
    pub name: String,
    /// Answers that told a sender to send again.
    pub pushed_back: u64,
}

/// All that was sent. A request's number is its place.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    pub requests: Vec<Sent>,
    pub phases: Vec<Phase>,
    /// The phase of the next request.
    current: usize,
    /// Requests that were acknowledged.
    pub acknowledged: usize,
    /// Answers that no sender may get.
    pub wrong: Vec<String>,
}

impl Ledger {
    /// Answers that told a sender to send again.
    pub fn pushed_back(&self) -> u64 {
        self.phases.iter().map(|phase| phase.pushed_back).sum()
    }
}

/// The number that a request's ids are made of.
pub fn id_seed(number: usize) -> u64 {
    (number as u64 + 1) << 8
}

struct Shared {
    ledger: Mutex<Ledger>,
    /// Its value changes with each answer.
    answers: watch::Sender<u64>,
    stop: CancellationToken,
    address: watch::Receiver<SocketAddr>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Senders at work.
pub struct Load {
    shared: Arc<Shared>,
    senders: JoinSet<()>,
}

impl Load {
    /// Senders to this address, which may change; they begin with [`Load::send`].
    pub fn new(address: watch::Receiver<SocketAddr>) -> Self {
        let shared = Shared {
            ledger: Mutex::default(),
            answers: watch::Sender::new(0),
            stop: CancellationToken::new(),
            address,
        };
        Self {
            shared: Arc::new(shared),
            senders: JoinSet::new(),
        }
    }

    /// What is sent from now on belongs to this phase, which may have been before.
    pub fn phase(&self, name: &str) {
        let mut ledger = self.shared.ledger();
        let known = ledger.phases.iter().position(|phase| phase.name == name);
        ledger.current = known.unwrap_or(ledger.phases.len());
        if known.is_none() {
            ledger.phases.push(Phase {
                name: name.to_owned(),
                pushed_back: 0,
            });
        }
    }

    /// Adds senders.
    pub fn send(&mut self, pace: &Pace) {
        for number in 0..pace.senders {
            let sender = Sender {
                shared: self.shared.clone(),
                address: self.shared.address.clone(),
                client: Client::builder(TokioExecutor::new()).build_http(),
                pace: pace.clone(),
            };
            self.senders.spawn(sender.run(number));
        }
    }

    /// What was sent so far.
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger().clone()
    }

    /// Waits until something is true of what was sent, and returns it.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn wait_until(&self, what: &str, met: impl Fn(&Ledger) -> bool) {
        let mut answers = self.shared.answers.subscribe();
        let waiting = async {
            while !met(&self.shared.ledger()) {
                answers.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), waiting).await;
        assert!(waited.is_ok(), "{what} has not come");
    }

    /// Waits for so many more requests to be acknowledged.
    pub async fn wait_acknowledged(&self, more: usize) {
        let enough = self.shared.ledger().acknowledged + more;
        let what = "an answer with success";
        self.wait_until(what, |ledger| ledger.acknowledged >= enough)
            .await;
    }

    /// The time of a collector that has just begun: one that has run takes a clock that was set back for none.
    pub async fn clock(&self) -> SystemTime {
        let address = *self.shared.address.borrow();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client.get(format!("http://{address}/").parse().unwrap());
        let date = response.await.unwrap().headers()[header::DATE].clone();
        let date = jiff::fmt::rfc2822::parse(date.to_str().unwrap()).unwrap();
        date.into()
    }

    /// Ends the senders once all that they repeat is acknowledged. Others can be added after that.
    pub async fn pause(&mut self) {
        self.shared.stop.cancel();
        while let Some(ended) = self.senders.join_next().await {
            ended.unwrap();
        }
        let fresh = Shared {
            ledger: Mutex::new(self.ledger()),
            answers: watch::Sender::new(0),
            stop: CancellationToken::new(),
            address: self.shared.address.clone(),
        };
        self.shared = Arc::new(fresh);
    }
}

/// What a request was answered.
enum Answer {
    Acknowledged,
    /// To be sent again.
    PushedBack,
    /// There was no answer; to be sent again.
    None,
    /// Not to be sent again, or not as it should be.
    Wrong(String),
}

struct Sender {
    shared: Arc<Shared>,
    address: watch::Receiver<SocketAddr>,
    client: Client<HttpConnector, Full<Bytes>>,
    pace: Pace,
}

impl Sender {
    async fn run(mut self, number: u32) {
        let stop = self.shared.stop.clone();
        let mut ticks = self.pace.period().map(|period| {
            // Not all at once.
            let first = period.mul_f64(f64::from(number) / f64::from(self.pace.senders));
            let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        loop {
            if let Some(ticks) = &mut ticks {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
            }
            if stop.is_cancelled() {
                return;
            }
            self.one().await;
        }
    }

    /// Sends a new request, again and again if need be.
    async fn one(&mut self) {
        let (number, phase, service) = {
            let mut ledger = self.shared.ledger();
            let phase = ledger.current;
            ledger.requests.push(Sent {
                phase,
                acknowledged: false,
            });
            let service = ledger.phases[phase].name.clone();
            (ledger.requests.len() - 1, phase, service)
        };
        let body = Bytes::from(request_from(&service, id_seed(number), self.pace.padding));
        loop {
            let answer = self.post(body.clone()).await;
            let mut ended = !self.pace.repeat;
            {
                let mut ledger = self.shared.ledger();
                match answer {
                    Answer::Acknowledged => {
                        ledger.requests[number].acknowledged = true;
                        ledger.acknowledged += 1;
                        ended = true;
                    }
                    Answer::PushedBack => ledger.phases[phase].pushed_back += 1,
                    Answer::None => {}
                    Answer::Wrong(what) => {
                        ledger.wrong.push(what);
                        ended = true;
                    }
                }
            }
            self.shared.answers.send_modify(|answers| *answers += 1);
            if ended {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                // Another collector has begun.
                _ = self.address.changed() => {}
            }
        }
    }

    async fn post(&mut self, body: Bytes) -> Answer {
        let address = *self.address.borrow_and_update();
        let request = Request::post(format!("http://{address}/v1/traces"))
            .header("content-type", PROTOBUF)
            .body(Full::new(body))
            .unwrap();
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some((head.status, body))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Err(_) | Ok(None) => Answer::None,
            Ok(Some((StatusCode::OK, body))) if body.is_empty() => Answer::Acknowledged,
            Ok(Some((status, _))) if [429, 502, 503, 504].contains(&status.as_u16()) => {
                Answer::PushedBack
            }
            Ok(Some((status, body))) => {
                Answer::Wrong(format!("{status}: {}", String::from_utf8_lossy(&body)))
            }
        }
    }
}
