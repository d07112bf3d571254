//! Half-edges: spans as ends of calls. The store finds what is above and below each.
//!
//! Every span has one, whatever its kind: a parent and a child of two services are a call, and only the
//! store knows both. A consumer has one more for each span that it links to. What names the other end of a
//! client's call, where it is never instrumented itself, follows the service graph of Grafana Tempo.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use spanloom_otlp::record::{Attr, SpanKind, SpanRecord, StatusCode, Value};

use super::{Recorder, TextId};

/// More links of one consumer than these are not followed.
const LINKS_MAX: usize = 128;

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

/// A span as the end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HalfEdge {
    /// Start of the span, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The trace; for a link the trace that is linked to.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Its parent, or the span that is linked to; zeros for none, and where it is known to be no call.
    pub parent_span_id: [u8; 8],
    /// The span's kind.
    pub kind: SpanKind,
    /// The span's service.
    pub service: TextId,
    /// The span's duration.
    pub duration_ns: u64,
    /// Whether the span's status is an error.
    pub error: bool,
    /// What a client calls the other end; empty when it says nothing.
    pub peer: TextId,
    /// What lies between.
    pub connection_type: ConnectionType,
}

/// Adds the half-edges of a span.
pub(super) fn record(recorder: &mut Recorder, service: TextId, span: &SpanRecord<'_>) {
    let (peer, connection_type) = match span.kind {
        SpanKind::Client | SpanKind::Producer => Named::by(span.attributes).peer(span.kind),
        SpanKind::Consumer => (Peer::default(), ConnectionType::MessagingSystem),
        _ => (Peer::default(), ConnectionType::Unset),
    };
    let half = HalfEdge {
        time_ns: span.start_ns,
        trace_id: span.trace_id,
        span_id: span.span_id,
        parent_span_id: span.parent_span_id,
        kind: span.kind,
        service,
        duration_ns: span.duration_ns,
        error: span.status == StatusCode::Error,
        peer: peer.text(recorder, service),
        connection_type,
    };
    recorder.measures.half_edges.push(half);
    if span.kind != SpanKind::Consumer {
        return;
    }
    let parent = (span.trace_id, span.parent_span_id);
    let links = span.links.iter().take(LINKS_MAX);
    let linked = links.map(|link| (link.trace_id, link.span_id));
    for (trace_id, span_id) in linked.filter(|linked| *linked != parent) {
        if trace_id != [0; 16] && span_id != [0; 8] {
            recorder.measures.half_edges.push(HalfEdge {
                trace_id,
                parent_span_id: span_id,
                ..half
            });
        }
    }
}

/// Forgets parents that are of the same service and in the same batch: what is below them is no call, and the
/// store need not look for them. A server or a consumer may be called by its own service.
pub(super) fn forget_inner_parents(half_edges: &mut [HalfEdge]) {
    let may_be_inner = |half: &HalfEdge| {
        half.parent_span_id != [0; 8] && !matches!(half.kind, SpanKind::Server | SpanKind::Consumer)
    };
    if !half_edges.iter().any(may_be_inner) {
        return;
    }
    let state = RandomState::default();
    let hash = |span_id: [u8; 8]| state.hash_one(u64::from_ne_bytes(span_id));
    let mut spans: HashTable<u32> = HashTable::with_capacity(half_edges.len());
    for (index, half) in (0_u32..).zip(half_edges.iter()) {
        spans.insert_unique(hash(half.span_id), index, |&other| {
            let other = half_edges.get(other as usize);
            other.map_or(0, |other| hash(other.span_id))
        });
    }
    for index in 0..half_edges.len() {
        let Some(half) = half_edges.get(index).filter(|half| may_be_inner(half)) else {
            continue;
        };
        let is_parent = |other: &u32| {
            half_edges.get(*other as usize).is_some_and(|other| {
                other.span_id == half.parent_span_id
                    && other.trace_id == half.trace_id
                    && other.service == half.service
            })
        };
        if spans.find(hash(half.parent_span_id), is_parent).is_some()
            && let Some(half) = half_edges.get_mut(index)
        {
            half.parent_span_id = [0; 8];
        }
    }
}

/// A name of the other end of a call, with a port where that tells it from others.
#[derive(Default)]
struct Peer<'a> {
    name: &'a str,
    port: Option<&'a Value<'a>>,
}

impl Peer<'_> {
    /// The name as a text of the batch; empty where it is the service's own, which is never the other end.
    fn text(&self, recorder: &mut Recorder, service: TextId) -> TextId {
        let port = match self.port {
            Some(Value::Int(port)) => port.to_string(),
            Some(Value::Str(port)) => (*port).to_owned(),
            _ => String::new(),
        };
        let text = match port.as_str() {
            "" => recorder.text(self.name),
            port if self.name.contains(':') => recorder.text(&format!("[{}]:{port}", self.name)),
            port => recorder.text(&format!("{}:{port}", self.name)),
        };
        match text == service {
            true => recorder.text(""),
            false => text,
        }
    }
}

