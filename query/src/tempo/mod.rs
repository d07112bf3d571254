//! Tempo's API, for Grafana's Tempo data source: at the root and under `/tempo`; over gRPC at the root ([`grpc`]).
//!
//! Its answers have the shapes of Tempo's own, down to what is left out: Grafana's data source refuses a
//! field that it does not know, and reads some without a look. Errors are plain text, which Grafana shows.
//! Parameters that we do not know are ignored.

mod encoded;
mod error;
pub mod grpc;
mod json;
mod metrics;
mod otlp;
mod query;
mod search;
mod tags;
mod trace;
mod values;
mod window;
mod wire;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, Uri, header};
use serde_json::json;

use self::error::Plain;
use crate::app::App;
use crate::problem::{Problem, ProblemKind};

/// The version of Tempo whose API this is: Grafana shows what a data source can do by it.
const API_VERSION: &str = "3.1.0";

/// The routes under a prefix of their own, where whatever is not there is said in plain text.
pub fn prefixed() -> Router<Arc<App>> {
    routes()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
}

async fn not_found(uri: Uri) -> Plain {
    let path: String = uri.path().chars().take(200).collect();
    let detail = format!("{path} not found in the Tempo API; check the URL of the data source");
    Plain(Problem::new(ProblemKind::NotFound, detail))
}

async fn method_not_allowed() -> Plain {
    let detail = "only GET is supported";
    Plain(Problem::new(ProblemKind::MethodNotAllowed, detail))
}

/// The routes; to be served at the root and under a prefix.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/echo", get(echo))
        .route("/ready", get(ready))
        .route("/api/status/buildinfo", get(build_info))
        .route("/api/v2/traces/{id}", get(trace::v2))
        .route("/api/traces/{id}", get(trace::v1))
        .route("/api/search", get(search::get))
        .route("/api/metrics/query_range", get(metrics::query_range))
        .route("/api/metrics/query", get(metrics::query))
        .route("/api/v2/search/tags", get(tags::v2))
        .route("/api/search/tags", get(tags::v1))
        // A name may have slashes.
        .route("/api/v2/search/tag/{*rest}", get(values::v2))
        .route("/api/search/tag/{*rest}", get(values::v1))
}

fn text(text: &'static str) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// What Grafana asks when a data source is saved.
async fn echo() -> Response {
    text("echo\n")
}

async fn ready() -> Response {
    text("ready\n")
}

async fn build_info() -> Json<serde_json::Value> {
    Json(json!({
        "version": API_VERSION,
        "revision": concat!("spanloom-", env!("CARGO_PKG_VERSION")),
        "branch": "",
        "buildDate": "",
        "buildUser": "",
        "goVersion": "",
    }))
}
