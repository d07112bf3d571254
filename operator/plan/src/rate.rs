//! Spans a second, a coarse figure for people. Pure.

use std::collections::HashMap;
use std::time::Duration;

/// Spans a second of the agents that were there before and are there now.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a coarse figure for people"
)]
pub fn rate(before: &HashMap<String, u64>, now: &HashMap<String, u64>, taken: Duration) -> i64 {
    let spans: u64 = now
        .iter()
        .filter_map(|(uid, count)| Some(count.saturating_sub(*before.get(uid)?)))
        .sum();
    (spans as f64 / taken.as_secs_f64().max(1.0)).round() as i64
}

/// Whether a rate differs from the one that is shown by more than a quarter.
pub fn is_news(shown: Option<i64>, rate: i64) -> bool {
    match shown {
        None => true,
        Some(shown) => (rate - shown).abs() * 4 > shown.abs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_coarse() {
        let counts = |a: u64, b: u64| HashMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let half_minute = Duration::from_secs(30);
        assert_eq!(rate(&counts(0, 0), &counts(3_000, 300), half_minute), 110);
        // A restarted agent counts from zero.
        assert_eq!(rate(&counts(500, 0), &counts(0, 300), half_minute), 10);
        assert!(is_news(None, 0));
        assert!(!is_news(Some(0), 0));
        assert!(is_news(Some(0), 1));
        assert!(!is_news(Some(100), 125));
        assert!(is_news(Some(100), 126));
        assert!(is_news(Some(100), 74));
    }
}
