//! Whether requests are let in: the phases that a pipeline goes through from its start to its end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What receiving is told, and the connections that it has.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Requests are refused until there is a configuration.
    held: AtomicBool,
    /// Connections are asked to go elsewhere; new ones are still accepted.
    pub(crate) leaving: CancellationToken,
    /// Connections close and nothing new is accepted.
    pub(crate) closing: CancellationToken,
    /// What is under way is given up.
    pub(crate) abort: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Doors {
    pub(crate) fn new(held: bool) -> Self {
        Self {
            held: AtomicBool::new(held),
            leaving: CancellationToken::new(),
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: TaskTracker::new(),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// From now on requests are taken.
    pub(crate) fn open(&self) {
        self.held.store(false, Ordering::Release);
    }
}
