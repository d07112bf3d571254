//! Whether requests are let in: the phases that a pipeline goes through from its start to its end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
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

    /// Runs a part of the pipeline that it cannot do without. A panic leaves the pipeline broken, which is
    /// not ready any more. Nothing else ends a part early: one that is dropped, as with its runtime, has not
    /// failed.
    pub(crate) async fn watch(self: Arc<Self>, what: &'static str, part: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(part).catch_unwind().await {
            self.breaks(what);
            resume_unwind(panic);
        }
    }

    fn breaks(&self, what: &'static str) {
        tracing::error!(
            part = what,
            "a part of the pipeline exited unexpectedly; this is a bug"
        );
        let _ = self.broken.set(what);
    }

    /// From now on requests are taken.
    pub(crate) fn open(&self) {
        self.held.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::panic::catch_unwind;

    use super::*;

    /// Starts a part on a runtime of its own, which is dropped, and says what is broken then.
    fn after(part: impl Future<Output = ()> + Send + 'static) -> Option<&'static str> {
        let doors = Arc::new(Doors::new(false));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let watched = Arc::clone(&doors).watch("a part", async {
            begin.send(()).unwrap();
            part.await;
        });
        let task = runtime.spawn(watched);
        runtime.block_on(begun).unwrap();
        // What does not end by itself ends with the runtime.
        let patience = std::time::Duration::from_millis(1);
        let _ = runtime.block_on(async { tokio::time::timeout(patience, task).await });
        drop(runtime);
        doors.broken()
    }

    #[test]
    fn only_a_panic_breaks() {
        assert_eq!(after(async {}), None);
        assert_eq!(after(pending()), None);
        assert_eq!(after(async { panic!("as the test asked") }), Some("a part"));
    }

    #[test]
    fn a_runtime_that_is_dropped_by_a_panic_breaks_nothing() {
        let doors = Arc::new(Doors::new(false));
        let watched = Arc::clone(&doors).watch("a part", pending());
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.spawn(watched);
            panic!("as the test asked");
        }));
        assert!(unwound.is_err());
        assert_eq!(doors.broken(), None);
    }
}
