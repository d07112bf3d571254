//! The log on disk as the pipeline uses it: requests are answered when it has them, batches are named in it
//! before they are sent, and what the store did not take is read from it again (`backlog`).
//!
//! Order of events for a request: its rows go into the open batch, its records into the log; the log syncs,
//! its sender is answered; the batch is named in the log, the log syncs, the batch is sent; it is stored, and
//! the log says so. A batch that is made again has the rows, the order and the id that it had, so that the
//! store drops what it has already.

mod answer;
mod backlog;
mod history;
mod letters;
mod payload;
mod room;
mod waiting;

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use spanloom_log::{
    AppendError, BatchId, DeadLetter, DeadLetterError, Full, Log, Observer, Options, Position,
    ReadError, Record, Recovered, Request, Status, WriteError,
};
pub use spanloom_log::{OpenError, Options as LogOptions};
use tokio::sync::oneshot;

use answer::{decode as answer_of, encode as answer_bytes};
pub(crate) use backlog::Replay;
use backlog::{Backlog, Item};
pub(crate) use history::Past;
pub use history::{History, Piece};
pub use letters::{LettersStay, ReplayError, ReplayedLetters, replay_letters};
pub(crate) use payload::{Payload, Recording};
use payload::{PayloadError, replay};
use room::Promised;
pub(crate) use room::Room;
use waiting::{Waiter, Waiting};

use crate::batch::RefusedRows;
use crate::clock::unix_ms;
use crate::metrics::Levels;
use crate::outcome::Outcome;
use crate::repeat::Ticket;

/// The room that the requests that are being processed may need, in bytes; less in a small log.
const ROOM: u64 = 4 << 20;

/// A log that is open, for one pipeline.
#[derive(Debug)]
pub struct DurableLog {
    log: Log,
    waiting: Arc<Waiting>,
    backlog: Backlog,
    /// The log refused a request not long ago.
    full: AtomicBool,
    /// What it is to take soon.
    promised: Promised,
    /// With less room than this, in bytes, the log is full: what is being processed has to fit.
    room: u64,
    counters: Counters,
    /// Keys of requests from before this process; taken once.
    keys: Mutex<Vec<spanloom_log::Key>>,
}

#[derive(Debug, Default)]
struct Counters {
    refused: Counter,
    spilled: Counter,
    replayed: Counter,
    dead_letters: Counter,
    lost_records: Counter,
    damaged_bytes: Counter,
}

/// Why a request is not in the log.
#[derive(Debug)]
pub(crate) struct NotLogged {
    pub(crate) ticket: Ticket,
    pub(crate) error: AppendError,
}

/// Rows that the store refused are not kept aside: the disk fails.
#[derive(Debug, thiserror::Error)]
#[error("rejected rows cannot be kept as dead letters now: {0}")]
pub(crate) struct NotKept(String);

/// What is to be logged of a request.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) spans: usize,
    pub(crate) payload: Vec<u8>,
    pub(crate) outcome: Outcome,
    pub(crate) ticket: Ticket,
}

impl DurableLog {
    /// Opens the log in a folder, which is made when it is missing. What an earlier process left in it is
    /// delivered when the pipeline starts.
    ///
    /// # Errors
    /// When another process has it, or the folder cannot be used.
    pub fn open(folder: &Path, options: Options) -> Result<Arc<Self>, OpenError> {
        Self::open_with(options, |options| Log::open(folder, options))
    }

