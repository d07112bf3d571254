//! What happened, in order: as a hash, which is the same whenever a seed is run, and on request as text.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The environment variable with which each event is printed.
pub const TRACE: &str = "SPANLOOM_TRACE";

/// More events than any run has: time does not pass any more.
const MOST: u64 = 20_000_000;

/// All events of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    begin: Instant,
    is_printed: bool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    hash: u64,
    events: u64,
    violations: Vec<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            begin: Instant::now(),
            is_printed: std::env::var_os(TRACE).is_some(),
            seen: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened.
    pub(crate) fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>9} {what}", self.begin.elapsed().as_millis());
        let mut seen = self.lock();
        seen.hash = xxh3_64_with_seed(line.as_bytes(), seen.hash);
        seen.events += 1;
        assert!(seen.events < MOST, "time stands still at {line}");
        if self.is_printed {
            eprintln!("{line}");
        }
    }

    /// Something happened that must not.
    pub(crate) fn violation(&self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.lock().hash
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }
}
