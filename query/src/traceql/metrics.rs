//! Queries of metrics: ClickHouse aggregates where SQL says exactly what the query means; elsewhere the evaluator
//! looks at the spans that may count, or at whole traces where it has to.

mod aggregate;
mod compare;
mod facts;

use std::collections::{BTreeSet, HashSet};

use spanloom_traceql::{CompiledQuery, Finished, Limits, Metrics, Trace, Window};

use crate::app::App;
use crate::db::{Db, DbError, Deadline, Flow};
use crate::traceql::condition::Condition;
use crate::traceql::load::{Loaded, Within};
use crate::traceql::rows::{Columns, EvalRow};
use crate::traceql::span::Reader;

/// How long the first chunk of a window is.
const FIRST_CHUNK_NS: i64 = 60_000_000_000;

/// No chunk is shorter.
const SHORTEST_CHUNK_NS: i64 = 1_000_000_000;

/// How many times as long the next chunk is at most.
const CHUNK_GROWTH: i128 = 64;

/// About how many spans are read at a time: for each chunk the index is asked, and its spans are sorted.
const CHUNK_SPANS: u64 = 200_000;

/// What a query of metrics found.
#[derive(Debug)]
pub struct Answer {
    /// The series.
    pub finished: Finished,
    /// Spans that the evaluator looked at, or that were counted.
    pub inspected_spans: u64,
    /// Why not all spans were looked at.
    pub cut: Option<String>,
}

/// Runs a query of metrics. What was counted until the time or the memory of a query ran out is an answer, too.
///
/// # Errors
/// When ClickHouse is away, or refuses the query.
pub async fn metrics(
    app: &App,
    query: &CompiledQuery,
    window: Window,
    limits: Limits,
    deadline: Deadline,
) -> Result<Answer, DbError> {
    let mut run = Run {
        metrics: Metrics::new(query, window, limits),
        window,
        inspected_spans: 0,
        wants_exemplars: query.exemplars().unwrap_or(limits.exemplars) > 0 && !window.is_instant(),
        extrapolates: query.extrapolates(),
        cut: None,
    };
    let read = match (aggregate::plan(query), compare::plan(query, &window)) {
        (Some(leaves), _) => run.aggregate(&app.db, &leaves, deadline).await,
        (None, Some(comparison)) => run.compare(app, query, &comparison, deadline).await,
        (None, None) => {
            let needs = query.needs();
            let condition = candidates(query);
            let columns = Columns::of(query, &condition);
            let is_of_spans_alone = !needs.structure
                && needs.facts.is_empty()
                && query.leaves().iter().all(|leaf| leaf.filter.is_some());
            match is_of_spans_alone {
                true => run.spans(&app.db, &columns, &condition, deadline).await,
                false => run.traces(app, &columns, &condition, deadline).await,
            }
        }
    };
    match read {
        Ok(()) => {}
        Err(error) if error.is_limit() => {
            run.cut = Some(error.to_string());
        }
        Err(error) => return Err(error),
    }
    Ok(Answer {
        finished: run.metrics.finish(),
        inspected_spans: run.inspected_spans,
        cut: run.cut,
    })
}

/// Whether ClickHouse answers a query alone.
pub(super) fn is_aggregated(query: &CompiledQuery) -> bool {
    aggregate::plan(query).is_some()
}

/// The condition of a span that may count.
pub(super) fn candidates(query: &CompiledQuery) -> Condition {
    let leaves = query.leaves();
    let filters = leaves.iter().map(|leaf| leaf.filter);
    Condition::any(filters.map(|filter| filter.map_or(Condition::UNKNOWN, Condition::of)))
}

struct Run<'q> {
    metrics: Metrics<'q>,
    window: Window,
    inspected_spans: u64,
    wants_exemplars: bool,
    extrapolates: bool,
    cut: Option<String>,
}

/// The first and the last nanosecond of a window.
fn bounds(window: &Window) -> (i64, i64) {
    let time = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
    (
        time(window.after_ns().saturating_add(1)),
        time(window.until_ns()),
    )
}

