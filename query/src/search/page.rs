//! How a window is read: in chunks, the newest first and each longer than the one before, until there is enough. A window
//! of a week whose last minute has enough costs a minute. How much longer depends on how many traces the last chunk had,
//! since each costs a query.

use std::collections::HashMap;

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Deadline};
use crate::search::cursor::Place;
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
}

/// Of traces what the trace index knows. A trace is not in it in the moment between the two inserts of its
/// first batch.
pub type Index = HashMap<[u8; 16], Indexed>;

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

/// Each trace with its newest match.
const NEWEST: &str =
    "SELECT trace_id, toUnixTimestamp64Nano(max(time)) AS newest_ns FROM spans WHERE ";

/// The same as part of a union.
const NEWEST_PART: &str =
    "SELECT trace_id, toUnixTimestamp64Nano(max(time)) AS newest FROM spans WHERE ";

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
         toUnixTimestamp64Nano(max(end)) AS end_ns, sum(span_count) AS spans FROM trace_index WHERE tenant = '' AND ",
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
