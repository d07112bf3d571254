//! A place where requests are received: its transport, TLS, who sends, and how bodies are written.

use std::net::SocketAddr;
use std::sync::Arc;

use spanloom_tls::ServerTls;

use crate::codec::{Codec, Json, Protobuf};
use crate::peers::Identify;
use crate::receive::Transport;

/// The path of OTLP's traces over HTTP.
pub const TRACES: &str = "/v1/traces";

/// A place where requests are received.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The value of the label `receiver` in metrics.
    pub receiver: &'static str,
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What is spoken. gRPC is OTLP's trace service, in protobuf.
    pub transport: Transport,
    /// For HTTP: what is at which path.
    pub routes: Vec<Route>,
    /// The certificate, where connections are encrypted.
    pub tls: Option<ServerTls>,
    /// How senders are identified; none: they are not.
    pub identify: Option<Arc<dyn Identify>>,
}

/// A path of HTTP, and what may be sent there.
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
            routes: Vec::new(),
            tls: None,
            identify: None,
        }
    }

    /// OTLP over HTTP, in plain text.
    pub fn http(address: SocketAddr) -> Self {
        let codecs: Vec<Arc<dyn Codec>> = vec![Arc::new(Protobuf), Arc::new(Json)];
        Self {
            transport: Transport::Http,
            routes: vec![Route {
                path: TRACES,
                codecs,
            }],
            ..Self::grpc(address)
        }
    }
}
