//! What both transports do with an export: read it within admission, know a repeat, hand it to a
//! worker, wait for the outcome.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;

use super::answer::{Ending, Refusal, Verdict};
use super::body::{PREFIX, Reading, Received};
use super::cors::CorsRules;
use super::{PeerInfo, Transport};
use crate::config::{Config, Connections};
use crate::decompress::Encoding;
use crate::outcome::Outcome;
use crate::peers::{Peer, Peers, Pod};
use crate::repeat::Begin;
use crate::server::Shared;
use crate::worker::Job;

/// The settings of receiving.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) connections: Connections,
    pub(super) cors: CorsRules,
    pub(super) retry_after: Duration,
    pub(super) max_request_bytes: usize,
    peers: Option<Arc<dyn Peers>>,
}

impl Settings {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connections: config.connections.clone(),
            cors: CorsRules::new(&config.cors),
            retry_after: config.retry_after,
            max_request_bytes: config.max_request_bytes,
            peers: config.peers.clone(),
        }
    }
}

/// One connection's view of the pipeline.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) settings: Arc<Settings>,
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Transport,
    pub(super) peer: PeerInfo,
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) encoding: Encoding,
    pub(super) json: bool,
}

impl Form {
    /// Two requests are repeats only if they are read in the same way.
    fn tag(self) -> u8 {
        self.encoding as u8 * 2 + u8::from(self.json)
    }
}

impl Receiver {
    /// Whether exports are taken at all by now.
    pub(super) fn open(&self) -> Result<(), Refusal> {
        if self.shared.held.load(Ordering::Acquire) {
            return Err(Refusal::Starting);
        }
        Ok(())
    }

    /// Reads a body.
    pub(super) async fn read<B>(&self, body: &mut B, form: Form) -> Result<Received, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        if self.shared.abort.is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let reading = Reading {
            budget: &self.shared.budget,
            buffers: &self.shared.buffers,
            expansion: self.shared.expansion(form.encoding, form.json),
            max_bytes: self.settings.max_request_bytes,
            patience: self.settings.connections.body_timeout,
            prefixed: self.transport == Transport::Grpc,
        };
        reading.read(body).await
    }

    /// Has a request processed, and waits for its outcome for at most `patience`.
    pub(super) async fn export(
        &self,
        received: Received,
        form: Form,
        deadline: Option<Duration>,
    ) -> Result<Outcome, Refusal> {
        let Received { bytes, permit } = received;
        let start = if self.transport == Transport::Grpc {
            PREFIX
        } else {
            0
        };
        let message = bytes.get(start..).unwrap_or_default();
        if message.is_empty() {
            return Ok(Outcome::OK);
        }
        let pod = match &self.settings.peers {
            Some(peers) => self.sender(&**peers).await,
            None => None,
        };
        let pending = match self.shared.repeats.begin(message, form.tag()) {
            Begin::Repeat(pending) => pending,
            Begin::First(ticket) => {
                let pending = ticket.pending();
                self.shared.submit(Job {
                    body: bytes,
                    start,
                    encoding: form.encoding,
                    json: form.json,
                    transport: self.transport,
                    peer: self.peer,
                    pod,
                    permit,
                    ticket,
                });
                pending
            }
        };
        let patience = self.settings.connections.answer_timeout;
        let (patience, late) = match deadline {
            Some(deadline) if deadline < patience => (deadline, Refusal::Deadline),
            _ => (patience, Refusal::Slow),
        };
        tokio::time::timeout(patience, pending.wait())
            .await
            .map_err(|_| late)
    }

    /// The pod at the other end.
    async fn sender(&self, peers: &dyn Peers) -> Option<Arc<Pod>> {
        // A socket for both families shows IPv4 addresses in IPv6's clothes.
        let address = self.peer.address.ip().to_canonical();
        let pod = match peers.find(address) {
            Peer::Pod(pod) => Some(pod),
            Peer::Unknown => None,
            Peer::Unsure => peers.wait(address).await,
        };
        self.shared.metrics.peer(pod.is_some());
        pod
    }

    /// What is answered, counted.
    pub(super) fn ending(&self, result: Result<Outcome, Refusal>) -> Ending {
        let refused = result.is_err();
        let ending = Ending::from(result);
        self.shared.metrics.answered(self.transport, ending.label());
        if let Ending::Failed(Verdict { reason, .. }) = &ending {
            self.shared.metrics.refused(self.transport, reason);
            if refused {
                tracing::debug!(peer = %self.peer.address, reason, "export refused");
            }
        }
        ending
    }
}
