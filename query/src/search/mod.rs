//! `GET /api/v1/traces`: the newest traces that match.

pub mod cursor;
pub mod filter;
pub mod page;
mod tag;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::ids::hex;
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::search::filter::Filter;
use crate::search::page::Found;
use crate::times::{Window, rfc3339};

/// What the route takes.
pub const ALLOWED: Allowed = Allowed {
    once: &[
        "service",
        "operation",
        "status",
        "kind",
        "minDuration",
        "maxDuration",
        "start",
        "end",
        "limit",
        "cursor",
    ],
    repeated: &["tag"],
};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// A page of traces, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceList {
    /// The traces, by the start of their newest span that matches, then by id, both descending.
    pub traces: Vec<TraceSummary>,
    /// Whether more traces match than are in this answer.
    pub truncated: bool,
    /// Continues behind the last trace when given as `cursor` with the same other parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The window that was searched: spans that start in it, bounds included.
    pub window: Window,
}

/// One trace, as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The root span's service; empty while no root span has come.
    pub root_service: String,
    /// The root span's name; empty while no root span has come.
    pub root_operation: String,
    /// The first span's start (RFC 3339 with nanoseconds).
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: String,
    /// From the first span's start to the last span's end, in nanoseconds.
    pub duration_ns: String,
    /// All spans of the trace.
    pub span_count: u64,
    /// Those with status error.
    pub error_count: u64,
}

impl From<Found> for TraceSummary {
    fn from(found: Found) -> Self {
        let trace_id = hex(&found.place.trace_id);
        let Some(trace) = found.indexed else {
            // Its index row is not in yet; one span is what is known.
            return Self {
                trace_id,
                root_service: String::new(),
                root_operation: String::new(),
                start: rfc3339(found.place.time_ns),
                start_unix_nano: found.place.time_ns.to_string(),
                duration_ns: "0".to_owned(),
                span_count: 1,
                error_count: 0,
            };
        };
        Self {
            trace_id,
            root_service: trace.root_service.0,
            root_operation: trace.root_operation.0,
            start: rfc3339(trace.start_ns),
            start_unix_nano: trace.start_ns.to_string(),
            duration_ns: trace
                .end_ns
                .saturating_sub(trace.start_ns)
                .max(0)
                .to_string(),
            span_count: trace.spans,
            error_count: trace.errors,
        }
    }
}

/// Searches traces.
///
/// A trace matches when one of its spans matches all conditions and starts in the window.
#[utoipa::path(
    get,
    path = "/api/v1/traces",
    tag = "traces",
    operation_id = "searchTraces",
    params(
        ("service" = Option<String>, Query, description = "The span's service"),
        ("operation" = Option<String>, Query, description = "The span's name"),
        ("status" = Option<String>, Query, description = "unset, ok or error"),
        ("kind" = Option<String>, Query,
            description = "unspecified, internal, server, client, producer or consumer"),
        ("tag" = Option<Vec<String>>, Query, explode, style = Form,
            description = "key=value: an attribute of the span or of its resource; give it several \
                           times for several. A value that reads as a number or a boolean also \
                           matches attributes of these types"),
        ("minDuration" = Option<String>, Query,
            description = "The span's least duration: 10ms, 1.5s, 2m"),
        ("maxDuration" = Option<String>, Query, description = "The span's greatest duration"),
        ("start" = String, Query, description = "The window's begin: RFC 3339 or Unix seconds"),
        ("end" = String, Query,
            description = "The window's end, inclusive: RFC 3339 or Unix seconds"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
            description = "Traces to answer with; 20 if not given"),
        ("cursor" = Option<String>, Query,
            description = "The nextCursor of the answer to the same search"),
    ),
    responses(
        (status = 200, description = "The newest traces that match", body = TraceList),
        (status = "default", description = "No answer", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn search(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<TraceList>, Problem> {
    let params = Params::read(&uri, ALLOWED)?;
    let filter = Filter::read(&params)?;
    let limit = params.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let question = filter.question();
    let after = params
        .one("cursor")
        .map(|text| cursor::decode(text, question))
        .transpose()?;
    let page = page::page(&app.db, &filter, after, limit, app.db.deadline()).await?;
    let last = page.traces.last().map(|found| found.place);
    let next_cursor = last
        .filter(|_| page.more)
        .map(|place| cursor::encode(place, question));
    Ok(Json(TraceList {
        traces: page.traces.into_iter().map(TraceSummary::from).collect(),
        truncated: page.more,
        next_cursor,
        window: Window::new(filter.start_ns, filter.end_ns),
    }))
}
