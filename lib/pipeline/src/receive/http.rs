//! Exports over HTTP: which codec a body has is said by its path and content type.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::answer::{AnswerBody, Ending, Refusal, Verdict, retry_after_seconds};
use super::body::drain;
use super::export::{Export, Receiver};
use super::mixed;
use crate::codec::{Coding, Form};
use crate::decompress::Encoding;
use crate::outcome::Outcome;

/// In place of `Not Found`, for signals that have no place here.
const TRACES_ONLY: ReasonPhrase = ReasonPhrase::from_static(b"Spanloom receives only traces");
/// A refused body that is longer, or slower, costs the client its connection.
pub(super) const DRAIN_BYTES: usize = 512 << 10;
pub(super) const DRAIN_TIME: Duration = Duration::from_millis(500);
/// The same for one that is refused for good. A client that does not see this answer sends it for ever.
const REFUSED_BYTES: usize = 16 << 20;
const REFUSED_TIME: Duration = Duration::from_secs(2);
const SIGNALS: [(&str, &str); 4] = [
    ("/v1/metrics", "metrics"),
    ("/v1/logs", "logs"),
    ("/v1development/profiles", "profiles"),
    ("/v1/profiles", "profiles"),
];

/// Answers one request.
pub(super) async fn answer<B>(receiver: &Receiver, request: Request<B>) -> Response<AnswerBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let _call = receiver.line.call();
    let (head, mut body) = request.into_parts();
    answer_parts(receiver, &head, &mut body).await
}

/// The same for a request in its parts.
pub(super) async fn answer_parts<B>(
    receiver: &Receiver,
    head: &Parts,
    body: &mut B,
) -> Response<AnswerBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    if content_type(&head.headers).starts_with("application/grpc") {
        return mixed::grpc_on_http(receiver);
    }
    let cors = &receiver.inlet.settings.cors;
    if head.method == Method::OPTIONS && head.headers.contains_key(ORIGIN) {
        let mut answer = Response::new(AnswerBody::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        cors.preflight(&head.headers, answer.headers_mut());
        return answer;
    }
    let path = head.uri.path();
    let point = &*receiver.point;
    let (coding, ending) = match point.codecs(path) {
        Some(codecs) => {
            let coding = coding(&head.headers, codecs.iter());
            let mut export = receiver.export(&head.headers, &*body);
            let result = match (head.method == Method::POST, &coding) {
                (false, _) => Err(Refusal::Method),
                (true, None) => Err(unsupported(&head.headers, codecs)),
                (true, Some(coding)) => traces(&mut export, &head.headers, body, coding).await,
            };
            // A failure is written as the request was, where that can be told.
            (coding.or_else(|| codecs.first()), export.ending(result))
        }
        None => {
            let transport = point.origin.transport;
            let metrics = &receiver.inlet.metrics;
            let refusal = match SIGNALS.iter().find(|(signal_path, _)| *signal_path == path) {
                Some((_, signal)) => {
                    metrics.unsupported_signal(transport, signal);
                    Refusal::Signal(signal)
                }
                None => Refusal::Path {
                    asked: path.to_owned(),
                    known: point.path(),
                },
            };
            let verdict = Verdict::from(&refusal);
            metrics.refused(transport, verdict.reason);
            let coding = coding(&head.headers, point.all_codecs());
            let coding = coding.or_else(|| point.all_codecs().next());
            (coding, Ending::Failed(verdict))
        }
    };
    let mut answer = response(receiver, &ending, coding.unwrap_or(&point.protobuf));
    cors.answer(&head.headers, answer.headers_mut());
    if let Ending::Failed(verdict) = &ending
        && head.version < Version::HTTP_2
        && !match verdict.retry {
            true => drain(body, DRAIN_BYTES, DRAIN_TIME).await,
            false => drain(body, REFUSED_BYTES, REFUSED_TIME).await,
        }
    {
        // The rest of the body stands between this request and the next.
        close_after(&mut answer);
    }
    if matches!(&ending, Ending::Failed(verdict) if verdict.reason == "signal") {
        // The one part of an answer that SDKs show to people.
        answer.extensions_mut().insert(TRACES_ONLY);
    }
    if head.version < Version::HTTP_2 && receiver.inlet.doors.leaving.is_cancelled() {
        // The client finds another collector, and this connection ends without a race.
        close_after(&mut answer);
    }
    answer
}

fn close_after(answer: &mut Response<AnswerBody>) {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
}

async fn traces<B>(
    export: &mut Export<'_>,
    headers: &HeaderMap,
    body: &mut B,
    coding: &Arc<Coding>,
) -> Result<Outcome, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
{
    let sender = export.begin()?;
    let encoding = match headers.get(CONTENT_ENCODING) {
        None => Encoding::Identity,
        Some(name) => {
            let name = String::from_utf8_lossy(name.as_bytes());
            Encoding::from_name(&name).ok_or_else(|| Refusal::Encoding(name.into_owned()))?
        }
    };
    let form = Form {
        encoding,
        coding: Arc::clone(coding),
    };
    let received = export.read(body, &form).await?;
    export.process(received, form, sender, None).await
}

fn content_type(headers: &HeaderMap) -> Cow<'_, str> {
    let value = headers.get(CONTENT_TYPE);
    String::from_utf8_lossy(value.map_or(&b""[..], HeaderValue::as_bytes))
}

/// How the request is written, by its content type; parameters do not matter.
fn coding<'c>(
    headers: &HeaderMap,
    mut codecs: impl Iterator<Item = &'c Arc<Coding>>,
) -> Option<&'c Arc<Coding>> {
    let given = content_type(headers);
    let given = given.split(';').next().unwrap_or_default().trim();
    codecs.find(|coding| given.eq_ignore_ascii_case(coding.codec.content_type()))
}

fn unsupported(headers: &HeaderMap, codecs: &[Arc<Coding>]) -> Refusal {
    let known: Vec<_> = codecs
        .iter()
        .map(|known| known.codec.content_type())
        .collect();
    Refusal::ContentType {
        given: content_type(headers).into_owned(),
        known: known.join(" or "),
    }
}

fn response(receiver: &Receiver, ending: &Ending, coding: &Coding) -> Response<AnswerBody> {
    let retry_after = receiver.inlet.settings.retry_after;
    let codec = &*coding.codec;
    let (status, body) = match ending {
        Ending::Done { rejected, message } => {
            let message = message.as_deref().unwrap_or_default();
            (codec.success(), codec.accepted(*rejected, message))
        }
        Ending::Failed(verdict) => {
            let delay = verdict.retry.then_some(retry_after);
            let status = StatusCode::from_u16(verdict.http);
            let body = codec.failed(verdict.grpc, &verdict.message, delay);
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
        }
    };
    let mut answer = Response::new(AnswerBody::new(body, None));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(codec.content_type()));
    if let Ending::Failed(Verdict { retry: true, .. }) = ending {
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(retry_after_seconds(retry_after)),
        );
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    }
    answer
}
