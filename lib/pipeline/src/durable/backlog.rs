//! What is delivered from the log: what an earlier process left, batches that the store did not take, and
//! requests that left memory because the store was slow.
//!
//! A thread of its own sends them, the oldest first, one batch at a time, while new requests go their own way
//! at the workers' pace: so what is new is soon searchable, and the backlog takes what is left of the store's
//! time. When the store fails it waits, longer each time.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spanloom_log::{AppendError, Position, ReadError, Recovered};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::payload::PayloadError;
use super::{DurableLog, replay};
use crate::accounts::{Accounts, Postings, Stage};
use crate::batch::{Batch, Export, ExportOutcome};
use crate::config::BatchLimits;
use crate::measure::Recorder;
use crate::metrics::Metrics;
use crate::process::Rules;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A request that cannot be read is tried so often before it is left out.
const READS: u32 = 3;

/// Something to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// A batch that is named in the log.
    Batch { id: u128, requests: Vec<Position> },
    /// Requests that are in no batch yet.
    Requests(Vec<Position>),
    /// The same, from before this process: they are not in its accounts yet.
    Recovered(Vec<Position>),
    /// A batch from before this process.
    RecoveredBatch { id: u128, requests: Vec<Position> },
}

/// What waits. It is bounded by the log, which bounds the requests that are not stored.
#[derive(Debug)]
pub(crate) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// An item is being delivered.
    busy: bool,
    /// Nothing is added any more.
    closing: bool,
    /// What is left stays in the log.
    stopped: bool,
}

impl Backlog {
    /// What an earlier process left.
    pub(super) fn of(recovered: &Recovered) -> Self {
        let mut items: VecDeque<_> = recovered
            .batches
            .iter()
            .map(|batch| {
                let is_there = |position: &&Position| !batch.missing.contains(position);
                Item::RecoveredBatch {
                    id: batch.id.0,
                    requests: batch.requests.iter().filter(is_there).copied().collect(),
                }
            })
            .collect();
        let alone = recovered
            .requests
            .iter()
            .filter(|request| request.batch.is_none());
        let alone: Vec<_> = alone.map(|request| request.position).collect();
        if !alone.is_empty() {
            items.push_back(Item::Recovered(alone));
        }
        Self {
            state: Mutex::new(State {
                items,
                ..State::default()
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: Item) {
        self.lock().items.push_back(item);
        self.changed.notify_all();
    }

    /// Items that are not delivered.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.items.len() + usize::from(state.busy)
    }

    /// The oldest item, once there is one; none when there will be none.
    fn next(&self) -> Option<Item> {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| {
                state.items.is_empty() && !state.closing && !state.stopped
            })
            .unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return None;
        }
        let item = state.items.pop_front();
        state.busy = item.is_some();
        item
    }

    /// The item is delivered, or this is left of it.
    fn done(&self, rest: Option<Item>) {
        let mut state = self.lock();
        state.busy = false;
        if let Some(rest) = rest {
            state.items.push_front(rest);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No more is added: the thread ends once all is delivered.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// The thread ends now.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }
}

/// Delivers the backlog.
pub(crate) struct Replay<B, E> {
    pub(crate) log: Arc<DurableLog>,
    pub(crate) make_batch: Arc<dyn Fn() -> B + Send + Sync>,
    pub(crate) export: Arc<E>,
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    pub(crate) limits: BatchLimits,
    pub(crate) runtime: Handle,
    pub(crate) abort: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) accounts: Arc<Accounts>,
}

/// A batch that was made again.
struct Made<F> {
    id: u128,
    requests: Vec<Position>,
    frozen: F,
    spans: u64,
}

/// Why an item is not delivered.
enum Stuck {
    /// The disk or the store fails; this is still to be delivered.
    Later(Item),
    /// The pipeline ends.
    Aborted,
}

impl<B, E> Replay<B, E>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    /// Delivers until the backlog is closed and empty, or stopped.
    pub(crate) fn run(self) {
        let mut pause = PAUSE_FIRST;
        while let Some(item) = self.log.backlog.next() {
            match self.deliver(item) {
                Ok(rest) => {
                    pause = PAUSE_FIRST;
                    self.log.backlog.done(rest);
                }
                Err(Stuck::Later(item)) => {
                    self.log.backlog.done(Some(item));
                    self.log.backlog.pause(pause);
                    pause = (pause * 2).min(PAUSE_MOST);
                }
                Err(Stuck::Aborted) => {
                    self.log.backlog.done(None);
                    return;
                }
            }
        }
    }

