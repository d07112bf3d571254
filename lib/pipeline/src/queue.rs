//! The queues between receiving and the workers. Admission bounds what all of them hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::intake::Job;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    Job(Box<Job>),
    /// An export has ended: it may be time for the next.
    Wake,
    /// No more jobs follow.
    Stop,
}

/// All workers' queues.
#[derive(Debug)]
pub(crate) struct Queues(Vec<Queue>);

#[derive(Debug)]
struct Queue {
    messages: UnboundedSender<Message>,
    load: Arc<Load>,
}

/// What waits in a queue.
#[derive(Debug, Default)]
struct Load {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A worker's end of its queue.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) messages: UnboundedReceiver<Message>,
    /// To the worker itself, for [`Message::Wake`].
    pub(crate) wake: UnboundedSender<Message>,
    load: Arc<Load>,
}

/// A worker is given requests until this much waits for it; then the next gets them too. So little
/// load makes few, large batches.
const BUSY_BYTES: usize = 2 << 20;

impl Queues {
    /// So many queues.
    pub(crate) fn new(workers: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (queues, inboxes) = (0..workers)
            .map(|_| {
                let (sender, messages) = mpsc::unbounded_channel();
                let load = Arc::<Load>::default();
                let queue = Queue {
                    messages: sender.clone(),
                    load: Arc::clone(&load),
                };
                let inbox = Inbox {
                    messages,
                    wake: sender,
                    load,
                };
                (queue, inbox)
            })
            .unzip();
        (Arc::new(Self(queues)), inboxes)
    }

    /// Gives a job to a worker.
    pub(crate) fn submit(&self, job: Job) {
        let load = |queue: &&Queue| queue.load.bytes.load(Ordering::Relaxed);
        let calm = self.0.iter().find(|queue| load(queue) < BUSY_BYTES);
        let Some(queue) = calm.or_else(|| self.0.iter().min_by_key(load)) else {
            return;
        };
        queue.load.requests.fetch_add(1, Ordering::Relaxed);
        queue.load.bytes.fetch_add(job.bytes(), Ordering::Relaxed);
        // A worker that is gone drops the job, whose ticket then tells the client to retry.
        let _ = queue.messages.send(Message::Job(Box::new(job)));
    }

    /// Requests that wait for a worker.
    pub(crate) fn waiting(&self) -> usize {
        self.0
            .iter()
            .map(|queue| queue.load.requests.load(Ordering::Relaxed))
            .sum()
    }

    /// Tells all workers that no more jobs follow.
    pub(crate) fn stop(&self) {
        for queue in &self.0 {
            // A worker that is gone needs no word.
            let _ = queue.messages.send(Message::Stop);
        }
    }
}

impl Inbox {
    /// A job was taken out.
    pub(crate) fn taken(&self, job: &Job) {
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(job.bytes(), Ordering::Relaxed);
    }
}
