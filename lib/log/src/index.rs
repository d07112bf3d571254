//! What is undelivered: requests, batches and keys, as the records say. The same code follows the records
//! as they are appended, and makes the index again from the segments.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use crate::error::AppendError;
use crate::record::{BatchId, KEY_BYTES, Key, Position, Record, Request};

/// Where a frame lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) frame_bytes: u64,
}

/// A request that is not stored yet.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    pub(crate) key: u128,
    pub(crate) received_at_ms: u64,
    pub(crate) spans: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) batch: Option<BatchId>,
    /// `None` until it is durable.
    pub(crate) place: Option<Place>,
}

/// A batch that is not stored yet.
#[derive(Debug, Clone)]
pub(crate) struct OpenBatch {
    pub(crate) position: u64,
    pub(crate) requests: Vec<Position>,
    pub(crate) tokens: Vec<String>,
    pub(crate) pieces: Vec<Range<u32>>,
    pub(crate) sent_at_ms: Option<u64>,
    pub(crate) refused: Vec<Range<u32>>,
    /// Requests that are not in the log any more.
    pub(crate) missing: Vec<Position>,
    pub(crate) is_durable: bool,
    /// Its end was appended, and is not durable yet.
    is_ending: bool,
}

/// A key that is kept, and the position of the record that has it. There are many of them, so they are small: 48
/// bytes.
#[derive(Debug, Clone)]
pub(crate) struct KeptKey {
    key: u128,
    pub(crate) position: u64,
    received_at_ms: u64,
    /// Few have more to say than that all is well.
    answer: Option<Box<Bytes>>,
    spans: u32,
    /// When it was received on the clock that does not jump, in tenths of a second. It may be before the clock
    /// began.
    born: i32,
}

const _: () = assert!(size_of::<KeptKey>() == 48);

impl KeptKey {
    fn new(key: &Key, position: u64, now: Now) -> Self {
        let age = Duration::from_millis(now.unix_ms.saturating_sub(key.received_at_ms));
        let born = tenths(now.monotonic).saturating_sub(tenths(age));
        Self {
            key: key.key,
            position,
            received_at_ms: key.received_at_ms,
            // A slice of a larger buffer would keep all of it in memory.
            answer: (!key.answer.is_empty()).then(|| Box::new(Bytes::copy_from_slice(&key.answer))),
            spans: key.spans,
            born: i32::try_from(born).unwrap_or(i32::MIN),
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            key: self.key,
            received_at_ms: self.received_at_ms,
            spans: self.spans,
            answer: self.answer.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Bytes that it takes in a record.
    pub(crate) fn encoded_bytes(&self) -> u64 {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.len());
        (KEY_BYTES + answer) as u64
    }

    pub(crate) fn is_older(&self, window: Duration, now: Duration) -> bool {
        tenths(now).saturating_sub(i64::from(self.born)) > tenths(window)
    }
}

fn tenths(time: Duration) -> i64 {
    i64::try_from(time.as_millis() / 100).unwrap_or(i64::MAX)
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) requests: BTreeMap<u64, Waiting>,
    pub(crate) batches: BTreeMap<BatchId, OpenBatch>,
    /// In the order of their positions.
    pub(crate) keys: VecDeque<KeptKey>,
    /// Of all requests.
    pub(crate) payload_bytes: u64,
}

impl Index {
    /// Whether a record may follow what was appended before.
    pub(crate) fn check(&self, record: &Record) -> Result<(), AppendError> {
        match record {
            Record::Request(_) => Ok(()),
            Record::Batch { id, requests, .. } => {
                if self.batches.contains_key(id) {
                    return Err(AppendError::BatchExists(*id));
                }
                let mut sorted = requests.clone();
                sorted.sort_unstable();
                let twice = sorted
                    .windows(2)
                    .find_map(|pair| (pair.first() == pair.last()).then(|| pair.first().copied()));
                if let Some(position) = twice.flatten() {
                    return Err(AppendError::NotWaiting(position));
                }
                let taken = requests.iter().find(|position| {
                    let request = self.requests.get(&position.0);
                    request.is_none_or(|request| request.batch.is_some())
                });
                taken.map_or(Ok(()), |position| Err(AppendError::NotWaiting(*position)))
            }
            Record::Cut { batch, .. }
            | Record::Sent { batch, .. }
            | Record::Refused { batch, .. }
            | Record::Stored { batch } => {
                let open = self.batches.get(batch).filter(|open| !open.is_ending);
                open.map(|_| ()).ok_or(AppendError::NoBatch(*batch))
            }
            Record::Keys(_) => Err(AppendError::Reserved),
        }
    }

