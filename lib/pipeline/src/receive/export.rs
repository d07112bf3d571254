//! What both transports do with an export: read it within admission, know a repeat, hand it to a
//! worker, wait for the outcome.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use spanloom_tls::ServerTls;
use tokio::time::Instant;

use super::answer::{Ending, Refusal, Verdict};
use super::body::{PREFIX, Reading, Received};
use super::cors::CorsRules;
use super::slots::Line;
use super::{Inlet, Origin, Transport};
use crate::codec::{Codec, Coding, Codings, Form, Protobuf};
use crate::config::{Config, Connections, Listener, Route};
use crate::dialogue::Dialogue;
use crate::intake::Job;
use crate::listener::TRACES;
use crate::outcome::Outcome;
use crate::peers::{Caller, Identify, Identity, Sender};
use crate::repeat::Begin;

/// The settings of receiving, the same for all listeners.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) connections: Connections,
    pub(super) cors: CorsRules,
    pub(super) retry_after: Duration,
    pub(super) max_request_bytes: usize,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connections: config.connections.clone(),
            cors: CorsRules::new(&config.cors),
            retry_after: config.retry_after,
            max_request_bytes: config.max_request_bytes,
        }
    }
}

/// A listener at work.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) origin: Origin,
    pub(super) tls: Option<ServerTls>,
    identify: Option<Arc<dyn Identify>>,
    /// What gRPC is written in.
    pub(super) protobuf: Arc<Coding>,
    routes: Vec<(&'static str, Vec<Arc<Coding>>)>,
    methods: Vec<(&'static str, Arc<Coding>)>,
    dialogues: Vec<Arc<dyn Dialogue>>,
    max_request_bytes: Option<usize>,
    /// On a port with both transports, what is spoken beside this one: gRPC.
    pub(super) beside: Option<Arc<Point>>,
}

impl Point {
    pub(super) fn new(listener: &Listener, codings: &mut Codings) -> Self {
        let beside = listener.is_mixed.then(|| {
            let grpc = Listener {
                transport: Transport::Grpc,
                is_mixed: false,
                ..listener.clone()
            };
            Arc::new(Self::new(&grpc, codings))
        });
        let routes = listener.routes.iter().map(|route| {
            let codecs = route.codecs.iter();
            (route.path, codecs.map(|codec| codings.of(codec)).collect())
        });
        let routes = routes.collect();
        let methods = listener
            .methods
            .iter()
            .filter_map(|Route { path, codecs }| {
                let codec = codecs.first()?;
                Some((*path, codings.of(codec)))
            });
        let methods = methods.collect();
        let protobuf: Arc<dyn Codec> = Arc::new(Protobuf);
        Self {
            origin: Origin {
                receiver: listener.receiver,
                transport: listener.transport,
            },
            tls: listener.tls.clone(),
            identify: listener.identify.clone(),
            protobuf: codings.of(&protobuf),
            routes,
            methods,
            dialogues: listener.dialogues.clone(),
            max_request_bytes: listener.max_request_bytes,
            beside,
        }
    }

    /// What a unary method's messages are written in.
    pub(super) fn method(&self, path: &str) -> Option<&Arc<Coding>> {
        let found = self.methods.iter().find(|(known, _)| *known == path);
        found.map(|(_, coding)| coding)
    }

    /// A method whose messages go both ways.
    pub(super) fn dialogue(&self, path: &str) -> Option<&Arc<dyn Dialogue>> {
        self.dialogues.iter().find(|one| one.path() == path)
    }

    /// What may be sent to a path.
    pub(super) fn codecs(&self, path: &str) -> Option<&[Arc<Coding>]> {
        let found = self.routes.iter().find(|(known, _)| *known == path);
        found.map(|(_, codecs)| &**codecs)
    }

    /// What may be sent to any path.
    pub(super) fn all_codecs(&self) -> impl Iterator<Item = &Arc<Coding>> {
        self.routes.iter().flat_map(|(_, codecs)| codecs)
    }

    /// A path to tell clients that have none of ours.
    pub(super) fn path(&self) -> &'static str {
        self.routes.first().map_or(TRACES, |(path, _)| path)
    }
}

