//! What is delivered from the log: what an earlier process left, batches that the store did not take, and
//! requests that left memory because the store was slow.
//!
//! A part of its own sends them, the oldest first, one batch at a time, while new requests go their own way
//! at the workers' pace: so what is new is soon searchable, and the backlog takes what is left of the store's
//! time. When the store fails it waits, longer each time.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use spanloom_log::{AppendError, Position, ReadError, Recovered};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::payload::PayloadError;
use super::{DurableLog, History, Past, history, replay};
use crate::accounts::{Accounts, Postings, Stage};
use crate::batch::{Batch, Export, ExportOutcome, RefusedRows};
use crate::config::BatchLimits;
use crate::measure::Recorder;
use crate::metrics::Metrics;
use crate::process::Rules;
use crate::settlement::BUG;

const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MOST: Duration = Duration::from_secs(10);
/// A request that cannot be read is tried so often before it is left out.
const READS: u32 = 3;

/// Something to deliver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// The batch that they are, if the log names one.
    batch: Option<u128>,
    requests: Vec<Position>,
    /// What the log says of the batch. That it is sent, said again with each attempt, would fill the log while
    /// the store is away, until nothing could be sent any more.
    past: Past,
    /// They are from before this process: not in its accounts yet.
    is_recovered: bool,
}

impl Item {
    /// Requests of this process: a batch, or in none yet.
    pub(crate) fn new(batch: Option<u128>, requests: Vec<Position>) -> Self {
        Self {
            batch,
            requests,
            past: Past::default(),
            is_recovered: false,
        }
    }

    /// The same with a past.
    pub(crate) fn with(self, past: Past) -> Self {
        Self { past, ..self }
    }

    fn recovered(batch: Option<u128>, requests: Vec<Position>) -> Self {
        Self {
            is_recovered: true,
            ..Self::new(batch, requests)
        }
    }
}

/// What waits. It is bounded by the log, which bounds the requests that are not stored.
#[derive(Debug)]
pub(crate) struct Backlog {
    state: Mutex<State>,
    /// Told when there is an item, or will be none. Only one waits for it.
    changed: Notify,
    /// What is left stays in the log.
    stopped: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    /// An item is being delivered.
    busy: bool,
    /// Nothing is added any more.
    closing: bool,
}

impl Backlog {
    /// What an earlier process left.
    pub(super) fn of(recovered: &Recovered) -> Self {
        let mut items: VecDeque<_> = recovered
            .batches
            .iter()
            .map(|batch| {
                let is_there = |position: &&Position| !batch.missing.contains(position);
                let requests = batch.requests.iter().filter(is_there).copied();
                Item::recovered(Some(batch.id.0), requests.collect()).with(Past {
                    sent_at_ms: batch.sent_at_ms,
                    pieces: history::decode(&batch.pieces),
                })
            })
            .collect();
        let alone = recovered
            .requests
            .iter()
            .filter(|request| request.batch.is_none());
        let alone: Vec<_> = alone.map(|request| request.position).collect();
        if !alone.is_empty() {
            items.push_back(Item::recovered(None, alone));
        }
        Self {
            state: Mutex::new(State {
                items,
                ..State::default()
            }),
            changed: Notify::new(),
            stopped: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: Item) {
        self.lock().items.push_back(item);
        self.changed.notify_one();
    }

    /// Items that are not delivered.
    pub(crate) fn len(&self) -> usize {
        let state = self.lock();
        state.items.len() + usize::from(state.busy)
    }

    /// The oldest item, once there is one; none when there will be none.
    async fn next(&self) -> Option<Item> {
        loop {
            if self.stopped.is_cancelled() {
                return None;
            }
            {
                let mut state = self.lock();
                let item = state.items.pop_front();
                state.busy = item.is_some();
                if state.busy || state.closing {
                    return item;
                }
            }
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// The item is delivered, or this is left of it, the first to be next.
    fn done(&self, rest: impl IntoIterator<Item = Item, IntoIter: DoubleEndedIterator>) {
        let mut state = self.lock();
        state.busy = false;
        for item in rest.into_iter().rev() {
            state.items.push_front(item);
        }
    }

    async fn pause(&self, time: Duration) {
        // Over, or stopped: the same.
        let _ = timeout(time, self.stopped.cancelled()).await;
    }

    /// No more is added: delivering ends once all is delivered.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_one();
    }

    /// Delivering ends now.
    pub(super) fn stop(&self) {
        self.stopped.cancel();
    }
}

/// Delivers the backlog.
pub(crate) struct Replay<B, E> {
    pub(crate) log: Arc<DurableLog>,
    pub(crate) make_batch: Arc<dyn Fn() -> B + Send + Sync>,
    pub(crate) export: Arc<E>,
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    pub(crate) limits: BatchLimits,
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

/// Why nothing is delivered.
enum Stuck {
    /// The disk or the store fails; these are still to be delivered.
    Later(Vec<Item>),
    /// The pipeline ends.
    Aborted,
}

impl<B, E> Replay<B, E>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    /// Delivers until the backlog is closed and empty, or stopped.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE_FIRST;
        let backlog = &self.log.backlog;
        while let Some(item) = backlog.next().await {
            match self.deliver(item).await {
                Ok(rest) => {
                    pause = PAUSE_FIRST;
                    backlog.done(rest);
                }
                Err(Stuck::Later(items)) => {
                    backlog.done(items);
                    backlog.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MOST);
                }
                Err(Stuck::Aborted) => return backlog.done(None),
            }
        }
    }

