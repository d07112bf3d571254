//! How often a collector sends a batch: so that all collectors of a cluster make no more parts than ClickHouse merges
//! with ease ([`share`]), and no fewer than people want who look for their spans.
//!
//! Up to ten collectors send a batch every 0.7 s, and a hundred every 7 s.

use std::time::Duration;

use spanloom_pipeline::config::BatchLimits;
pub use spanloom_store::pace::QUIET;
use spanloom_store::pace::share;

/// However many collectors there are, spans can be searched after this long.
const OLDEST: Duration = Duration::from_secs(15);
/// The same where senders wait for their batch.
const OLDEST_WAITED_FOR: Duration = Duration::from_secs(1);
/// How old a batch becomes where so many collectors write to a store.
pub fn batch_age(collectors: u32, has_log: bool) -> Duration {
    let (least, most) = match has_log {
        true => (BatchLimits::logged().max_age, OLDEST),
        false => (BatchLimits::default().max_age, OLDEST_WAITED_FOR),
    };
    share(collectors).clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_share_the_parts() {
        let check = |collectors, logged_ms, stored_ms| {
            let ms = |has_log| batch_age(collectors, has_log).as_millis();
            assert_eq!(
                (ms(true), ms(false)),
                (logged_ms, stored_ms),
                "{collectors}"
            );
        };
        check(0, 700, 200);
        check(2, 700, 200);
        check(10, 700, 700);
        check(20, 1_400, 1_000);
        check(100, 7_000, 1_000);
        check(200, 14_000, 1_000);
        check(u32::MAX, 15_000, 1_000);
    }
}
