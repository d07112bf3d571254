//! Times as answers show them.

use serde::Serialize;
use utoipa::ToSchema;

/// RFC 3339 with all nine digits, so that texts compare as their times do.
pub fn rfc3339(ns: i64) -> String {
    // Every i64 of nanoseconds is within what a timestamp can be.
    let timestamp = jiff::Timestamp::from_nanosecond(ns.into()).unwrap_or_default();
    format!("{timestamp:.9}")
}

/// The time that an answer covers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Window {
    /// The begin (RFC 3339).
    pub start: String,
    /// The end (RFC 3339).
    pub end: String,
}

impl Window {
    /// A window between two times in nanoseconds since 1970.
    pub fn new(start_ns: i64, end_ns: i64) -> Self {
        Self {
            start: rfc3339(start_ns),
            end: rfc3339(end_ns),
        }
    }
}

/// A window of whole minutes that contains `start_ns..=end_ns`: seconds since 1970, the end
/// exclusive. Rollups know no finer.
pub fn minutes(start_ns: i64, end_ns: i64) -> (i64, i64) {
    const MINUTE_NS: i64 = 60_000_000_000;
    (
        start_ns.div_euclid(MINUTE_NS) * 60,
        (end_ns.div_euclid(MINUTE_NS) + 1) * 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_nine_digits() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(
            rfc3339(1_700_000_000_123_456_789),
            "2023-11-14T22:13:20.123456789Z"
        );
        assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn minutes_contain_the_window() {
        assert_eq!(minutes(0, 0), (0, 60));
        assert_eq!(minutes(59_999_999_999, 60_000_000_000), (0, 120));
        assert_eq!(minutes(61_000_000_000, 119_000_000_000), (60, 120));
    }
}
