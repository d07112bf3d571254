//! The least of a gRPC client that a load generator needs: prepared frames over HTTP/2 without TLS.

use anyhow::Context;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

use super::body::Compression;

type Pieces = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

const UNAVAILABLE: u32 = 14;
const RESOURCE_EXHAUSTED: u32 = 8;
/// gRPC statuses after which OTLP clients send again (OTLP specification, "Failures").
const RETRYABLE: [u32; 6] = [1, 4, 10, 11, UNAVAILABLE, 15];

/// How an export ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Accepted.
    Ok,
    /// Refused; OTLP lets the client try again, after the time given if there is one.
    Retry(Option<Duration>),
    /// Refused for good.
    Refused {
        /// gRPC's status code.
        code: u32,
        /// What the server said.
        message: String,
    },
}

/// One HTTP/2 connection; clones share it.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: http2::SendRequest<Pieces>,
    uri: Uri,
    compression: Compression,
}

impl Connection {
    /// Connects; the connection's task ends with its last clone.
    pub async fn open(to: SocketAddr, compression: Compression) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_send_buf_size(4 << 20)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        let uri = format!("http://{to}/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        Ok(Self {
            sender,
            uri: uri.parse()?,
            compression,
        })
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one framed message and waits for the answer.
    pub async fn export(&mut self, frame: [Bytes; 3]) -> anyhow::Result<Answer> {
        let pieces: Vec<_> = frame
            .into_iter()
            .filter(|b| !b.is_empty())
            .map(|b| Ok(Frame::data(b)))
            .collect();
        let mut request = Request::post(self.uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if self.compression != Compression::None {
            request = request.header("grpc-encoding", self.compression.name());
        }
        let request = request.body(StreamBody::new(stream::iter(pieces)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        // An error without a message stands in the headers; otherwise the trailers have the status.
        if let Some(answer) = answer(response.headers()) {
            return Ok(answer);
        }
        let status = response.status();
        let body = response.into_body().collect().await?;
        body.trailers()
            .and_then(answer)
            .with_context(|| format!("an answer without grpc-status (HTTP {status})"))
    }
}

fn answer(headers: &HeaderMap) -> Option<Answer> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    let code: u32 = text("grpc-status")?.parse().ok()?;
    if code == 0 {
        return Some(Answer::Ok);
    }
    let delay = text("grpc-status-details-bin").and_then(retry_delay);
    let retryable = RETRYABLE.contains(&code) || (code == RESOURCE_EXHAUSTED && delay.is_some());
    Some(if retryable {
        Answer::Retry(delay)
    } else {
        Answer::Refused {
            code,
            message: text("grpc-message").unwrap_or_default().to_owned(),
        }
    })
}

/// The delay of a `google.rpc.RetryInfo` among a status's details.
fn retry_delay(details: &str) -> Option<Duration> {
    let engine = base64::engine::general_purpose::STANDARD_NO_PAD;
    let status = engine.decode(details.trim_end_matches('=')).ok()?;
    let any = fields(&status).find_map(|(number, value)| match value {
        // Status.details = 3: Any { type_url = 1, value = 2 }
        Field::Bytes(any) if number == 3 => fields(any)
            .any(|(n, v)| {
                n == 1 && matches!(v, Field::Bytes(url) if url.ends_with(b"google.rpc.RetryInfo"))
            })
            .then_some(any),
        _ => None,
    })?;
    let bytes = |message, wanted| {
        fields(message).find_map(|(number, value)| match value {
            Field::Bytes(bytes) if number == wanted => Some(bytes),
            _ => None,
        })
    };
    // RetryInfo.retry_delay = 1: Duration { seconds = 1, nanos = 2 }
    let delay = bytes(bytes(any, 2)?, 1)?;
    let number = |wanted| {
        fields(delay).find_map(|(number, value)| match value {
            Field::Number(n) if number == wanted => Some(n),
            _ => None,
        })
    };
    Some(Duration::new(
        number(1).unwrap_or(0),
        number(2).unwrap_or(0).min(999_999_999) as u32,
    ))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The varint and length-delimited fields of a message; others end it.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let key = varint(&mut message)?;
        let value = varint(&mut message)?;
        match key & 7 {
            0 => Some((key >> 3, Field::Number(value))),
            2 => {
                let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                Some((key >> 3, Field::Bytes(bytes)))
            }
            _ => None,
        }
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)], expected: Option<Answer>) {
        let map: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>();
        assert_eq!(answer(&map), expected, "{headers:?}");
    }

    #[test]
    fn answers_are_read_as_otlp_says() {
        // Status { details: [Any { type_url: ".../google.rpc.RetryInfo", value: RetryInfo { 1 s } }] }
        let mut any =
            b"\x0a\x28type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x01".to_vec();
        any.splice(0..0, [0x1a, any.len() as u8]);
        let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&any);
        let second = Some(Duration::from_secs(1));
        let gone = Answer::Refused {
            code: 8,
            message: "too large".to_owned(),
        };
        check(&[], None);
        check(&[("grpc-status", "0")], Some(Answer::Ok));
        check(&[("grpc-status", "14")], Some(Answer::Retry(None)));
        check(
            &[("grpc-status", "14"), ("grpc-status-details-bin", &details)],
            Some(Answer::Retry(second)),
        );
        check(
            &[("grpc-status", "8"), ("grpc-status-details-bin", &details)],
            Some(Answer::Retry(second)),
        );
        check(
            &[("grpc-status", "8"), ("grpc-message", "too large")],
            Some(gone),
        );
    }
}
