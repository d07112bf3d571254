//! A search by TraceQL, given as `q` or made of the other parameters.
//!
//! Traces are ordered by their start, newest first, then by id. A cursor is the place of a page's last trace in that
//! order, and belongs to one query and one window.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use spanloom_traceql::{CompiledQuery, OwnedValue};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::Deadline;
use crate::ids::hex;
use crate::params::Params;
use crate::problem::Problem;
use crate::search::cursor::{self, Place, Question};
use crate::search::explain::Explanation;
use crate::search::parameters::{Parameters, given};
use crate::search::{TraceList, TraceSummary, hint};
use crate::tally::{Read, Tally, counted};
use crate::times::{Window, rfc3339};
use crate::trace::value::{Attribute, TypedValue};
use crate::traceql::plan::Plan;
use crate::traceql::rows::Maps;
use crate::traceql::search::{Answer, Asked, FoundSpan, FoundSpanset, FoundTrace, search};
use crate::traceql::watch::{Request, watched};

/// How many spans are shown of those that match together.
const SPANS_MAX: usize = 3;

/// How many groups of spans are shown of one trace: `by` can make one of each span.
const MATCHES_MAX: usize = 20;

/// Spans of one trace that match together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Match {
    /// How many spans there are.
    pub span_count: usize,
    /// The first of them, at most 3.
    pub spans: Vec<MatchedSpan>,
    /// The values of `by(…)` and of aggregates such as `count()`.
    pub attributes: Vec<Attribute>,
}

/// A span that matches.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MatchedSpan {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// Its service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its start (RFC 3339 with nanoseconds).
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: String,
    /// Its duration in nanoseconds.
    pub duration_ns: String,
    /// The attributes that the query compares or selects.
    pub attributes: Vec<Attribute>,
}

/// Why a search has not looked at everything.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partial {
    /// The limit that was reached, and what to do.
    pub reason: String,
}

/// Answers a search by the query `text`.
///
/// # Errors
/// When a parameter cannot be used, or ClickHouse has no answer.
pub async fn by_query(
    app: &App,
    params: &Params,
    text: &str,
    limit: usize,
    is_explained: bool,
) -> Result<TraceList, Problem> {
    refuse_others(params)?;
    let query = compile(text)?;
    let window = params.window()?;
    let question = question(&query.to_string(), window);
    let asking = Asking {
        text,
        query: &query,
        maps: None,
        question,
        before: Default::default(),
        window,
        limit,
        is_explained,
    };
    let deadline = app.db.deadline();
    asking.list(app, params, deadline, || HINT.to_owned()).await
}

/// Answers a search by the other parameters.
///
/// # Errors
/// As [`by_query`].
pub async fn by_parameters(
    app: &App,
    params: &Params,
    limit: usize,
    is_explained: bool,
) -> Result<TraceList, Problem> {
    let parameters = Parameters::read(params)?;
    let window = params.window()?;
    let deadline = app.db.deadline();
    // It is a part of what the search costs.
    let (begun, tally) = (Instant::now(), Arc::<Tally>::default());
    let text = parameters.query(&app.db, window, deadline);
    let understood = counted(tally.clone(), text).await?;
    let before = (tally.read(), begun.elapsed());
    let query = CompiledQuery::new(&understood.text).map_err(|error| {
        let detail = format!("the parameters make a query that is not valid: {error}");
        Problem::parameter("tag", detail)
    })?;
    let asking = Asking {
        text: &understood.text,
        query: &query,
        maps: understood.maps.as_ref(),
        question: parameters.question(window),
        before,
        window,
        limit,
        is_explained,
    };
    asking.list(app, params, deadline, || hint(params)).await
}

/// A search that is understood.
struct Asking<'a> {
    text: &'a str,
    query: &'a CompiledQuery,
    maps: Option<&'a Maps>,
    /// Its mark, for cursors.
    question: u64,
    /// What it took to understand it.
    before: (Read, Duration),
    window: (i64, i64),
    limit: usize,
    is_explained: bool,
}

impl Asking<'_> {
    /// Its page.
    async fn list(
        self,
        app: &App,
        params: &Params,
        deadline: Deadline,
        hint: impl FnOnce() -> String,
    ) -> Result<TraceList, Problem> {
        let Self {
            text,
            query,
            question,
            window: (start_ns, end_ns),
            maps,
            ..
        } = self;
        let after = params
            .one("cursor")
            .map(|text| cursor::decode(text, question))
            .transpose()?;
        let asked = Asked {
            query,
            start_ns,
            end_ns,
            after,
            // One more than asked for says whether there is more.
            limit: self.limit + 1,
            spans_per_spanset: SPANS_MAX,
            is_named: true,
            maps,
        };
        let request = Request {
            route: "/api/v1/traces",
            text,
            query,
            before: self.before,
        };
        let work = search(app, &asked, deadline);
        let (answer, cost) = watched(app, request, Answer::inspected, work).await?;
        let window = Window::new(start_ns, end_ns);
        let mut list = page(answer, self.limit, question, window);
        if list.traces.is_empty() && list.partial.is_none() && after.is_none() {
            list.hint = Some(hint());
        }
        list.explain = self
            .is_explained
            .then(|| Explanation::of_query(query.to_string(), Plan::of(query), cost));
        Ok(list)
    }
}

