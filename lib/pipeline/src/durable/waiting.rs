//! Who waits for the log: senders for their answers, batches to be sent, requests for room; and what the log says.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spanloom_log::{Event, Position};
use tokio::sync::{Notify, oneshot};

use crate::outcome::Outcome;
use crate::repeat::Ticket;

/// Who waits for the log.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: Mutex<VecDeque<(Position, Waiter)>>,
    /// The disk has failed and does not work again yet.
    pub(super) failing: AtomicBool,
    /// The disk has taken something, or failed.
    pub(super) moved: Notify,
}

#[derive(Debug)]
pub(super) enum Waiter {
    /// A sender, and what it is told.
    Receipt { ticket: Ticket, outcome: Outcome },
    /// A batch that may be sent then.
    Signal(oneshot::Sender<()>),
}

impl Waiting {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<(Position, Waiter)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hear(&self, event: Event) {
        self.take(event);
        self.moved.notify_waiters();
    }

    fn take(&self, event: Event) {
        match event {
            Event::Durable(up_to) => self.durable(up_to),
            Event::DurableEarly(positions) => self.durable_early(&positions),
            Event::Failing(error) => {
                self.failing.store(true, Ordering::Relaxed);
                tracing::error!(error, "the log cannot be written; trying again");
            }
            Event::Working => {
                self.failing.store(false, Ordering::Relaxed);
                tracing::info!("the log can be written again");
            }
            Event::Appended => {}
            Event::NoReserve(error) => tracing::warn!(
                error,
                "the log has no reserve: if its disk becomes full, nothing is delivered until it has room"
            ),
            Event::DeadLettersDamaged { left } => tracing::error!(
                left,
                "the file of dead letters was damaged; what could not be read is in the log's folder `damaged`"
            ),
            Event::KeysEvicted(count) => tracing::debug!(count, "keys of requests were evicted"),
        }
    }

    fn durable(&self, up_to: Position) {
        let mut waiting = self.lock();
        let count = waiting.partition_point(|(position, _)| *position <= up_to);
        let done: Vec<_> = waiting.drain(..count).collect();
        drop(waiting);
        Self::tell(done);
    }

    /// On a full disk some records do not wait for those before them.
    fn durable_early(&self, positions: &[Position]) {
        let mut waiting = self.lock();
        let all = std::mem::take(&mut *waiting);
        let (done, rest): (VecDeque<_>, _) = all
            .into_iter()
            .partition(|(position, _)| positions.binary_search(position).is_ok());
        *waiting = rest;
        drop(waiting);
        Self::tell(done);
    }

    fn tell(done: impl IntoIterator<Item = (Position, Waiter)>) {
        for (_, waiter) in done {
            match waiter {
                Waiter::Receipt { ticket, outcome } => drop(ticket.answer(outcome)),
                // Whoever waited may be gone.
                Waiter::Signal(signal) => drop(signal.send(())),
            }
        }
    }
}
