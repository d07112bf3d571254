//! One page of a search.
//!
//! Traces are ordered by their newest matching span in the window, newest first, then by id. The
//! window is read in chunks, the newest first and each longer than the one before, until the page
//! is full: a window of a week whose last minute fills the page costs a minute. How much longer
//! depends on how many traces the last chunk had, since each costs a query. What makes that exact:
//!
//! - A trace found in a chunk is older than every trace of the newer chunks, since those chunks
//!   were read to their ends.
//! - A trace that was found in a newer chunk is on this page already and is skipped by its id.
//! - A trace whose newest match lies at or above the cursor was on an earlier page. The trace index
//!   tells which found traces reach up to the cursor at all; the newest matches of those few are
//!   looked up.

use std::collections::{HashMap, HashSet};

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Deadline};
use crate::search::cursor::Place;
use crate::search::filter::{Filter, Places};
use crate::sql::Sql;

/// How much longer a chunk is than the one before: at least, when that nearly filled the page, and at
/// most, when it had nothing.
const CHUNK_GROWTH: (usize, usize) = (8, 64);

/// What the trace index knows of a trace.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct Indexed {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
    /// All spans of the trace, those that were delivered twice counted twice.
    pub spans: u64,
    /// Those with status ERROR, likewise.
    pub errors: u64,
}

/// Of traces what the trace index knows. A trace is not in it in the moment between the two inserts of its
/// first batch.
pub type Index = HashMap<[u8; 16], Indexed>;

/// A page, and whether there is more behind it.
#[derive(Debug)]
pub struct Page {
    /// At most the limit, in order.
    pub traces: Vec<Place>,
    /// Of these, and others, what was asked of the index on the way.
    pub index: Index,
    /// Whether more traces match.
    pub more: bool,
}

/// A trace with spans that match, or may.
#[derive(Debug, Row, Deserialize)]
pub struct Candidate {
    /// Which.
    pub trace_id: [u8; 16],
    /// The start of the newest of them.
    pub newest_ns: i64,
}

impl Candidate {
    /// Its place in a list.
    pub fn place(&self) -> Place {
        Place {
            time_ns: self.newest_ns,
            trace_id: self.trace_id,
        }
    }
}

/// Reads the page of at most `limit` traces behind `after`.
///
/// # Errors
/// See [`DbError`].
pub async fn page(
    db: &Db,
    filter: &Filter,
    after: Option<Place>,
    limit: usize,
    deadline: Deadline,
) -> Result<Page, DbError> {
    let mut search = Search {
        db,
        filter,
        cursor: after,
        deadline,
        seen: HashSet::new(),
        index: Index::new(),
    };
    // One more than asked for says whether there is more.
    let wanted = limit + 1;
    let mut places = Vec::new();
    let newest = after.map_or(filter.end_ns, |place| place.time_ns.min(filter.end_ns));
    let mut chunks = Chunks::new(filter.start_ns, newest, filter.first_chunk_ns());
    'window: while let Some(chunk) = chunks.next() {
        let before = places.len();
        // Only the first chunk can hold traces at the cursor's own nanosecond.
        let mut behind = after;
        let mut tags = None;
        loop {
            let batch = search.batch(chunk, &mut tags, behind, wanted).await?;
            let read_all = batch.len() < wanted;
            behind = batch.last().map(Candidate::place);
            places.extend(search.keep_new(batch).await?);
            if places.len() >= wanted {
                break 'window;
            }
            if read_all {
                break;
            }
        }
        chunks.grow(places.len() - before, wanted - places.len());
    }
    let more = places.len() >= wanted;
    places.truncate(limit);
    Ok(Page {
        traces: places,
        index: search.index,
        more,
    })
}

/// Cuts a window into growing chunks, the newest first; both bounds of each are inclusive.
pub struct Chunks {
    start_ns: i64,
    /// The last nanosecond that was in no chunk yet.
    to_ns: Option<i64>,
    length_ns: i64,
}

impl Chunks {
    /// Of a window; the first chunk has this length.
    pub fn new(start_ns: i64, end_ns: i64, first_ns: i64) -> Self {
        Self {
            start_ns,
            to_ns: Some(end_ns),
            length_ns: first_ns,
        }
    }

    /// The next one.
    pub fn next(&mut self) -> Option<(i64, i64)> {
        let to = self.to_ns.filter(|to| *to >= self.start_ns)?;
        let from = to.saturating_sub(self.length_ns - 1).max(self.start_ns);
        self.to_ns = from.checked_sub(1);
        Some((from, to))
    }

