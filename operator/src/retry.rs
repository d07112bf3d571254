//! Pauses between tries, with a part that is left to chance, so that not all come at once after an outage.

use std::time::{Duration, Instant};

use kube::runtime::utils::Backoff;
use spanloom_plan::retry::{ErrorClass, doubled, pause};

/// How soon a failed pass is tried again.
pub fn retry_after(class: ErrorClass, failures: u32) -> Duration {
    with_jitter(pause(class, failures))
}

/// The pause, and up to a quarter more.
fn with_jitter(pause: Duration) -> Duration {
    let quarter = u64::try_from(pause.as_millis() / 4).unwrap_or(u64::MAX);
    pause + Duration::from_millis(rand::random::<u64>() % quarter.max(1))
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
        self.failures = self.failures.saturating_add(1);
        self.last = Some(Instant::now());
        Some(with_jitter(doubled(1, WATCH_SECONDS_MAX, self.failures)))
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
    fn a_pause_is_at_most_a_quarter_longer() {
        for failures in [1, 3, 99] {
            let least = pause(ErrorClass::Api, failures);
            let after = retry_after(ErrorClass::Api, failures);
            assert!(after >= least && after <= least * 5 / 4, "{after:?}");
        }
    }
}
