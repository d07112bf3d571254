//! What callers and the committing thread share: records that wait, the index, and the limits.

use std::collections::{HashSet, VecDeque};
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

/// Records that settle requests may wait beyond the limit of what waits, by this part of it.
const SETTLING_SHARE: u64 = 8;

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

    pub(crate) fn is_request(&self) -> bool {
        matches!(self.content, Content::Record(Record::Request(_)))
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
    /// Records that settle requests are taken by the disk all the same.
    pub(crate) takes_early: bool,
    /// The reserve is there.
    pub(crate) has_reserve: bool,
    /// Bytes of the reserve: kept free for it while it is not there.
    pub(crate) reserve_bytes: u64,
    pub(crate) keys_evicted: u64,
    pub(crate) is_closed: bool,
}

impl State {
    pub(crate) fn new(survey: &mut Survey, reserve_bytes: u64) -> Self {
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
            written: survey.highest_in_order,
            fault: None,
            is_disk_full: false,
            takes_early: false,
            has_reserve: false,
            reserve_bytes,
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
        self.disk_bytes + self.buffered_bytes + self.reserve_bytes
    }

    pub(crate) fn segment_mut(&mut self, number: u64) -> Option<&mut Segment> {
        let segments = self.segments.iter_mut().rev();
        segments
            .into_iter()
            .find(|segment| segment.number == number)
    }

    /// A segment's file has this length now.
    pub(crate) fn resize(&mut self, number: u64, bytes: u64) {
        if let Some(segment) = self.segment_mut(number) {
            let before = std::mem::replace(&mut segment.bytes, bytes);
            self.disk_bytes = self.disk_bytes - before + bytes;
        }
    }

    /// Whether a record that was appended is durable. On a full disk others before it may not be.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        position <= self.durable()
            || (position.0 < self.next_position && self.buffered(position.0).is_none())
    }

    /// A record that is not durable.
    pub(crate) fn buffered(&self, position: u64) -> Option<&Arc<Pending>> {
        let found = self
            .buffer
            .binary_search_by_key(&position, |pending| pending.position);
        found.ok().and_then(|index| self.buffer.get(index))
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

    /// Bytes of the largest request that the files have room for.
    pub(crate) fn room(&self, options: &Options) -> u64 {
        let waiting = self.index.requests.len();
        if waiting >= options.max_requests || self.is_disk_full {
            return 0;
        }
        self.free_bytes(options).min(options.record_bytes)
    }

    /// What the limit leaves for requests.
    pub(crate) fn free_bytes(&self, options: &Options) -> u64 {
        let used = self.used_bytes() + self.kept_free_by_request(options);
        options.max_bytes.saturating_sub(used)
    }

    /// What a request leaves for the records that end it and those before.
    fn kept_free_by_request(&self, options: &Options) -> u64 {
        let waiting = self.index.requests.len() as u64;
        (options.max_bytes / 8).max(SETTLING_BYTES * (waiting + 1)) + self.ends()
    }

    fn ends(&self) -> u64 {
        END_BYTES * (self.index.batches.len() as u64 + 1)
    }

    /// Whether a record of so many bytes need not wait for the disk to take others. A large one, which is in memory
    /// already, waits for half of the buffer only: others that come all the time do not keep it waiting.
    pub(crate) fn buffer_has_room(&self, before: u64, bytes: u64, buffer_bytes: u64) -> bool {
        let used = self.buffered_bytes.saturating_add(before);
        used <= buffer_bytes / 2 || used.saturating_add(bytes) <= buffer_bytes
    }

    fn check_room(&self, record: &Record, bytes: u64, options: &Options) -> Result<(), Full> {
        let waiting = self.index.requests.len();
        let mut buffer_bytes = options.buffer_bytes;
        let kept_free = match record {
            Record::Stored { .. } => return Ok(()),
            Record::Request(_) => {
                // What is taken now could share a batch with requests that are durable, and hold it up.
                if let (true, Some(fault)) = (self.is_disk_full, &self.fault) {
                    return Err(Full::Disk(fault.clone()));
                }
                if waiting >= options.max_requests {
                    return Err(Full::Requests(waiting));
                }
                self.kept_free_by_request(options)
            }
            _ => {
                // They go first when the disk is full, and must not be refused for those that wait.
                buffer_bytes += buffer_bytes / SETTLING_SHARE;
                self.ends()
            }
        };
        if !self.buffer_has_room(0, bytes, buffer_bytes) {
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

    /// The first records that wait, up to `max_bytes`, or one.
    pub(crate) fn group(&self, max_bytes: u64) -> Vec<Arc<Pending>> {
        let mut bytes = 0;
        self.buffer
            .iter()
            .take_while(|pending| {
                let is_first = bytes == 0;
                bytes += pending.frame_bytes;
                is_first || bytes <= max_bytes
            })
            .cloned()
            .collect()
    }

    /// Whether a record waits that can be written before its turn.
    pub(crate) fn has_early(&self) -> bool {
        !self.early_positions(0).is_empty()
    }

    /// The records that can be written before others that wait longer, up to `max_bytes`: those that settle
    /// requests. Requests that wait would keep a batch from being sent that has durable ones too, so those in
    /// batches are among them, up to `request_bytes`. `None` if there are some and none fits.
    pub(crate) fn early_group(
        &self,
        max_bytes: u64,
        request_bytes: u64,
    ) -> Option<Vec<Arc<Pending>>> {
        let wanted = self.early_positions(request_bytes);
        let mut bytes = 0;
        let group: Vec<_> = self
            .buffer
            .iter()
            .filter(|pending| wanted.contains(&pending.position))
            .take_while(|pending| {
                bytes += pending.frame_bytes;
                bytes <= max_bytes
            })
            .cloned()
            .collect();
        (wanted.is_empty() || !group.is_empty()).then_some(group)
    }

    fn early_positions(&self, mut request_bytes: u64) -> HashSet<u64> {
        let mut wanted = HashSet::new();
        let mut named = HashSet::new();
        for pending in &self.buffer {
            let Content::Record(record) = &pending.content else {
                continue;
            };
            let is_early = match record {
                Record::Batch { id, requests, .. } => {
                    let waiting: Vec<_> = requests
                        .iter()
                        .filter_map(|position| self.buffered(position.0))
                        .collect();
                    let bytes: u64 = waiting.iter().map(|request| request.frame_bytes).sum();
                    let fits = bytes <= request_bytes;
                    if fits {
                        request_bytes -= bytes;
                        wanted.extend(waiting.iter().map(|request| request.position));
                        named.insert(*id);
                    }
                    fits
                }
                Record::Cut { batch, .. }
                | Record::Sent { batch, .. }
                | Record::Refused { batch, .. }
                | Record::Stored { batch } => {
                    let open = self.index.batches.get(batch);
                    named.contains(batch) || open.is_some_and(|open| open.is_durable)
                }
                Record::Request(_) | Record::Keys(_) => false,
            };
            if is_early {
                wanted.insert(pending.position);
            }
        }
        wanted
    }
}
