//! OTLP over gRPC: unary calls only, so the framing is done here. One piece of memory takes the
//! message as it comes, and a worker unpacks it whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Body;

use super::answer::{AnswerBody, Ending, Refusal, Verdict};
use super::body::{PREFIX, Received};
use super::export::{Export, Receiver};
use super::mixed;
use crate::codec::{Codec, Coding, Form, Protobuf};
use crate::decompress::Encoding;
use crate::outcome::Outcome;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
/// Other signals' services, with what to call them.
const SIGNALS: [(&str, &str); 4] = [
    (
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/",
        "metrics",
    ),
    (
        "/opentelemetry.proto.collector.logs.v1.LogsService/",
        "logs",
    ),
    (
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/",
        "profiles",
    ),
    (
        "/opentelemetry.proto.collector.profiles.v1.ProfilesService/",
        "profiles",
    ),
];

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_STATUS_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd");

/// What a call ends with, before it is written.
enum Reply {
    Message(Vec<u8>),
    Failed(Verdict),
}

/// Answers one call.
pub(super) async fn answer<B>(
    receiver: &Receiver,
    head: &Parts,
    body: &mut B,
) -> Response<AnswerBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    if !is_grpc(&head.headers) {
        return mixed::text(receiver, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let path = head.uri.path();
    let retry_after = receiver.inlet.settings.retry_after;
    let reply = if head.method != Method::POST {
        failed(receiver, Refusal::Method)
    } else if let Some(coding) = receiver.point.method(path) {
        let mut export = receiver.export(&head.headers, &*body);
        let result = unary(&mut export, coding, &head.headers, body).await;
        match export.ending(result) {
            Ending::Failed(verdict) => Reply::Failed(verdict),
            Ending::Done { rejected, message } => {
                let message = message.as_deref().unwrap_or_default();
                Reply::Message(coding.codec.accepted(rejected, message))
            }
        }
    } else if path == HEALTH {
        health(receiver, &head.headers, body).await
    } else if let Some((_, signal)) = SIGNALS.iter().find(|(start, _)| path.starts_with(start)) {
        let transport = receiver.point.origin.transport;
        receiver.inlet.metrics.unsupported_signal(transport, signal);
        failed(receiver, Refusal::Signal(signal))
    } else {
        failed(receiver, Refusal::GrpcMethod(path.to_owned()))
    };
    match reply {
        Reply::Message(message) => message_response(&message),
        Reply::Failed(verdict) => failed_response(&verdict, retry_after),
    }
}

fn failed(receiver: &Receiver, refusal: Refusal) -> Reply {
    let verdict = Verdict::from(&refusal);
    let transport = receiver.point.origin.transport;
    receiver.inlet.metrics.refused(transport, verdict.reason);
    Reply::Failed(verdict)
}

/// Whether a call is gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

async fn unary<B>(
    export: &mut Export<'_>,
    coding: &Arc<Coding>,
    headers: &HeaderMap,
    body: &mut B,
) -> Result<Outcome, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let sender = export.begin()?;
    let deadline = deadline(headers);
    let begun = tokio::time::Instant::now();
    let declared = declared_encoding(headers)?;
    let mut form = Form {
        encoding: declared,
        coding: Arc::clone(coding),
    };
    let received = within(deadline, export.read(body, &form)).await?;
    form.encoding = check_prefix(&received, declared)?;
    let left = deadline.map(|deadline| deadline.saturating_sub(begun.elapsed()));
    export.process(received, form, sender, left).await
}

async fn within<T>(
    deadline: Option<Duration>,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout(deadline, work)
            .await
            .unwrap_or(Err(Refusal::Deadline)),
    }
}

fn declared_encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let Some(name) = headers.get(GRPC_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    let name = String::from_utf8_lossy(name.as_bytes());
    Encoding::from_name(&name).ok_or_else(|| Refusal::Encoding(name.into_owned()))
}

/// The encoding of the one message, whose prefix must be whole and fit it.
fn check_prefix(received: &Received, declared: Encoding) -> Result<Encoding, Refusal> {
    let malformed = |text: &'static str| Err(Refusal::Malformed(text.into()));
    let Some(&[flag, a, b, c, d]) = received.bytes.first_chunk::<PREFIX>() else {
        return malformed("the call has no message");
    };
    if u32::from_be_bytes([a, b, c, d]) as usize != received.bytes.len() - PREFIX {
        return malformed("the call must have exactly one complete message");
    }
    match (flag, declared) {
        (0, _) => Ok(Encoding::Identity),
        (1, Encoding::Identity) => {
            malformed("the message is marked as compressed, but no grpc-encoding is given")
        }
        (1, encoding) => Ok(encoding),
        _ => malformed("the message's compression flag is neither 0 nor 1"),
    }
}

