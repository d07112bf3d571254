//! What callers and the committing thread share: records that wait, the index, and the limits.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{AppendError, Full};
use crate::index::{Index, KeptKey};
use crate::options::Options;
use crate::positions::next_epoch;
use crate::record::{Position, Record};
use crate::survey::{Segment, Survey};

/// What the records that settle a request take at most, in a batch of its own: it is kept free for them.
const SETTLING_BYTES: u64 = 256;
/// What the end of a batch takes: it is always taken, since it is what gives room.
const END_BYTES: u64 = 64;

/// A record that waits to be durable.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) position: u64,
    pub(crate) content: Content,
    pub(crate) frame_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum Content {
    Record(Record),
    /// Keys, with their age.
    Keys(Record, Vec<KeptKey>),
    /// A record of an unknown kind, copied from a segment that goes.
    Unknown(u8, Bytes),
}

impl Pending {
    pub(crate) fn kind(&self) -> u8 {
        match &self.content {
            Content::Record(record) | Content::Keys(record, _) => record.kind(),
            Content::Unknown(kind, _) => *kind,
        }
    }

    /// Appends its bytes to `out`, but for the last ones, which it returns.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> &[u8] {
        match &self.content {
            Content::Record(record) | Content::Keys(record, _) => record.encode(out),
            Content::Unknown(_, payload) => payload,
        }
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    /// The oldest first. The last one may be the one that is written to.
    pub(crate) segments: VecDeque<Segment>,
    /// In the order of their positions.
    pub(crate) buffer: VecDeque<Arc<Pending>>,
    pub(crate) buffered_bytes: u64,
    /// Bytes of all segments.
    pub(crate) disk_bytes: u64,
    pub(crate) next_position: u64,
    pub(crate) next_number: u64,
    /// The highest position that is in a segment.
    pub(crate) written: u64,
    /// What the disk said, if the last commit failed.
    pub(crate) fault: Option<String>,
    /// The fault is that the disk has no room.
    pub(crate) is_disk_full: bool,
    pub(crate) keys_evicted: u64,
    pub(crate) is_closed: bool,
}

impl State {
    pub(crate) fn new(survey: &mut Survey) -> Self {
        let segments: VecDeque<Segment> = std::mem::take(&mut survey.segments).into();
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        Self {
            index: std::mem::take(&mut survey.index),
            segments,
            buffer: VecDeque::new(),
            buffered_bytes: 0,
            disk_bytes: bytes + survey.left_alone_bytes,
            next_position: next_epoch(survey.highest_position),
            next_number: survey.highest_number.saturating_add(1),
            written: survey.highest_seen,
            fault: None,
            is_disk_full: false,
            keys_evicted: 0,
            is_closed: false,
        }
    }

    /// Everything up to this position is durable.
    pub(crate) fn durable(&self) -> Position {
        let next = self.buffer.front();
        Position(next.map_or(self.next_position, |pending| pending.position) - 1)
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.disk_bytes + self.buffered_bytes
    }

    /// Takes a record, if there is room and it may follow what was taken before.
    pub(crate) fn append(
        &mut self,
        record: Record,
        options: &Options,
    ) -> Result<Position, AppendError> {
        if self.is_closed {
            return Err(AppendError::Closed);
        }
        let frame_bytes = record.frame_bytes();
        if frame_bytes > options.record_bytes {
            return Err(AppendError::TooLarge {
                bytes: frame_bytes,
                max_bytes: options.record_bytes,
            });
        }
        self.index.check(&record)?;
        self.check_room(&record, frame_bytes, options)
            .map_err(AppendError::Full)?;
        self.index.appended(self.next_position, &record);
        Ok(self.push(Content::Record(record), frame_bytes))
    }

    pub(crate) fn push(&mut self, content: Content, frame_bytes: u64) -> Position {
        let position = self.next_position;
        self.next_position += 1;
        self.buffered_bytes += frame_bytes;
        self.buffer.push_back(Arc::new(Pending {
            position,
            content,
            frame_bytes,
        }));
        Position(position)
    }

    /// Bytes of the largest request that there is room for.
    pub(crate) fn room(&self, options: &Options) -> u64 {
        let waiting = self.index.requests.len();
        if waiting >= options.max_requests {
            return 0;
        }
        let buffer = match self.buffer.is_empty() {
            true => u64::MAX,
            false => options.buffer_bytes.saturating_sub(self.buffered_bytes),
        };
        let used = self.used_bytes() + self.kept_free_by_request(options);
        options
            .max_bytes
            .saturating_sub(used)
            .min(buffer)
            .min(options.record_bytes)
    }

    /// What a request leaves for the records that end it and those before.
    fn kept_free_by_request(&self, options: &Options) -> u64 {
        let waiting = self.index.requests.len() as u64;
        (options.max_bytes / 8).max(SETTLING_BYTES * (waiting + 1)) + self.ends()
    }

    fn ends(&self) -> u64 {
        END_BYTES * (self.index.batches.len() as u64 + 1)
    }

    fn check_room(&self, record: &Record, bytes: u64, options: &Options) -> Result<(), Full> {
        let waiting = self.index.requests.len();
        let kept_free = match record {
            Record::Stored { .. } => return Ok(()),
            Record::Request(_) => {
                if waiting >= options.max_requests {
                    return Err(Full::Requests(waiting));
                }
                self.kept_free_by_request(options)
            }
            _ => self.ends(),
        };
        if !self.buffer.is_empty() && self.buffered_bytes + bytes > options.buffer_bytes {
            return Err(Full::Buffer {
                buffered_bytes: self.buffered_bytes,
                fault: self.fault.clone(),
            });
        }
        let used_bytes = self.used_bytes();
        if used_bytes + bytes + kept_free > options.max_bytes {
            return Err(Full::Bytes {
                used_bytes,
                max_bytes: options.max_bytes,
            });
        }
        Ok(())
    }

    /// Whether a record ends a batch that is durable: it can be written before those that wait longer.
    fn is_end(&self, pending: &Pending) -> bool {
        match &pending.content {
            Content::Record(Record::Stored { batch }) => {
                let open = self.index.batches.get(batch);
                open.is_some_and(|open| open.is_durable)
            }
            _ => false,
        }
    }

    /// The first records that wait, up to `max_bytes`, or one.
    pub(crate) fn group(&self, max_bytes: u64, only_ends: bool) -> Vec<Arc<Pending>> {
        let mut bytes = 0;
        let wanted = self
            .buffer
            .iter()
            .filter(|pending| !only_ends || self.is_end(pending));
        wanted
            .take_while(|pending| {
                let is_first = bytes == 0;
                bytes += pending.frame_bytes;
                is_first || bytes <= max_bytes
            })
            .cloned()
            .collect()
    }
}