/// One connection's view of the pipeline.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) inlet: Arc<Inlet>,
    pub(super) point: Arc<Point>,
    /// Where the connection comes from.
    pub(super) address: SocketAddr,
    /// The connection, as those see it that want its place.
    pub(super) line: Arc<Line>,
}

/// An export as it is received.
pub(super) struct Export<'r> {
    receiver: &'r Receiver,
    headers: &'r HeaderMap,
    /// How long the body is, as far as is known.
    seen: usize,
    /// Whether its spans are looked at: then they are accounted for wherever they end.
    submitted: bool,
}

impl Receiver {
    /// What is spoken here, and where the other transport is, for a client that took the one for the
    /// other.
    pub(super) fn mixed_up(&self) -> Refusal {
        let origin = self.point.origin;
        let other = |(there, address): &(Origin, SocketAddr)| {
            (there.receiver == origin.receiver && there.transport != origin.transport)
                .then(|| (there.transport.name(), address.port()))
        };
        Refusal::Mixed {
            here: origin.transport.name(),
            other: self.inlet.addresses.iter().find_map(other),
        }
    }

    /// An export begins, whose body the head says something of.
    pub(super) fn export<'r>(&'r self, headers: &'r HeaderMap, body: &impl Body) -> Export<'r> {
        let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        Export {
            receiver: self,
            headers,
            // A client may promise anything.
            seen: promised.min(self.inlet.settings.max_request_bytes),
            submitted: false,
        }
    }

    /// Who calls a method whose messages go both ways: somebody who is known.
    pub(super) async fn sender(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        if self.inlet.doors.closing.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let Some(identify) = &self.point.identify else {
            return Ok(Identity::Unknown);
        };
        let caller = Caller {
            address: self.address,
            headers,
        };
        let mut identity = identify.identify(caller);
        if identity == Identity::Unsure {
            identity = identify.wait(caller).await;
        }
        match identity {
            Identity::Refused(why) => Err(Refusal::Sender(why)),
            known => Ok(known),
        }
    }

    fn max_request_bytes(&self) -> usize {
        let most = self.inlet.settings.max_request_bytes;
        self.point.max_request_bytes.unwrap_or(most).min(most)
    }

    /// The same connection, where gRPC is spoken on it.
    pub(super) fn over_grpc(&self) -> Option<Self> {
        let point = Arc::clone(self.point.beside.as_ref()?);
        Some(Self {
            point,
            ..self.clone()
        })
    }

    fn is_grpc(&self) -> bool {
        self.point.origin.transport == Transport::Grpc
    }

    /// Reads a body; `seen` is how long it is as far as is known.
    pub(super) async fn read<B>(
        &self,
        body: &mut B,
        form: &Form,
        seen: &mut usize,
    ) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let inlet = &self.inlet;
        if inlet.doors.abort.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let reading = Reading {
            budget: &inlet.budget,
            buffers: &inlet.buffers,
            expansion: form.expansion(),
            max_bytes: self.max_request_bytes(),
            peer: self.address.ip().to_canonical(),
            limits: &inlet.settings.connections,
            prefixed: self.is_grpc(),
        };
        reading.read(body, seen).await
    }
}