    /// The last chunk had `found` traces and `missing` are still wanted: the next shall have twice as
    /// many.
    pub fn grow(&mut self, found: usize, missing: usize) {
        let (least, most) = CHUNK_GROWTH;
        let growth = match found {
            0 => most,
            found => (2 * missing / found).clamp(least, most),
        };
        let growth = i64::try_from(growth).unwrap_or(i64::MAX);
        self.length_ns = self.length_ns.saturating_mul(growth);
    }
}

struct Search<'a> {
    db: &'a Db,
    filter: &'a Filter,
    cursor: Option<Place>,
    deadline: Deadline,
    /// On this page already, or on an earlier one.
    seen: HashSet<[u8; 16]>,
    /// What was asked of the trace index so far.
    index: Index,
}

impl Search<'_> {
    /// The first traces of a chunk behind `behind`. `tags` is where its spans may have the filter's tags, once
    /// that is known: until then it is asked while the usual places are searched, and mostly that is all.
    async fn batch(
        &self,
        chunk: (i64, i64),
        tags: &mut Option<Places>,
        behind: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Candidate>, DbError> {
        let places = tags.unwrap_or(Places::USUAL);
        let sql = candidates_sql(self.filter, chunk, places, behind, limit);
        let rows = self.db.rows("search", &sql, self.deadline);
        if tags.is_some() {
            return rows.await;
        }
        let (places, batch) = tokio::try_join!(self.places(chunk), rows)?;
        *tags = Some(places);
        if places == Places::USUAL {
            return Ok(batch);
        }
        let sql = candidates_sql(self.filter, chunk, places, behind, limit);
        self.db.rows("search", &sql, self.deadline).await
    }

    /// Where the spans of a chunk may have the filter's tags.
    async fn places(&self, (from_ns, to_ns): (i64, i64)) -> Result<Places, DbError> {
        let Some(sql) = self.filter.places_sql(from_ns, to_ns) else {
            return Ok(Places::USUAL);
        };
        let rows: Vec<u64> = self.db.rows("search_places", &sql, self.deadline).await?;
        Ok(rows
            .first()
            .map_or(Places::UNKNOWN, |bits| Places::found(*bits)))
    }

    /// Leaves out the traces of this page and of earlier ones.
    async fn keep_new(&mut self, batch: Vec<Candidate>) -> Result<Vec<Place>, DbError> {
        let fresh: Vec<Place> = batch
            .iter()
            .map(Candidate::place)
            .filter(|place| !self.seen.contains(&place.trace_id))
            .collect();
        if let Some(cursor) = self.cursor {
            let ids = fresh.iter().map(|place| place.trace_id);
            let index = indexed(self.db, ids, self.deadline).await?;
            let suspects: Vec<_> = fresh
                .iter()
                .map(|place| place.trace_id)
                .filter(|id| {
                    index
                        .get(id)
                        .is_none_or(|trace| trace.end_ns >= cursor.time_ns)
                })
                .collect();
            let shown = self.shown_before(cursor, &suspects, &index).await?;
            self.seen.extend(shown);
            self.index.extend(index);
        }
        Ok(fresh
            .into_iter()
            .filter(|place| self.seen.insert(place.trace_id))
            .collect())
    }

    /// Those of `suspects` whose newest match puts them at the cursor or above it.
    async fn shown_before(
        &self,
        cursor: Place,
        suspects: &[[u8; 16]],
        index: &Index,
    ) -> Result<Vec<[u8; 16]>, DbError> {
        let ends = suspects
            .iter()
            .map(|id| index.get(id).map_or(i64::MAX, |trace| trace.end_ns));
        let to_ns = ends.max().unwrap_or(0).min(self.filter.end_ns);
        if suspects.is_empty() || cursor.time_ns > to_ns {
            return Ok(Vec::new());
        }
        let mut sql = Sql::new(NEWEST);
        let conditions = self
            .filter
            .conditions(cursor.time_ns, to_ns, Places::UNKNOWN);
        sql.append(&conditions).push(" AND ");
        sql.trace_id_in(suspects.iter().copied())
            .push(" GROUP BY trace_id");
        let rows: Vec<Candidate> = self.db.rows("search_above", &sql, self.deadline).await?;
        let places = rows
            .iter()
            .map(Candidate::place)
            .filter(|place| *place >= cursor);
        Ok(places.map(|place| place.trace_id).collect())
    }
}

/// Each trace with its newest match.
const NEWEST: &str =
    "SELECT trace_id, toUnixTimestamp64Nano(max(time)) AS newest_ns FROM spans WHERE ";

/// The same as part of a union.
const NEWEST_PART: &str =
    "SELECT trace_id, toUnixTimestamp64Nano(max(time)) AS newest FROM spans WHERE ";

