//! The OpenAPI document, made from the handlers' own annotations.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};
use utoipa::OpenApi;

use crate::params::{Allowed, Params};
use crate::problem::Problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Spanloom",
        description = "Distributed traces: search, whole traces, services, latency, the service \
                       graph, and what happened to received spans. Times are RFC 3339 or Unix seconds; 64-bit integers are strings; errors \
                       are problem documents (RFC 9457).",
        license(name = "Apache-2.0"),
    ),
    paths(
        crate::search::search,
        crate::trace::trace,
        crate::rollup::services::services,
        crate::rollup::services::operations,
        crate::rollup::dependencies::dependencies,
        crate::rollup::latency::latency,
        crate::rollup::accounts::accounts,
        document,
    ),
    tags(
        (name = "traces", description = "Search for traces and read them"),
        (name = "services", description = "Services, their operations, latency and calls"),
        (name = "accounts", description = "What happened to the spans that were received"),
        (name = "meta", description = "About this API"),
    ),
)]
struct Document;

/// The document, as JSON text.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        // A document of plain strings and maps always has a JSON form.
        Document::openapi().to_pretty_json().unwrap_or_default()
    });
    &TEXT
}

/// This document.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    tag = "meta",
    operation_id = "openapi",
    responses((status = 200,
        description = "The OpenAPI document of this API",
        body = serde_json::Value)),
)]
pub async fn document(uri: Uri) -> Result<Response, Problem> {
    Params::read(&uri, Allowed::NONE)?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], text()).into_response())
}