    /// Opens a log by `open`, which is given the options to open it with.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(
        mut options: Options,
        open: impl FnOnce(Options) -> Result<(Log, Recovered), OpenError>,
    ) -> Result<Arc<Self>, OpenError> {
        let waiting = Arc::<Waiting>::default();
        let tell = Arc::clone(&waiting);
        let other = options.observer.take();
        options.observer = Some(Observer::new(move |event| {
            if let Some(other) = &other {
                other.tell(event.clone());
            }
            tell.hear(event);
        }));
        let room = ROOM.min(options.max_bytes / 16);
        let (log, recovered) = open(options)?;
        for finding in recovered
            .findings
            .iter()
            .filter(|found| found.problem.is_damage())
        {
            tracing::error!(%finding, "the log is damaged");
        }
        let counters = Counters::default();
        counters.lost_records.inc_by(recovered.lost_records());
        counters.damaged_bytes.inc_by(recovered.damaged_bytes());
        let backlog = Backlog::of(&recovered);
        if !recovered.requests.is_empty() {
            tracing::info!(
                requests = recovered.requests.len(),
                batches = recovered.batches.len(),
                "delivering what the log holds"
            );
        }
        Ok(Arc::new(Self {
            log,
            waiting,
            backlog,
            full: AtomicBool::new(false),
            promised: Promised::default(),
            room,
            counters,
            keys: Mutex::new(recovered.keys),
        }))
    }

    /// Writes and syncs now what was taken, for a log without a thread of its own.
    ///
    /// # Errors
    /// When the disk fails; it is tried again.
    pub fn commit(&self) -> Result<(), WriteError> {
        self.log.commit()
    }

    /// How the log is doing.
    pub fn status(&self) -> Status {
        self.log.status()
    }

    /// Batches and requests that wait to be delivered from the log.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    pub(crate) fn seed(&self) -> u64 {
        let bytes = self.log.id().to_le_bytes();
        let (low, _) = bytes.split_at(8);
        low.try_into().map_or(0, u64::from_le_bytes)
    }

    /// The requests of earlier processes that may be repeated: the key, how long ago, and the answer. They
    /// are given once.
    pub(crate) fn earlier(&self) -> Vec<(u128, Duration, Outcome)> {
        let keys = std::mem::take(&mut *self.keys.lock().unwrap_or_else(PoisonError::into_inner));
        let now = unix_ms();
        keys.into_iter()
            .map(|key| {
                let age = Duration::from_millis(now.saturating_sub(key.received_at_ms));
                (key.key, age, answer_of(&key.answer))
            })
            .collect()
    }

    /// Nothing is added any more: what is left is delivered.
    pub(crate) fn close(&self) {
        self.backlog.close();
    }

    /// What is left stays in the log.
    pub(crate) fn stop(&self) {
        self.backlog.stop();
    }

    /// It has no room for requests.
    fn is_full(&self) -> bool {
        if !self.full.load(Ordering::Relaxed) {
            return false;
        }
        let has_room = self.log.status().room_bytes > self.room;
        if has_room && self.full.swap(false, Ordering::Relaxed) {
            tracing::info!("the log has room again");
        }
        !has_room
    }

    /// A request was not even looked at, since the log takes none.
    pub(crate) fn turned_away(&self) {
        self.counters.refused.inc();
    }

    /// Whether it takes requests now: it has room, and the disk takes what is written.
    pub(crate) fn takes_requests(&self) -> bool {
        !self.waiting.failing.load(Ordering::Relaxed) && !self.is_full()
    }

    /// What is wrong with the log, for people.
    pub(crate) fn impairment(&self) -> Option<String> {
        let status = self.log.status();
        // What it said exactly is in the program's own log.
        match (status.is_disk_full, status.fault) {
            (true, _) => return Some("the log's disk is full".to_owned()),
            (false, Some(_)) => return Some("the log's disk fails".to_owned()),
            (false, None) => {}
        }
        self.is_full().then(|| {
            let mib = status.max_bytes >> 20;
            format!("the log is full ({mib} MiB)")
        })
    }

    /// Takes a request; its sender is answered when it is durable.
    pub(crate) fn append(&self, entry: Entry) -> Result<Position, Box<NotLogged>> {
        let Entry {
            spans,
            payload,
            outcome,
            ticket,
        } = entry;
        let record = Record::Request(Request {
            key: ticket.key(),
            received_at_ms: unix_ms(),
            spans: u32::try_from(spans).unwrap_or(u32::MAX),
            answer: answer_bytes(&outcome).into(),
            payload: Bytes::from(payload),
        });
        // Held across the append: the position must not become durable before its waiter is in the queue.
        let mut waiting = self.waiting.lock();
        match self.log.append(record) {
            Ok(position) => {
                waiting.push_back((position, Waiter::Receipt { ticket, outcome }));
                Ok(position)
            }
            Err(error) => {
                drop(waiting);
                self.counters.refused.inc();
                let is_full = matches!(&error, AppendError::Full(full) if !matches!(full, Full::Buffer { .. }));
                if is_full && !self.full.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "senders are told to retry");
                }
                Err(Box::new(NotLogged { ticket, error }))
            }
        }
    }

    /// Says which requests a new batch has, in its order.
    pub(crate) fn name(&self, id: u128, requests: Vec<Position>) -> Result<(), AppendError> {
        let record = Record::Batch {
            id: BatchId(id),
            requests,
            // They are made from the id.
            tokens: Vec::new(),
        };
        self.log.append(record).map(drop)
    }

    /// Says that a batch is about to be sent. It may be once what is returned has come; it fails when the log
    /// is closed before.
    pub(crate) fn sent(&self, id: u128) -> Result<oneshot::Receiver<()>, AppendError> {
        self.append_and_signal(Record::Sent {
            batch: BatchId(id),
            at_ms: unix_ms(),
        })
    }

    /// Says how a batch is cut; as [`sent`](Self::sent).
    fn cut(&self, id: u128, pieces: Vec<Range<u32>>) -> Result<oneshot::Receiver<()>, AppendError> {
        self.append_and_signal(Record::Cut {
            batch: BatchId(id),
            pieces,
        })
    }

    fn append_and_signal(&self, record: Record) -> Result<oneshot::Receiver<()>, AppendError> {
        let (send, receive) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let position = self.log.append(record)?;
        waiting.push_back((position, Waiter::Signal(send)));
        Ok(receive)
    }

    /// A batch is stored, but for the rows that the store refused. These are kept aside; returns how many
    /// spans could not be.
    ///
    /// # Errors
    /// When the disk fails: then the batch is to be delivered again, under its tokens, so that nothing of it is
    /// stored twice and what is refused again can be kept.
    pub(crate) fn stored(
        &self,
        id: u128,
        requests: &[Position],
        refused: &[RefusedRows],
    ) -> Result<u64, NotKept> {
        let mut letters = Vec::with_capacity(refused.len());
        for rows in refused {
            letters.push((rows, self.keep_aside(id, requests, rows)?));
        }
        let mut lost = 0;
        for (rows, is_kept) in letters {
            lost += self.say_refused(id, rows, is_kept);
        }
        // Fails when the log is closed or has no such batch; then a later start delivers it again, under the
        // same tokens.
        if let Err(error) = self.log.append(Record::Stored { batch: BatchId(id) }) {
            tracing::warn!(batch = %BatchId(id), %error, "cannot log that a batch is stored");
        }
        Ok(lost)
    }

    /// Says whether the rows are kept, or never can be.
    fn keep_aside(
        &self,
        id: u128,
        requests: &[Position],
        refused: &RefusedRows,
    ) -> Result<bool, NotKept> {
        let payload = payload::rows(&refused.range, requests, |position| self.log.read(position));
        let payload = match payload {
            Ok(payload) => payload,
            Err(PayloadError::Log(error @ ReadError::Io { .. })) => {
                return Err(NotKept(error.to_string()));
            }
            Err(error) => {
                tracing::error!(%error, "rejected rows cannot be read from the log");
                return Ok(false);
            }
        };
        let letter = DeadLetter {
            batch: BatchId(id),
            rows: numbers(&refused.range),
            at_ms: unix_ms(),
            reason: refused.reason.clone(),
            payload: payload.into(),
        };
        match self.log.keep_dead_letter(&letter) {
            Ok(()) => Ok(true),
            Err(error @ (DeadLetterError::Write(_) | DeadLetterError::InUse { .. })) => {
                Err(NotKept(error.to_string()))
            }
            Err(error @ (DeadLetterError::Full { .. } | DeadLetterError::LaterVersion { .. })) => {
                tracing::error!(%error, "rejected rows cannot be kept");
                Ok(false)
            }
        }
    }

    /// Says of rows that the store refused whether they are kept; returns how many spans are lost.
    fn say_refused(&self, id: u128, refused: &RefusedRows, is_kept: bool) -> u64 {
        let count = refused.range.len() as u64;
        let reason = &*refused.reason;
        match is_kept {
            true => {
                self.counters.dead_letters.inc_by(count);
                tracing::warn!(
                    spans = count,
                    reason,
                    "ClickHouse rejected rows; they are kept as dead letters"
                );
            }
            false => tracing::error!(
                spans = count,
                reason,
                "ClickHouse rejected rows; they are lost"
            ),
        }
        let record = Record::Refused {
            batch: BatchId(id),
            rows: numbers(&refused.range),
            kept: is_kept,
            reason: reason.to_owned(),
        };
        // It only says why; the letter is there.
        let _ = self.log.append(record);
        if is_kept { 0 } else { count }
    }

    /// These were in memory only to be sent soon; they will be read from the log.
    pub(crate) fn spill(&self, requests: Vec<Position>) {
        if !requests.is_empty() {
            self.counters.spilled.inc_by(requests.len() as u64);
            self.backlog.push(Item::new(None, requests));
        }
    }

    /// This batch was not stored, or it is not known whether it was.
    pub(crate) fn again(&self, id: u128, requests: Vec<Position>, history: &History) {
        let item = Item::new(Some(id), requests).with(history.past());
        self.backlog.push(item);
    }

    pub(crate) fn register(self: &Arc<Self>, registry: &mut Registry) {
        let counters = &self.counters;
        for (name, help, counter) in [
            (
                "spanloom_log_refused_requests",
                "Requests that the log had no room for",
                &counters.refused,
            ),
            (
                "spanloom_log_spilled_requests",
                "Requests that left memory and wait in the log",
                &counters.spilled,
            ),
            (
                "spanloom_log_replayed_requests",
                "Requests that were delivered from the log",
                &counters.replayed,
            ),
            (
                "spanloom_log_dead_letter_spans",
                "Spans that ClickHouse rejected and that are kept aside",
                &counters.dead_letters,
            ),
            (
                "spanloom_log_lost_records",
                "Records of the log that are damaged or missing",
                &counters.lost_records,
            ),
            (
                "spanloom_log_damaged_bytes",
                "Bytes of the log that could not be read",
                &counters.damaged_bytes,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let of = |read: fn(&Status) -> usize| {
            let log = Arc::downgrade(self);
            move || log.upgrade().map(|log| read(&log.status()))
        };
        let free = {
            let log = Arc::downgrade(self);
            move || {
                log.upgrade()
                    .map(|log| to_size(log.log.free_bytes().saturating_sub(log.room)))
            }
        };
        registry.register_collector(Box::new(
            Levels::default()
                .with(
                    "log_bytes",
                    "Bytes of the log on disk",
                    of(|s| to_size(s.disk_bytes)),
                )
                .with(
                    "log_free_bytes",
                    "Bytes of requests that the log, and the disk it is on, have room for",
                    free,
                )
                .with(
                    "log_undelivered_requests",
                    "Requests in the log that are not stored yet",
                    of(|s| s.undelivered_requests),
                )
                .with(
                    "log_oldest_undelivered_seconds",
                    "Age of the oldest request in the log that is not stored yet",
                    of(|s| to_size(s.oldest_age_ms.unwrap_or(0) / 1000)),
                ),
        ));
    }
}

fn numbers(rows: &Range<usize>) -> Range<u32> {
    let number = |row: usize| u32::try_from(row).unwrap_or(u32::MAX);
    number(rows.start)..number(rows.end)
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
