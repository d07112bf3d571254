//! A place where requests are received: its transport, TLS, who sends, and how bodies are written.

use std::net::SocketAddr;
use std::sync::Arc;

use spanloom_tls::ServerTls;

use crate::codec::{Codec, Json, Protobuf};
use crate::dialogue::Dialogue;
use crate::peers::Identify;
use crate::receive::Transport;

/// The path of OTLP's traces over HTTP.
pub const TRACES: &str = "/v1/traces";
/// The method of OTLP's traces over gRPC.
pub const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// A place where requests are received.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The value of the label `receiver` in metrics.
    pub receiver: &'static str,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What is spoken.
    pub transport: Transport,
    /// Whether the other transport is spoken there as well: a call over HTTP/2 whose content type is gRPC's
    /// is gRPC, everything else is HTTP.
    pub is_mixed: bool,
    /// Whether the pipeline starts although the address is taken, and tries again until it is free.
    pub is_patient: bool,
    /// For HTTP: what is at which path.
    pub routes: Vec<Route>,
    /// For gRPC: the unary methods, each with one codec, and its message as the body.
    pub methods: Vec<Route>,
    /// For gRPC: the methods whose messages go both ways.
    pub dialogues: Vec<Arc<dyn Dialogue>>,
    /// How large a request may be as it is sent, where that is less than
    /// [`Config::max_request_bytes`](crate::Config::max_request_bytes).
    pub max_request_bytes: Option<usize>,
    /// The certificate, where connections are encrypted.
    pub tls: Option<ServerTls>,
    /// How senders are identified; none: they are not.
    pub identify: Option<Arc<dyn Identify>>,
}

/// A path of HTTP or a method of gRPC, and what may be sent there.
#[derive(Debug, Clone)]
pub struct Route {
    /// The path.
    pub path: &'static str,
    /// By its content type a request's codec is chosen. Where that is none of these, the answer is in the
    /// first one's format.
    pub codecs: Vec<Arc<dyn Codec>>,
}

impl Listener {
    /// OTLP over gRPC, in plain text.
    pub fn grpc(address: SocketAddr) -> Self {
        Self {
            receiver: "otlp",
            address,
            transport: Transport::Grpc,
            is_mixed: false,
            is_patient: false,
            routes: Vec::new(),
            methods: vec![Route {
                path: EXPORT,
                codecs: vec![Arc::new(Protobuf)],
            }],
            dialogues: Vec::new(),
            max_request_bytes: None,
            tls: None,
            identify: None,
        }
    }

    /// OTLP over HTTP, in plain text.
    pub fn http(address: SocketAddr) -> Self {
        Self {
            transport: Transport::Http,
            routes: vec![Self::traces_at(TRACES)],
            ..Self::grpc(address)
        }
    }

    /// OTLP over both transports on one port, in plain text; over HTTP at `/`, too. For senders that know an
    /// address, and neither a path nor which transport is spoken there.
    pub fn mixed(address: SocketAddr) -> Self {
        Self {
            is_mixed: true,
            routes: vec![Self::traces_at(TRACES), Self::traces_at("/")],
            ..Self::http(address)
        }
    }

    fn traces_at(path: &'static str) -> Route {
        Route {
            path,
            codecs: vec![Arc::new(Protobuf), Arc::new(Json)],
        }
    }
}
