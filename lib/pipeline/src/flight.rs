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

    /// Whether memory for requests is nearly used up, and so many bytes of it would help.
    pub(crate) fn memory_is_needed_now(&self, bytes: usize) -> bool {
        let budget = &self.in_flight.budget;
        budget.used() > budget.limit() / 4 * 3 && bytes >= budget.limit() / 16
    }

    /// A slot, if there is one and room for so many bytes.
    pub(crate) fn take(&self, bytes: usize) -> Option<Slot> {
        self.has_room_for(bytes).then(|| self.slot(bytes))
    }

    /// Takes one that is free: only the worker takes them, so it still is.
    fn slot(&self, bytes: usize) -> Slot {
        self.free.fetch_sub(1, Ordering::Relaxed);
        self.in_flight.count.fetch_add(1, Ordering::Relaxed);
        // Several workers may find the same room: then there is a batch or so too much.
        self.in_flight
            .bytes
            .fetch_add(held(bytes), Ordering::Relaxed);
        Slot {
            free: Arc::clone(&self.free),
            wake: self.wake.clone(),
            in_flight: Arc::clone(&self.in_flight),
            held: held(bytes),
        }
    }

    /// A slot, as soon as there is one and room for so many bytes.
    pub(crate) async fn wait(&self, bytes: usize) -> Slot {
        self.wait_for(|| self.take(bytes)).await
    }

    /// A slot for what must be exported, as soon as there is one: what others have in flight does not matter.
    pub(crate) async fn wait_whatever_is_in_flight(&self, bytes: usize) -> Slot {
        let is_free = || self.free.load(Ordering::Relaxed) > 0;
        self.wait_for(|| is_free().then(|| self.slot(bytes))).await
    }

    async fn wait_for(&self, take: impl Fn() -> Option<Slot>) -> Slot {
        loop {
            let mut ended = std::pin::pin!(self.in_flight.ended.notified());
            // Before the look, so that no end in between is missed.
            ended.as_mut().enable();
            if let Some(slot) = take() {
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    fn slots(limit: usize, is_logged: bool) -> (Slots, mpsc::UnboundedReceiver<Message>) {
        let (wake, woken) = mpsc::unbounded_channel();
        let in_flight = InFlight::new(&Budget::new(limit), is_logged);
        (Slots::new(2, wake, in_flight), woken)
    }

    #[tokio::test]
    async fn with_a_log_batches_in_flight_have_half_of_the_memory() {
        let (slots, mut woken) = slots(1_000, true);
        // One may always be on its way.
        let first = slots.take(400).unwrap();
        assert!(!slots.has_room_for(1));
        assert!(slots.take(1).is_none());
        drop(first);
        assert!(woken.try_recv().is_ok());
        let (first, second) = (slots.take(100).unwrap(), slots.take(150).unwrap());
        assert_eq!(slots.in_flight.count(), 2);
        drop((first, second));
        assert!(slots.are_all_free());
    }

    #[tokio::test]
    async fn without_a_log_all_of_it() {
        let (slots, _woken) = slots(1_000, false);
        let _first = slots.take(400).unwrap();
        assert!(slots.take(400).is_some());
    }

    #[tokio::test]
    async fn what_must_be_exported_waits_for_a_slot_only() {
        let (slots, _woken) = slots(1_000, true);
        let first = slots.take(400).unwrap();
        let second = slots.wait_whatever_is_in_flight(400).await;
        let third = slots.wait_whatever_is_in_flight(1);
        let mut third = std::pin::pin!(third);
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        drop(first);
        assert!(futures_util::poll!(third).is_ready());
        drop(second);
    }
}
