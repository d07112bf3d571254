//! Reading whole traces for the evaluator.

use crate::app::{App, Share};
use crate::db::{DbError, Deadline, Flow};
use crate::search::cursor::Place;
use crate::search::page::indexed;
use crate::search::traces::{Traces, near};
use crate::trace::outline::Outline;
use crate::trace::rows::{SpanRow, traces_sql};
use crate::trace::{SpanIn, each_span};
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
    let mut rows: Vec<SpanRow> = Vec::new();
    let (mut bytes, mut is_too_large, mut all) = (0, false, true);
    let (mut memory, mut is_refused) = (Share::default(), false);
    let mut finish = |rows: Vec<SpanRow>, is_too_large: bool| {
        if is_too_large {
            all = false;
        } else if let Some(trace) = loaded(rows) {
            take(trace);
        }
    };
    let sql = traces_sql(&traces);
    let read = app.db.each("traces", &sql, deadline, |row: SpanRow| {
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

fn loaded(rows: Vec<SpanRow>) -> Option<Loaded> {
    let trace_id = rows.first()?.trace_id;
    let outline = Outline::of(rows);
    let (start_ns, end_ns) = (outline.start_ns, outline.end_ns);
    let mut reader = Reader::default();
    let mut spans = Vec::with_capacity(outline.rows.len());
    each_span(outline, SpanIn::Time, |span| {
        spans.push(reader.span(trace_id, span));
    });
    Some(Loaded {
        trace_id,
        spans,
        start_ns,
        end_ns,
    })
}