    /// Delivers an item, or the first batch of it; returns the rest.
    async fn deliver(&self, item: Item) -> Result<Option<Item>, Stuck> {
        let is_recovered = item.is_recovered;
        let is_named = item.batch.is_some();
        let past = item.past.clone();
        let making = AssertUnwindSafe(self.make(item.clone()));
        let Ok((made, rest)) = making.catch_unwind().await else {
            return self.cannot_make(item);
        };
        let Made {
            id,
            requests,
            frozen,
            spans,
        } = made;
        if requests.is_empty() && !is_named {
            return Ok(rest);
        }
        let again = |is_named: bool, past: Past, requests, rest: Option<Item>| {
            let first = Item {
                batch: is_named.then_some(id),
                requests,
                past,
                is_recovered,
            };
            Stuck::Later([first].into_iter().chain(rest).collect())
        };
        if !is_named && let Err(error) = self.log.name(id, requests.clone()) {
            return match error {
                AppendError::Closed => Err(Stuck::Aborted),
                AppendError::Full(_) => Err(again(false, past, requests, rest)),
                _ => {
                    tracing::error!(%error, requests = requests.len(), "a batch cannot be named in the \
                        log; its spans are delivered after the next start. This is a bug");
                    Ok(rest)
                }
            };
        }
        let past = match past.sent_at_ms {
            Some(_) => past,
            None => match self.say_sent(id).await {
                Ok(()) => Past::of_now(),
                Err(error) => {
                    tracing::warn!(%error, "cannot log that a batch is sent; trying again");
                    return Err(again(true, past, requests, rest));
                }
            },
        };
        let history = History::of(Arc::clone(&self.log), id, past);
        if self.abort.is_cancelled() {
            return Err(Stuck::Aborted);
        }
        let outcome = tokio::select! {
            biased;
            outcome = self.export.export(frozen, &history) => outcome,
            () = self.abort.cancelled() => return Err(Stuck::Aborted),
        };
        let refused = match outcome {
            ExportOutcome::Unavailable(_) => {
                return Err(again(true, history.past(), requests, rest));
            }
            ExportOutcome::Stored => Vec::new(),
            ExportOutcome::Partial(refused) => refused,
        };
        match self.log.stored(id, &requests, &refused) {
            Ok(0) => {}
            Ok(lost) => self.metrics.lost("refused", lost),
            Err(error) => {
                tracing::warn!(%error, "a batch is delivered again");
                return Err(again(true, history.past(), requests, rest));
            }
        }
        self.log.counters.replayed.inc_by(requests.len() as u64);
        if is_recovered {
            let mut postings = Postings::default();
            postings.add(Stage::Store, "stored", spans, 0);
            self.accounts.post(&postings);
        }
        Ok(rest)
    }