    /// Delivers an item, or the first batch of it; returns the rest.
    fn deliver(&self, item: Item) -> Result<Option<Item>, Stuck> {
        let (named, requests, is_recovered) = match item {
            Item::Batch { id, requests } => (Some(id), requests, false),
            Item::RecoveredBatch { id, requests } => (Some(id), requests, true),
            Item::Requests(requests) => (None, requests, false),
            Item::Recovered(requests) => (None, requests, true),
        };
        let (made, rest) = self.make(named, requests);
        let rest = match (rest.is_empty(), is_recovered) {
            (true, _) => None,
            (false, true) => Some(Item::Recovered(rest)),
            (false, false) => Some(Item::Requests(rest)),
        };
        let Made {
            id,
            requests,
            frozen,
            spans,
        } = made;
        if requests.is_empty() && named.is_none() {
            return Ok(rest);
        }
        if named.is_none()
            && let Err(error) = self.log.name(id, requests.clone())
        {
            return self.not_named(&error, requests, is_recovered, rest);
        }
        let again = |requests| match is_recovered {
            true => Item::RecoveredBatch { id, requests },
            false => Item::Batch { id, requests },
        };
        if let Err(error) = self.say_sent(id) {
            tracing::warn!(%error, "cannot log that a batch is sent; trying again");
            self.keep(rest);
            return Err(Stuck::Later(again(requests)));
        }
        if self.abort.is_cancelled() {
            return Err(Stuck::Aborted);
        }
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                outcome = self.export.export(frozen) => Some(outcome),
                () = self.abort.cancelled() => None,
            }
        });
        let refused = match outcome {
            None => return Err(Stuck::Aborted),
            Some(ExportOutcome::Unavailable(_)) => {
                self.keep(rest);
                return Err(Stuck::Later(again(requests)));
            }
            Some(ExportOutcome::Stored) => Vec::new(),
            Some(ExportOutcome::Partial(refused)) => refused,
        };
        let lost = self.log.stored(id, &requests, &refused);
        if lost > 0 {
            self.metrics.lost("refused", lost);
        }
        self.log.counters.replayed.inc_by(requests.len() as u64);
        if is_recovered {
            let mut postings = Postings::default();
            postings.add(Stage::Store, "stored", spans, 0);
            self.accounts.post(&postings);
        }
        Ok(rest)
    }

    /// Makes a batch of the first requests; all of them if it has an id already.
    fn make(&self, id: Option<u128>, requests: Vec<Position>) -> (Made<B::Frozen>, Vec<Position>) {
        let rules = Arc::clone(&self.rules.borrow());
        let mut batch = (self.make_batch)();
        let mut recorder = Recorder::default();
        if let Some(id) = id {
            batch.set_id(id);
        }
        let mut taken = Vec::new();
        let mut left = requests.into_iter();
        let mut spans = 0;
        while id.is_some()
            || (batch.rows() < self.limits.max_rows
                && batch.bytes() + recorder.bytes() < self.limits.max_bytes)
        {
            let Some(position) = left.next() else { break };
            match self.read(position, &rules, &mut batch, &mut recorder) {
                Ok(count) => {
                    spans += count;
                    taken.push(position);
                }
                Err(PayloadError::Log(ReadError::NoRequest(_))) => {}
                Err(error) => {
                    self.metrics.lost("log", 1);
                    tracing::error!(%position, %error, "a request in the log cannot be read; it is lost");
                }
            }
        }
        let id = batch.id();
        let made = Made {
            id,
            requests: taken,
            frozen: batch.freeze(recorder.take()),
            spans,
        };
        (made, left.collect())
    }

    fn read(
        &self,
        position: Position,
        rules: &Arc<Rules>,
        batch: &mut B,
        recorder: &mut Recorder,
    ) -> Result<u64, PayloadError> {
        let mut tries = 1;
        let request = loop {
            match self.log.log.read(position) {
                Ok(request) => break request,
                Err(error @ ReadError::NoRequest(_)) => return Err(error.into()),
                Err(error) if tries == READS => return Err(error.into()),
                Err(_) => {
                    self.log.backlog.pause(PAUSE_FIRST);
                    tries += 1;
                }
            }
        };
        replay(&request.payload, rules, batch, recorder)
    }

    /// What is left of an item is delivered next.
    fn keep(&self, rest: Option<Item>) {
        if let Some(rest) = rest {
            self.log.backlog.lock().items.push_front(rest);
        }
    }

    fn not_named(
        &self,
        error: &AppendError,
        requests: Vec<Position>,
        is_recovered: bool,
        rest: Option<Item>,
    ) -> Result<Option<Item>, Stuck> {
        match error {
            AppendError::Closed => Err(Stuck::Aborted),
            AppendError::Full(_) => {
                self.keep(rest);
                Err(Stuck::Later(match is_recovered {
                    true => Item::Recovered(requests),
                    false => Item::Requests(requests),
                }))
            }
            _ => {
                tracing::error!(%error, requests = requests.len(), "a batch cannot be named in the log; its \
                    spans are delivered after the next start. This is a bug");
                Ok(rest)
            }
        }
    }

    /// Says in the log that a batch is sent, and waits until that is durable, or the pipeline ends.
    fn say_sent(&self, id: u128) -> Result<(), String> {
        let wait = self.log.sent(id).map_err(|error| error.to_string())?;
        self.runtime.block_on(async {
            tokio::select! {
                durable = wait => durable.map_err(|_| "the log was closed".to_owned()),
                () = self.abort.cancelled() => Ok(()),
            }
        })
    }
}
