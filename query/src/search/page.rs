//! One page of a search.
//!
//! Traces are ordered by their newest matching span in the window, newest first, then by id. The
//! window is read in chunks, the newest first and each longer than the one before, until the page
//! is full: a window of a week whose last minute fills the page costs a minute. What makes that
//! exact:
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

use crate::db::{Db, DbError, Deadline, Text};
use crate::search::cursor::Place;
use crate::search::filter::Filter;
use crate::sql::Sql;

/// The first chunk; short, so that a busy system's newest traces cost little.
const FIRST_CHUNK_NS: i64 = 60_000_000_000;

/// How much longer each chunk is than the one before.
const CHUNK_GROWTH: i64 = 8;

/// What the trace index knows of a trace.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct Indexed {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
    /// The root span's service; empty while no root has come.
    pub root_service: Text,
    /// The root span's name; empty while no root has come.
    pub root_operation: Text,
    /// All spans of the trace.
    pub spans: u64,
    /// Those with status ERROR.
    pub errors: u64,
}

/// A trace of a page.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its place in the order.
    pub place: Place,
    /// What the index knows of it; nothing in the moment between the two inserts of its first
    /// batch.
    pub indexed: Option<Indexed>,
}

/// A page, and whether there is more behind it.
#[derive(Debug)]
pub struct Page {
    /// At most the limit, in order.
    pub traces: Vec<Found>,
    /// Whether more traces match.
    pub more: bool,
}

#[derive(Debug, Row, Deserialize)]
struct Candidate {
    trace_id: [u8; 16],
    newest_ns: i64,
}

impl Candidate {
    fn place(&self) -> Place {
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
    };
    // One more than asked for says whether there is more.
    let wanted = limit + 1;
    let mut traces = Vec::new();
    let newest = after.map_or(filter.end_ns, |place| place.time_ns.min(filter.end_ns));
    for (from_ns, to_ns) in chunks(filter.start_ns, newest) {
        // Only the first chunk can hold traces at the cursor's own nanosecond.
        let mut behind = after;
        loop {
            let batch = search.candidates(from_ns, to_ns, behind, wanted).await?;
            let read_all = batch.len() < wanted;
            behind = batch.last().map(Candidate::place);
            traces.extend(search.keep_new(batch).await?);
            if traces.len() >= wanted {
                traces.truncate(limit);
                return Ok(Page { traces, more: true });
            }
            if read_all {
                break;
            }
        }
    }
    Ok(Page {
        traces,
        more: false,
    })
}

/// Cuts `start_ns..=end_ns` into growing chunks, the newest first; both bounds of each are
/// inclusive.
fn chunks(start_ns: i64, end_ns: i64) -> impl Iterator<Item = (i64, i64)> {
    let mut to_ns = Some(end_ns);
    let mut length = FIRST_CHUNK_NS;
    std::iter::from_fn(move || {
        let to = to_ns.filter(|to| *to >= start_ns)?;
        let from = to.saturating_sub(length - 1).max(start_ns);
        length = length.saturating_mul(CHUNK_GROWTH);
        to_ns = from.checked_sub(1);
        Some((from, to))
    })
}

struct Search<'a> {
    db: &'a Db,
    filter: &'a Filter,
    cursor: Option<Place>,
    deadline: Deadline,
    /// On this page already, or on an earlier one.
    seen: HashSet<[u8; 16]>,
}

