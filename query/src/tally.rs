//! What the ClickHouse queries of one request read, counted beside them.
//!
//! A request's queries are made in many places. Those that run within [`counted`] add to its tally, wherever they
//! are; what runs outside, or in a task of its own, is not counted.

use std::ops::Add;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clickhouse::query::RowCursor;

tokio::task_local! {
    static TALLY: Arc<Tally>;
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct Tally {
    queries: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    result_bytes: AtomicU64,
}

/// What queries read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Read {
    /// Queries that were sent.
    pub queries: u64,
    /// Rows that ClickHouse read for them.
    pub rows: u64,
    /// Bytes that ClickHouse read for them, without compression.
    pub bytes: u64,
    /// Bytes of their results, without compression.
    pub result_bytes: u64,
}

impl Add for Read {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queries: self.queries.saturating_add(other.queries),
            rows: self.rows.saturating_add(other.rows),
            bytes: self.bytes.saturating_add(other.bytes),
            result_bytes: self.result_bytes.saturating_add(other.result_bytes),
        }
    }
}

impl Tally {
    /// What it is now.
    pub fn read(&self) -> Read {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Read {
            queries: get(&self.queries),
            rows: get(&self.rows),
            bytes: get(&self.bytes),
            result_bytes: get(&self.result_bytes),
        }
    }

    fn add(&self, read: Read) {
        for (count, more) in [
            (&self.queries, read.queries),
            (&self.rows, read.rows),
            (&self.bytes, read.bytes),
            (&self.result_bytes, read.result_bytes),
        ] {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }
}

/// Runs `work` and adds to `tally` what its queries read.
pub async fn counted<F: Future>(tally: Arc<Tally>, work: F) -> F::Output {
    TALLY.scope(tally, work).await
}

/// Adds a query that is being sent.
pub fn sent() {
    add(Read {
        queries: 1,
        ..Read::default()
    });
}

/// Adds what a query has read. ClickHouse says it before the first row of the result, so a result that is made
/// while it is sent may have read more than that; it read no less than it answered.
pub fn received<T>(cursor: &RowCursor<T>) {
    let said = |count: Option<u64>, answered: u64| count.unwrap_or(0).max(answered);
    let summary = cursor.summary();
    let result_bytes = cursor.decoded_bytes();
    add(Read {
        queries: 0,
        rows: said(
            summary.and_then(|summary| summary.read_rows()),
            cursor.returned_rows(),
        ),
        bytes: said(
            summary.and_then(|summary| summary.read_bytes()),
            result_bytes,
        ),
        result_bytes,
    });
}

fn add(read: Read) {
    // Outside of `counted` there is no tally.
    let _ = TALLY.try_with(|tally| tally.add(read));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_runs_within_is_counted() {
        let tally = Arc::new(Tally::default());
        sent();
        counted(tally.clone(), async {
            sent();
            tokio::join!(async { sent() }, async { sent() });
        })
        .await;
        sent();
        assert_eq!(tally.read().queries, 3);
    }
}