/// The first traces behind `behind` with a match in the chunk.
fn candidates_sql(
    filter: &Filter,
    (from_ns, to_ns): (i64, i64),
    places: Places,
    behind: Option<Place>,
    limit: usize,
) -> Sql {
    let conditions = filter.conditions(from_ns, to_ns, places);
    newest_sql(&[conditions], behind, limit)
}

/// The first traces behind `behind` with a span that meets one of these conditions, by the newest such span: the rows
/// are [`Candidate`]s.
pub fn newest_sql(conditions: &[Sql], behind: Option<Place>, limit: usize) -> Sql {
    let mut sql = Sql::default();
    if conditions.len() > 1 {
        sql.push("SELECT trace_id, max(newest) AS newest_ns FROM (");
    }
    for (place, condition) in conditions.iter().enumerate() {
        sql.push(if place == 0 { "" } else { " UNION ALL " });
        sql.push(match conditions.len() {
            1 => NEWEST,
            _ => NEWEST_PART,
        });
        sql.append(condition).push(" GROUP BY trace_id");
    }
    if conditions.len() > 1 {
        sql.push(") GROUP BY trace_id");
    }
    if let Some(place) = behind {
        sql.push(" HAVING newest_ns < ").int(place.time_ns);
        sql.push(" OR newest_ns = ").int(place.time_ns);
        sql.push(" AND trace_id < ").trace_id(place.trace_id);
    }
    sql.push(" ORDER BY newest_ns DESC, trace_id DESC LIMIT ")
        .uint(limit as u64);
    sql
}

/// What the trace index knows of `ids`.
///
/// # Errors
/// See [`DbError`].
pub async fn indexed(
    db: &Db,
    ids: impl ExactSizeIterator<Item = [u8; 16]>,
    deadline: Deadline,
) -> Result<Index, DbError> {
    if ids.len() == 0 {
        return Ok(Index::new());
    }
    let mut sql = Sql::new(
        "SELECT trace_id, toUnixTimestamp64Nano(min(start)) AS start_ns, \
         toUnixTimestamp64Nano(max(end)) AS end_ns, sum(span_count) AS spans, \
         sum(error_count) AS errors FROM trace_index WHERE tenant = '' AND ",
    );
    sql.trace_id_in(ids).push(" GROUP BY trace_id");
    let rows: Vec<Indexed> = db.rows("trace_index", &sql, deadline).await?;
    Ok(rows.into_iter().map(|row| (row.trace_id, row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    /// `found` says for each chunk how many traces it has, of 21 that are wanted.
    #[track_caller]
    fn check(start_ns: i64, end_ns: i64, found: &[usize], expect: &[(i64, i64)]) {
        let mut chunks = Chunks::new(start_ns, end_ns, MINUTE);
        let (mut cut, mut total) = (Vec::new(), 0);
        while let Some(chunk) = chunks.next() {
            let found = found.get(cut.len()).copied().unwrap_or(0);
            cut.push(chunk);
            total += found;
            chunks.grow(found, 21_usize.saturating_sub(total));
        }
        assert_eq!(cut, expect);
    }

    #[test]
    fn chunks_cover_the_window_once() {
        check(5, 5, &[], &[(5, 5)]);
        check(0, 10, &[], &[(0, 10)]);
        check(6, 5, &[], &[]);
        check(0, MINUTE - 1, &[], &[(0, MINUTE - 1)]);
        check(0, MINUTE, &[], &[(1, MINUTE), (0, 0)]);
        check(i64::MIN, i64::MIN + 1, &[], &[(i64::MIN, i64::MIN + 1)]);
        let mut chunks = Chunks::new(0, crate::params::TIME_MAX_NS, MINUTE);
        let mut count = 0;
        while chunks.next().is_some() {
            chunks.grow(20, 1);
            count += 1;
        }
        assert!(count < 12, "{count}");
    }

    #[test]
    fn the_fewer_traces_a_chunk_has_the_longer_is_the_next() {
        let hour = 60 * MINUTE - 1;
        check(0, hour, &[0], &[(59 * MINUTE, hour), (0, 59 * MINUTE - 1)]);
        check(
            0,
            hour,
            &[2],
            &[
                (59 * MINUTE, hour),
                (40 * MINUTE, 59 * MINUTE - 1),
                (0, 40 * MINUTE - 1),
            ],
        );
        check(
            0,
            hour,
            &[20],
            &[
                (59 * MINUTE, hour),
                (51 * MINUTE, 59 * MINUTE - 1),
                (0, 51 * MINUTE - 1),
            ],
        );
    }
}
