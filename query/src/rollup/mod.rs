//! What is answered from the rollups per minute: services, operations, latency, dependencies.
//!
//! A rollup's window is made of whole minutes, so each answer says which window it covers.

pub mod dependencies;
mod edges;
pub mod histogram;
pub mod latency;
pub mod services;

use crate::sql::Sql;
use crate::times::{Window, minutes};

/// Rows of one answer; a system with more services or operations is told that it is cut.
pub(crate) const ROWS_MAX: usize = 10_000;

/// A window of whole minutes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minutes {
    /// Seconds since 1970.
    from: i64,
    /// Seconds since 1970, exclusive.
    to: i64,
}

impl Minutes {
    /// The minutes that contain `start_ns..=end_ns`.
    pub(crate) fn new((start_ns, end_ns): (i64, i64)) -> Self {
        // The rollups' DateTime ends in 2106.
        const DATE_TIME_MAX: i64 = u32::MAX as i64;
        let (from, to) = minutes(start_ns, end_ns);
        Self {
            from: from.min(DATE_TIME_MAX),
            to: to.min(DATE_TIME_MAX),
        }
    }

    /// The condition that a row's minute is in the window.
    pub(crate) fn condition(self) -> Sql {
        let mut sql = Sql::new("tenant = '' AND minute >= toDateTime(");
        sql.int(self.from)
            .push(") AND minute < toDateTime(")
            .int(self.to)
            .push(")");
        sql
    }

    pub(crate) fn window(self) -> Window {
        Window::new(self.from * 1_000_000_000, self.to * 1_000_000_000)
    }
}

/// Cuts `rows`, which were read with a limit of one more than may be shown.
pub(crate) fn cut<T>(mut rows: Vec<T>) -> (Vec<T>, bool) {
    let truncated = rows.len() > ROWS_MAX;
    rows.truncate(ROWS_MAX);
    (rows, truncated)
}
