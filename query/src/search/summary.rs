//! What a list says of its traces: counted from their spans, as the trace itself is shown.
//!
//! The trace index adds up what each batch had, so it counts a span again that was delivered again, and
//! its greatest service and greatest name may be of two roots. Here a trace's spans are read, and give what
//! they give when the trace is shown ([`Outline`]). Traces that are too large to read for a list keep the
//! index's sums, and are named by a query.
//!
//! The index knows how many spans a trace has, and when. Most traces are short, so while it is asked, the
//! spans near the matches are read: those of a trace that lies there are all of it.

use std::collections::HashMap;

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Deadline, Flow, Text};
use crate::search::cursor::Place;
use crate::search::page::{Index, Indexed, indexed};
use crate::search::traces::{Traces, near, times};
use crate::sql::Sql;
use crate::trace::outline::{Outline, SpanRecord};

/// More spans than these are not read for one page. Each takes some 150 bytes, as long as its trace is read.
const READ_SPANS_MAX: u64 = 50_000;

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

/// The summaries of a page's traces, in its order. `index` is what is known of them.
///
/// # Errors
/// See [`DbError`].
pub async fn summaries(
    db: &Db,
    page: Vec<Place>,
    mut index: Index,
    deadline: Deadline,
) -> Result<Vec<(Place, Summary)>, DbError> {
    let unknown = page.iter().map(|place| place.trace_id);
    let unknown: Vec<_> = unknown.filter(|id| !index.contains_key(id)).collect();
    let (of_index, mut read) = tokio::try_join!(
        indexed(db, unknown.iter().copied(), deadline),
        read_near(db, &page, &unknown, deadline),
    )?;
    index.extend(of_index);
    read.retain(|id, _| {
        let near = page.iter().find(|place| place.trace_id == *id).map(near);
        let whole = index.get(id).map(|trace| (trace.start_ns, trace.end_ns));
        near.zip(whole)
            .is_some_and(|(near, whole)| near.0 <= whole.0 && whole.1 <= near.1)
    });
    let rest = page
        .iter()
        .filter(|place| !read.contains_key(&place.trace_id));
    let (small, large) = split(rest.map(|place| (*place, index.get(&place.trace_id))));
    if !small.ids.is_empty() {
        let more = read_spans(db, &spans_sql(&small), u64::MAX, deadline).await?;
        read.extend(more.into_iter().flatten());
    }
    let mut places = HashMap::with_capacity(page.len());
    let mut summaries: Vec<(Place, Summary)> = Vec::with_capacity(page.len());
    for place in page {
        places.insert(place.trace_id, summaries.len());
        let summary = read.remove(&place.trace_id);
        let summary = summary.unwrap_or_else(|| from_index(&place, index.get(&place.trace_id)));
        summaries.push((place, summary));
    }
    if !large.ids.is_empty() {
        let sql = roots_sql(&large);
        let rows = db.rows("trace_roots", &sql, deadline).await?;
        take_names(&places, &mut summaries, rows, false);
    }
    let rootless = summaries
        .iter()
        .filter(|(place, summary)| summary.root_missing && large.ids.contains(&place.trace_id));
    let rootless = Traces::of(rootless.map(|(place, _)| times(place, index.get(&place.trace_id))));
    if !rootless.ids.is_empty() {
        let sql = entries_sql(&rootless);
        let rows = db.rows("trace_entries", &sql, deadline).await?;
        take_names(&places, &mut summaries, rows, true);
    }
    Ok(summaries)
}

/// Of those of `page` that are in `ids` what their spans near their matches say. Nothing when that is too
/// much to read.
async fn read_near(
    db: &Db,
    page: &[Place],
    ids: &[[u8; 16]],
    deadline: Deadline,
) -> Result<HashMap<[u8; 16], Summary>, DbError> {
    let places = page.iter().filter(|place| ids.contains(&place.trace_id));
    let traces = Traces::of(places.map(|place| (place.trace_id, near(place))));
    if traces.ids.is_empty() {
        return Ok(HashMap::new());
    }
    let mut sql = spans_sql(&traces);
    sql.push(" LIMIT ").uint(READ_SPANS_MAX + 1);
    let read = read_spans(db, &sql, READ_SPANS_MAX, deadline).await?;
    Ok(read.unwrap_or_default())
}

/// What the spans that `sql` gives say of their traces; nothing when they are more than `most`.
async fn read_spans(
    db: &Db,
    sql: &Sql,
    most: u64,
    deadline: Deadline,
) -> Result<Option<HashMap<[u8; 16], Summary>>, DbError> {
    let mut summaries = HashMap::new();
    let mut count = 0_u64;
    // One trace after the other, so that only one is held.
    let mut trace: Vec<SlimRow> = Vec::new();
    let mut take = |trace: Vec<SlimRow>| {
        if let Some(id) = trace.first().map(|row| row.trace_id) {
            summaries.insert(id, Summary::from(Outline::of(trace)));
        }
    };
    let read = db.each("trace_spans", sql, deadline, |row: SlimRow| {
        count += 1;
        if count > most {
            return Flow::Enough;
        }
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
    Ok((count <= most).then_some(summaries))
}

/// What the index knows; the names it has may be of two spans, so it names nothing.
fn from_index(place: &Place, indexed: Option<&Indexed>) -> Summary {
    let Some(trace) = indexed else {
        // Its index row is not in yet.
        return Summary {
            start_ns: place.time_ns,
            end_ns: place.time_ns,
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
fn split<'a>(traces: impl Iterator<Item = (Place, Option<&'a Indexed>)>) -> (Traces, Traces) {
    let mut by_size: Vec<_> = traces.collect();
    by_size.sort_by_key(|(_, indexed)| indexed.map_or(1, |trace| trace.spans));
    let mut sum = 0_u64;
    let (small, large): (Vec<_>, Vec<_>) = by_size.into_iter().partition(|(_, indexed)| {
        sum = sum.saturating_add(indexed.map_or(1, |trace| trace.spans));
        sum <= READ_SPANS_MAX
    });
    let of = |traces: Vec<(Place, Option<&Indexed>)>| {
        Traces::of(traces.iter().map(|(place, indexed)| times(place, *indexed)))
    };
    (of(small), of(large))
}

fn take_names(
    places: &HashMap<[u8; 16], usize>,
    summaries: &mut [(Place, Summary)],
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