impl Export<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller {
            address: self.receiver.address,
            headers: self.headers,
        }
    }

    /// Whether exports are taken at all by now, and from this sender; and who that is.
    pub(super) fn begin(&self) -> Result<Option<Identity>, Refusal> {
        let receiver = self.receiver;
        if receiver.inlet.doors.is_held() {
            return Err(Refusal::Starting);
        }
        if receiver.inlet.is_full() {
            return Err(Refusal::Buffer);
        }
        let Some(identify) = &receiver.point.identify else {
            return Ok(None);
        };
        match identify.identify(self.caller()) {
            Identity::Refused(why) => Err(Refusal::Sender(why)),
            identity => Ok(Some(identity)),
        }
    }

    /// Reads the body.
    pub(super) async fn read<B>(&mut self, body: &mut B, form: &Form) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.receiver.read(body, form, &mut self.seen).await
    }

    /// Has the request processed, and waits for its outcome for at most `deadline`.
    pub(super) async fn process(
        &mut self,
        received: Received,
        form: Form,
        sender: Option<Identity>,
        deadline: Option<Duration>,
    ) -> Result<Outcome, Refusal> {
        let receiver = self.receiver;
        let inlet = &receiver.inlet;
        let Received { bytes, permit } = received;
        let start = if receiver.is_grpc() { PREFIX } else { 0 };
        let message = bytes.get(start..).unwrap_or_default();
        if message.is_empty() {
            return Ok(Outcome::OK);
        }
        let sender = match sender {
            Some(identity) => self.sender(identity).await?,
            None => Sender::Unasked,
        };
        self.submitted = true;
        let pending = match inlet.repeats.begin(message, form.tag()) {
            Begin::Repeat(pending) => pending,
            Begin::First(ticket) => {
                let pending = ticket.pending();
                if let Some(log) = inlet.log.as_ref().filter(|log| !log.takes_requests()) {
                    log.turned_away();
                    let cause = inlet
                        .impairment()
                        .map(|trouble| trouble.message)
                        .unwrap_or_else(|| "the log is full".into());
                    let why = format!("{cause}; try again");
                    ticket.refuse(Outcome::Unavailable(why.into()));
                    return Ok(pending.wait().await);
                }
                inlet.queues.submit(Job {
                    body: bytes,
                    start,
                    form,
                    origin: receiver.point.origin,
                    address: receiver.address,
                    sender,
                    permit,
                    ticket,
                });
                pending
            }
        };
        let patience = inlet.settings.connections.answer_timeout;
        let (patience, late) = match deadline {
            Some(deadline) if deadline < patience => (deadline, Refusal::Deadline),
            _ => (patience, Refusal::Slow),
        };
        let mut next = inlet.settings.connections.impaired_answer_timeout;
        let end = Instant::now() + patience;
        let wait = pending.wait();
        tokio::pin!(wait);
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Ok(outcome) = tokio::time::timeout(next.min(left), &mut wait).await {
                return Ok(outcome);
            }
            if left <= next {
                return Err(late);
            }
            // Its repeat joins it, as with every answer that is late.
            if let Some(trouble) = inlet.impairment().filter(|trouble| trouble.lasts) {
                return Err(Refusal::Store(trouble.message));
            }
            next = Duration::from_secs(1);
        }
    }

    /// Who is at the other end.
    async fn sender(&self, identity: Identity) -> Result<Sender, Refusal> {
        let identity = match (identity, &self.receiver.point.identify) {
            (Identity::Unsure, Some(identify)) => identify.wait(self.caller()).await,
            (identity, _) => identity,
        };
        let sender = match identity {
            Identity::Pod(pod) => Sender::Pod(pod),
            Identity::Gateway(pod) => Sender::Gateway(pod),
            Identity::Unknown | Identity::Unsure => Sender::Unknown,
            Identity::Refused(why) => return Err(Refusal::Sender(why)),
        };
        let known = matches!(sender, Sender::Pod(_) | Sender::Gateway(_));
        self.receiver.inlet.metrics.peer(known);
        Ok(sender)
    }

    /// What is answered, counted.
    pub(super) fn ending(&self, result: Result<Outcome, Refusal>) -> Ending {
        let Receiver {
            inlet,
            point,
            address,
            line: _,
        } = self.receiver;
        let refused = result.is_err();
        let ending = Ending::from(result);
        inlet.metrics.answered(point.origin, ending.label());
        if let Ending::Failed(Verdict { reason, .. }) = &ending {
            inlet.metrics.refused(point.origin.transport, reason);
            if refused {
                tracing::debug!(peer = %address, reason, "export rejected");
            }
            if refused && !self.submitted {
                inlet.accounts.refused(reason, self.seen);
            }
        }
        ending
    }
}
