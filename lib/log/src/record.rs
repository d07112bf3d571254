//! What a log holds: the records, and how each one is written into a frame's payload.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::format::{FRAME_HEADER, Fields};

/// The place of a record in the order of its log. It stays the same when the record moves to another
/// segment, and no other record of the same log ever has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a batch. It is chosen by the caller, and its deduplication tokens are made from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u128);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// An export request, processed and redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names the request's bytes as they were received, so that its repeats are recognised.
    pub key: u128,
    /// When it was received, in milliseconds since 1970.
    pub received_at_ms: u64,
    /// Spans in the payload.
    pub spans: u32,
    /// What its sender is told, so that its repeats are told the same. Empty for plain success.
    pub answer: Bytes,
    /// What has to be delivered. A request without any is finished once it is durable; its key is kept.
    pub payload: Bytes,
}

/// The key of a request, which outlives the request for some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The request's key.
    pub key: u128,
    /// When it was received, in milliseconds since 1970.
    pub received_at_ms: u64,
    /// Its spans.
    pub spans: u32,
    /// What its sender was told.
    pub answer: Bytes,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A request to be delivered.
    Request(Request),
    /// These requests, in this order, are a batch. It is durable before the batch's first send.
    Batch {
        /// The batch's id.
        id: BatchId,
        /// Its requests, each in one batch only.
        requests: Vec<Position>,
        /// Its deduplication tokens.
        tokens: Vec<String>,
    },
    /// The batch is sent in pieces from now on. It is durable before a piece's first send.
    Cut {
        /// The batch.
        batch: BatchId,
        /// All of its pieces: ranges of rows, counted from 0.
        pieces: Vec<Range<u32>>,
    },
    /// The batch is about to be sent. It is durable before the first send: a batch without it has never
    /// reached the store.
    Sent {
        /// The batch.
        batch: BatchId,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
    /// All of the batch is stored, or refused for good. Its requests are finished.
    Stored {
        /// The batch.
        batch: BatchId,
    },
    /// The store refused these rows for good.
    Refused {
        /// The batch.
        batch: BatchId,
        /// Rows of the batch, counted from 0.
        rows: Range<u32>,
        /// Whether they are in the file of dead letters; otherwise they are lost.
        kept: bool,
        /// Why, in the store's words.
        reason: String,
    },
    /// Keys of requests whose segment is about to go. The log writes it by itself.
    Keys(Vec<Key>),
}

/// Numbers of kinds, as they stand in frames. A number is never used for something else.
pub(crate) mod kind {
    pub(crate) const REQUEST: u8 = 1;
    pub(crate) const BATCH: u8 = 2;
    pub(crate) const CUT: u8 = 3;
    pub(crate) const SENT: u8 = 4;
    pub(crate) const STORED: u8 = 5;
    pub(crate) const REFUSED: u8 = 6;
    pub(crate) const KEYS: u8 = 7;
    pub(crate) const DEAD_LETTER: u8 = 8;

    /// What people call it.
    pub(crate) fn name(kind: u8) -> &'static str {
        match kind {
            REQUEST => "request",
            BATCH => "batch",
            CUT => "cut",
            SENT => "sent",
            STORED => "stored",
            REFUSED => "refused",
            KEYS => "keys",
            DEAD_LETTER => "dead letter",
            _ => "unknown",
        }
    }
}

/// What a frame's payload turned out to be.
#[derive(Debug)]
pub(crate) enum Decoded {
    Record(Record),
    /// Of a kind that a later version writes.
    UnknownKind,
    /// Its checksum is right, and yet it does not read as what it should be.
    Malformed,
}

/// Bytes of a key within a `Keys` record, without its answer.
pub(crate) const KEY_BYTES: usize = 16 + 8 + 4 + 4;

impl Key {
    pub(crate) fn encoded_bytes(&self) -> usize {
        KEY_BYTES + self.answer.len()
    }
}

