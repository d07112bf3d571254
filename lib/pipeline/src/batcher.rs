//! The batcher: a worker's open batch, with the requests that are in it, and when it is time to send it.
//!
//! It knows neither how requests come into the batch nor what becomes of them afterwards.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::batch::{Batch, Freeze};
use crate::config::BatchLimits;
use crate::flight::{Slot, Slots};
use crate::measure::{AccountRow, Recorder};
use crate::pace::Pace;
use crate::settlement::Entry;

/// What requests are written into.
pub(crate) struct Open<B> {
    pub(crate) batch: B,
    pub(crate) recorder: Recorder,
}

/// A batch that is complete.
pub(crate) struct Sealed<F> {
    pub(crate) freeze: Freeze<F>,
    pub(crate) id: u128,
    pub(crate) rows: usize,
    /// Its requests.
    pub(crate) entries: Vec<Entry>,
}

/// What is to be done with the open batch.
pub(crate) enum Due {
    /// It can wait.
    NotYet,
    /// It is to be sent, with this slot.
    Send(Slot),
    /// It is full, or others need its memory, the store is slow, and a log has all of it: it leaves memory.
    Spill,
}

impl From<Option<Slot>> for Due {
    fn from(slot: Option<Slot>) -> Self {
        slot.map_or(Self::NotYet, Self::Send)
    }
}

/// How long a batch that a log has, and that is full or whose memory others need, waits for an export to end.
const SPILL_AFTER: Duration = Duration::from_millis(200);

/// The same where memory is nearly used up.
const SPILL_AT_ONCE_AFTER: Duration = Duration::from_millis(20);

/// Gathers requests; one per worker.
pub(crate) struct Batcher<B> {
    make_batch: Arc<dyn Fn() -> B + Send + Sync>,
    open: Open<B>,
    entries: Vec<Entry>,
    limits: BatchLimits,
    pace: Arc<Pace>,
    slots: Slots,
    /// A log keeps requests.
    is_logged: bool,
    /// When the batch got its first and its last request.
    first: Option<Instant>,
    last: Instant,
    /// Since when others need the batch's memory, and no export has room for it.
    in_the_way: Option<Instant>,
}

impl<B: Batch> Batcher<B> {
    pub(crate) fn new(
        make_batch: Arc<dyn Fn() -> B + Send + Sync>,
        limits: BatchLimits,
        pace: Arc<Pace>,
        slots: Slots,
        is_logged: bool,
    ) -> Self {
        let open = Open {
            batch: make_batch(),
            recorder: Recorder::default(),
        };
        Self {
            make_batch,
            open,
            entries: Vec::new(),
            limits,
            pace,
            slots,
            is_logged,
            first: None,
            last: Instant::now(),
            in_the_way: None,
        }
    }

    /// What the next request is written into.
    pub(crate) fn open(&mut self) -> &mut Open<B> {
        &mut self.open
    }

    /// A request has left something in the batch.
    pub(crate) fn add(&mut self, entry: Entry) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = now;
        self.entries.push(entry);
    }

    /// When to look at the batch again though nothing comes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let first = self.first?;
        if !self.slots.has_room_for(self.bytes()) {
            // The end of an export wakes us, but its memory may be needed before.
            let since = self.in_the_way.unwrap_or_else(Instant::now);
            return self.is_logged.then(|| since + self.patience(self.bytes()));
        }
        let latest = first + self.pace.age(self.open.batch.rows());
        let early = self.open.batch.rows() >= self.limits.early_rows && self.slots.are_all_free();
        Some(if early {
            latest.min(self.last + self.limits.linger)
        } else {
            latest
        })
    }

    /// How long a batch in the way may wait for an export. One that leaves memory is read and made again, which
    /// costs more than it takes a store that is only busy to end an export.
    fn patience(&self, bytes: usize) -> Duration {
        match self.slots.memory_is_needed_now(bytes) {
            true => SPILL_AT_ONCE_AFTER,
            false => SPILL_AFTER,
        }
    }

    fn bytes(&self) -> usize {
        self.open.batch.bytes() + self.open.recorder.bytes()
    }

    /// A slot for the batch's export, if it is time for that; `idle` says that no request waits. A full
    /// batch waits for an export to end if there are as many as there may be; meanwhile requests
    /// queue, as far as admission lets them.
    pub(crate) async fn due(&mut self, idle: bool) -> Due {
        let Some(first) = self.first else {
            return Due::NotYet;
        };
        let limits = &self.limits;
        let rows = self.open.batch.rows();
        let bytes = self.bytes();
        // A request that the log does not have is the last of its batch: so the others have the same rows
        // when the batch is made again.
        let ends = |entry: &Entry| self.is_logged && !entry.is_logged();
        if rows >= limits.max_rows
            || bytes >= limits.max_bytes
            || self.entries.last().is_some_and(ends)
        {
            return self.wait().await;
        }
        let now = Instant::now();
        if self.is_logged && self.slots.memory_is_scarce() && !self.slots.has_room_for(bytes) {
            // Requests that wait hold memory as well: to wait for an export with each of them would take a few in a
            // second. So they are taken meanwhile, until memory is nearly used up.
            let since = *self.in_the_way.get_or_insert(now);
            return match now >= since + self.patience(bytes) {
                true => Due::Spill,
                false => Due::NotYet,
            };
        }
        self.in_the_way = None;
        let old = now >= first + self.pace.age(rows);
        let early = idle
            && rows >= limits.early_rows
            && now >= self.last + limits.linger
            && self.slots.are_all_free();
        match old || early {
            true => self.slots.take(bytes).into(),
            false => Due::NotYet,
        }
    }

    /// Waits for a slot, for as long as it takes where the batch is in memory only.
    async fn wait(&mut self) -> Due {
        let bytes = self.bytes();
        if !self.entries.iter().all(Entry::is_logged) {
            return Due::Send(self.slots.wait_whatever_is_in_flight(bytes).await);
        }
        match timeout(SPILL_AFTER, self.slots.wait(bytes)).await {
            Ok(slot) => Due::Send(slot),
            Err(_) => Due::Spill,
        }
    }

    /// A slot for the last batch, if there is something in it; waits for it.
    pub(crate) async fn last(&mut self) -> Due {
        match self.entries.is_empty() {
            true => Due::NotYet,
            false => self.wait().await,
        }
    }

    /// Takes the batch out, and begins the next.
    pub(crate) fn seal(&mut self, accounts: Vec<AccountRow>) -> Sealed<B::Frozen> {
        self.first = None;
        self.in_the_way = None;
        let rows = self.open.batch.rows();
        self.pace.sent(rows);
        let id = self.open.batch.id();
        let mut measures = self.open.recorder.take();
        measures.accounts.extend(accounts);
        Sealed {
            freeze: self.open.batch.seal(measures),
            id,
            rows,
            entries: std::mem::take(&mut self.entries),
        }
    }

    /// What the batch holds is in doubt: it is thrown away. Its requests are not stored.
    pub(crate) fn discard(&mut self) -> Vec<Entry> {
        self.open = Open {
            batch: (self.make_batch)(),
            recorder: Recorder::default(),
        };
        self.first = None;
        self.in_the_way = None;
        std::mem::take(&mut self.entries)
    }
}
