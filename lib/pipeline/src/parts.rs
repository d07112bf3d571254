//! The parts of the pipeline that work for long stretches, each on a thread of its own.
//!
//! They are futures, so that a simulation can run all of them on one thread, in virtual time.

use std::future::{Future, pending};
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::doors::Doors;

/// Starts parts, and knows which have ended.
pub(crate) struct Parts {
    doors: Arc<Doors>,
    way: Way,
}

enum Way {
    Threads {
        /// Where their timers and what they wait for live.
        runtime: Handle,
        /// The runtime has ended: nothing that a part waits for comes any more.
        over: CancellationToken,
        /// Lives as long as the runtime.
        life: AbortHandle,
    },
    /// Tasks of the runtime, in a simulation.
    #[cfg(feature = "simulation")]
    Tasks,
}

impl Parts {
    /// Parts with threads. Must be called in a tokio runtime.
    pub(crate) fn threads(doors: Arc<Doors>) -> Self {
        let over = CancellationToken::new();
        let guard = over.clone().drop_guard();
        let life = tokio::spawn(async move {
            let _guard = guard;
            pending::<()>().await;
        });
        let way = Way::Threads {
            runtime: Handle::current(),
            over,
            life: life.abort_handle(),
        };
        Self { doors, way }
    }

    /// Parts that are tasks of the current runtime.
    #[cfg(feature = "simulation")]
    pub(crate) fn tasks(doors: Arc<Doors>) -> Self {
        Self {
            doors,
            way: Way::Tasks,
        }
    }

    /// Starts a part that the pipeline cannot do without; `tracker` knows when it has ended.
    pub(crate) fn start(
        &self,
        name: String,
        what: &'static str,
        tracker: &TaskTracker,
        part: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let part = tracker.track_future(Arc::clone(&self.doors).watch(what, part));
        match &self.way {
            Way::Threads { runtime, over, .. } => {
                let (runtime, over) = (runtime.clone(), over.clone());
                let work = async move {
                    tokio::select! {
                        biased;
                        () = over.cancelled() => {}
                        () = part => {}
                    }
                };
                let thread = thread::Builder::new().name(name);
                thread.spawn(move || runtime.block_on(work)).map(drop)
            }
            #[cfg(feature = "simulation")]
            Way::Tasks => {
                drop((name, tokio::spawn(part)));
                Ok(())
            }
        }
    }

    /// Does what blocks, such as writing to a disk; `None` after a panic.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match &self.way {
            Way::Threads { .. } => spawn_blocking(work).await.ok(),
            #[cfg(feature = "simulation")]
            Way::Tasks => Some(work()),
        }
    }

    /// All parts have ended.
    pub(crate) fn end(&self) {
        match &self.way {
            Way::Threads { life, .. } => life.abort(),
            #[cfg(feature = "simulation")]
            Way::Tasks => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_has_a_thread_with_its_name() {
        let parts = Parts::threads(Arc::new(Doors::new(false)));
        let (say, said) = mpsc::channel();
        let tracker = TaskTracker::new();
        let part = async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            say.send(thread::current().name().map(str::to_owned))
                .unwrap();
        };
        parts
            .start("part-7".to_owned(), "a part", &tracker, part)
            .unwrap();
        tracker.close();
        tracker.wait().await;
        assert_eq!(said.recv().unwrap().as_deref(), Some("part-7"));
    }

    #[test]
    fn a_part_ends_with_the_runtime_and_breaks_nothing() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let doors = Arc::new(Doors::new(false));
        let parts = runtime.block_on(async { Parts::threads(Arc::clone(&doors)) });
        let (alive, ended) = mpsc::channel::<()>();
        let part = async move {
            let _alive = alive;
            // A timer, which would panic.
            tokio::time::sleep(Duration::from_secs(3600)).await;
        };
        parts
            .start("part".to_owned(), "a part", &TaskTracker::new(), part)
            .unwrap();
        drop(runtime);
        let ended = ended.recv_timeout(PATIENCE);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
        assert_eq!(doors.broken(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_that_panics_breaks_the_pipeline() {
        let doors = Arc::new(Doors::new(false));
        let parts = Parts::threads(Arc::clone(&doors));
        let tracker = TaskTracker::new();
        let part = async { panic!("as the test asked") };
        parts
            .start("part".to_owned(), "a part", &tracker, part)
            .unwrap();
        tracker.close();
        tracker.wait().await;
        assert_eq!(doors.broken(), Some("a part"));
    }
}
