//! Half-edges: one end of a call between services. The store joins the client's and the server's.
//!
//! What names the other end, where it is never instrumented itself, follows the service graph of
//! Grafana Tempo.

use spanloom_otlp::record::{Attr, SpanKind, SpanRecord, StatusCode, Value};

use super::{Recorder, TextId};

/// Which end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Side {
    /// A client or producer span.
    Client = 1,
    /// A server or consumer span.
    Server = 2,
}

impl Side {
    /// The side with this number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Client, Self::Server]
            .into_iter()
            .find(|&side| side as u64 == number)
    }
}

/// What lies between the ends of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum ConnectionType {
    /// A direct call.
    #[default]
    Unset = 0,
    /// A queue or topic.
    MessagingSystem = 1,
    /// A database.
    Database = 2,
}

impl ConnectionType {
    /// The type with this number.
    pub(super) fn from_number(number: u64) -> Option<Self> {
        [Self::Unset, Self::MessagingSystem, Self::Database]
            .into_iter()
            .find(|&connection| connection as u64 == number)
    }
}

/// One end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfEdge {
    /// Start of the span, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The trace.
    pub trace_id: [u8; 16],
    /// The client span's id: on the server side the parent's; zero for a server span without one.
    pub span_id: [u8; 8],
    /// Which end this is.
    pub side: Side,
    /// The service at this end.
    pub service: TextId,
    /// The span's duration.
    pub duration_ns: u64,
    /// Whether the span's status is an error.
    pub error: bool,
    /// What the client calls the other end; empty on the server's side or when it says nothing.
    pub peer: TextId,
    /// What lies between.
    pub connection_type: ConnectionType,
}

pub(super) fn half_edge(
    recorder: &mut Recorder,
    service: TextId,
    span: &SpanRecord<'_>,
) -> HalfEdge {
    let side = match span.kind {
        SpanKind::Client | SpanKind::Producer => Side::Client,
        _ => Side::Server,
    };
    let messaging = matches!(span.kind, SpanKind::Producer | SpanKind::Consumer);
    let mut connection_type = if messaging {
        ConnectionType::MessagingSystem
    } else {
        ConnectionType::Unset
    };
    let mut peer = "";
    if side == Side::Client {
        let named = Named::by(span.attributes);
        if !messaging && named.is_database() {
            connection_type = ConnectionType::Database;
        }
        peer = named.peer(connection_type);
    }
    HalfEdge {
        time_ns: span.start_ns,
        trace_id: span.trace_id,
        span_id: if side == Side::Client {
            span.span_id
        } else {
            span.parent_span_id
        },
        side,
        service,
        duration_ns: span.duration_ns,
        error: span.status == StatusCode::Error,
        peer: recorder.text(peer),
        connection_type,
    }
}

/// What a client span's attributes say of the other end.
#[derive(Default)]
struct Named<'a> {
    peer_service: &'a str,
    db_namespace: &'a str,
    db_system: &'a str,
    destination: &'a str,
    messaging_system: &'a str,
    server_address: &'a str,
}

impl<'a> Named<'a> {
    fn by(attributes: &[Attr<'a>]) -> Self {
        let mut named = Self::default();
        for attribute in attributes {
            // The lengths of the keys below: most others are passed over by this alone.
            if !matches!(attribute.key.len(), 7 | 9 | 12 | 14 | 16 | 26) {
                continue;
            }
            let Value::Str(text) = attribute.value else {
                continue;
            };
            // Old and new names of one thing: the first that is sent counts.
            let slot = match attribute.key {
                "peer.service" => &mut named.peer_service,
                "db.namespace" | "db.name" => &mut named.db_namespace,
                "db.system.name" | "db.system" => &mut named.db_system,
                "messaging.destination.name" => &mut named.destination,
                "messaging.system" => &mut named.messaging_system,
                "server.address" => &mut named.server_address,
                _ => continue,
            };
            if slot.is_empty() {
                *slot = text;
            }
        }
        named
    }

    fn is_database(&self) -> bool {
        !self.db_namespace.is_empty() || !self.db_system.is_empty()
    }

    /// The namespace where it is a name: Redis and others number theirs, and "0" tells nobody which
    /// database was called.
    fn named_namespace(&self) -> &'a str {
        match self.db_namespace.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "",
            false => self.db_namespace,
        }
    }

    fn peer(&self, connection_type: ConnectionType) -> &'a str {
        let Self {
            peer_service,
            server_address,
            ..
        } = *self;
        let order = match connection_type {
            ConnectionType::Database => [
                peer_service,
                self.named_namespace(),
                self.db_system,
                server_address,
            ],
            ConnectionType::MessagingSystem => [
                peer_service,
                self.destination,
                self.messaging_system,
                server_address,
            ],
            ConnectionType::Unset => [peer_service, server_address, "", ""],
        };
        order
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
    }
}
