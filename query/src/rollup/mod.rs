//! What is answered from the rollups per minute: services, operations, latency, dependencies, accounts.
//!
//! A rollup's window is made of whole minutes, so each answer says which window it covers. The whole
//! hours in it are read from their own rollup.

pub mod accounts;
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

    /// The whole hours of the window, the end exclusive, as long as there is one.
    fn hours(self) -> Option<(i64, i64)> {
        const HOUR: i64 = 3600;
        let from = self.from.saturating_add(HOUR - 1).div_euclid(HOUR) * HOUR;
        let to = self.to.div_euclid(HOUR) * HOUR;
        (from < to).then_some((from, to))
    }

    /// How long it is.
    pub(crate) fn seconds(self) -> u64 {
        self.to.abs_diff(self.from)
    }

    /// Whether its hours are so few that a second thread would cost more than it takes over
    /// (docs/schema-benchmark.md).
    pub(crate) fn is_short(self) -> bool {
        const TWO_DAYS: i64 = 48 * 3600;
        self.to - self.from <= TWO_DAYS
    }

    /// The RED measures of the window as a subquery with the columns `service`, `name`, `kind`,
    /// `spans`, `errors`, `total_ns`, `least_ns`, `greatest_ns` and `counts`: whole hours from their
    /// rollup, and only what the window has before and after them from the minutes. `and` is what else
    /// the rows must be.
    pub(crate) fn measures(self, and: &Sql) -> Sql {
        const HOURS: &str = "SELECT service, name, kind, h.count AS spans, h.error_count AS errors, \
             h.duration_total_ns AS total_ns, h.duration_min_ns AS least_ns, \
             h.duration_max_ns AS greatest_ns, h.buckets AS counts FROM red_hours AS h \
             WHERE tenant = '' AND hour >= toDateTime(";
        const MINUTES: &str = "SELECT service, name, kind, m.count AS spans, \
             if(status = 'ERROR', m.count, 0) AS errors, m.duration_total_ns AS total_ns, \
             m.duration_min_ns AS least_ns, m.duration_max_ns AS greatest_ns, \
             m.buckets AS counts FROM red AS m WHERE ";
        let mut parts = Vec::new();
        let mut minutes = vec![self];
        if let Some((from, to)) = self.hours() {
            let mut hours = Sql::new(HOURS);
            hours.int(from).push(") AND hour < toDateTime(").int(to);
            hours.push(")").append(and);
            parts.push(hours);
            minutes = vec![Self { to: from, ..self }, Self { from: to, ..self }];
        }
        for part in minutes.into_iter().filter(|part| part.from < part.to) {
            let mut sql = Sql::new(MINUTES);
            sql.append(&part.condition()).append(and);
            parts.push(sql);
        }
        if parts.is_empty() {
            // Beyond what the rollups can hold.
            let mut sql = Sql::new(MINUTES);
            sql.append(&self.condition());
            parts.push(sql);
        }
        let mut sql = Sql::new("(");
        for (place, part) in parts.iter().enumerate() {
            sql.push(if place == 0 { "" } else { " UNION ALL " })
                .append(part);
        }
        sql.push(")");
        sql
    }

    pub(crate) fn window(self) -> Window {
        Window::new(self.from * 1_000_000_000, self.to * 1_000_000_000)
    }
}

/// Cuts `rows`, which were read with a limit of one more than may be shown.
pub(crate) fn cut<T>(rows: Vec<T>) -> (Vec<T>, bool) {
    cut_at(rows, ROWS_MAX)
}

/// The same with another number of rows that may be shown.
pub(crate) fn cut_at<T>(mut rows: Vec<T>, max: usize) -> (Vec<T>, bool) {
    let truncated = rows.len() > max;
    rows.truncate(max);
    (rows, truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(from: i64, to: i64, hours: Option<(i64, i64)>, parts: usize) {
        let window = Minutes { from, to };
        assert_eq!(window.hours(), hours, "{window:?}");
        let text = window.measures(&Sql::default()).text();
        assert_eq!(text.matches("SELECT").count(), parts, "{text}");
        assert_eq!(text.contains("red_hours"), hours.is_some(), "{text}");
    }

    #[test]
    fn whole_hours_and_the_minutes_around_them() {
        check(0, 60, None, 1);
        check(60, 7_140, None, 1);
        check(3_540, 3_660, None, 1);
        check(0, 3_600, Some((0, 3_600)), 1);
        check(60, 7_200, Some((3_600, 7_200)), 2);
        check(0, 3_660, Some((0, 3_600)), 2);
        check(60, 10_860, Some((3_600, 10_800)), 3);
        check(u32::MAX.into(), u32::MAX.into(), None, 1);
    }
}
