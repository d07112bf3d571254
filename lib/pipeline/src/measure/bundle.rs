//! Measures as bytes: what a sidecar sends beside its spans, and what is kept beside a batch's records.
//!
//! The form is protobuf's, so that a later version may add fields, which an earlier one skips:
//!
//! ```text
//! Bundle   1 version   2 texts, repeated   3 RED cells, repeated   4 half-edges, repeated   5 accounts, repeated
//! RedCell  1 minute   2 service   3 name   4 kind   5 status   6 sum of durations   7 first bucket (zigzag)   8 counts, packed
//! HalfEdge 1 time (fixed64)   2 trace id   3 span id   5 service   6 duration   7 error   8 peer   9 connection type
//!          10 kind   11 parent's span id
//! Account  1 minute   2 node   3 agent   4 stage   5 reason   6 spans   7 bytes
//! ```
//!
//! The version is the first field. Services, names and peers are the numbers of texts that came before
//! them. A cell's count is the sum of its buckets, so the two cannot disagree. Fields that are zero
//! are left out.

use spanloom_otlp::DecodeError;
use spanloom_otlp::record::{SpanKind, StatusCode};
use spanloom_otlp::text::utf8;
use spanloom_otlp::wire::{FIXED64, LEN, Reader, VARINT, key};
use spanloom_otlp::write::{bytes, fixed64, message, uint, varint};
use thiserror::Error;

use super::{AccountRow, ConnectionType, Counts, HalfEdge, Measures, RedCell, TextId};

/// The version that is written, and the highest that can be read.
pub const VERSION: u32 = 1;

/// Why bytes are not measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BundleError {
    /// They do not begin with a version.
    #[error("the bytes are not measures: they do not begin with a version")]
    NoVersion,
    /// They are of a version that this program does not know.
    #[error("the measures have version {0}, this program reads versions up to {VERSION}")]
    Version(u64),
    /// They are not protobuf.
    #[error("the measures cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// A text is not UTF-8.
    #[error("text {0} of the measures is not UTF-8")]
    Text(usize),
    /// A number names a text that is not there.
    #[error("the measures name text {0}, which is not in them")]
    NoText(u64),
    /// A field has a value that it cannot have.
    #[error("{0} of the measures is out of range")]
    OutOfRange(&'static str),
}

/// A key's field number and wire type.
fn split(key: u32) -> (u32, u32) {
    (key >> 3, key & 7)
}

impl Measures {
    /// Appends the measures as bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        uint(out, 1, u64::from(VERSION));
        for text in &self.texts {
            bytes(out, 2, text.as_bytes());
        }
        for cell in &self.red {
            message(out, 3, |out| write_red(out, cell));
        }
        for half in &self.half_edges {
            message(out, 4, |out| write_half_edge(out, half));
        }
        for row in &self.accounts {
            message(out, 5, |out| write_account(out, row));
        }
    }

    /// Reads what [`Self::encode`] has written, here or elsewhere. Takes memory in proportion to the bytes.
    pub fn decode(bundle: &[u8]) -> Result<Self, BundleError> {
        let mut reader = Reader::new(bundle, 0);
        if reader.key() != Ok(key(1, VARINT)) {
            return Err(BundleError::NoVersion);
        }
        match reader.varint() {
            Ok(version @ 1..) if version <= u64::from(VERSION) => {}
            Ok(version) => return Err(BundleError::Version(version)),
            Err(_) => return Err(BundleError::NoVersion),
        }
        let mut measures = Self::default();
        while !reader.is_empty() {
            let key = reader.key()?;
            match split(key) {
                (2, LEN) => {
                    let number = measures.texts.len();
                    let text = utf8(reader.bytes()?).ok_or(BundleError::Text(number))?;
                    measures.texts.push(text.into());
                }
                (3, LEN) => {
                    let cell = read_red(reader.message()?, &measures)?;
                    measures.red.push(cell);
                }
                (4, LEN) => {
                    let half = read_half_edge(reader.message()?, &measures)?;
                    measures.half_edges.push(half);
                }
                (5, LEN) => measures.accounts.push(read_account(reader.message()?)?),
                _ => reader.skip(key)?,
            }
        }
        Ok(measures)
    }

    fn text_id(&self, number: u64) -> Result<TextId, BundleError> {
        match u32::try_from(number) {
            Ok(id) if (id as usize) < self.texts.len() => Ok(TextId(id)),
            _ => Err(BundleError::NoText(number)),
        }
    }
}

