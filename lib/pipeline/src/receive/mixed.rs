//! Clients that took one transport's port for the other's: they are told where to go.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::answer::{AnswerBody, Verdict};
use super::body::drain;
use super::export::Receiver;
use super::grpc;
use super::http::{DRAIN_BYTES, DRAIN_TIME};
use super::stream::Stream;

/// Answers the first request of a client that speaks HTTP/1 where gRPC is spoken.
pub(super) async fn http_on_grpc(stream: Stream, receiver: &Receiver) {
    let limits = &receiver.inlet.settings.connections;
    let service = service_fn(|request: Request<Incoming>| async move {
        let _call = receiver.line.call();
        // A client that sends before it listens sees its answer.
        drain(&mut request.into_body(), DRAIN_BYTES, DRAIN_TIME).await;
        let mut answer = text(receiver, StatusCode::BAD_REQUEST);
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.max_header_bytes.max(8192) as usize)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // How it ended is the client's business.
        _ = connection => {}
        () = receiver.inlet.doors.closing.cancelled() => {}
    }
}

/// The answer in text, for a client that does not speak gRPC.
pub(super) fn text(receiver: &Receiver, status: StatusCode) -> Response<AnswerBody> {
    let verdict = verdict(receiver);
    let body = Bytes::from(format!("{}\n", verdict.message));
    let mut answer = Response::new(AnswerBody::new(body, None));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}

/// The answer to a gRPC call where HTTP is spoken.
pub(super) fn grpc_on_http(receiver: &Receiver) -> Response<AnswerBody> {
    let retry_after = receiver.inlet.settings.retry_after;
    grpc::failed_response(&verdict(receiver), retry_after)
}

fn verdict(receiver: &Receiver) -> Verdict {
    let verdict = Verdict::from(&receiver.mixed_up());
    let transport = receiver.point.origin.transport;
    receiver.inlet.metrics.refused(transport, verdict.reason);
    verdict
}
