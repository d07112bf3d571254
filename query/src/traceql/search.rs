//! A search: the newest traces that match a query, by the start of the trace, then by id.
//!
//! The window is read in chunks, the newest first. Of each chunk ClickHouse gives the traces with a span that
//! may match, those with the newest such span first, and the evaluator looks at each of them whole. A trace
//! that was not seen yet starts before the newest span of the last one that was: so what starts later than
//! that is final, and once these are enough the search ends.
//!
//! A page that continues behind a cursor has the traces that come after it in this order. Those of them whose
//! newest match is not before the cursor's time are looked for first; all others only have older spans that match.

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
use crate::sql::Sql;
use crate::trace::outline::Name;
use crate::traceql::condition::Condition;
use crate::traceql::load::{Loaded, each_trace};
use crate::traceql::rows::{Columns, Maps};
use crate::traceql::watch::Inspected;

/// How long the first chunk of a window is.
const FIRST_CHUNK_NS: i64 = 60_000_000_000;

/// The fewest traces that are read at a time.
const BATCH_MIN: usize = 20;

/// The most. The first are few: where most of them match they are enough.
const BATCH_MAX: usize = 1_000;

/// How many more the next ones are at most.
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
    /// Where the page before ended: the start and the id of its last trace.
    pub after: Option<Place>,
    /// How many traces are wanted.
    pub limit: usize,
    /// How many spans of each spanset are wanted; 0: all.
    pub spans_per_spanset: usize,
    /// Whether [`FoundTrace::name`] is wanted.
    pub is_named: bool,
    /// Maps that are looked into.
    pub maps: Option<&'a Maps>,
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
    /// Why the search has not looked at all it had to.
    pub cut: Option<String>,
    /// Whether it ended before it came to the end of the window: traces may be missing between those that were
    /// found.
    pub ended_early: bool,
}

impl Answer {
    /// What it took to find it.
    pub fn inspected(&self) -> Inspected {
        Inspected {
            traces: self.inspected_traces,
            spans: self.inspected_spans,
        }
    }

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
    /// What our own API calls the trace, where that is wanted; the two above are as Tempo has them.
    pub name: Option<Name>,
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
    /// Its service.
    pub service: String,
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
    let condition = match asked.maps {
        Some(maps) => maps.condition.clone(),
        None => candidates(asked.query),
    };
    let mut search = Search {
        asked,
        answer: Answer::default(),
        seen: HashSet::new(),
    };
    let columns = Columns::with_maps(asked.query, &condition, asked.maps);
    let read = search.read(app, &columns, &condition, deadline, &mut tell);
    let read = read.await;
    let mut answer = search.answer;
    match read {
        Ok(()) => {}
        Err(error) if error.is_limit() => {
            answer.cut = Some(error.to_string());
            answer.ended_early = true;
        }
        Err(error) => return Err(error),
    }
    answer.keep_newest(asked.limit);
    Ok(answer)
}

/// The condition of a span that may be among a query's answer. Each trace of an answer has such a span in the
/// window, and so the answer does not depend on what ClickHouse is asked.
pub(crate) fn candidates(query: &CompiledQuery) -> Condition {
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

impl Asked<'_> {
    /// The part of the window that overlaps with what earlier pages have looked at, and the last nanosecond of
    /// the rest. All spans of a trace are in the first if the trace starts at the cursor's time or later.
    fn parts(&self) -> (Option<(i64, i64)>, i64) {
        let Some(after) = self.after else {
            return (None, self.end_ns);
        };
        let overlap = (after.time_ns.max(self.start_ns), self.end_ns);
        let rest = self.end_ns.min(after.time_ns.saturating_sub(1));
        (Some(overlap).filter(|(from, to)| from <= to), rest)
    }

    /// The conditions of a span in a chunk that may be of a trace of this page. Of the overlap, traces that are
    /// known to be of an earlier page are left out: they would be read again for each page.
    fn conditions(&self, condition: &Condition, (from_ns, to_ns): (i64, i64)) -> Vec<Sql> {
        let Some(after) = self.after.filter(|after| to_ns >= after.time_ns) else {
            return match to_ns.saturating_sub(from_ns) < FIRST_CHUNK_NS {
                // So little is read that one query more costs more.
                true => vec![condition.within(from_ns, to_ns)],
                false => condition.apart_within(from_ns, to_ns),
            };
        };
        let mut sql = condition.within(from_ns, to_ns);
        let mut earlier = Sql::new("(min(start), trace_id) >= (");
        earlier
            .time(after.time_ns)
            .push(", ")
            .trace_id(after.trace_id)
            .push(")");
        sql.but_traces(&earlier);
        vec![sql]
    }
}

