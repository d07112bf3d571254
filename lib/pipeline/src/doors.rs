//! Whether requests are let in: the phases that a pipeline goes through from its start to its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

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
    /// A part that the pipeline cannot do without has ended before its time.
    broken: OnceLock<&'static str>,
}

impl Doors {
    pub(crate) fn new(held: bool) -> Self {
        Self {
            held: AtomicBool::new(held),
            leaving: CancellationToken::new(),
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: TaskTracker::new(),
            broken: OnceLock::new(),
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// What has ended before its time.
    pub(crate) fn broken(&self) -> Option<&'static str> {
        self.broken.get().copied()
    }

    /// A part of the pipeline runs until it says that it has [ended](Vital::end).
    pub(crate) fn vital(self: &Arc<Self>, what: &'static str) -> Vital {
        Vital {
            doors: Arc::clone(self),
            what,
            ended: false,
        }
    }

    /// From now on requests are taken.
    pub(crate) fn open(&self) {
        self.held.store(false, Ordering::Release);
    }
}

/// A part that the pipeline cannot do without. Dropped, as by a panic, it leaves the pipeline broken, which
/// is not ready any more.
#[derive(Debug)]
pub(crate) struct Vital {
    doors: Arc<Doors>,
    what: &'static str,
    ended: bool,
}

impl Vital {
    /// It ends as it should.
    pub(crate) fn end(mut self) {
        self.ended = true;
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        tracing::error!(
            part = self.what,
            "a part of the pipeline exited unexpectedly; this is a bug"
        );
        let _ = self.doors.broken.set(self.what);
    }
}
