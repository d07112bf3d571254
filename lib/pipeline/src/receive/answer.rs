//! The one place where outcomes and refusals become answers, in gRPC and in HTTP.

use std::borrow::Cow;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use thiserror::Error;

use crate::admission::Refused;
use crate::outcome::Outcome;

/// Why a request was not taken to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Refusal {
    #[error("the collector's memory for requests is exhausted; try again")]
    Full,
    #[error("the buffer of spans that are not sent yet is full; try again")]
    Buffer,
    #[error("the collector is stopping; try again")]
    Stopping,
    #[error("the collector has no configuration yet; try again")]
    Starting,
    #[error("the request timed out; try again")]
    Slow,
    #[error("the spans are not stored yet: {0}; try again")]
    Store(String),
    #[error("the deadline of the request has passed")]
    Deadline,
    #[error("the request is larger than the limit of {limit} bytes")]
    TooLarge { limit: usize },
    #[error("{0}")]
    Malformed(Cow<'static, str>),
    #[error("the body took too long to arrive; try again")]
    Stalled,
    #[error("the client closed the connection")]
    ClientGone,
    #[error("the encoding {0:?} is not supported; use gzip, zstd or none")]
    Encoding(String),
    #[error("the content type {given:?} is not supported; use {known}")]
    ContentType { given: String, known: String },
    #[error("only POST is supported")]
    Method,
    #[error("Spanloom receives only traces, not {0}{advice}", advice = advice(.0))]
    Signal(&'static str),
    #[error("path {asked:?} not found; send traces to {known}")]
    Path { asked: String, known: &'static str },
    #[error("unknown method {0:?}")]
    GrpcMethod(String),
    #[error("this port receives OTLP over {here}{}", other_port(.other))]
    Mixed {
        here: &'static str,
        other: Option<(&'static str, u16)>,
    },
    #[error("the sender was rejected: {0}")]
    Sender(Arc<str>),
}

fn other_port(other: &Option<(&'static str, u16)>) -> String {
    match other {
        Some((transport, port)) => format!("; send OTLP over {transport} to port {port}"),
        None => String::new(),
    }
}

/// What stops an SDK from sending a signal; its users see the answer in their logs.
fn advice(signal: &str) -> &'static str {
    match signal {
        "metrics" => "; OTEL_METRICS_EXPORTER=none stops an SDK from sending them",
        "logs" => "; OTEL_LOGS_EXPORTER=none stops an SDK from sending them",
        _ => "",
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Full,
            Refused::NeverFits { limit } => Self::TooLarge { limit },
        }
    }
}

/// What a request ends with, for every transport.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    /// A code of gRPC.
    pub(super) grpc: i32,
    /// A status of HTTP.
    pub(super) http: u16,
    /// Whether a retry can succeed.
    pub(super) retry: bool,
    /// The value of the label `reason` in metrics.
    pub(super) reason: &'static str,
    /// For the client.
    pub(super) message: Arc<str>,
}

const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

impl From<&Refusal> for Verdict {
    fn from(refusal: &Refusal) -> Self {
        let (grpc, http, retry, reason) = match refusal {
            Refusal::Full => (UNAVAILABLE, 429, true, "memory"),
            Refusal::Buffer => (UNAVAILABLE, 429, true, "buffer"),
            Refusal::Stopping => (UNAVAILABLE, 503, true, "stopping"),
            Refusal::Starting => (UNAVAILABLE, 503, true, "starting"),
            Refusal::Slow => (UNAVAILABLE, 503, true, "slow"),
            Refusal::Store(_) => (UNAVAILABLE, 503, true, "store"),
            Refusal::Deadline => (DEADLINE_EXCEEDED, 504, true, "deadline"),
            Refusal::TooLarge { .. } => (RESOURCE_EXHAUSTED, 413, false, "too_large"),
            Refusal::Malformed(_) => (INVALID_ARGUMENT, 400, false, "malformed"),
            Refusal::Stalled => (UNAVAILABLE, 503, true, "stalled"),
            Refusal::ClientGone => (UNAVAILABLE, 400, true, "client_gone"),
            Refusal::Encoding(_) => (UNIMPLEMENTED, 415, false, "encoding"),
            Refusal::ContentType { .. } => (INVALID_ARGUMENT, 415, false, "content_type"),
            Refusal::Method => (UNIMPLEMENTED, 405, false, "method"),
            Refusal::Signal(_) => (UNIMPLEMENTED, 404, false, "signal"),
            Refusal::Mixed { .. } => (UNIMPLEMENTED, 400, false, "protocol"),
            Refusal::Sender(_) => (UNAUTHENTICATED, 401, false, "sender"),
            Refusal::Path { .. } | Refusal::GrpcMethod(_) => (UNIMPLEMENTED, 404, false, "path"),
        };
        Self {
            grpc,
            http,
            retry,
            reason,
            message: refusal.to_string().into(),
        }
    }
}

/// What is answered to an export.
pub(super) enum Ending {
    /// The request was taken, perhaps not all of it.
    Done {
        rejected: u64,
        message: Option<Arc<str>>,
    },
    /// It was not.
    Failed(Verdict),
}

impl From<Result<Outcome, Refusal>> for Ending {
    fn from(result: Result<Outcome, Refusal>) -> Self {
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(refusal) => return Self::Failed(Verdict::from(&refusal)),
        };
        let reason = outcome.reason().unwrap_or_default();
        let (grpc, http, retry, message) = match outcome {
            Outcome::Done { rejected, message } => return Self::Done { rejected, message },
            Outcome::Malformed(message) => (INVALID_ARGUMENT, 400, false, message),
            Outcome::TooLarge(message) => (RESOURCE_EXHAUSTED, 413, false, message),
            Outcome::Denied(message) => (PERMISSION_DENIED, 403, false, message),
            Outcome::Unavailable(message) => (UNAVAILABLE, 503, true, message),
            Outcome::Internal(message) => (INTERNAL, 500, false, message),
        };
        Self::Failed(Verdict {
            grpc,
            http,
            retry,
            reason,
            message,
        })
    }
}

impl Ending {
    /// The value of the label `outcome` in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Done { rejected: 0, .. } => "success",
            Self::Done { .. } => "partial",
            Self::Failed(Verdict { retry: true, .. }) => "refused",
            Self::Failed(_) => "failure",
        }
    }
}

/// Whole seconds for `Retry-After`, at least one.
pub(super) fn retry_after_seconds(delay: Duration) -> u64 {
    delay.as_secs() + u64::from(delay.subsec_nanos() > 0 || delay.is_zero())
}

/// An answer's body: at most one piece, and gRPC's trailers.
#[derive(Debug, Default)]
pub(super) struct AnswerBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl AnswerBody {
    pub(super) fn new(data: impl Into<Bytes>, trailers: Option<HeaderMap>) -> Self {
        let data = data.into();
        Self {
            data: (!data.is_empty()).then_some(data),
            trailers,
        }
    }

    /// The piece and the trailers.
    pub(super) fn into_parts(self) -> (Option<Bytes>, Option<HeaderMap>) {
        (self.data, self.trailers)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}
