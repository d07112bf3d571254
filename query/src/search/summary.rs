//! What a list says of its traces: counted from their spans, as the trace itself is shown.
//!
//! The trace index adds up what each batch had, so it counts a span again that was delivered again, and
//! its greatest service and greatest name may be of two roots. Here a span counts once, and a trace is
//! named by one span ([`crate::trace`] chooses in the same way). Traces that are too large to count for a
//! list keep the index's sums.

use std::collections::HashMap;

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Deadline, Text};
use crate::search::page::Found;
use crate::sql::Sql;

/// More spans than these are not counted for one page.
const COUNTED_SPANS_MAX: u64 = 1_000_000;

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

#[derive(Debug, Row, Deserialize)]
struct CountedRow {
    trace_id: [u8; 16],
    first_ns: i64,
    last_ns: i64,
    spans: u64,
    errors: u64,
    root: (u8, u64, i64, Text, Text),
    first: (i64, Text, Text),
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
    let (counted, large) = split(&summaries);
    if !counted.ids.is_empty() {
        let sql = counts_sql(&counted);
        let rows: Vec<CountedRow> = db.rows("trace_counts", &sql, deadline).await?;
        for row in rows {
            let place = places.get(&row.trace_id).copied();
            if let Some((_, summary)) = place.and_then(|place| summaries.get_mut(place)) {
                *summary = row.into();
            }
        }
    }
    if !large.ids.is_empty() {
        let sql = roots_sql(&large);
        let rows = db.rows("trace_roots", &sql, deadline).await?;
        take_names(&places, &mut summaries, rows, false);
    }
    let rootless = summaries.iter().filter(|(_, summary)| summary.root_missing);
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

/// The traces that can be counted together, the smallest first, and those that cannot.
fn split(summaries: &[(Found, Summary)]) -> (Traces, Traces) {
    let mut by_size: Vec<_> = summaries.iter().collect();
    by_size.sort_by_key(|(_, summary)| summary.spans);
    let mut sum = 0_u64;
    let (counted, large): (Vec<_>, Vec<_>) = by_size.into_iter().partition(|(_, summary)| {
        sum = sum.saturating_add(summary.spans);
        sum <= COUNTED_SPANS_MAX
    });
    (
        Traces::of(counted.into_iter().map(|(found, _)| found)),
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

impl From<CountedRow> for Summary {
    fn from(row: CountedRow) -> Self {
        let (rooted, _, _, service, name) = row.root;
        let root_missing = rooted == 0;
        let name = match root_missing {
            false => (service.0, name.0),
            // Until its entry span is known: a trace may have none, when its spans name each other.
            true => (row.first.1.0, row.first.2.0),
        };
        Self {
            start_ns: row.first_ns,
            end_ns: row.last_ns,
            name,
            root_missing,
            spans: row.spans,
            errors: row.errors,
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

const END_NS: &str = "toUnixTimestamp64Nano(time) + toInt64(duration_ns)";

/// Counts each span once, as [`crate::trace`] merges copies: of a span's copies the one that ended last is
/// kept. A server that shares its client's id is no root, whatever parent it names.
fn counts_sql(traces: &Traces) -> Sql {
    let mut sql = Sql::new(
        "SELECT trace_id, min(start_ns) AS first_ns, max(end_ns) AS last_ns, \
         sum(one_id) AS spans, sum(failed) AS errors, max(top) AS root, min(begin) AS first FROM (\
         SELECT trace_id, span_id, min(kept.2) AS start_ns, max(kept.3) AS end_ns, \
         count() AS one_id, countIf(kept.5 = 'ERROR') AS failed, \
         min((kept.2, toString(span_service), kept.4)) AS begin, \
         countIf(span_kind IN ('CLIENT', 'PRODUCER')) > 0 AS has_caller, \
         maxIf((toUInt8(1), kept.1, -kept.2, toString(span_service), kept.4), \
         kept.6 = toFixedString('', 8)) AS any_top, \
         maxIf((toUInt8(1), kept.1, -kept.2, toString(span_service), kept.4), \
         kept.6 = toFixedString('', 8) AND span_kind NOT IN ('SERVER', 'CONSUMER')) AS caller_top, \
         if(has_caller, caller_top, any_top) AS top FROM (\
         SELECT trace_id, span_id, kind AS span_kind, service AS span_service, \
         argMax((duration_ns, toUnixTimestamp64Nano(time), ",
    );
    sql.push(END_NS)
        .push(", toString(name), toString(status), parent_span_id), ")
        .push(END_NS)
        .push(") AS kept FROM spans WHERE ")
        .append(&traces.condition());
    sql.push(
        " GROUP BY trace_id, span_id, span_kind, span_service) GROUP BY trace_id, span_id) \
         GROUP BY trace_id",
    );
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