/// A number, left out where zero.
fn number(out: &mut Vec<u8>, field: u32, n: u64) {
    if n != 0 {
        uint(out, field, n);
    }
}

fn write_red(out: &mut Vec<u8>, cell: &RedCell) {
    number(out, 1, u64::from(cell.minute));
    number(out, 2, u64::from(cell.service.0));
    number(out, 3, u64::from(cell.name.0));
    number(out, 4, cell.kind as u64);
    number(out, 5, cell.status as u64);
    number(out, 6, cell.duration_sum_ns);
    number(out, 9, cell.duration_min_ns);
    number(out, 10, cell.duration_max_ns);
    let (first, counts) = cell.buckets.parts();
    number(out, 7, zigzag(first));
    message(out, 8, |out| {
        for &count in counts {
            varint(out, u64::from(count));
        }
    });
}

fn read_red(mut fields: Reader<'_>, measures: &Measures) -> Result<RedCell, BundleError> {
    let (mut minute, mut service, mut name) = (0, 0, 0);
    let (mut kind, mut status) = (0, 0);
    let (mut duration_sum_ns, mut duration_min_ns, mut duration_max_ns) = (0, 0, 0);
    let (mut first, mut counts) = (0, Vec::new());
    while !fields.is_empty() {
        let key = fields.key()?;
        match split(key) {
            (1, VARINT) => minute = narrow(fields.varint()?, "a minute")?,
            (2, VARINT) => service = fields.varint()?,
            (3, VARINT) => name = fields.varint()?,
            (4, VARINT) => kind = narrow(fields.varint()?, "a kind")?,
            (5, VARINT) => status = narrow(fields.varint()?, "a status")?,
            (6, VARINT) => duration_sum_ns = fields.varint()?,
            (9, VARINT) => duration_min_ns = fields.varint()?,
            (10, VARINT) => duration_max_ns = fields.varint()?,
            (7, VARINT) => first = fields.varint()?,
            (8, LEN) => {
                let mut packed = fields.message()?;
                while !packed.is_empty() {
                    counts.push(narrow(packed.varint()?, "the count of a bucket")?);
                }
            }
            _ => fields.skip(key)?,
        }
    }
    let first = unzigzag(first).ok_or(BundleError::OutOfRange("a bucket"))?;
    let buckets = Counts::from_parts(first, counts).ok_or(BundleError::OutOfRange("a bucket"))?;
    Ok(RedCell {
        minute,
        service: measures.text_id(service)?,
        name: measures.text_id(name)?,
        kind: SpanKind::from_i32(kind),
        status: StatusCode::from_i32(status),
        count: buckets.sum(),
        duration_sum_ns,
        duration_min_ns,
        duration_max_ns,
        buckets,
    })
}

fn write_half_edge(out: &mut Vec<u8>, half: &HalfEdge) {
    fixed64(out, 1, half.time_ns);
    bytes(out, 2, &half.trace_id);
    bytes(out, 3, &half.span_id);
    number(out, 5, u64::from(half.service.0));
    number(out, 6, half.duration_ns);
    number(out, 7, u64::from(half.error));
    number(out, 8, u64::from(half.peer.0));
    number(out, 9, half.connection_type as u64);
    number(out, 10, half.kind as u64);
    if half.parent_span_id != [0; 8] {
        bytes(out, 11, &half.parent_span_id);
    }
}

