//! Batches in flight: how many may be on their way to the store at a time, and with how much memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::admission::Budget;
use crate::queue::Message;

/// What all workers have on its way.
#[derive(Debug)]
pub(crate) struct InFlight {
    count: AtomicUsize,
    bytes: AtomicUsize,
    /// Beyond these no batch follows one that is on its way.
    max_bytes: usize,
    budget: Arc<Budget>,
    /// A batch has ended.
    ended: Notify,
}

impl InFlight {
    /// With a log, half of the memory for requests: a store that does not answer must not take all of it, since
    /// the log has room for what follows. Without one, nothing can be done with what follows.
    pub(crate) fn new(budget: &Arc<Budget>, is_logged: bool) -> Arc<Self> {
        let max_bytes = match is_logged {
            true => budget.limit() / 2,
            false => usize::MAX,
        };
        Arc::new(Self {
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes,
            budget: Arc::clone(budget),
            ended: Notify::new(),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a batch that holds this much may follow. One may always be on its way.
    fn has_room_for(&self, held: usize) -> bool {
        let used = self.bytes.load(Ordering::Relaxed);
        used == 0 || used.saturating_add(held) <= self.max_bytes
    }
}

/// What a batch of these columns holds until it is stored: them, and their copy while they are sent.
fn held(bytes: usize) -> usize {
    bytes.saturating_mul(2)
}

/// How many of a worker's batches may be exported at a time.
pub(crate) struct Slots {
    count: usize,
    /// Exports that may still begin.
    free: Arc<AtomicUsize>,
    wake: UnboundedSender<Message>,
    in_flight: Arc<InFlight>,
}

impl Slots {
    /// `in_flight` knows the exports of all workers; `wake` is told when one of these ends.
    pub(crate) fn new(
        count: usize,
        wake: UnboundedSender<Message>,
        in_flight: Arc<InFlight>,
    ) -> Self {
        let count = count.max(1);
        Self {
            count,
            free: Arc::new(AtomicUsize::new(count)),
            wake,
            in_flight,
        }
    }

    /// Whether a batch of so many bytes may be exported now.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        self.free.load(Ordering::Relaxed) > 0 && self.in_flight.has_room_for(held(bytes))
    }

    pub(crate) fn are_all_free(&self) -> bool {
        self.free.load(Ordering::Relaxed) == self.count
    }

    /// Whether more than half of the memory for requests is used.
    pub(crate) fn memory_is_scarce(&self) -> bool {
        let budget = &self.in_flight.budget;
        budget.used() > budget.limit() / 2
    }

    /// A slot, if there is one.
    pub(crate) fn take(&self, bytes: usize) -> Option<Slot> {
        if !self.has_room_for(bytes) {
            return None;
        }
        // Only the worker takes them, so that it has one is still true.
        self.free.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.count.fetch_add(1, Ordering::Relaxed);
        // Several workers may find the same room: then there is a batch or so too much.
        self.in_flight
            .bytes
            .fetch_add(held(bytes), Ordering::Relaxed);
        Some(Slot {
            free: Arc::clone(&self.free),
            wake: self.wake.clone(),
            in_flight: Arc::clone(&self.in_flight),
            held: held(bytes),
        })
    }

    /// A slot, as soon as there is one.
    pub(crate) async fn wait(&self, bytes: usize) -> Slot {
        loop {
            let mut ended = std::pin::pin!(self.in_flight.ended.notified());
            // Before the look, so that no end in between is missed.
            ended.as_mut().enable();
            if let Some(slot) = self.take(bytes) {
                return slot;
            }
            ended.await;
        }
    }
}

/// The right to export a batch. Given back and its worker woken on drop, however the export ended.
pub(crate) struct Slot {
    free: Arc<AtomicUsize>,
    wake: UnboundedSender<Message>,
    in_flight: Arc<InFlight>,
    held: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_flight.count.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.bytes.fetch_sub(self.held, Ordering::Relaxed);
        self.free.fetch_add(1, Ordering::Relaxed);
        self.in_flight.ended.notify_waiters();
        // Fails only when the worker is gone.
        let _ = self.wake.send(Message::Wake);
    }
}