    /// Making a batch of this item panicked, which is a bug. Of requests that are in no batch yet, each half is tried
    /// by itself; what cannot be made then is kept aside.
    fn cannot_make(&self, item: Item) -> Result<Option<Item>, Stuck> {
        self.metrics.worker_panics.inc();
        let requests = item.requests.clone();
        tracing::error!(
            requests = requests.len(),
            "making a batch of the log panicked"
        );
        if item.batch.is_none() && requests.len() > 1 {
            let (first, second) = requests.split_at(requests.len() / 2);
            let half = |requests: &[Position]| Item {
                requests: requests.to_vec(),
                ..item.clone()
            };
            return Err(Stuck::Later(vec![half(first), half(second)]));
        }
        let id = item.batch.unwrap_or_else(rand::random);
        let spans = requests
            .iter()
            .filter_map(|position| self.log.log.spans_of(*position));
        let all = RefusedRows {
            range: 0..spans.map(|spans| spans as usize).sum(),
            reason: BUG.to_owned(),
        };
        if item.batch.is_none()
            && let Err(error) = self.log.name(id, requests.clone())
        {
            tracing::warn!(%error, "a batch that cannot be made is not kept aside yet");
            return Err(Stuck::Later(vec![item]));
        }
        match self.log.stored(id, &requests, &[all]) {
            Ok(0) => Ok(None),
            Ok(lost) => {
                self.metrics.lost("internal", lost);
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(%error, "a batch that cannot be made is not kept aside yet");
                Err(Stuck::Later(vec![Item {
                    batch: Some(id),
                    ..item
                }]))
            }
        }
    }

    /// Makes a batch of an item's first requests; all of them if it has an id already.
    async fn make(&self, item: Item) -> (Made<B::Frozen>, Option<Item>) {
        let rules = Arc::clone(&self.rules.borrow());
        let mut batch = (self.make_batch)();
        let mut recorder = Recorder::default();
        if let Some(id) = item.batch {
            batch.set_id(id);
        }
        let mut taken = Vec::new();
        let mut left = item.requests.into_iter();
        let mut spans = 0;
        while item.batch.is_some()
            || (batch.rows() < self.limits.max_rows
                && batch.bytes() + recorder.bytes() < self.limits.max_bytes)
        {
            let Some(position) = left.next() else { break };
            match self.read(position, &rules, &mut batch, &mut recorder).await {
                Ok(count) => {
                    spans += count;
                    taken.push(position);
                }
                Err(PayloadError::Log(ReadError::NoRequest(_))) => {}
                Err(error) => {
                    let lost = self.log.log.spans_of(position).unwrap_or(1);
                    self.metrics.lost("log", u64::from(lost));
                    tracing::error!(%position, %error, "a request in the log cannot be read; it is lost");
                }
            }
        }
        let made = Made {
            id: batch.id(),
            requests: taken,
            frozen: batch.seal(recorder.take())(),
            spans,
        };
        let rest: Vec<_> = left.collect();
        let rest = (!rest.is_empty()).then_some(Item {
            batch: None,
            requests: rest,
            past: Past::default(),
            is_recovered: item.is_recovered,
        });
        (made, rest)
    }

    async fn read(
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
                    self.log.backlog.pause(PAUSE_FIRST).await;
                    tries += 1;
                }
            }
        };
        replay(&request.payload, rules, batch, recorder)
    }

    /// Says in the log that a batch is sent, and waits until that is durable, or the pipeline ends.
    async fn say_sent(&self, id: u128) -> Result<(), String> {
        let wait = self.log.sent(id).map_err(|error| error.to_string())?;
        tokio::select! {
            biased;
            durable = wait => durable.map_err(|_| "the log was closed".to_owned()),
            () = self.abort.cancelled() => Ok(()),
        }
    }
}