impl Search<'_> {
    /// The first traces behind `behind` with a match in the chunk.
    async fn candidates(
        &self,
        from_ns: i64,
        to_ns: i64,
        behind: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Candidate>, DbError> {
        let sql = candidates_sql(self.filter, from_ns, to_ns, behind, limit);
        self.db.rows("search", &sql, self.deadline).await
    }

    /// Leaves out the traces of this page and of earlier ones, and adds what the index knows.
    async fn keep_new(&mut self, batch: Vec<Candidate>) -> Result<Vec<Found>, DbError> {
        let fresh: Vec<_> = batch
            .into_iter()
            .filter(|found| !self.seen.contains(&found.trace_id))
            .collect();
        let ids = fresh.iter().map(|candidate| candidate.trace_id);
        let mut index = indexed(self.db, ids, self.deadline).await?;
        if let Some(cursor) = self.cursor {
            let suspects: Vec<_> = fresh
                .iter()
                .map(|candidate| candidate.trace_id)
                .filter(|id| {
                    index
                        .get(id)
                        .is_none_or(|trace| trace.end_ns >= cursor.time_ns)
                })
                .collect();
            let shown = self.shown_before(cursor, &suspects, &index).await?;
            self.seen.extend(shown);
        }
        let mut kept = Vec::with_capacity(fresh.len());
        for place in fresh.iter().map(Candidate::place) {
            if self.seen.insert(place.trace_id) {
                kept.push(Found {
                    place,
                    indexed: index.remove(&place.trace_id),
                });
            }
        }
        Ok(kept)
    }

    /// Those of `suspects` whose newest match puts them at the cursor or above it.
    async fn shown_before(
        &self,
        cursor: Place,
        suspects: &[[u8; 16]],
        index: &HashMap<[u8; 16], Indexed>,
    ) -> Result<Vec<[u8; 16]>, DbError> {
        let ends = suspects
            .iter()
            .map(|id| index.get(id).map_or(i64::MAX, |trace| trace.end_ns));
        let to_ns = ends.max().unwrap_or(0).min(self.filter.end_ns);
        if suspects.is_empty() || cursor.time_ns > to_ns {
            return Ok(Vec::new());
        }
        let mut sql = Sql::new(NEWEST);
        sql.append(&self.filter.conditions(cursor.time_ns, to_ns))
            .push(" AND ");
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

fn candidates_sql(
    filter: &Filter,
    from_ns: i64,
    to_ns: i64,
    behind: Option<Place>,
    limit: usize,
) -> Sql {
    let mut sql = Sql::new(NEWEST);
    sql.append(&filter.conditions(from_ns, to_ns))
        .push(" GROUP BY trace_id");
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
) -> Result<HashMap<[u8; 16], Indexed>, DbError> {
    if ids.len() == 0 {
        return Ok(HashMap::new());
    }
    let mut sql = Sql::new(
        "SELECT trace_id, toUnixTimestamp64Nano(min(start)) AS start_ns, \
         toUnixTimestamp64Nano(max(end)) AS end_ns, toString(max(root_service)) AS root_service, \
         toString(max(root_name)) AS root_operation, sum(span_count) AS spans, \
         sum(error_count) AS errors FROM trace_index WHERE tenant = '' AND ",
    );
    sql.trace_id_in(ids).push(" GROUP BY trace_id");
    let rows: Vec<Indexed> = db.rows("trace_index", &sql, deadline).await?;
    Ok(rows.into_iter().map(|row| (row.trace_id, row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start_ns: i64, end_ns: i64, expect: &[(i64, i64)]) {
        assert_eq!(chunks(start_ns, end_ns).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn chunks_cover_the_window_once() {
        const MINUTE: i64 = FIRST_CHUNK_NS;
        check(5, 5, &[(5, 5)]);
        check(0, 10, &[(0, 10)]);
        check(6, 5, &[]);
        check(0, MINUTE - 1, &[(0, MINUTE - 1)]);
        check(0, MINUTE, &[(1, MINUTE), (0, 0)]);
        check(
            0,
            20 * MINUTE - 1,
            &[
                (19 * MINUTE, 20 * MINUTE - 1),
                (11 * MINUTE, 19 * MINUTE - 1),
                (0, 11 * MINUTE - 1),
            ],
        );
        assert!(chunks(0, crate::params::TIME_MAX_NS).count() < 12);
    }
}
