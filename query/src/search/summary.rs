//! What a list says of its traces: counted from their spans, as the trace itself is shown.
//!
//! The trace index adds up what each batch had, so it counts a span again that was delivered again, and
//! its greatest service and greatest name may be of two roots. Here a trace's spans are read, and give what
//! they give when the trace is shown ([`Outline`]). Traces that are too large to read for a list keep the
//! index's sums, and are named by a query.

use std::collections::HashMap;

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Deadline, Flow, Text};
use crate::search::page::Found;
use crate::sql::Sql;
use crate::trace::outline::{Outline, SpanRecord};

/// More spans than these are not read for one page. Each takes some 150 bytes, as long as its trace is read.
const READ_SPANS_MAX: u64 = 50_000;

/// A window of more steps than these is given by its bounds alone.
const STEPS_MAX: usize = 1_000;

const STEP_NS: i64 = 300_000_000_000;

/// What a list says of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
    /// The service and the name of the span that names the trace.
    pub name: (String, String),
    /// Whether that is not a root.
    pub root_missing: bool,
    /// The spans.
    pub spans: u64,
    /// Those with status ERROR.
    pub errors: u64,
}

/// Of a span as much as a summary needs.
#[derive(Debug, Row, Deserialize)]
struct SlimRow {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent_span_id: [u8; 8],
    start_ns: i64,
    duration_ns: u64,
    name_text: Text,
    service_name: Text,
    kind_number: i8,
    status_number: i8,
}

impl SpanRecord for SlimRow {
    fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    fn parent_span_id(&self) -> [u8; 8] {
        self.parent_span_id
    }

    fn start_ns(&self) -> i64 {
        self.start_ns
    }

    fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    fn service(&self) -> &str {
        &self.service_name.0
    }

    fn name(&self) -> &str {
        &self.name_text.0
    }

    fn kind(&self) -> i8 {
        self.kind_number
    }

    fn status(&self) -> i8 {
        self.status_number
    }
}

#[derive(Debug, Row, Deserialize)]
struct NamedRow {
    trace_id: [u8; 16],
    name: (u64, i64, Text, Text),
}

/// The summaries of a page's traces, in its order.
///
/// # Errors
/// See [`DbError`].
pub async fn summaries(
    db: &Db,
    page: Vec<Found>,
    deadline: Deadline,
) -> Result<Vec<(Found, Summary)>, DbError> {
    let mut places: HashMap<[u8; 16], usize> = HashMap::new();
    let mut summaries: Vec<(Found, Summary)> = Vec::with_capacity(page.len());
    for found in page {
        places.insert(found.place.trace_id, summaries.len());
        let summary = from_index(&found);
        summaries.push((found, summary));
    }
    let (small, large) = split(&summaries);
    if !small.ids.is_empty() {
        // One trace after the other, so that only one is held.
        let mut trace: Vec<SlimRow> = Vec::new();
        let mut take = |trace: Vec<SlimRow>| {
            let place = trace
                .first()
                .and_then(|row| places.get(&row.trace_id))
                .copied();
            if let Some((_, summary)) = place.and_then(|place| summaries.get_mut(place)) {
                *summary = Outline::of(trace).into();
            }
        };
        let sql = spans_sql(&small);
        let read = db.each("trace_spans", &sql, deadline, |row: SlimRow| {
            if trace
                .first()
                .is_some_and(|first| first.trace_id != row.trace_id)
            {
                take(std::mem::take(&mut trace));
            }
            trace.push(row);
            Flow::More
        });
        read.await?;
        take(trace);
    }
    if !large.ids.is_empty() {
        let sql = roots_sql(&large);
        let rows = db.rows("trace_roots", &sql, deadline).await?;
        take_names(&places, &mut summaries, rows, false);
    }
    let rootless = summaries.iter().filter(|(found, summary)| {
        summary.root_missing && large.ids.contains(&found.place.trace_id)
    });
    let rootless = Traces::of(rootless.map(|(found, _)| found));
    if !rootless.ids.is_empty() {
        let sql = entries_sql(&rootless);
        let rows = db.rows("trace_entries", &sql, deadline).await?;
        take_names(&places, &mut summaries, rows, true);
    }
    Ok(summaries)
}

/// What the index knows; the names it has may be of two spans, so it names nothing.
fn from_index(found: &Found) -> Summary {
    let Some(trace) = &found.indexed else {
        // Its index row is not in yet.
        return Summary {
            start_ns: found.place.time_ns,
            end_ns: found.place.time_ns,
            root_missing: true,
            spans: 1,
            ..Summary::default()
        };
    };
    Summary {
        start_ns: trace.start_ns,
        end_ns: trace.end_ns.max(trace.start_ns),
        root_missing: true,
        spans: trace.spans,
        errors: trace.errors,
        ..Summary::default()
    }
}

