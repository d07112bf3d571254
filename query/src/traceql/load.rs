//! Reading whole traces for the evaluator.

use clickhouse::Row;
use serde::Deserialize;

use crate::app::{App, Share};
use crate::db::{DbError, Deadline, Flow};
use crate::search::cursor::Place;
use crate::search::page::indexed;
use crate::search::traces::{NEAR_NS, Traces, near};
use crate::sql::Sql;
use crate::trace::outline::{SpanRecord as _, unique};
use crate::traceql::condition::Condition;
use crate::traceql::rows::{Columns, EvalRow};
use crate::traceql::span::{Reader, StoredSpan};

/// What a trace takes while it is evaluated, in times of its rows: they, and the spans that are made of them.
const COPIES: usize = 2;

/// A trace to evaluate.
#[derive(Debug)]
pub struct Loaded {
    /// Which.
    pub trace_id: [u8; 16],
    /// Its spans, in the order of time.
    pub spans: Vec<StoredSpan>,
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
}

/// Gives each of these traces to `take`, one after the other, as they are in the store; a trace of which the
/// index does not know yet as far as it lies near its place. Returns false where some were left out, for they
/// are larger than what may be held.
///
/// # Errors
/// See [`DbError`]; when too many traces are held by others, it is overloaded.
pub async fn each_trace(
    app: &App,
    columns: &Columns,
    places: &[Place],
    deadline: Deadline,
    mut take: impl FnMut(Loaded),
) -> Result<bool, DbError> {
    if places.is_empty() {
        return Ok(true);
    }
    let ids = places.iter().map(|place| place.trace_id);
    let index = indexed(&app.db, ids, deadline).await?;
    let traces = Traces::of(places.iter().map(|place| {
        let known = index.get(&place.trace_id);
        let (near_from, near_to) = near(place);
        let times = known.map_or((near_from, near_to), |trace| {
            (trace.start_ns, trace.end_ns.max(place.time_ns))
        });
        (place.trace_id, times)
    }));
    let sql = columns.traces_sql(&traces.condition());
    each_of(app, columns, &sql, deadline, &mut take).await
}

/// The traces with a span that meets a condition and starts within some time.
#[derive(Debug)]
pub struct Within {
    /// The condition on their ids.
    ids: Sql,
    /// The first span's start, and the last one's end.
    times: (i64, i64),
    /// How many spans they have, as far as the index knows.
    pub spans: u64,
}

/// What the index knows of traces.
#[derive(Debug, Row, Deserialize)]
struct Bounds {
    start_ns: i64,
    end_ns: i64,
    traces: u64,
    spans: u64,
}

impl Within {
    /// The traces with a span that meets the condition and starts in `from_ns..=to_ns`, but for those that are known.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn find(
        app: &App,
        condition: &Condition,
        (from_ns, to_ns): (i64, i64),
        known: &[[u8; 16]],
        deadline: Deadline,
    ) -> Result<Self, DbError> {
        let mut ids = Sql::new("trace_id GLOBAL IN (SELECT trace_id FROM spans WHERE ");
        ids.append(&condition.within(from_ns, to_ns)).push(")");
        if !known.is_empty() {
            ids.push(" AND NOT ").trace_id_in(known.iter().copied());
        }
        let mut sql = Sql::new(
            "SELECT toUnixTimestamp64Nano(min(start)) AS start_ns, \
             toUnixTimestamp64Nano(max(end)) AS end_ns, count() AS traces, sum(span_count) AS spans \
             FROM trace_index WHERE tenant = '' AND ",
        );
        sql.append(&ids);
        let rows: Vec<Bounds> = app.db.rows("trace_bounds", &sql, deadline).await?;
        let near = (
            from_ns.saturating_sub(NEAR_NS).max(0),
            to_ns.saturating_add(NEAR_NS),
        );
        let bounds = rows.first().filter(|bounds| bounds.traces > 0);
        Ok(Self {
            ids,
            times: bounds.map_or(near, |bounds| {
                (bounds.start_ns.min(near.0), bounds.end_ns.max(near.1))
            }),
            spans: bounds.map_or(0, |bounds| bounds.spans),
        })
    }

    /// Gives each of them to `take`, in no order. Returns false where some were left out, for they are larger than what
    /// may be held.
    ///
    /// # Errors
    /// As [`each_trace`].
    pub async fn each(
        &self,
        app: &App,
        columns: &Columns,
        deadline: Deadline,
        mut take: impl FnMut(Loaded),
    ) -> Result<bool, DbError> {
        let sql = columns.traces_sql(&self.condition());
        each_of(app, columns, &sql, deadline, &mut take).await
    }

    /// The condition that a row is a span of one of them.
    pub fn condition(&self) -> Sql {
        let (start_ns, end_ns) = self.times;
        let mut sql = Sql::new("tenant = '' AND ");
        sql.started_within(start_ns, end_ns)
            .push(" AND ")
            .append(&self.ids);
        sql
    }
}

/// Gives each trace of a query to `take`, whose rows are in the order of traces.
async fn each_of(
    app: &App,
    columns: &Columns,
    sql: &Sql,
    deadline: Deadline,
    take: &mut impl FnMut(Loaded),
) -> Result<bool, DbError> {
    let mut rows: Vec<EvalRow> = Vec::new();
    let (mut bytes, mut is_too_large, mut all) = (0, false, true);
    let (mut memory, mut is_refused) = (Share::default(), false);
    let mut reader = Reader::default();
    let mut finish = |rows: Vec<EvalRow>, is_too_large: bool| {
        if reader.is_large() {
            reader = Reader::default();
        }
        if is_too_large {
            all = false;
        } else if let Some(trace) = loaded(&mut reader, columns, rows) {
            take(trace);
        }
    };
    let read = app.db.each_wide("traces", sql, deadline, |row: EvalRow| {
        let is_next = rows
            .first()
            .is_some_and(|first| first.trace_id != row.trace_id);
        if is_next {
            finish(std::mem::take(&mut rows), is_too_large);
            (bytes, is_too_large) = (0, false);
        }
        bytes += row.bytes();
        if bytes > app.limits.trace_bytes / COPIES {
            is_too_large = true;
            rows.truncate(1);
            return Flow::More;
        }
        if !memory.grow_to(app, bytes * COPIES) {
            is_refused = true;
            return Flow::Enough;
        }
        rows.push(row);
        Flow::More
    });
    read.await?;
    if is_refused {
        return Err(DbError::Overloaded);
    }
    finish(rows, is_too_large);
    Ok(all)
}

fn loaded(reader: &mut Reader, columns: &Columns, rows: Vec<EvalRow>) -> Option<Loaded> {
    let trace_id = rows.first()?.trace_id;
    let (rows, _) = unique(rows);
    let start_ns = rows.iter().map(|row| row.start_ns).min()?;
    let end_ns = rows.iter().map(EvalRow::end_ns).max()?;
    let spans = rows.into_iter().map(|row| reader.span(columns, row));
    Some(Loaded {
        trace_id,
        spans: spans.collect(),
        start_ns,
        end_ns,
    })
}