impl Run<'_> {
    /// Each span by itself.
    async fn spans(
        &mut self,
        db: &Db,
        columns: &Columns,
        condition: &Condition,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let (from_ns, to_ns) = bounds(&self.window);
        let mut sql = columns.window_sql(from_ns, to_ns);
        condition.and_to(&mut sql);
        let mut reader = Reader::default();
        let read = db.each_wide("traceql_spans", &sql, deadline, |row: EvalRow| {
            self.inspected_spans += 1;
            let span = reader.span(columns, row);
            self.metrics.observe(&Trace::new(&[span]));
            if reader.is_large() {
                reader = Reader::default();
            }
            Flow::More
        });
        read.await
    }

    /// Whole traces, of which a span in the window may count.
    async fn traces(
        &mut self,
        app: &App,
        columns: &Columns,
        condition: &Condition,
        deadline: Deadline,
    ) -> Result<(), DbError> {
        let (start_ns, end_ns) = bounds(&self.window);
        // Traces reach over several chunks.
        let mut seen: HashSet<[u8; 16]> = HashSet::new();
        let mut reaching = Reaching::default();
        let (mut to_ns, mut length_ns) = (end_ns, FIRST_CHUNK_NS);
        while to_ns >= start_ns {
            let from_ns = to_ns.saturating_sub(length_ns - 1).max(start_ns);
            // Those that begin later are in no chunk any more.
            reaching.forget_from(to_ns);
            let chunk = (from_ns, to_ns);
            let known = reaching.ids();
            let within = Within::find(app, condition, chunk, &known, deadline).await?;
            if within.spans > 4 * CHUNK_SPANS && length_ns > SHORTEST_CHUNK_NS {
                length_ns = next_length(length_ns, within.spans, CHUNK_SPANS);
                continue;
            }
            let mut spans = 0;
            let take = |trace: Loaded| {
                reaching.add(&trace);
                if seen.insert(trace.trace_id) {
                    spans += trace.spans.len() as u64;
                    self.metrics.observe(&Trace::new(&trace.spans));
                }
            };
            if !within.each(app, columns, deadline, take).await? {
                self.leaves_out_large();
            }
            self.inspected_spans += spans;
            length_ns = next_length(length_ns, spans, CHUNK_SPANS);
            match from_ns.checked_sub(1) {
                Some(before) => to_ns = before,
                None => break,
            }
        }
        Ok(())
    }

    fn leaves_out_large(&mut self) {
        let why = "a trace is too large to be searched";
        self.cut.get_or_insert_with(|| why.to_owned());
    }
}

/// Traces that were seen and reach before it, so that they need not be read again: those with the most spans.
#[derive(Debug, Default)]
struct Reaching(BTreeSet<(usize, i64, [u8; 16])>);

impl Reaching {
    const MOST: usize = 1_000;

    fn add(&mut self, trace: &Loaded) {
        self.0
            .insert((trace.spans.len(), trace.start_ns, trace.trace_id));
        if self.0.len() > Self::MOST {
            self.0.pop_first();
        }
    }

    /// Forgets those that start at this time or later.
    fn forget_from(&mut self, time_ns: i64) {
        self.0.retain(|(_, start_ns, _)| *start_ns < time_ns);
    }

    fn ids(&self) -> Vec<[u8; 16]> {
        self.0.iter().map(|(.., id)| *id).collect()
    }
}

/// How long a chunk is that shall have so many spans, after one that had others.
fn next_length(length_ns: i64, spans: u64, wanted: u64) -> i64 {
    let wanted = i128::from(length_ns) * i128::from(wanted) / i128::from(spans.max(1));
    let most = i128::from(length_ns).saturating_mul(CHUNK_GROWTH);
    i64::try_from(wanted.clamp(i128::from(SHORTEST_CHUNK_NS), most)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_as_long_as_its_spans_are_few() {
        const SECOND: i64 = 1_000_000_000;
        #[track_caller]
        fn check(length_s: i64, spans: u64, expect_s: i64) {
            assert_eq!(
                next_length(length_s * SECOND, spans, CHUNK_SPANS),
                expect_s * SECOND
            );
        }
        check(60, CHUNK_SPANS, 60);
        check(60, CHUNK_SPANS / 10, 600);
        check(60, 2 * CHUNK_SPANS, 30);
        check(60, 0, 60 * 64);
        check(60, u64::MAX, 1);
        assert_eq!(next_length(i64::MAX, 0, 1), i64::MAX);
    }
}
