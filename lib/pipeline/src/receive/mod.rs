//! OTLP received: connections, requests, answers.

mod answer;
mod body;
mod connection;
mod cors;
mod export;
mod grpc;
mod http;
mod http2;

use std::net::SocketAddr;

use spanloom_otlp::response;

pub(crate) use connection::Listener;
pub(crate) use export::Settings;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP.
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

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// The address that the connection comes from.
    pub address: SocketAddr,
}

/// How a request is written, and so its answer.
type Format = response::Encoding;