/// The traces that can be read together, the smallest first, and those that cannot.
fn split(summaries: &[(Found, Summary)]) -> (Traces, Traces) {
    let mut by_size: Vec<_> = summaries.iter().collect();
    by_size.sort_by_key(|(_, summary)| summary.spans);
    let mut sum = 0_u64;
    let (small, large): (Vec<_>, Vec<_>) = by_size.into_iter().partition(|(_, summary)| {
        sum = sum.saturating_add(summary.spans);
        sum <= READ_SPANS_MAX
    });
    (
        Traces::of(small.into_iter().map(|(found, _)| found)),
        Traces::of(large.into_iter().map(|(found, _)| found)),
    )
}

fn take_names(
    places: &HashMap<[u8; 16], usize>,
    summaries: &mut [(Found, Summary)],
    rows: Vec<NamedRow>,
    root_missing: bool,
) {
    for row in rows {
        let place = places.get(&row.trace_id).copied();
        if let Some((_, summary)) = place.and_then(|place| summaries.get_mut(place)) {
            let (_, _, service, name) = row.name;
            summary.name = (service.0, name.0);
            summary.root_missing = root_missing;
        }
    }
}

impl From<Outline<SlimRow>> for Summary {
    fn from(trace: Outline<SlimRow>) -> Self {
        Self {
            start_ns: trace.start_ns,
            end_ns: trace.end_ns,
            name: trace.name,
            root_missing: trace.root_missing,
            spans: trace.rows.len() as u64,
            errors: trace.errors as u64,
        }
    }
}

/// Traces, and when they were.
struct Traces {
    ids: Vec<[u8; 16]>,
    from_ns: i64,
    to_ns: i64,
    /// Seconds at which the key's steps begin; none where they are too many.
    steps: Option<Vec<i64>>,
}

impl Traces {
    fn of<'a>(found: impl Iterator<Item = &'a Found>) -> Self {
        let mut traces = Self {
            ids: Vec::new(),
            from_ns: i64::MAX,
            to_ns: 0,
            steps: Some(Vec::new()),
        };
        for found in found {
            let (from_ns, to_ns) = match &found.indexed {
                Some(trace) => (trace.start_ns, trace.end_ns),
                None => (found.place.time_ns, found.place.time_ns),
            };
            traces.ids.push(found.place.trace_id);
            traces.from_ns = traces.from_ns.min(from_ns);
            traces.to_ns = traces.to_ns.max(to_ns);
            traces.add_steps(from_ns.div_euclid(STEP_NS), to_ns.div_euclid(STEP_NS));
        }
        traces
    }

    fn add_steps(&mut self, first: i64, last: i64) {
        let Some(steps) = &mut self.steps else { return };
        let count = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0);
        if steps.len().saturating_add(count) > STEPS_MAX {
            self.steps = None;
            return;
        }
        steps.extend((first..=last).map(|step| step.saturating_mul(STEP_NS / 1_000_000_000)));
    }

    /// The condition that a row is a span of these traces.
    fn condition(&self) -> Sql {
        let mut sql = Sql::new("tenant = '' AND ");
        sql.started_within(self.from_ns, self.to_ns);
        if let Some(steps) = &self.steps {
            sql.push(" AND toStartOfFiveMinutes(time) IN (SELECT toDateTime(arrayJoin(")
                .ints(steps)
                .push(")))");
        }
        sql.push(" AND ").trace_id_in(self.ids.iter().copied());
        sql
    }
}

/// The spans of the traces, those of one after those of another.
fn spans_sql(traces: &Traces) -> Sql {
    let mut sql = Sql::new(
        "SELECT trace_id, span_id, parent_span_id, toUnixTimestamp64Nano(time) AS start_ns, \
         duration_ns, toString(name) AS name_text, toString(service) AS service_name, \
         toInt8(kind) AS kind_number, toInt8(status) AS status_number FROM spans WHERE ",
    );
    sql.append(&traces.condition())
        .push(" ORDER BY trace_id, time, span_id");
    sql
}

/// Of each trace's roots the longest, then the earliest.
fn roots_sql(traces: &Traces) -> Sql {
    let mut sql = names_sql(traces);
    sql.push(" AND parent_span_id = toFixedString('', 8) GROUP BY trace_id");
    sql
}

/// Of each trace's spans whose parents are missing the longest, then the earliest.
fn entries_sql(traces: &Traces) -> Sql {
    let mut sql = names_sql(traces);
    sql.push(
        " AND (trace_id, parent_span_id) GLOBAL NOT IN (SELECT trace_id, span_id FROM spans WHERE ",
    );
    sql.append(&traces.condition()).push(") GROUP BY trace_id");
    sql
}

fn names_sql(traces: &Traces) -> Sql {
    let mut sql = Sql::new(
        "SELECT trace_id, max((duration_ns, -toUnixTimestamp64Nano(time), toString(service), \
         toString(name))) AS name FROM spans WHERE ",
    );
    sql.append(&traces.condition());
    sql
}
