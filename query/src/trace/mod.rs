//! `GET /api/v1/traces/{id}`: a whole trace, without a time range.
//!
//! The trace index tells the trace's window, so that its spans are looked for in few parts; they
//! are read in the order of time up to the limits, merged by their ids, and put in tree order.

pub mod outline;
mod rows;
pub mod span;
pub mod tree;
pub mod value;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Uri, header};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::db::{Deadline, Flow};
use crate::ids::{hex, parse_trace_id};
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument, ProblemKind};
use crate::search::page::{Indexed, indexed};
use crate::times::rfc3339;
use crate::trace::outline::Outline;
use crate::trace::rows::{Converter, SpanRow, spans_sql};
use crate::trace::span::Trace;

/// What the route takes.
pub const ALLOWED: Allowed = Allowed::NONE;

/// Above this many spans the answer is made on a thread that may block.
const INLINE_SPANS_MAX: usize = 200;

/// Reads a whole trace.
#[utoipa::path(
    get,
    path = "/api/v1/traces/{id}",
    tag = "traces",
    operation_id = "getTrace",
    params(
        ("id" = String, Path,
            description = "The trace ID: up to 32 hexadecimal digits; leading zeros may be omitted"),
    ),
    responses(
        (status = 200, description = "The trace", body = Trace),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn trace(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    Params::read(&uri, ALLOWED)?;
    let Path(text) = id.map_err(|error| Problem::parameter("id", error.body_text()))?;
    let Some(id) = parse_trace_id(&text) else {
        let detail = "a trace ID is 1 to 32 hexadecimal digits";
        return Err(Problem::parameter("id", detail));
    };
    let deadline = app.db.deadline();
    let not_found = || {
        let detail = format!(
            "trace {} not found; it may be older than the retention, or sampled out",
            hex(&id)
        );
        Problem::new(ProblemKind::NotFound, detail)
    };
    let window = indexed(&app.db, [id].into_iter(), deadline)
        .await?
        .remove(&id);
    let spans = read_spans(&app, &window.ok_or_else(not_found)?, deadline).await?;
    if spans.rows.is_empty() {
        return Err(not_found());
    }
    let body = if spans.rows.len() <= INLINE_SPANS_MAX {
        answer(id, spans)
    } else {
        let made = tokio::task::spawn_blocking(move || answer(id, spans)).await;
        made.map_err(|error| internal(&error))?
    };
    let body = body.map_err(|error| internal(&error))?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "cannot encode a trace");
    Problem::new(
        ProblemKind::Internal,
        "the trace could not be encoded; see the log of the query service",
    )
}

/// The rows of a trace, and the share of the memory for traces that they hold.
struct Spans {
    rows: Vec<SpanRow>,
    truncated: bool,
    _memory: Vec<OwnedSemaphorePermit>,
}

async fn read_spans(app: &App, window: &Indexed, deadline: Deadline) -> Result<Spans, Problem> {
    /// What is taken of the shared memory at a time.
    const STEP_BYTES: usize = 1 << 20;
    let limits = &app.limits;
    let sql = spans_sql(
        window.trace_id,
        window.start_ns,
        window.end_ns,
        limits.trace_spans + 1,
    );
    let mut spans = Spans {
        rows: Vec::new(),
        truncated: false,
        _memory: Vec::new(),
    };
    let (mut bytes, mut granted, mut refused) = (0_usize, 0_usize, false);
    let read = app.db.each("trace", &sql, deadline, |row: SpanRow| {
        bytes += row.bytes();
        if spans.rows.len() >= limits.trace_spans || bytes > limits.trace_bytes {
            spans.truncated = true;
            return Flow::Enough;
        }
        while granted < bytes {
            match app.grant_trace_memory(STEP_BYTES) {
                Some(permit) => spans._memory.push(permit),
                None => {
                    refused = true;
                    return Flow::Enough;
                }
            }
            granted += STEP_BYTES;
        }
        spans.rows.push(row);
        Flow::More
    });
    read.await?;
    if refused {
        app.metrics.refuse();
        return Err(Problem::new(
            ProblemKind::Overloaded,
            "too much trace data is being returned at once; try again",
        ));
    }
    Ok(spans)
}

/// The body of the answer.
fn answer(id: [u8; 16], spans: Spans) -> serde_json::Result<Bytes> {
    let truncated = spans.truncated;
    let outline = Outline::of(spans.rows);
    let (order, duplicates) = (outline.order, outline.duplicates);
    let span_count = outline.rows.len();
    let mut rows: Vec<Option<SpanRow>> = outline.rows.into_iter().map(Some).collect();
    let mut converter = Converter::default();
    let ordered = order.into_iter().filter_map(|placed| {
        let row = rows.get_mut(placed.index)?.take()?;
        let copies = duplicates.get(placed.index).copied().unwrap_or(0);
        Some(converter.span(row, placed, copies))
    });
    let (root_service, root_operation) = outline.name;
    let trace = Trace {
        trace_id: hex(&id),
        root_service,
        root_operation,
        root_missing: outline.root_missing,
        start: rfc3339(outline.start_ns),
        start_unix_nano: outline.start_ns.to_string(),
        duration_ns: outline.end_ns.saturating_sub(outline.start_ns).to_string(),
        span_count,
        error_count: outline.errors,
        services: outline.services,
        truncated,
        spans: ordered.collect(),
    };
    serde_json::to_vec(&trace).map(Bytes::from)
}
