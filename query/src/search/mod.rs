//! `GET /api/v1/traces`: the newest traces that match.

pub mod cursor;
pub mod filter;
pub mod page;
mod summary;
pub mod tag;
pub mod traces;

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
use crate::search::cursor::Place;
use crate::search::filter::Filter;
use crate::search::summary::Summary;
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
    /// What to try when nothing matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
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
}

impl From<(Place, Summary)> for TraceSummary {
    fn from((place, summary): (Place, Summary)) -> Self {
        let (root_service, root_operation) = summary.name;
        Self {
            trace_id: hex(&place.trace_id),
            root_service,
            root_operation,
            root_missing: summary.root_missing,
            start: rfc3339(summary.start_ns),
            start_unix_nano: summary.start_ns.to_string(),
            duration_ns: summary
                .end_ns
                .saturating_sub(summary.start_ns)
                .max(0)
                .to_string(),
            span_count: summary.spans,
            error_count: summary.errors,
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
        ("service" = Option<String>, Query, description = "Service name"),
        ("operation" = Option<String>, Query, description = "Span name"),
        ("status" = Option<String>, Query, description = "unset, ok or error"),
        ("kind" = Option<String>, Query,
            description = "unspecified, internal, server, client, producer or consumer"),
        ("tag" = Option<Vec<String>>, Query, explode, style = Form,
            description = "key=value: an attribute of the span, its resource, scope, events or \
                           links, of any type, with the value as the trace shows it. Also matches \
                           an element of an array, and a key in a map by its path (a.b). Repeat \
                           the parameter for several tags. error=true matches status error, \
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
    ),
    responses(
        (status = 200, description = "The newest traces that match", body = TraceList),
        (status = "default", description = "Error", body = ProblemDocument,
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
    let deadline = app.db.deadline();
    let page = page::page(&app.db, &filter, after, limit, deadline).await?;
    let last = page.traces.last().copied();
    let next_cursor = last
        .filter(|_| page.more)
        .map(|place| cursor::encode(place, question));
    let hint = (page.traces.is_empty() && after.is_none()).then(|| hint(&params));
    let traces = summary::summaries(&app.db, page.traces, page.index, deadline).await?;
    Ok(Json(TraceList {
        traces: traces.into_iter().map(TraceSummary::from).collect(),
        truncated: page.more,
        next_cursor,
        hint,
        window: Window::new(filter.start_ns, filter.end_ns),
    }))
}

/// What to try when nothing matches: one span must meet every condition, and that is what is mostly
/// forgotten.
fn hint(params: &Params) -> String {
    const CONDITIONS: [&str; 7] = [
        "service",
        "operation",
        "status",
        "kind",
        "tag",
        "minDuration",
        "maxDuration",
    ];
    let given: Vec<_> = CONDITIONS
        .into_iter()
        .filter(|name| params.all(name).any(|value| !value.is_empty()))
        .collect();
    match given.as_slice() {
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