impl Record {
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Request(_) => kind::REQUEST,
            Self::Batch { .. } => kind::BATCH,
            Self::Cut { .. } => kind::CUT,
            Self::Sent { .. } => kind::SENT,
            Self::Stored { .. } => kind::STORED,
            Self::Refused { .. } => kind::REFUSED,
            Self::Keys(_) => kind::KEYS,
        }
    }

    /// Bytes of its frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let payload = match self {
            Self::Request(request) => KEY_BYTES + request.answer.len() + request.payload.len(),
            Self::Batch {
                requests, tokens, ..
            } => {
                let tokens: usize = tokens.iter().map(|token| 4 + token.len()).sum();
                16 + 4 + 8 * requests.len() + 4 + tokens
            }
            Self::Cut { pieces, .. } => 16 + 4 + 8 * pieces.len(),
            Self::Sent { .. } => 16 + 8,
            Self::Stored { .. } => 16,
            Self::Refused { reason, .. } => 16 + 8 + 1 + 4 + reason.len(),
            Self::Keys(keys) => 4 + keys.iter().map(Key::encoded_bytes).sum::<usize>(),
        };
        (FRAME_HEADER + payload) as u64
    }

    /// Appends its bytes to `out`, but for the last ones, which it returns: a request's payload is long, and
    /// need not be copied.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> &[u8] {
        match self {
            Self::Request(request) => {
                put_key(
                    out,
                    request.key,
                    request.received_at_ms,
                    request.spans,
                    &request.answer,
                );
                return &request.payload;
            }
            Self::Batch {
                id,
                requests,
                tokens,
            } => {
                out.extend_from_slice(&id.0.to_le_bytes());
                put_u32(out, requests.len());
                for request in requests {
                    out.extend_from_slice(&request.0.to_le_bytes());
                }
                put_u32(out, tokens.len());
                for token in tokens {
                    put_bytes(out, token.as_bytes());
                }
            }
            Self::Cut { batch, pieces } => {
                out.extend_from_slice(&batch.0.to_le_bytes());
                put_u32(out, pieces.len());
                for piece in pieces {
                    put_range(out, piece);
                }
            }
            Self::Sent { batch, at_ms } => {
                out.extend_from_slice(&batch.0.to_le_bytes());
                out.extend_from_slice(&at_ms.to_le_bytes());
            }
            Self::Stored { batch } => out.extend_from_slice(&batch.0.to_le_bytes()),
            Self::Refused {
                batch,
                rows,
                kept,
                reason,
            } => {
                out.extend_from_slice(&batch.0.to_le_bytes());
                put_range(out, rows);
                out.push(u8::from(*kept));
                put_bytes(out, reason.as_bytes());
            }
            Self::Keys(keys) => {
                put_u32(out, keys.len());
                for key in keys {
                    put_key(out, key.key, key.received_at_ms, key.spans, &key.answer);
                }
            }
        }
        &[]
    }

    /// Reads a payload. Bytes after the last field belong to a later version and are passed over.
    pub(crate) fn decode(kind: u8, payload: &[u8]) -> Decoded {
        let mut fields = Fields(payload);
        let record = match kind {
            kind::REQUEST => Request::decode(&mut fields).map(Self::Request),
            kind::BATCH => decode_batch(&mut fields),
            kind::CUT => decode_cut(&mut fields),
            kind::SENT => decode_sent(&mut fields),
            kind::STORED => take_batch(&mut fields).map(|batch| Self::Stored { batch }),
            kind::REFUSED => decode_refused(&mut fields),
            kind::KEYS => decode_keys(&mut fields),
            _ => return Decoded::UnknownKind,
        };
        record.map_or(Decoded::Malformed, Decoded::Record)
    }
}

impl Request {
    fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let key = take_key(fields)?;
        Some(Self {
            key: key.key,
            received_at_ms: key.received_at_ms,
            spans: key.spans,
            answer: key.answer,
            payload: Bytes::copy_from_slice(fields.0),
        })
    }
}

fn decode_batch(fields: &mut Fields<'_>) -> Option<Record> {
    let id = take_batch(fields)?;
    let count = fields.count(8)?;
    let requests: Option<_> = (0..count).map(|_| fields.u64().map(Position)).collect();
    let count = fields.count(4)?;
    let tokens: Option<_> = (0..count).map(|_| take_text(fields)).collect();
    Some(Record::Batch {
        id,
        requests: requests?,
        tokens: tokens?,
    })
}

fn decode_cut(fields: &mut Fields<'_>) -> Option<Record> {
    let batch = take_batch(fields)?;
    let count = fields.count(8)?;
    let pieces: Option<_> = (0..count).map(|_| take_range(fields)).collect();
    pieces.map(|pieces| Record::Cut { batch, pieces })
}

fn decode_sent(fields: &mut Fields<'_>) -> Option<Record> {
    Some(Record::Sent {
        batch: take_batch(fields)?,
        at_ms: fields.u64()?,
    })
}

fn decode_refused(fields: &mut Fields<'_>) -> Option<Record> {
    Some(Record::Refused {
        batch: take_batch(fields)?,
        rows: take_range(fields)?,
        kept: fields.array::<1>()? != [0],
        reason: take_text(fields)?,
    })
}

fn decode_keys(fields: &mut Fields<'_>) -> Option<Record> {
    let count = fields.count(KEY_BYTES)?;
    let keys: Option<_> = (0..count).map(|_| take_key(fields)).collect();
    keys.map(Record::Keys)
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: usize) {
    // `Log::append` refuses records whose frame is larger than u32::MAX.
    out.extend_from_slice(&(value as u32).to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_range(out: &mut Vec<u8>, range: &Range<u32>) {
    out.extend_from_slice(&range.start.to_le_bytes());
    out.extend_from_slice(&range.end.to_le_bytes());
}

fn put_key(out: &mut Vec<u8>, key: u128, received_at_ms: u64, spans: u32, answer: &[u8]) {
    out.extend_from_slice(&key.to_le_bytes());
    out.extend_from_slice(&received_at_ms.to_le_bytes());
    out.extend_from_slice(&spans.to_le_bytes());
    put_bytes(out, answer);
}

fn take_key(fields: &mut Fields<'_>) -> Option<Key> {
    Some(Key {
        key: fields.u128()?,
        received_at_ms: fields.u64()?,
        spans: fields.u32()?,
        answer: Bytes::copy_from_slice(fields.bytes()?),
    })
}

pub(crate) fn take_batch(fields: &mut Fields<'_>) -> Option<BatchId> {
    fields.u128().map(BatchId)
}

pub(crate) fn take_range(fields: &mut Fields<'_>) -> Option<Range<u32>> {
    Some(fields.u32()?..fields.u32()?)
}

pub(crate) fn take_text(fields: &mut Fields<'_>) -> Option<String> {
    String::from_utf8(fields.bytes()?.to_vec()).ok()
}
