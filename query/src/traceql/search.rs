//! A search: the newest traces that match a query, by the start of the trace, then by id.
//!
//! The window is read in chunks, the newest first. Of each chunk ClickHouse gives the traces with a span that
//! may match, those with the newest such span first, and the evaluator looks at each of them whole. A trace
//! that was not seen yet starts before the newest span of the last one that was: so what starts later than
//! that is final, and once these are enough the search ends.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use spanloom_traceql::{
    Body, CompiledQuery, Form, OwnedValue, Pipeline, Span as _, SpansetExpr, SpansetOp, Stage,
    Status, Trace, TraceSpan as _,
};

use crate::app::App;
use crate::db::{DbError, Deadline};
use crate::search::cursor::Place;
use crate::search::page::{Candidate, Chunks, newest_sql};
use crate::traceql::condition::Condition;
use crate::traceql::load::{Loaded, each_trace};
use crate::traceql::rows::Columns;

/// How long the first chunk of a window is.
const FIRST_CHUNK_NS: i64 = 60_000_000_000;

/// The most traces that are read at a time. The first are few: where most of them match they are enough.
const BATCH_MAX: usize = 1_000;

/// How many more the next ones are.
const BATCH_GROWTH: usize = 4;

/// What is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The query; no metrics.
    pub query: &'a CompiledQuery,
    /// The window's first nanosecond: of the spans that match, one starts in the window.
    pub start_ns: i64,
    /// The window's last nanosecond.
    pub end_ns: i64,
    /// How many traces are wanted.
    pub limit: usize,
    /// How many spans of each spanset are wanted; 0: all.
    pub spans_per_spanset: usize,
}

/// What a search found.
#[derive(Debug, Default)]
pub struct Answer {
    /// The traces, newest first.
    pub traces: Vec<FoundTrace>,
    /// Traces that the evaluator looked at.
    pub inspected_traces: u64,
    /// Their spans.
    pub inspected_spans: u64,
    /// Why the search ended before it had looked at all it had to.
    pub cut: Option<String>,
}

impl Answer {
    /// Puts the traces in order, and leaves out what cannot be among so many.
    fn keep_newest(&mut self, limit: usize) {
        self.traces
            .sort_by_key(|trace| Reverse((trace.start_ns, trace.trace_id)));
        self.traces.truncate(limit);
    }

    /// Of traces in order those that stay where they are: what was not seen yet starts at `frontier_ns` or before.
    pub fn final_ones(&self, frontier_ns: i64) -> &[FoundTrace] {
        let count = self
            .traces
            .partition_point(|trace| trace.start_ns > frontier_ns);
        self.traces.get(..count).unwrap_or_default()
    }
}

/// A trace that matches.
#[derive(Debug)]
pub struct FoundTrace {
    /// Which.
    pub trace_id: [u8; 16],
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
    /// The service of the span that names the trace.
    pub root_service: String,
    /// The name of the same span.
    pub root_name: String,
    /// Of each service how many spans the trace has, and how many of them with status error.
    pub services: BTreeMap<String, (u64, u64)>,
    /// The spans that match.
    pub spansets: Vec<FoundSpanset>,
}

/// Spans that match together.
#[derive(Debug)]
pub struct FoundSpanset {
    /// As many as are wanted.
    pub spans: Vec<FoundSpan>,
    /// How many there are.
    pub matched: usize,
    /// What is said of all of them.
    pub attributes: Vec<(String, OwnedValue)>,
}

/// A span that matches.
#[derive(Debug)]
pub struct FoundSpan {
    /// Its id.
    pub span_id: [u8; 8],
    /// Its name.
    pub name: String,
    /// Its start.
    pub start_ns: i64,
    /// Its duration.
    pub duration_ns: u64,
    /// What the query read of it, and what it selects.
    pub attributes: Vec<(String, OwnedValue)>,
}

/// Searches. What was found until the time or the memory of a query ran out is an answer, too.
///
/// # Errors
/// When ClickHouse is away, or refuses the query.
pub async fn search(app: &App, asked: &Asked<'_>, deadline: Deadline) -> Result<Answer, DbError> {
    search_telling(app, asked, deadline, |_, _| {}).await
}

