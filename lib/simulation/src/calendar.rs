//! The calendar of a run, which somebody may set back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spanloom_pipeline::simulation::set_calendar;
use tokio::time::Instant;

/// When runs begin.
pub(crate) const START: Duration = Duration::from_millis(1_795_000_000_000);

#[derive(Debug)]
pub(crate) struct Calendar(Mutex<(Instant, Duration)>);

impl Calendar {
    /// Begins on this thread.
    pub(crate) fn begin() -> Self {
        set_calendar(Some(START));
        Self(Mutex::new((Instant::now(), START)))
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, Duration)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Duration {
        let (begin, time) = *self.lock();
        time + begin.elapsed()
    }

    pub(crate) fn set_back(&self, by: Duration) {
        let time = self.now().saturating_sub(by);
        *self.lock() = (Instant::now(), time);
        set_calendar(Some(time));
    }
}

impl Drop for Calendar {
    fn drop(&mut self) {
        set_calendar(None);
    }
}
