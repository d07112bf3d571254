//! Work that can wait a moment, such as making the bytes of a batch. It has threads of its own whose priority is
//! lower than that of the others: what a sender waits for finds a core at once, also where there is only one.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;

/// How much nicer the threads are than others. With 10 they have about a tenth of a core that others want, too.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// The threads. They end when it is dropped, after the work that they have begun.
///
/// What waits for one is bounded by who gives it work: the batches of the pipeline.
#[derive(Debug)]
pub(crate) struct Background {
    work: mpsc::Sender<Work>,
}

impl Background {
    /// Starts so many threads, at least one.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let (work, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..threads.max(1) {
            let waiting = Arc::clone(&waiting);
            let thread = thread::Builder::new().name(format!("background-{index}"));
            thread.spawn(move || serve(&waiting))?;
        }
        Ok(Self { work })
    }

    /// Does it on one of the threads; `None` after a panic.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let work = move || {
            // Nobody may wait for it any more.
            let _ = answer.send(work());
        };
        self.work.send(Box::new(work)).ok()?;
        answered.await.ok()
    }
}

fn serve(waiting: &Mutex<mpsc::Receiver<Work>>) {
    be_nice();
    loop {
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(work) = next else { return };
        // Who waits for it sees that there is no answer; the panic itself was logged.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

/// On Linux a thread has a priority of its own.
fn be_nice() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_has_no_answer_and_harms_no_other() {
        let background = Background::start(1).unwrap();
        assert_eq!(
            background.run(|| panic!("as the test asked")).await,
            None::<()>
        );
        assert_eq!(background.run(|| 7).await, Some(7));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn its_threads_alone_are_nice() {
        let background = Background::start(1).unwrap();
        let own = || rustix::process::nice(0).unwrap();
        let before = own();
        assert_eq!(background.run(own).await, Some(before + NICE));
        assert_eq!(own(), before);
    }

    #[test]
    fn threads_end_with_it() {
        let background = Background::start(2).unwrap();
        let (alive, ended) = mpsc::channel::<()>();
        let work = move || drop(alive);
        background.work.send(Box::new(work)).unwrap();
        drop(background);
        assert_eq!(ended.recv(), Err(mpsc::RecvError));
    }
}
