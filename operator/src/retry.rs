//! How soon what failed is tried again. Pure.

use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;

use crate::cluster::ErrorClass;

/// How soon a failed pass is tried again.
pub fn retry_after(class: ErrorClass, failures: u32) -> Duration {
    let seconds = match class {
        ErrorClass::Conflict => 1,
        ErrorClass::Api => 2u64.saturating_pow(failures.min(6)),
        ErrorClass::Forbidden => 60,
        ErrorClass::User => 30,
        ErrorClass::Bug => 300,
    };
    // Not all at once after an outage.
    let jitter = rand::random::<u64>() % (seconds * 250).max(1);
    Duration::from_secs(seconds) + Duration::from_millis(jitter)
}

/// How soon a watch is tried again: later and later, from one second to a minute, until it has stood
/// for longer than that. The first event of a list that then fails is no success.
#[derive(Debug, Default)]
pub struct WatchBackoff {
    failures: u32,
    last: Option<Instant>,
}

/// The longest wait between two tries of a watch.
const WATCH_SECONDS_MAX: u64 = 60;

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let stood = self
            .last
            .is_some_and(|last| last.elapsed() > Duration::from_secs(3 * WATCH_SECONDS_MAX));
        if stood {
            self.failures = 0;
        }
        let seconds = 2u64.saturating_pow(self.failures).min(WATCH_SECONDS_MAX);
        self.failures = (self.failures + 1).min(6);
        self.last = Some(Instant::now());
        let jitter = rand::random::<u64>() % (seconds * 250);
        Some(Duration::from_secs(seconds) + Duration::from_millis(jitter))
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_are_tried_again_later_and_later() {
        let mut backoff = WatchBackoff::default();
        let waits: Vec<u64> = (0..8)
            .map(|_| {
                backoff.reset();
                backoff.next().unwrap().as_secs()
            })
            .collect();
        assert!(
            waits.is_sorted_by(|a, b| a < b || *b >= WATCH_SECONDS_MAX),
            "{waits:?}"
        );
        assert!(waits[0] <= 1 && waits[7] >= WATCH_SECONDS_MAX && waits[7] <= 75);
    }

    #[test]
    fn errors_of_the_api_are_tried_again_later_and_later() {
        let bound = |class, failures, from, to| {
            let after = retry_after(class, failures);
            let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
            assert!(after >= from && after <= to, "{after:?}");
        };
        bound(ErrorClass::Conflict, 9, 1, 2);
        bound(ErrorClass::Api, 0, 1, 2);
        bound(ErrorClass::Api, 3, 8, 10);
        bound(ErrorClass::Api, 99, 64, 80);
    }
}