fn read_half_edge(mut fields: Reader<'_>, measures: &Measures) -> Result<HalfEdge, BundleError> {
    let (mut time_ns, mut duration_ns, mut error) = (0, 0, false);
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    let mut parent_span_id: &[u8] = &[0; 8];
    let (mut kind, mut connection, mut service, mut peer) = (0, 0, 0, 0);
    while !fields.is_empty() {
        let key = fields.key()?;
        match split(key) {
            (1, FIXED64) => time_ns = fields.fixed64()?,
            (2, LEN) => trace_id = fields.bytes()?,
            (3, LEN) => span_id = fields.bytes()?,
            (5, VARINT) => service = fields.varint()?,
            (6, VARINT) => duration_ns = fields.varint()?,
            (7, VARINT) => error = fields.varint()? != 0,
            (8, VARINT) => peer = fields.varint()?,
            (9, VARINT) => connection = fields.varint()?,
            (10, VARINT) => kind = narrow(fields.varint()?, "a kind")?,
            (11, LEN) => parent_span_id = fields.bytes()?,
            _ => fields.skip(key)?,
        }
    }
    let out_of_range = BundleError::OutOfRange;
    Ok(HalfEdge {
        time_ns,
        trace_id: trace_id
            .try_into()
            .map_err(|_| out_of_range("a trace id"))?,
        span_id: span_id.try_into().map_err(|_| out_of_range("a span id"))?,
        parent_span_id: parent_span_id
            .try_into()
            .map_err(|_| out_of_range("a parent's span id"))?,
        kind: SpanKind::from_i32(kind),
        service: measures.text_id(service)?,
        duration_ns,
        error,
        peer: measures.text_id(peer)?,
        connection_type: ConnectionType::from_number(connection)
            .ok_or(out_of_range("a connection type"))?,
    })
}

fn write_account(out: &mut Vec<u8>, row: &AccountRow) {
    number(out, 1, u64::from(row.minute));
    let texts: [&str; 4] = [&row.node, &row.agent, &row.stage, &row.reason];
    for (field, text) in (2..).zip(texts) {
        bytes(out, field, text.as_bytes());
    }
    number(out, 6, row.spans);
    number(out, 7, row.bytes);
}

fn read_account(mut fields: Reader<'_>) -> Result<AccountRow, BundleError> {
    let (mut minute, mut spans, mut size) = (0, 0, 0);
    let mut texts: [&[u8]; 4] = [&[]; 4];
    while !fields.is_empty() {
        let key = fields.key()?;
        match split(key) {
            (1, VARINT) => minute = narrow(fields.varint()?, "a minute")?,
            (2, LEN) => texts[0] = fields.bytes()?,
            (3, LEN) => texts[1] = fields.bytes()?,
            (4, LEN) => texts[2] = fields.bytes()?,
            (5, LEN) => texts[3] = fields.bytes()?,
            (6, VARINT) => spans = fields.varint()?,
            (7, VARINT) => size = fields.varint()?,
            _ => fields.skip(key)?,
        }
    }
    let [node, agent, stage, reason] = texts.map(utf8);
    let text = |text: Option<&str>| {
        text.map(str::to_owned)
            .ok_or(BundleError::OutOfRange("a text of an account"))
    };
    Ok(AccountRow {
        minute,
        node: text(node)?.into(),
        agent: text(agent)?.into(),
        stage: text(stage)?.into(),
        reason: text(reason)?.into(),
        spans,
        bytes: size,
    })
}

fn narrow<T: TryFrom<u64>>(value: u64, what: &'static str) -> Result<T, BundleError> {
    T::try_from(value).map_err(|_| BundleError::OutOfRange(what))
}

fn zigzag(n: i16) -> u64 {
    let n = i64::from(n);
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

fn unzigzag(n: u64) -> Option<i16> {
    let n = (n >> 1).cast_signed() ^ -((n & 1).cast_signed());
    i16::try_from(n).ok()
}
