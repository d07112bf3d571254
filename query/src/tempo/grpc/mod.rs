//! Tempo's gRPC service `tempopb.StreamingQuerier`, by which Grafana shows what a query has found so far. It is at
//! the root of the port, whatever the prefix of the data source: gRPC knows none.
//!
//! A request becomes the parameters that the same query has over HTTP, so both are read in one place and refused
//! in the same words. Each call runs as a task that puts its messages into a short [queue](queue); the answer
//! owns the task, so a client that goes away ends it, and with it the query in ClickHouse.

mod given;
mod messages;
mod metrics;
mod packets;
mod queue;
mod search;
mod tags;

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any};
use http::{HeaderMap, StatusCode, Version, header};
use tonic::server::{Grpc, ServerStreamingService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use self::queue::{Ended, Messages, Queue, Stop};
use crate::app::App;
use crate::problem::ProblemKind;

/// A query is at most 128 KiB, as in Tempo; beside it a request has a few numbers and names.
const REQUEST_BYTES_MAX: usize = (128 << 10) + (16 << 10);

/// A method of the service.
trait Method: 'static {
    /// What it takes.
    type Asked: prost::Message + Default + 'static;
    /// What it answers, as often as it has something to say.
    type Answer: prost::Message + 'static;

    /// Runs it.
    fn run(
        app: Arc<App>,
        asked: Self::Asked,
        queue: Queue<Self::Answer>,
    ) -> impl Future<Output = Result<Ended, Stop>> + Send + 'static;
}

/// The methods.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route(
            "/tempopb.StreamingQuerier/Search",
            method::<search::Search>(),
        )
        .route(
            "/tempopb.StreamingQuerier/SearchTags",
            method::<tags::Tags>(),
        )
        .route(
            "/tempopb.StreamingQuerier/SearchTagsV2",
            method::<tags::TagsV2>(),
        )
        .route(
            "/tempopb.StreamingQuerier/SearchTagValues",
            method::<tags::Values>(),
        )
        .route(
            "/tempopb.StreamingQuerier/SearchTagValuesV2",
            method::<tags::ValuesV2>(),
        )
        .route(
            "/tempopb.StreamingQuerier/MetricsQueryRange",
            method::<metrics::Range>(),
        )
        .route(
            "/tempopb.StreamingQuerier/MetricsQueryInstant",
            method::<metrics::Instant>(),
        )
        .route("/tempopb.StreamingQuerier/{method}", any(unknown))
}

fn method<M: Method>() -> MethodRouter<Arc<App>> {
    any(serve::<M>)
}

async fn unknown() -> Response {
    Status::unimplemented("tempopb.StreamingQuerier has no such method").into_http()
}

async fn serve<M: Method>(State(app): State<Arc<App>>, request: Request) -> Response {
    if request.version() < Version::HTTP_2 {
        // Trailers would not arrive; these headers may.
        let why = "gRPC needs HTTP/2 on the whole way to this port; what is between speaks HTTP/1.1: configure \
                   it for gRPC, or turn streaming off in the settings of the data source";
        return Status::unimplemented(why).into_http();
    }
    if !is_grpc(request.headers()) {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let codec = ProstCodec::<M::Answer, M::Asked>::new();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(REQUEST_BYTES_MAX);
    let call = Call::<M> {
        app,
        method: PhantomData,
    };
    grpc.server_streaming(call, request).await.map(Body::new)
}

/// Whether a request says that it is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';' | b' ', ..]))
}

/// How a request without a valid token is refused.
pub fn unauthenticated() -> Response {
    Status::unauthenticated("no valid token: add the header Authorization with Bearer TOKEN")
        .into_http()
}

struct Call<M> {
    app: Arc<App>,
    method: PhantomData<fn() -> M>,
}

impl<M: Method> ServerStreamingService<M::Asked> for Call<M> {
    type Response = M::Answer;
    type ResponseStream = Messages<M::Answer>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<M::Asked>) -> Self::Future {
        let (app, asked) = (Arc::clone(&self.app), request.into_inner());
        let messages = Messages::of(|queue| M::run(app, asked, queue));
        ready(Ok(tonic::Response::new(messages)))
    }
}

/// The code of a problem.
fn code(kind: ProblemKind) -> Code {
    match kind {
        ProblemKind::BadParameter => Code::InvalidArgument,
        ProblemKind::NotFound => Code::NotFound,
        ProblemKind::MethodNotAllowed => Code::Unimplemented,
        ProblemKind::TooMuchMemory => Code::ResourceExhausted,
        // Both pass: a client may try again.
        ProblemKind::Unavailable | ProblemKind::Overloaded => Code::Unavailable,
        ProblemKind::Timeout => Code::DeadlineExceeded,
        ProblemKind::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_grpc() {
        #[track_caller]
        fn check(kind: &str, expect: bool) {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            assert_eq!(is_grpc(&headers), expect, "{kind}");
        }
        check("application/grpc", true);
        check("application/grpc+proto", true);
        check("application/grpc; charset=utf-8", true);
        check("application/grpc-web", false);
        check("application/json", false);
        check("", false);
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