/// As [`search`]; `tell` is given what was found so far, and the frontier up to which that is final
/// ([`Answer::final_ones`]), each time that more was looked at.
///
/// # Errors
/// As [`search`].
pub async fn search_telling(
    app: &App,
    asked: &Asked<'_>,
    deadline: Deadline,
    mut tell: impl FnMut(&Answer, i64) + Send,
) -> Result<Answer, DbError> {
    let condition = candidates(asked.query);
    let mut search = Search {
        asked,
        answer: Answer::default(),
        seen: HashSet::new(),
    };
    let columns = Columns::of(asked.query.needs(), &condition);
    let read = search.read(app, &columns, &condition, deadline, &mut tell);
    let read = read.await;
    let mut answer = search.answer;
    match read {
        Ok(()) => {}
        Err(error @ (DbError::Timeout(_) | DbError::Memory(_) | DbError::Result(_))) => {
            answer.cut = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    answer.keep_newest(asked.limit);
    Ok(answer)
}

/// The condition of a span that may be among a query's answer. Each trace of an answer has such a span in the
/// window, and so the answer does not depend on what ClickHouse is asked.
fn candidates(query: &CompiledQuery) -> Condition {
    let mut conditions = Vec::new();
    match &query.query().body {
        Body::Search(pipeline) => of_pipeline(pipeline, &mut conditions),
        Body::Metrics { .. } => conditions.push(Condition::UNKNOWN),
    }
    Condition::any(conditions.into_iter())
}

/// Each stage leaves some of the spans of the one before.
fn of_pipeline(pipeline: &Pipeline, conditions: &mut Vec<Condition>) {
    match pipeline.stages.first() {
        Some(Stage::Spansets(expr)) => of_spansets(expr, conditions),
        _ => conditions.push(Condition::UNKNOWN),
    }
}

fn of_spansets(expr: &SpansetExpr, conditions: &mut Vec<Condition>) {
    match expr {
        SpansetExpr::Filter(expr) => conditions.push(Condition::of(expr)),
        SpansetExpr::Pipeline(pipeline) => of_pipeline(pipeline, conditions),
        SpansetExpr::Op { op, left, right } => {
            // Structural operators answer what is on their right side.
            if !matches!(op, SpansetOp::Structural(_, Form::Plain | Form::Negated)) {
                of_spansets(left, conditions);
            }
            of_spansets(right, conditions);
        }
    }
}

struct Search<'a> {
    asked: &'a Asked<'a>,
    answer: Answer,
    seen: HashSet<[u8; 16]>,
}

impl Search<'_> {
    async fn read(
        &mut self,
        app: &App,
        columns: &Columns,
        condition: &Condition,
        deadline: Deadline,
        tell: &mut (impl FnMut(&Answer, i64) + Send),
    ) -> Result<(), DbError> {
        let Asked {
            start_ns, end_ns, ..
        } = *self.asked;
        let mut chunks = Chunks::new(start_ns, end_ns, FIRST_CHUNK_NS);
        let mut batch = self.asked.limit.saturating_mul(2).clamp(20, BATCH_MAX);
        while let Some(chunk) = chunks.next() {
            let before = self.answer.traces.len();
            let mut behind = None;
            loop {
                let sql = newest_sql(&condition.within(chunk.0, chunk.1), behind, batch);
                let rows: Vec<Candidate> = app.db.rows("traceql", &sql, deadline).await?;
                let is_last = rows.len() < batch;
                batch = BATCH_MAX.min(batch * BATCH_GROWTH);
                behind = rows.last().map(Candidate::place);
                let places: Vec<Place> = rows
                    .iter()
                    .map(Candidate::place)
                    .filter(|place| self.seen.insert(place.trace_id))
                    .collect();
                let look_at = |trace| self.look_at(trace);
                let all = each_trace(app, columns, &places, deadline, look_at).await?;
                if !all {
                    let why = "a trace is too large to be searched";
                    self.answer.cut.get_or_insert_with(|| why.to_owned());
                }
                self.answer.keep_newest(self.asked.limit);
                let frontier = match (is_last, behind) {
                    (false, Some(place)) => place.time_ns,
                    _ => chunk.0,
                };
                tell(&self.answer, frontier);
                if self.is_enough(frontier) {
                    return Ok(());
                }
                if is_last {
                    break;
                }
            }
            let found = self.answer.traces.len().saturating_sub(before);
            let missing = self.asked.limit.saturating_sub(self.answer.traces.len());
            chunks.grow(found, missing.max(1));
        }
        Ok(())
    }

    /// Whether no trace that was not seen comes before the last of those that are wanted: each starts before
    /// `frontier_ns`, or in that very nanosecond.
    fn is_enough(&self, frontier_ns: i64) -> bool {
        self.answer.final_ones(frontier_ns).len() >= self.asked.limit
    }

    fn look_at(&mut self, trace: Loaded) {
        self.answer.inspected_traces += 1;
        self.answer.inspected_spans += trace.spans.len() as u64;
        let asked = self.asked;
        let tree = Trace::new(&trace.spans);
        let spansets = asked.query.search(&tree);
        let window = asked.start_ns..=asked.end_ns;
        let is_in_window = spansets.iter().any(|spanset| {
            let mut spans = spanset.spans.iter();
            spans.any(|matched| {
                let span = trace.spans.get(matched.index);
                span.is_some_and(|span| window.contains(&span.starts_at_ns()))
            })
        });
        if !is_in_window {
            return;
        }
        let most = match asked.spans_per_spanset {
            0 => usize::MAX,
            most => most,
        };
        let spansets = spansets.into_iter().map(|spanset| FoundSpanset {
            matched: spanset.spans.len(),
            spans: spanset
                .spans
                .into_iter()
                .take(most)
                .filter_map(|matched| {
                    let span = trace.spans.get(matched.index)?;
                    Some(FoundSpan {
                        span_id: span.id(),
                        name: span.name().to_owned(),
                        start_ns: span.starts_at_ns(),
                        duration_ns: span.duration_ns(),
                        attributes: matched.attributes,
                    })
                })
                .collect(),
            attributes: spanset.attributes,
        });
        let mut services: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for span in &trace.spans {
            let of_service = services.entry(span.service_name().to_owned()).or_default();
            of_service.0 += 1;
            of_service.1 += u64::from(span.status() == Status::Error);
        }
        self.answer.traces.push(FoundTrace {
            trace_id: trace.trace_id,
            start_ns: trace.start_ns,
            end_ns: trace.end_ns,
            root_service: tree.root_service().to_owned(),
            root_name: tree.root_name().to_owned(),
            services,
            spansets: spansets.collect(),
        });
    }
}