struct Search<'a> {
    asked: &'a Asked<'a>,
    answer: Answer,
    seen: HashSet<[u8; 16]>,
}

impl Search<'_> {
    /// How many traces are read after `batch` of them: as many as have those that are missing, by the share of those
    /// that are final. Where none has become final since, the share says nothing.
    fn next_batch(&self, batch: usize, missing: usize, before: usize) -> usize {
        let inspected = usize::try_from(self.answer.inspected_traces).unwrap_or(usize::MAX);
        let most = batch.saturating_mul(BATCH_GROWTH).min(BATCH_MAX);
        let needed = Some(missing.saturating_mul(inspected))
            .filter(|_| missing < before)
            .and_then(|traces| traces.checked_div(self.asked.limit.saturating_sub(missing)))
            .map_or(most, |needed| needed.saturating_add(needed / 2));
        needed.clamp(BATCH_MIN.min(most), most)
    }

    async fn read(
        &mut self,
        app: &App,
        columns: &Columns,
        condition: &Condition,
        deadline: Deadline,
        tell: &mut (impl FnMut(&Answer, i64) + Send),
    ) -> Result<(), DbError> {
        let (mut overlap, end_ns) = self.asked.parts();
        let mut chunks = Chunks::new(self.asked.start_ns, end_ns, FIRST_CHUNK_NS);
        let mut missing = self.asked.limit;
        let mut batch = self
            .asked
            .limit
            .saturating_mul(2)
            .clamp(BATCH_MIN, BATCH_MAX);
        while let Some(chunk) = overlap.take().or_else(|| chunks.next()) {
            let conditions = self.asked.conditions(condition, chunk);
            let before = self.answer.traces.len();
            let mut behind = None;
            loop {
                let sql = newest_sql(&conditions, behind, batch);
                let rows: Vec<Candidate> = app.db.rows("traceql", &sql, deadline).await?;
                let is_last = rows.len() < batch;
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
                let (before, now) = (missing, self.missing(frontier));
                if now == 0 {
                    return Ok(());
                }
                missing = now;
                batch = self.next_batch(batch, missing, before);
                if is_last {
                    break;
                }
            }
            if chunk.1 <= end_ns {
                let found = self.answer.traces.len().saturating_sub(before);
                let missing = self.asked.limit.saturating_sub(self.answer.traces.len());
                chunks.grow(found, missing.max(1));
            }
        }
        Ok(())
    }

    /// How many traces are wanted yet: those that were not seen start before `frontier_ns`, or in that very
    /// nanosecond, and so come before none of the final ones.
    fn missing(&self, frontier_ns: i64) -> usize {
        let known = self.answer.final_ones(frontier_ns).len();
        self.asked.limit.saturating_sub(known)
    }

    fn look_at(&mut self, trace: Loaded) {
        let place = Place {
            time_ns: trace.start_ns,
            trace_id: trace.trace_id,
        };
        if self.asked.after.is_some_and(|after| place >= after) {
            return;
        }
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
                        service: span.service_name().to_owned(),
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
            name: asked.is_named.then(|| Name::of(&trace.spans)),
            services,
            spansets: spansets.collect(),
        });
    }
}
