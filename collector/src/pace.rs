//! How often a collector sends a batch, so that all collectors of a cluster together do not make more parts than
//! ClickHouse merges with ease.
//!
//! A batch is an insert into each of up to [`TABLES`] tables, and each insert makes a part. The collectors of a
//! cluster share [`PARTS_PER_SECOND`]: up to ten of them send a batch every 0.7 s, and a hundred every 7 s. Batches
//! that are full are sent at once: their parts are large, and few for what is in them.

use std::time::Duration;

use spanloom_pipeline::config::BatchLimits;

/// Parts a second that all collectors make together with batches that are not full.
pub const PARTS_PER_SECOND: u32 = 100;
/// Tables that a batch goes into.
pub const TABLES: u32 = 7;
/// However many collectors there are, spans can be searched after this long.
pub const OLDEST: Duration = Duration::from_secs(15);
/// The same where senders wait for their batch.
const OLDEST_WAITED_FOR: Duration = Duration::from_secs(1);

/// How old a batch becomes where so many collectors write to a store.
pub fn batch_age(collectors: u32, has_log: bool) -> Duration {
    let (least, most) = match has_log {
        true => (BatchLimits::logged().max_age, OLDEST),
        false => (BatchLimits::default().max_age, OLDEST_WAITED_FOR),
    };
    let share = Duration::from_secs(u64::from(collectors) * u64::from(TABLES)) / PARTS_PER_SECOND;
    share.clamp(least, most)
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
        check(11, 770, 770);
        check(100, 7_000, 1_000);
        check(200, 14_000, 1_000);
        check(u32::MAX, 15_000, 1_000);
    }

    #[test]
    fn a_batch_goes_into_these_tables() {
        assert_eq!(TABLES as usize, spanloom_store::block::TableId::ALL.len());
    }
}