/// What a client span's attributes say of the other end, by the names of today and of earlier conventions.
#[derive(Default)]
struct Named<'a> {
    peer_service: &'a str,
    db_namespace: &'a str,
    db_system: &'a str,
    destination: &'a str,
    messaging_system: &'a str,
    messaging_operation: &'a str,
    host: &'a str,
    port: Option<&'a Value<'a>>,
    url: &'a str,
    /// The address of the connection: less than a name, but better than nothing.
    address: &'a str,
    address_port: Option<&'a Value<'a>>,
}

impl<'a> Named<'a> {
    fn by(attributes: &'a [Attr<'a>]) -> Self {
        let mut named = Self::default();
        for attribute in attributes {
            let ports = match attribute.key {
                "server.port" | "net.peer.port" => Some(&mut named.port),
                "network.peer.port" | "net.sock.peer.port" | "peer.port" => {
                    Some(&mut named.address_port)
                }
                _ => None,
            };
            if let Some(port) = ports {
                if port.is_none() {
                    *port = Some(&attribute.value);
                }
                continue;
            }
            // Old and new names of one thing: the first that is sent counts.
            let slot = match attribute.key {
                "peer.service" | "service.peer.name" => &mut named.peer_service,
                "db.namespace" | "db.name" => &mut named.db_namespace,
                "db.system.name" | "db.system" => &mut named.db_system,
                "messaging.destination.name" | "messaging.destination" => &mut named.destination,
                "messaging.system" => &mut named.messaging_system,
                "messaging.operation.type" | "messaging.operation" => {
                    &mut named.messaging_operation
                }
                "server.address" | "net.peer.name" | "peer.hostname" => &mut named.host,
                "url.full" | "http.url" => &mut named.url,
                "network.peer.address"
                | "net.sock.peer.addr"
                | "net.peer.ip"
                | "peer.ipv4"
                | "peer.ipv6" => &mut named.address,
                _ => continue,
            };
            if let Value::Str(text) = attribute.value
                && slot.is_empty()
            {
                *slot = text;
            }
        }
        named
    }

    fn connection(&self, kind: SpanKind) -> ConnectionType {
        let sends = matches!(self.messaging_operation, "send" | "publish" | "create");
        match kind {
            SpanKind::Producer => ConnectionType::MessagingSystem,
            _ if !self.messaging_system.is_empty() && sends => ConnectionType::MessagingSystem,
            _ if !self.db_namespace.is_empty() || !self.db_system.is_empty() => {
                ConnectionType::Database
            }
            _ => ConnectionType::Unset,
        }
    }

    /// The namespace where it is a name: Redis and others number theirs, and "0" tells nobody which
    /// database was called.
    fn named_namespace(&self) -> &'a str {
        match self.db_namespace.bytes().all(|byte| byte.is_ascii_digit()) {
            true => "",
            false => self.db_namespace,
        }
    }

    fn peer(&self, kind: SpanKind) -> (Peer<'a>, ConnectionType) {
        let connection = self.connection(kind);
        let names = match connection {
            ConnectionType::Database => [self.peer_service, self.named_namespace(), self.db_system],
            ConnectionType::MessagingSystem => {
                [self.peer_service, self.destination, self.messaging_system]
            }
            // A client that receives or settles messages calls the broker, not what sent them.
            ConnectionType::Unset => [self.peer_service, "", ""],
        };
        let peer = match names.into_iter().find(|name| !name.is_empty()) {
            Some(name) => Peer { name, port: None },
            None => self.host(),
        };
        (peer, connection)
    }

    /// The host, with its port where it is an address: many services may be behind one.
    fn host(&self) -> Peer<'a> {
        let (name, port) = match (self.host, host_of(self.url), self.address) {
            ("", None, address) => (address, self.address_port.or(self.port)),
            ("", Some(host), _) => return host,
            (host, ..) => (host, self.port),
        };
        let name = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .unwrap_or(name);
        Peer {
            name,
            port: port.filter(|_| is_address(name)),
        }
    }
}

/// Whether a name is an IP address. Most are not, which is seen before they are parsed.
fn is_address(name: &str) -> bool {
    (name.starts_with(|c: char| c.is_ascii_digit()) || name.contains(':'))
        && name.parse::<std::net::IpAddr>().is_ok()
}

/// The host of a URL, with its port where it is an address.
fn host_of(url: &str) -> Option<Peer<'_>> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next()?,
    };
    let is_address = is_address(name);
    // `10.0.0.7:8080` as it is written; a name without its port.
    let name = if is_address { host } else { name };
    (!name.is_empty()).then_some(Peer { name, port: None })
}