/// What to try when nothing matches.
const HINT: &str = "no trace in this time range matches the query; try a longer range, or leave a condition out: \
                    names and values are compared exactly, with upper and lower case";

/// One of them would have to be put into the query, or be a condition on any span of the trace: which is meant, the
/// request does not say.
fn refuse_others(params: &Params) -> Result<(), Problem> {
    let given = given(params);
    if given.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "q cannot be combined with {}; put all conditions into the query, such as \
         {{ resource.service.name = \"cart\" && duration > 100ms }}",
        given.join(", ")
    );
    Err(Problem::parameter("q", detail))
}

fn compile(text: &str) -> Result<CompiledQuery, Problem> {
    let query = CompiledQuery::new(text).map_err(|error| {
        let detail = format!("invalid TraceQL query: {error}");
        Problem::parameter("q", detail).at_place(error.at.line, error.at.column)
    })?;
    if query.is_metrics() {
        let detail = "this is a metrics query, whose result is series and not traces; use \
                      GET /api/metrics/query_range, or GET /api/metrics/query for single values";
        return Err(Problem::parameter("q", detail));
    }
    Ok(query)
}

/// Marks a search, so that a cursor of another one can be refused.
fn question(query: &str, (start_ns, end_ns): (i64, i64)) -> u64 {
    let mut question = Question::new();
    question
        .part(b"traceql")
        .part(query.as_bytes())
        .part(&start_ns.to_be_bytes())
        .part(&end_ns.to_be_bytes());
    question.mark()
}

/// The page of at most `limit` traces.
fn page(mut answer: Answer, limit: usize, question: u64, window: Window) -> TraceList {
    let more = answer.traces.len() > limit;
    answer.traces.truncate(limit);
    let last = answer.traces.last().map(|trace| Place {
        time_ns: trace.start_ns,
        trace_id: trace.trace_id,
    });
    // Where a search ended early, what was not found may be anywhere: there is no place behind which all the rest is.
    let last = last.filter(|_| more && !answer.ended_early);
    let partial = answer.cut.map(|why| Partial {
        reason: match answer.ended_early {
            true => format!("{why}; try a shorter time range, or more conditions"),
            false => why,
        },
    });
    TraceList {
        traces: answer.traces.into_iter().map(TraceSummary::from).collect(),
        truncated: more || partial.is_some(),
        partial,
        next_cursor: last.map(|place| cursor::encode(place, question)),
        window,
        hint: None,
        explain: None,
    }
}

impl From<FoundTrace> for TraceSummary {
    fn from(trace: FoundTrace) -> Self {
        let name = trace.name.unwrap_or_default();
        let services = trace.services.values();
        let (span_count, error_count) = services.fold((0, 0), |sum, service| {
            (sum.0 + service.0, sum.1 + service.1)
        });
        let matched = trace.spansets.iter().map(|spanset| spanset.matched).sum();
        let shown = trace.spansets.into_iter().take(MATCHES_MAX);
        Self {
            trace_id: hex(&trace.trace_id),
            root_service: name.service,
            root_operation: name.operation,
            root_missing: name.root_missing,
            start: rfc3339(trace.start_ns),
            start_unix_nano: trace.start_ns.to_string(),
            duration_ns: trace
                .end_ns
                .saturating_sub(trace.start_ns)
                .max(0)
                .to_string(),
            span_count,
            error_count,
            matched_span_count: matched,
            matches: shown.map(Match::from).collect(),
        }
    }
}

impl From<FoundSpanset> for Match {
    fn from(spanset: FoundSpanset) -> Self {
        Self {
            span_count: spanset.matched,
            spans: spanset.spans.into_iter().map(MatchedSpan::from).collect(),
            attributes: attributes(spanset.attributes),
        }
    }
}

impl From<FoundSpan> for MatchedSpan {
    fn from(span: FoundSpan) -> Self {
        Self {
            span_id: hex(&span.span_id),
            service: span.service,
            name: span.name,
            start: rfc3339(span.start_ns),
            start_unix_nano: span.start_ns.to_string(),
            duration_ns: span.duration_ns.to_string(),
            attributes: attributes(span.attributes),
        }
    }
}

fn attributes(pairs: Vec<(String, OwnedValue)>) -> Vec<Attribute> {
    let pairs = pairs.into_iter();
    pairs.map(|(key, value)| typed(value).under(key)).collect()
}

fn typed(value: OwnedValue) -> TypedValue {
    match value {
        OwnedValue::Str(text) => TypedValue::string(text),
        OwnedValue::Int(number) => TypedValue::int(number),
        OwnedValue::Float(number) => TypedValue::double(number),
        OwnedValue::Bool(value) => TypedValue::bool(value),
        OwnedValue::Array(values) => TypedValue::array(values.into_iter().map(typed)),
        // Values that are answered are none of these; their text says what they are.
        other => TypedValue::string(other.to_string()),
    }
}
