//! OTLP over HTTP: protobuf and JSON.

use std::time::Duration;

use http::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use spanloom_otlp::response;

use super::Format;
use super::answer::{AnswerBody, Ending, Refusal, Verdict, retry_after_seconds};
use super::body::drain;
use super::export::{Form, Receiver};
use crate::decompress::Encoding;
use crate::outcome::Outcome;

const TRACES: &str = "/v1/traces";
/// In place of `Not Found`, for signals that have no place here.
const TRACES_ONLY: ReasonPhrase = ReasonPhrase::from_static(b"Spanloom takes traces only");
/// A refused body that is longer, or slower, costs the client its connection.
const DRAIN_BYTES: usize = 512 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(500);
const SIGNALS: [(&str, &str); 4] = [
    ("/v1/metrics", "metrics"),
    ("/v1/logs", "logs"),
    ("/v1development/profiles", "profiles"),
    ("/v1/profiles", "profiles"),
];

/// Answers one request.
pub(super) async fn answer(
    receiver: &Receiver,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (head, mut body) = request.into_parts();
    let cors = &receiver.settings.cors;
    if head.method == Method::OPTIONS && head.headers.contains_key(ORIGIN) {
        let mut answer = Response::new(AnswerBody::default());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        cors.preflight(&head.headers, answer.headers_mut());
        return answer;
    }
    let path = head.uri.path();
    let format = format(&head.headers);
    // A Status is written as the request was, where that can be told.
    let written = format.as_ref().copied().unwrap_or(Format::Protobuf);
    let ending = if path == TRACES {
        let result = match (head.method == Method::POST, format) {
            (false, _) => Err(Refusal::Method),
            (true, Err(refusal)) => Err(refusal),
            (true, Ok(format)) => traces(receiver, &head.headers, &mut body, format).await,
        };
        receiver.ending(result)
    } else {
        let refusal = match SIGNALS.iter().find(|(signal_path, _)| *signal_path == path) {
            Some((_, signal)) => {
                receiver
                    .shared
                    .metrics
                    .unsupported_signal(receiver.transport, signal);
                Refusal::Signal(signal)
            }
            None => Refusal::Path(path.to_owned()),
        };
        let verdict = Verdict::from(&refusal);
        receiver
            .shared
            .metrics
            .refused(receiver.transport, verdict.reason);
        Ending::Failed(verdict)
    };
    let mut answer = response(receiver, &ending, written);
    cors.answer(&head.headers, answer.headers_mut());
    if matches!(ending, Ending::Failed(_))
        && head.version < Version::HTTP_2
        && !drain(&mut body, DRAIN_BYTES, DRAIN_TIME).await
    {
        // The rest of the body stands between this request and the next.
        close_after(&mut answer);
    }
    if matches!(&ending, Ending::Failed(verdict) if verdict.reason == "signal") {
        // The one part of an answer that SDKs show to people.
        answer.extensions_mut().insert(TRACES_ONLY);
    }
    if head.version < Version::HTTP_2 && receiver.shared.leaving.is_cancelled() {
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

async fn traces(
    receiver: &Receiver,
    headers: &HeaderMap,
    body: &mut Incoming,
    format: Format,
) -> Result<Outcome, Refusal> {
    receiver.open()?;
    let encoding = match headers.get(CONTENT_ENCODING) {
        None => Encoding::Identity,
        Some(name) => {
            let name = String::from_utf8_lossy(name.as_bytes());
            Encoding::from_name(&name).ok_or_else(|| Refusal::Encoding(name.into_owned()))?
        }
    };
    let form = Form {
        encoding,
        json: format == Format::Json,
    };
    let received = receiver.read(body, form).await?;
    receiver.export(received, form, None).await
}

/// How the request is written, by its content type; parameters do not matter.
fn format(headers: &HeaderMap) -> Result<Format, Refusal> {
    let value = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    let text = String::from_utf8_lossy(value);
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/x-protobuf") {
        Ok(Format::Protobuf)
    } else if essence.eq_ignore_ascii_case("application/json") {
        Ok(Format::Json)
    } else {
        Err(Refusal::ContentType(text.into_owned()))
    }
}

fn response(receiver: &Receiver, ending: &Ending, format: Format) -> Response<AnswerBody> {
    let retry_after = receiver.settings.retry_after;
    let (status, body) = match ending {
        Ending::Done { rejected, message } => {
            let message = message.as_deref().unwrap_or_default();
            (
                StatusCode::OK,
                response::export_response(*rejected, message, format),
            )
        }
        Ending::Failed(verdict) => {
            let delay = verdict.retry.then_some(retry_after);
            let status = StatusCode::from_u16(verdict.http);
            let body = response::status(verdict.grpc, &verdict.message, delay, format);
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body)
        }
    };
    let mut answer = Response::new(AnswerBody::new(body, None));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(match format {
            Format::Protobuf => "application/x-protobuf",
            Format::Json => "application/json",
        }),
    );
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