    /// A record was appended: it is in memory. What it begins is known from now on.
    pub(crate) fn appended(&mut self, position: u64, record: &Record) {
        match record {
            Record::Request(request) => {
                self.payload_bytes += request.payload.len() as u64;
                self.requests.insert(position, waiting(request));
            }
            Record::Batch {
                id,
                requests,
                tokens,
            } => {
                let missing = self.claim(*id, requests);
                self.batches.insert(
                    *id,
                    OpenBatch {
                        position,
                        requests: requests.clone(),
                        tokens: tokens.clone(),
                        pieces: Vec::new(),
                        sent_at_ms: None,
                        refused: Vec::new(),
                        missing,
                        is_durable: false,
                        is_ending: false,
                    },
                );
            }
            Record::Stored { batch } => {
                if let Some(open) = self.batches.get_mut(batch) {
                    open.is_ending = true;
                }
            }
            Record::Cut { .. } | Record::Sent { .. } | Record::Refused { .. } | Record::Keys(_) => {
            }
        }
    }

    /// Gives requests to a batch; returns those that are not there.
    fn claim(&mut self, id: BatchId, requests: &[Position]) -> Vec<Position> {
        let mut missing = Vec::new();
        for position in requests {
            match self.requests.get_mut(&position.0) {
                Some(request) => request.batch = Some(id),
                None => missing.push(*position),
            }
        }
        missing
    }

    /// A record is durable. What it ends has ended.
    pub(crate) fn durable(&mut self, position: u64, record: &Record, place: Place, now: Now) {
        match record {
            Record::Request(request) => {
                if request.payload.is_empty() {
                    self.finish(position);
                } else if let Some(waiting) = self.requests.get_mut(&position) {
                    waiting.place = Some(place);
                }
                self.keep(position, &key_of(request), now);
            }
            Record::Cut { batch, pieces } => {
                if let Some(open) = self.batches.get_mut(batch) {
                    open.pieces.clone_from(pieces);
                }
            }
            Record::Sent { batch, at_ms } => {
                if let Some(open) = self.batches.get_mut(batch) {
                    open.sent_at_ms.get_or_insert(*at_ms);
                }
            }
            Record::Refused { batch, rows, .. } => {
                if let Some(open) = self.batches.get_mut(batch) {
                    open.refused.push(rows.clone());
                }
            }
            Record::Stored { batch } => {
                let ended = self.batches.remove(batch);
                for request in ended.iter().flat_map(|batch| &batch.requests) {
                    self.finish(request.0);
                }
            }
            Record::Keys(keys) => {
                for key in keys {
                    self.keep(position, key, now);
                }
            }
            Record::Batch { id, .. } => {
                if let Some(open) = self.batches.get_mut(id) {
                    open.is_durable = true;
                }
            }
        }
    }

    fn finish(&mut self, position: u64) {
        if let Some(request) = self.requests.remove(&position) {
            self.payload_bytes -= request.payload_bytes;
        }
    }

    fn keep(&mut self, position: u64, key: &Key, now: Now) {
        self.keys.push_back(KeptKey::new(key, position, now));
    }

    /// Keys that were taken are in another record now.
    pub(crate) fn keep_again(&mut self, position: u64, keys: &[KeptKey]) {
        self.keys.extend(keys.iter().map(|key| KeptKey {
            position,
            ..key.clone()
        }));
    }

    /// Forgets keys that are too old or too many. Returns how many went before their time.
    pub(crate) fn forget_keys(&mut self, window: Duration, max: usize, now: Duration) -> usize {
        while self
            .keys
            .front()
            .is_some_and(|key| key.is_older(window, now))
        {
            self.keys.pop_front();
        }
        let evicted = self.keys.len().saturating_sub(max);
        self.keys.drain(..evicted);
        evicted
    }

    /// Brings keys into the order of their positions: segments may have been read in another one.
    pub(crate) fn sort_keys(&mut self) {
        self.keys.make_contiguous().sort_by_key(|key| key.position);
    }

    /// Bytes of the keys that only records up to `last` have.
    pub(crate) fn key_bytes(&self, last: u64) -> u64 {
        let keys = self.keys.iter().take_while(|key| key.position <= last);
        keys.map(KeptKey::encoded_bytes).sum()
    }

    /// Takes the keys that only records up to `last` have.
    pub(crate) fn take_keys(&mut self, last: u64) -> Vec<KeptKey> {
        let count = self.keys.partition_point(|key| key.position <= last);
        self.keys.drain(..count).collect()
    }

    /// The lowest position that is still needed; what lies below can go.
    pub(crate) fn needed_from(&self) -> u64 {
        let request = self.requests.keys().next().copied();
        let batches = self.batches.values().map(|batch| batch.position);
        batches.chain(request).min().unwrap_or(u64::MAX)
    }
}

/// Both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) unix_ms: u64,
    pub(crate) monotonic: Duration,
}

fn waiting(request: &Request) -> Waiting {
    Waiting {
        key: request.key,
        received_at_ms: request.received_at_ms,
        spans: request.spans,
        payload_bytes: request.payload.len() as u64,
        batch: None,
        place: None,
    }
}

fn key_of(request: &Request) -> Key {
    Key {
        key: request.key,
        received_at_ms: request.received_at_ms,
        spans: request.spans,
        answer: request.answer.clone(),
    }
}
