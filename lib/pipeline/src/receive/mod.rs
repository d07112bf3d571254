//! Requests received: connections, calls, answers.
//!
//! A [`Listener`](crate::config::Listener) says what is spoken where: the transport, TLS, who knows the
//! senders, and the codecs of bodies. `connection` accepts (`stream` with TLS or without), `http`, and
//! `http2` with `grpc`, read requests and write answers, and what both do with an export is in `export`.
//! `slots` says who may have a connection, `mixed` answers who took the one port for the other.

mod answer;
mod body;
mod connection;
mod cors;
mod dialogue;
#[cfg(feature = "simulation")]
pub mod direct;
mod export;
mod grpc;
mod http;
mod http2;
mod mixed;
mod slots;
mod stream;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::accounts::Accounts;
use crate::admission::Budget;
use crate::batch::Trouble;
use crate::buffers::Buffers;
use crate::doors::Doors;
use crate::durable::DurableLog;
use crate::metrics::Metrics;
use crate::queue::Queues;
use crate::repeat::Repeats;

pub(crate) use connection::Bound;
pub(crate) use export::Settings;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// gRPC.
    Grpc,
    /// HTTP/1.1 or HTTP/2.
    Http,
}

impl Transport {
    /// The value of the label `transport` in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
        }
    }
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) receiver: &'static str,
    pub(crate) transport: Transport,
}

impl Origin {
    /// Its labels in metrics.
    pub(crate) fn labels(self) -> [(&'static str, &'static str); 2] {
        [
            ("receiver", self.receiver),
            ("transport", self.transport.label()),
        ]
    }
}

/// What receiving needs of the rest of the pipeline.
#[derive(Debug)]
pub(crate) struct Inlet {
    pub(crate) settings: Settings,
    /// All listeners.
    pub(crate) addresses: Vec<(Origin, SocketAddr)>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) repeats: Arc<Repeats>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) doors: Arc<Doors>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) log: Option<Arc<DurableLog>>,
    pub(crate) trouble: StoreTrouble,
    pub(crate) fullness: Fullness,
}

/// Asks whether what is not stored yet leaves no room for more.
pub(crate) struct Fullness(pub(crate) Box<dyn Fn() -> bool + Send + Sync>);

impl fmt::Debug for Fullness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fullness").field(&(self.0)()).finish()
    }
}

/// Asks what keeps the store from taking spans.
pub(crate) struct StoreTrouble(pub(crate) Box<dyn Fn() -> Option<Trouble> + Send + Sync>);

impl StoreTrouble {
    fn now(&self) -> Option<Trouble> {
        (self.0)()
    }
}

impl fmt::Debug for StoreTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreTrouble").field(&self.now()).finish()
    }
}

impl Inlet {
    /// What is not stored yet leaves no room for more.
    pub(crate) fn is_full(&self) -> bool {
        (self.fullness.0)()
    }

    /// What keeps spans from being stored now, or from being taken.
    pub(crate) fn impairment(&self) -> Option<Trouble> {
        let log = self.log.as_ref().and_then(|log| log.impairment());
        match (self.trouble.now(), log) {
            (store, None) => store,
            (None, Some(message)) => Some(Trouble {
                message,
                lasts: true,
            }),
            (Some(store), Some(log)) => Some(Trouble {
                message: format!("{}; {log}", store.message),
                lasts: true,
            }),
        }
    }
}