/// `grpc-timeout`: up to 8 digits and a unit. One that cannot be read is ignored.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// `grpc.health.v1.Health/Check`, for the whole server and for the trace service.
async fn health<B>(receiver: &Receiver, headers: &HeaderMap, body: &mut B) -> Reply
where
    B: Body<Data = Bytes> + Unpin,
{
    const SERVING: u8 = 1;
    const NOT_SERVING: u8 = 2;
    const NOT_FOUND: i32 = 5;
    let form = Form {
        encoding: Encoding::Identity,
        coding: Arc::clone(&receiver.point.protobuf),
    };
    let mut seen = 0;
    let read = receiver.read(body, &form, &mut seen);
    let read = within(deadline(headers), read).await;
    let checked = read.and_then(|received| {
        check_prefix(&received, Encoding::Identity)?;
        Ok(received.bytes)
    });
    let bytes = match checked {
        Ok(bytes) => bytes,
        Err(refusal) => return failed(receiver, refusal),
    };
    // The message has one field, the service's name: field 1, whose length fits one byte here.
    let known = match bytes.get(PREFIX..).unwrap_or_default() {
        [] | [0x0a, 0] => true,
        [0x0a, _, name @ ..] => name == b"opentelemetry.proto.collector.trace.v1.TraceService",
        _ => false,
    };
    if !known {
        return Reply::Failed(Verdict {
            grpc: NOT_FOUND,
            http: 404,
            retry: false,
            reason: "path",
            message: "unknown service".into(),
        });
    }
    let doors = &receiver.inlet.doors;
    let away = doors.leaving.is_cancelled() || doors.is_held();
    Reply::Message(vec![0x08, if away { NOT_SERVING } else { SERVING }])
}

fn message_response(message: &[u8]) -> Response<AnswerBody> {
    let mut data = BytesMut::with_capacity(PREFIX + message.len());
    data.put_u8(0);
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.put_slice(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    let mut answer = Response::new(AnswerBody::new(data.freeze(), Some(trailers)));
    answer.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
    answer
}

/// The head of the answer to a call whose messages go both ways.
pub(super) fn head() -> Response<()> {
    let mut answer = Response::new(());
    answer.headers_mut().insert(CONTENT_TYPE, APPLICATION_GRPC);
    answer
}

/// What such a call ends with.
pub(super) fn trailers(failed: Option<&Verdict>) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    let status = failed.map_or(0, |verdict| verdict.grpc);
    trailers.insert(GRPC_STATUS, HeaderValue::from(status));
    if let Some(verdict) = failed {
        trailers.insert(GRPC_MESSAGE, percent_encoded(&verdict.message));
    }
    trailers
}

/// A call that is refused before it has begun, counted.
pub(super) fn refused(receiver: &Receiver, refusal: &Refusal) -> Response<()> {
    let verdict = Verdict::from(refusal);
    let transport = receiver.point.origin.transport;
    receiver.inlet.metrics.refused(transport, verdict.reason);
    let answer = failed_response(&verdict, receiver.inlet.settings.retry_after);
    answer.map(drop)
}

/// A failed call has no message, so its status goes where the headers are.
pub(super) fn failed_response(verdict: &Verdict, retry_after: Duration) -> Response<AnswerBody> {
    let mut answer = Response::new(AnswerBody::new(Bytes::new(), None));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, APPLICATION_GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(verdict.grpc));
    headers.insert(GRPC_MESSAGE, percent_encoded(&verdict.message));
    headers.insert(GRPC_ACCEPT_ENCODING, ENCODINGS);
    let delay = verdict.retry.then_some(retry_after);
    let details = Protobuf.failed(verdict.grpc, &verdict.message, delay);
    if let Ok(details) = HeaderValue::from_str(&base64(&details)) {
        headers.insert(GRPC_STATUS_DETAILS, details);
    }
    answer
}

/// `grpc-message` is percent-encoded but for printable ASCII. A long one is cut: clients limit what
/// headers they take.
fn percent_encoded(text: &str) -> HeaderValue {
    const MAX: usize = 1024;
    let mut out = String::with_capacity(text.len().min(MAX));
    for byte in crate::process::text::cut(text, MAX).bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                const HEX: [u8; 16] = *b"0123456789ABCDEF";
                let digit =
                    |value: u8| char::from(HEX.get(usize::from(value)).copied().unwrap_or(b'0'));
                out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
    HeaderValue::from_str(&out).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Base64 without padding, as gRPC wants binary headers.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: [u8; 64] = *b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..=chunk.len() {
            let index = group >> (18 - 6 * digit) & 63;
            out.push(char::from(
                DIGITS.get(index as usize).copied().unwrap_or(b'A'),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        let check = |text: &str, expect: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
            assert_eq!(deadline(&headers), expect, "{text:?}");
        };
        check("10S", Some(Duration::from_secs(10)));
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("99999999m", Some(Duration::from_millis(99_999_999)));
        check("5u", Some(Duration::from_micros(5)));
        check("0n", Some(Duration::ZERO));
        check("100000000S", None);
        check("10", None);
        check("S", None);
        check("-1S", None);
        check("1s", None);
        check("", None);
        assert_eq!(deadline(&HeaderMap::new()), None);
    }

    #[test]
    fn binary_headers() {
        let check = |bytes: &[u8], expect| assert_eq!(base64(bytes), expect);
        check(b"", "");
        check(b"f", "Zg");
        check(b"fo", "Zm8");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg");
        check(&[0xff, 0xfe, 0xfd], "//79");
    }

    #[test]
    fn messages() {
        let check = |text: &str, expect: &str| assert_eq!(percent_encoded(text), expect);
        check("try again", "try again");
        check("100 % é\n", "100 %25 %C3%A9%0A");
        assert_eq!(percent_encoded(&"x".repeat(5000)).len(), 1024);
    }
}
