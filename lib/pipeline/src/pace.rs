//! How old batches become: what the limits say, until someone says otherwise, and longer where they are small
//! ([`Quiet`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{BatchLimits, Quiet};

/// Shared by all workers.
#[derive(Debug)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    age: Duration,
    quiet: Option<Quiet>,
    /// When the small batches that need not wait are as many as they may be.
    full_at: Instant,
}

impl Pace {
    pub(crate) fn new(limits: &BatchLimits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            age: limits.max_age,
            quiet: limits.quiet.clone(),
            full_at: Instant::now(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Batches become this old, and small ones that have to wait `quiet`, where there are such.
    pub(crate) fn set(&self, age: Duration, quiet: Duration) {
        let mut state = self.lock();
        state.age = age;
        if let Some(limits) = &mut state.quiet {
            limits.age = quiet;
        }
    }

    /// How old a batch of so many spans becomes.
    pub(crate) fn age(&self, rows: usize) -> Duration {
        let state = self.lock();
        match &state.quiet {
            Some(quiet) if rows < quiet.rows && state.is_used_up(quiet) => state.age.max(quiet.age),
            _ => state.age,
        }
    }

    /// A batch of so many spans is sent.
    pub(crate) fn sent(&self, rows: usize) {
        let mut state = self.lock();
        if let Some(quiet) = &state.quiet
            && rows < quiet.rows
        {
            let age = quiet.age;
            let latest = Instant::now() + age * quiet.burst;
            state.full_at = (state.full_at.max(Instant::now()) + age).min(latest);
        }
    }
}

impl State {
    fn is_used_up(&self, quiet: &Quiet) -> bool {
        let left = self.full_at.saturating_duration_since(Instant::now());
        left + quiet.age > quiet.age * quiet.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE: Duration = Duration::from_millis(700);
    const QUIET: Duration = Duration::from_secs(6);

    fn pace() -> Arc<Pace> {
        Pace::new(&BatchLimits {
            max_age: AGE,
            quiet: Some(Quiet {
                rows: 64,
                age: QUIET,
                burst: 3,
            }),
            ..BatchLimits::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn some_small_batches_need_not_wait() {
        let pace = pace();
        for _ in 0..3 {
            assert_eq!(pace.age(1), AGE);
            pace.sent(1);
        }
        assert_eq!(pace.age(1), QUIET);
        // Others never do.
        assert_eq!(pace.age(64), AGE);
        pace.sent(64);
        // One more after a while, and all of them after a long one.
        tokio::time::advance(QUIET).await;
        assert_eq!(pace.age(1), AGE);
        pace.sent(1);
        assert_eq!(pace.age(1), QUIET);
        tokio::time::advance(10 * QUIET).await;
        for _ in 0..3 {
            assert_eq!(pace.age(1), AGE);
            pace.sent(1);
        }
        assert_eq!(pace.age(1), QUIET);
    }

    /// Batches that waited their time do not make the next ones wait for longer.
    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_sent_at_a_steady_pace() {
        let pace = pace();
        let mut waited = Duration::ZERO;
        let mut batches = 0;
        while waited < 100 * QUIET {
            let age = pace.age(1);
            tokio::time::advance(age).await;
            waited += age;
            pace.sent(1);
            batches += 1;
        }
        assert!((100..=104).contains(&batches), "{batches}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_quiet_times_nothing_waits() {
        let pace = Pace::new(&BatchLimits::default());
        for _ in 0..100 {
            pace.sent(1);
        }
        assert_eq!(pace.age(1), BatchLimits::default().max_age);
        pace.set(Duration::from_secs(3), QUIET);
        assert_eq!(pace.age(1), Duration::from_secs(3));
    }
}
