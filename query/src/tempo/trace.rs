//! `GET /api/v2/traces/{id}` and `GET /api/traces/{id}`: a whole trace.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use prost::Message;
use serde_json::json;

use crate::app::App;
use crate::params::Params;
use crate::problem::Problem;
use crate::tempo::error::Plain;
use crate::tempo::json as otlp_json;
use crate::tempo::otlp::Grouped;
use crate::tempo::window::Range;
use crate::tempo::wire::{PartialStatus, Trace, TraceByIdMetrics, TraceByIdResponse};
use crate::trace::{self, Found};

/// Of which version of the API an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    /// The trace alone.
    V1,
    /// The trace, and whether it is all of it.
    V2,
}

/// A trace in the newer form.
pub async fn v2(
    app: State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Plain> {
    answer(app, id, &headers, &uri, Version::V2).await
}

/// A trace in the older form.
pub async fn v1(
    app: State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Plain> {
    answer(app, id, &headers, &uri, Version::V1).await
}

async fn answer(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    uri: &Uri,
    version: Version,
) -> Result<Response, Plain> {
    let range = Range::read(&Params::of_others(uri)?)?;
    let id = trace::id_in_path(id)?;
    let found = trace::find(&app, id).await?;
    let is_protobuf = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|text| text.contains("application/protobuf"));
    let found = match found {
        Some(found) => found,
        // Tempo answers so, and so its data source expects it; without a range there is the status for it.
        None if version == Version::V2 && range.is_some() => Found::default(),
        None => return Err(trace::not_found(id).into()),
    };
    let made = tokio::task::spawn_blocking(move || body(id, found, version, is_protobuf)).await;
    let body = made.map_err(|error| trace::internal(&error))??;
    let kind = match is_protobuf {
        true => "application/protobuf",
        false => "application/json",
    };
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
    Ok((headers, body).into_response())
}

fn body(id: [u8; 16], found: Found, version: Version, is_protobuf: bool) -> Result<Bytes, Problem> {
    let truncated = found.truncated;
    let mut grouped = Grouped::default();
    found.each_span(|span| grouped.add(id, span));
    let trace = Trace {
        resource_spans: grouped.into_spans(),
    };
    let message = match truncated {
        true => "the trace has more spans than one answer may hold; the earliest are here",
        false => "",
    };
    if is_protobuf {
        return Ok(Bytes::from(match version {
            Version::V1 => trace.encode_to_vec(),
            Version::V2 => {
                let status = match truncated {
                    true => PartialStatus::Partial,
                    false => PartialStatus::Complete,
                };
                let response = TraceByIdResponse {
                    trace: Some(trace),
                    metrics: Some(TraceByIdMetrics {}),
                    status: status.into(),
                    message: message.to_owned(),
                };
                response.encode_to_vec()
            }
        }));
    }
    let spans = otlp_json::resource_spans(&trace.resource_spans);
    let document = match version {
        Version::V1 => json!({"batches": spans}),
        Version::V2 if truncated => json!({
            "trace": {"resourceSpans": spans}, "metrics": {}, "status": "PARTIAL", "message": message,
        }),
        Version::V2 => json!({"trace": {"resourceSpans": spans}, "metrics": {}}),
    };
    let text = serde_json::to_vec(&document).map_err(|error| trace::internal(&error))?;
    Ok(Bytes::from(text))
}
