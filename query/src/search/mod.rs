//! `GET /api/v1/traces`: the newest traces that match.

pub mod cursor;
pub mod explain;
pub mod page;
mod parameters;
pub mod tag;
pub mod traceql;
pub mod traces;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::search::explain::Explanation;
use crate::search::parameters::given;
use crate::search::traceql::{Match, Partial};
use crate::times::Window;

/// What the route takes.
pub const ALLOWED: Allowed = Allowed {
    once: &[
        "q",
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
        "explain",
    ],
    repeated: &["tag"],
};

const LIMIT_DEFAULT: usize = 20;
const LIMIT_MAX: usize = 100;

/// A page of traces, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceList {
    /// The traces, by their start, then by id, both descending.
    pub traces: Vec<TraceSummary>,
    /// Whether more traces match than are in this answer, or may match: then `partial` says why.
    pub truncated: bool,
    /// Why the search has not looked at everything; missing if it has. If the search ended early, there is no
    /// `nextCursor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
    /// Continues behind the last trace when given as `cursor` with the same other parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The window that was searched: spans that start in it, bounds included.
    pub window: Window,
    /// What to try when nothing matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// How the search was run, with `explain=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explain: Option<Explanation>,
}

/// One trace, as a list shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceSummary {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The service of the span that names the trace: its root; of several the longest, then the
    /// earliest.
    pub root_service: String,
    /// The name of the same span.
    pub root_operation: String,
    /// Whether no root span is stored: then the trace is named by its entry span, the longest of those
    /// whose parents are missing.
    pub root_missing: bool,
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
    /// How many spans match.
    pub matched_span_count: usize,
    /// The spans that match: one group, or with `by(…)` one for each value, at most 20.
    pub matches: Vec<Match>,
}

/// Searches traces.
///
/// A trace matches when the query selects one of its spans that starts in the window. The other parameters are a query
/// as well: of spans that meet all of them.
#[utoipa::path(
    get,
    path = "/api/v1/traces",
    tag = "traces",
    operation_id = "searchTraces",
    params(
        ("q" = Option<String>, Query,
            description = "A TraceQL query, such as { status = error && duration > 1s }; cannot be \
                           combined with service, operation, status, kind, tag, minDuration and \
                           maxDuration"),
        ("service" = Option<String>, Query, description = "Service name"),
        ("operation" = Option<String>, Query, description = "Span name"),
        ("status" = Option<String>, Query, description = "unset, ok or error"),
        ("kind" = Option<String>, Query,
            description = "unspecified, internal, server, client, producer or consumer"),
        ("tag" = Option<Vec<String>>, Query, explode, style = Form,
            description = "key=value: an attribute of the span, its resource, scope, events or \
                           links that is this text, number or boolean, or an array with it. A value \
                           in a map has its path as key (a.b). Repeat the parameter for several tags. error=true matches status error, \
                           otel.status_description the status message"),
        ("minDuration" = Option<String>, Query,
            description = "Minimum span duration, such as 10ms, 1.5s or 2m"),
        ("maxDuration" = Option<String>, Query, description = "Maximum span duration"),
        ("start" = String, Query, description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = String, Query,
            description = "End of the time range, inclusive: RFC 3339 or Unix seconds"),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100,
            description = "Maximum number of traces to return; 20 by default"),
        ("cursor" = Option<String>, Query,
            description = "The nextCursor of the previous page of the same search"),
        ("explain" = Option<bool>, Query,
            description = "Whether to add how the search was run, and what it read"),
    ),
    responses(
        (status = 200, description = "The newest traces that match", body = TraceList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn search(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<TraceList>, Problem> {
    let params = Params::read(&uri, ALLOWED)?;
    let limit = params.limit(LIMIT_DEFAULT, LIMIT_MAX)?;
    let is_explained = params.flag("explain")?;
    let list = match params.one("q") {
        Some(text) => traceql::by_query(&app, &params, text, limit, is_explained).await?,
        None => traceql::by_parameters(&app, &params, limit, is_explained).await?,
    };
    Ok(Json(list))
}

/// What to try when nothing matches: one span must meet every condition, and that is what is mostly
/// forgotten.
fn hint(params: &Params) -> String {
    match given(params).as_slice() {
        [] => "no spans are stored in this time range; try a longer range, or check with GET \
             /api/v1/accounts that spans are received"
            .to_owned(),
        [one] => format!(
            "no span in this time range matches {one}; try a longer range, or check the value: names \
             and values are compared exactly, with upper and lower case"
        ),
        several => format!(
            "no span in this time range matches all of {}; one span must match them all. Try a longer \
             range, or leave one of them out",
            several.join(", ")
        ),
    }
}
