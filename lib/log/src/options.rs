//! How a log is opened: its limits, and who is told what happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::Position;

/// Limits and times.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of all segments and of what waits to be written. Dead letters and damaged bytes come on top.
    pub max_bytes: u64,
    /// A segment that has so many bytes is followed by another one.
    pub segment_bytes: u64,
    /// Bytes that may wait to be written. A larger record is taken while at most half of them do.
    pub buffer_bytes: u64,
    /// Bytes of the largest record.
    pub record_bytes: u64,
    /// Undelivered requests: each takes about 130 bytes of memory.
    pub max_requests: usize,
    /// How long a request's key is kept.
    pub key_window: Duration,
    /// Keys that are kept: each takes about 50 bytes of memory. The oldest go first. All keys of a window are
    /// kept up to `max_keys / key_window` requests a second.
    pub max_keys: usize,
    /// Bytes on disk that only records that settle requests may use, so that the log can be delivered while its
    /// disk is full. They are part of `max_bytes`, and at most 1/32 of it.
    pub reserve_bytes: u64,
    /// Bytes of the file of dead letters.
    pub dead_letter_bytes: u64,
    /// Bytes of the folder of damaged bytes.
    pub damaged_bytes: u64,
    /// How long a commit waits for more records.
    pub commit_wait: Duration,
    /// Who commits.
    pub committer: Committer,
    /// Who is told what happens.
    pub observer: Option<Observer>,
}

impl Default for Options {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            max_bytes: 2048 * MIB,
            segment_bytes: 16 * MIB,
            buffer_bytes: 16 * MIB,
            record_bytes: 80 * MIB,
            max_requests: 262_144,
            key_window: Duration::from_secs(600),
            max_keys: 131_072,
            reserve_bytes: MIB,
            dead_letter_bytes: 16 * MIB,
            damaged_bytes: 16 * MIB,
            commit_wait: Duration::from_millis(1),
            committer: Committer::Thread,
            observer: None,
        }
    }
}

/// Who writes and syncs what was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committer {
    /// A thread of the log's own, which ends with the log.
    Thread,
    /// The caller, with [`Log::commit`](crate::Log::commit): for simulations.
    Caller,
}

/// What an [`Observer`] is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something waits to be written, and it is for the caller to commit ([`Committer::Caller`]). Said on the
    /// thread that appended it.
    Appended,
    /// Everything up to this position is durable.
    Durable(Position),
    /// These are durable, and others before them are not: the disk is full, and they settle requests.
    DurableEarly(Vec<Position>),
    /// The disk failed; what it did not take is tried again. Said once until it works again.
    Failing(String),
    /// The disk works again.
    Working,
    /// The disk has no room for the reserve: if it becomes full, nothing can be delivered. Said once until there
    /// is one.
    NoReserve(String),
    /// The file of dead letters was damaged. Those that are left are in a new one, and what could not be read is
    /// with the damaged bytes of segments. Said on the thread that keeps another letter.
    DeadLettersDamaged {
        /// How many are left.
        left: usize,
    },
    /// So many keys went before their time, because there are too many.
    KeysEvicted(usize),
}

/// Is called on the thread that commits, without a lock of the log's held. It must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Event) + Send + Sync>);

impl Observer {
    /// Calls `observe` with each event. With a channel's sending end it is a bridge to async code.
    pub fn new(observe: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    /// Calls it.
    pub fn tell(&self, event: Event) {
        (self.0)(event);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
