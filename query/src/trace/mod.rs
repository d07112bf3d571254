//! `GET /api/v1/traces/{id}`: a whole trace, without a time range.
//!
//! The trace index tells the trace's window, so that its spans are looked for in few parts; they
//! are read in the order of time up to the limits, merged by their ids, and put in tree order.

pub mod outline;
pub mod rows;
pub mod span;
pub mod tree;
pub mod value;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, Uri, header};

use crate::app::{App, Share};
use crate::db::{DbError, Deadline, Flow};
use crate::ids::{hex, parse_trace_id};
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument, ProblemKind};
use crate::search::page::{Indexed, indexed};
use crate::times::rfc3339;
use crate::trace::outline::Outline;
use crate::trace::rows::{Converter, SpanRow, spans_sql};
use crate::trace::span::{Span, Trace};

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
    let id = id_in_path(id)?;
    let found = find(&app, id).await?.ok_or_else(|| not_found(id))?;
    let body = if found.rows.len() <= INLINE_SPANS_MAX {
        answer(id, found)
    } else {
        let made = tokio::task::spawn_blocking(move || answer(id, found)).await;
        made.map_err(|error| internal(&error))?
    };
    let body = body.map_err(|error| internal(&error))?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// The trace id in a path.
///
/// # Errors
/// When it is not one.
pub fn id_in_path(id: Result<Path<String>, PathRejection>) -> Result<[u8; 16], Problem> {
    let Path(text) = id.map_err(|error| Problem::parameter("id", error.body_text()))?;
    parse_trace_id(&text)
        .ok_or_else(|| Problem::parameter("id", "a trace ID is 1 to 32 hexadecimal digits"))
}

/// The problem that a trace is not there.
pub fn not_found(id: [u8; 16]) -> Problem {
    let detail = format!(
        "trace {} not found; it may be older than the retention, or sampled out",
        hex(&id)
    );
    Problem::new(ProblemKind::NotFound, detail)
}

/// When a trace was; none where it is not stored.
///
/// # Errors
/// When ClickHouse has no answer.
pub async fn window(
    app: &App,
    id: [u8; 16],
    deadline: Deadline,
) -> Result<Option<Indexed>, DbError> {
    let mut index = indexed(&app.db, [id].into_iter(), deadline).await?;
    Ok(index.remove(&id))
}

/// The problem that too much is held by other answers.
pub fn too_much() -> Problem {
    Problem::new(
        ProblemKind::Overloaded,
        "too much trace data is being returned at once; try again",
    )
}

/// The rows of a trace; none where it is not stored.
///
/// # Errors
/// When ClickHouse has no answer, or too many traces are being answered.
pub async fn find(app: &App, id: [u8; 16]) -> Result<Option<Found>, Problem> {
    let deadline = app.db.deadline();
    let Some(window) = window(app, id, deadline).await? else {
        return Ok(None);
    };
    let found = read_spans(app, &window, deadline).await?;
    Ok(Some(found).filter(|found| !found.rows.is_empty()))
}

/// The problem that an answer could not be made.
pub fn internal(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "cannot encode a trace");
    Problem::new(
        ProblemKind::Internal,
        "the trace could not be encoded; see the log of the query service",
    )
}

/// The rows of a trace, and the share of the memory for traces that they hold.
#[derive(Default)]
pub struct Found {
    rows: Vec<SpanRow>,
    /// Whether the trace has more spans than one answer may hold.
    pub truncated: bool,
    memory: Share,
}

/// Gives each span of a trace to `take`, each after its parent, siblings by start.
fn each_span(outline: Outline<SpanRow>, mut take: impl FnMut(Span)) {
    let mut rows: Vec<Option<SpanRow>> = outline.rows.into_iter().map(Some).collect();
    let mut converter = Converter::default();
    for placed in outline.order {
        let Some(row) = rows.get_mut(placed.index).and_then(Option::take) else {
            continue;
        };
        let copies = outline.duplicates.get(placed.index).copied();
        take(converter.span(row, placed, copies.unwrap_or(0)));
    }
}

async fn read_spans(app: &App, window: &Indexed, deadline: Deadline) -> Result<Found, Problem> {
    let limits = &app.limits;
    let sql = spans_sql(
        window.trace_id,
        window.start_ns,
        window.end_ns,
        limits.trace_spans + 1,
    );
    let mut spans = Found {
        rows: Vec::new(),
        truncated: false,
        memory: Share::default(),
    };
    let (mut bytes, mut refused) = (0_usize, false);
    let read = app.db.each_wide("trace", &sql, deadline, |row: SpanRow| {
        bytes += row.bytes();
        if spans.rows.len() >= limits.trace_spans || bytes > limits.trace_bytes {
            spans.truncated = true;
            return Flow::Enough;
        }
        if !spans.memory.grow_to(app, bytes) {
            refused = true;
            return Flow::Enough;
        }
        spans.rows.push(row);
        Flow::More
    });
    read.await?;
    if refused {
        return Err(too_much());
    }
    Ok(spans)
}

/// The body of the answer.
fn answer(id: [u8; 16], found: Found) -> serde_json::Result<Bytes> {
    let truncated = found.truncated;
    let mut outline = Outline::of(found.rows);
    let (root_service, root_operation) = std::mem::take(&mut outline.name);
    let mut trace = Trace {
        trace_id: hex(&id),
        root_service,
        root_operation,
        root_missing: outline.root_missing,
        start: rfc3339(outline.start_ns),
        start_unix_nano: outline.start_ns.to_string(),
        duration_ns: outline.end_ns.saturating_sub(outline.start_ns).to_string(),
        span_count: outline.rows.len(),
        error_count: outline.errors,
        services: std::mem::take(&mut outline.services),
        truncated,
        spans: Vec::with_capacity(outline.rows.len()),
    };
    each_span(outline, |span| trace.spans.push(span));
    serde_json::to_vec(&trace).map(Bytes::from)
}
