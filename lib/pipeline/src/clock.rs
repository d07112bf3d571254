//! What time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970.
pub(crate) fn since_1970() -> Duration {
    #[cfg(feature = "simulation")]
    if let Some(time) = simulated::now() {
        return time;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The same in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

/// The same in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

/// The calendar of a simulation, which runs on one thread: it goes as tokio's clock does.
#[cfg(feature = "simulation")]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    thread_local! {
        static BEGIN: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }

    /// On this thread it is `time` now; `None`: what the machine says.
    pub(crate) fn set(time: Option<Duration>) {
        BEGIN.set(time.map(|time| (Instant::now(), time)));
    }

    pub(super) fn now() -> Option<Duration> {
        let (begin, time) = BEGIN.get()?;
        Some(time + begin.elapsed())
    }
}
