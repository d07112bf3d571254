//! The measures of a batch: RED cells, half-edges and accounts.

use spanloom_otlp::record::{SpanKind, StatusCode};
use std::ops::Range;

use super::accounts::{AccountRow, Accounts};
use super::dictionary::Dictionary;
use super::hours::Hours;
use super::native;
use super::nested::date_time;
use crate::schema::spans::{KIND, STATUS};
use crate::schema::tables::{CONNECTION, SIDE};

/// Spans of one minute, service, name, kind and status.
#[derive(Debug, Clone, Copy)]
pub struct RedRow<'a> {
    /// Start of the minute, seconds since the Unix epoch.
    pub minute: u32,
    /// The service.
    pub service: &'a str,
    /// The span name.
    pub name: &'a str,
    /// The span kind.
    pub kind: SpanKind,
    /// The span status.
    pub status: StatusCode,
    /// Number of spans.
    pub count: u64,
    /// Sum of their durations.
    pub duration_sum_ns: u64,
    /// The shortest of them.
    pub duration_min_ns: u64,
    /// The longest of them.
    pub duration_max_ns: u64,
    /// Spans by bucket; key k holds durations in (2 ms·2^((k-1)/8), 2 ms·2^(k/8)].
    pub buckets: &'a [(i16, u64)],
}

/// What lies between the ends of a call, by the column's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)] // as in the schema
pub enum ConnectionType {
    #[default]
    Unset = 0,
    MessagingSystem = 1,
    Database = 2,
    VirtualNode = 3,
}

/// A text of a block, by its number: many rows share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text(u32);

/// A span as the end of a call: as the parent of others, as the child of another, or both. `T` is
/// a text, or one that the block knows already ([`MeasureBlock::text`]).
#[derive(Debug, Clone, Copy)]
pub struct HalfEdgeRow<T> {
    /// Start of the span, nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The trace; for a link the trace that is linked to.
    pub trace_id: [u8; 16],
    /// The span's id.
    pub span_id: [u8; 8],
    /// The id of its parent, or of the span that is linked to; zeros where no call can come from there.
    pub parent_span_id: [u8; 8],
    /// The span's kind.
    pub kind: SpanKind,
    /// The span's service.
    pub service: T,
    /// The span's duration.
    pub duration_ns: u64,
    /// Whether its status is an error.
    pub error: bool,
    /// What a client calls the other end; empty when unknown.
    pub peer: T,
    /// What lies between.
    pub connection_type: ConnectionType,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Red {
    pub(super) minute: u32,
    pub(super) service: u32,
    pub(super) name: u32,
    pub(super) kind: u8,
    pub(super) status: u8,
    pub(super) count: u64,
    pub(super) sum: u64,
    pub(super) least: u64,
    pub(super) greatest: u64,
    buckets_end: usize,
}

#[derive(Debug, Clone, Copy)]
struct Half {
    time: i64,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent_span_id: [u8; 8],
    service: u32,
    peer: u32,
    duration_ns: u64,
    kind: u8,
    error: u8,
    connection: u8,
}

/// The rows of `red`, `red_hours`, `half_edges` and `accounts` that go with a batch.
#[derive(Debug, Default)]
pub struct MeasureBlock {
    texts: Dictionary,
    red: Vec<Red>,
    hours: Hours,
    buckets: Vec<(i16, u64)>,
    halves: Vec<Half>,
    accounts: Accounts,
}

impl MeasureBlock {
    /// Adds a RED cell.
    pub fn push_red(&mut self, row: &RedRow<'_>) {
        self.buckets.extend_from_slice(row.buckets);
        let red = Red {
            minute: row.minute,
            service: self.texts.intern(row.service.as_bytes()),
            name: self.texts.intern(row.name.as_bytes()),
            kind: row.kind as u8,
            status: row.status as u8,
            count: row.count,
            sum: row.duration_sum_ns,
            least: row.duration_min_ns,
            greatest: row.duration_max_ns,
            buckets_end: self.buckets.len(),
        };
        self.hours.add(&red, row.buckets);
        self.red.push(red);
    }

    /// The number of a text in this block, until it is cleared.
    pub fn text(&mut self, text: &str) -> Text {
        Text(self.texts.intern(text.as_bytes()))
    }

    /// Makes room for so many half-edges.
    pub fn reserve_halves(&mut self, count: usize) {
        self.halves.reserve(count);
    }

    /// Adds a half-edge.
    pub fn push_half(&mut self, row: &HalfEdgeRow<&str>) {
        let row = HalfEdgeRow {
            time_ns: row.time_ns,
            trace_id: row.trace_id,
            span_id: row.span_id,
            parent_span_id: row.parent_span_id,
            kind: row.kind,
            service: self.text(row.service),
            duration_ns: row.duration_ns,
            error: row.error,
            peer: self.text(row.peer),
            connection_type: row.connection_type,
        };
        self.push_half_known(&row);
    }

    /// Adds a half-edge whose texts are numbers of this block.
    #[inline]
    pub fn push_half_known(&mut self, row: &HalfEdgeRow<Text>) {
        self.halves.push(Half {
            time: date_time(row.time_ns),
            trace_id: row.trace_id,
            span_id: row.span_id,
            parent_span_id: row.parent_span_id,
            service: row.service.0,
            peer: row.peer.0,
            duration_ns: row.duration_ns,
            kind: row.kind as u8,
            error: u8::from(row.error),
            connection: row.connection_type as u8,
        });
    }

    /// Adds what became of some spans.
    pub fn account(&mut self, row: AccountRow<'_>) {
        self.accounts.push(&row);
    }

    /// RED cells.
    pub fn red_rows(&self) -> usize {
        self.red.len()
    }

    /// RED cells by the hour.
    pub fn red_hours_rows(&self) -> usize {
        self.hours.len()
    }

    /// Half-edges.
    pub fn half_edge_rows(&self) -> usize {
        self.halves.len()
    }

    /// Rows of accounts.
    pub fn account_rows(&self) -> usize {
        self.accounts.len()
    }

    /// Memory that the rows use.
    pub fn bytes(&self) -> usize {
        self.texts.bytes()
            + self.red.len() * size_of::<Red>()
            + self.hours.bytes()
            + self.buckets.len() * size_of::<(i16, u64)>()
            + self.halves.len() * size_of::<Half>()
            + self.accounts.bytes()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.texts.capacity()
            + self.red.capacity() * size_of::<Red>()
            + self.hours.capacity()
            + self.buckets.capacity() * size_of::<(i16, u64)>()
            + self.halves.capacity() * size_of::<Half>()
            + self.accounts.capacity()
    }

    pub(crate) fn clear(&mut self) {
        self.texts.clear();
        self.red.clear();
        self.hours.clear();
        self.buckets.clear();
        self.halves.clear();
        self.accounts.clear();
    }

    pub(crate) fn write_accounts(&self, range: Range<usize>, out: &mut Vec<u8>) {
        self.accounts.write(range, out);
    }

    pub(crate) fn write_red_hours(&self, range: Range<usize>, out: &mut Vec<u8>) {
        self.hours.write(range, &self.texts, out);
    }

    pub(crate) fn write_red(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let before = range.start.checked_sub(1).and_then(|row| self.red.get(row));
        let before = before.map_or(0, |red| red.buckets_end);
        let rows = self.red.get(range).unwrap_or_default();
        let after = rows.last().map_or(before, |red| red.buckets_end);
        let buckets = self.buckets.get(before..after).unwrap_or_default();
        native::block(out, RED_COLUMNS.len(), rows.len());
        native::column(out, "minute", "DateTime");
        native::all(out, rows.iter().map(|red| red.minute));
        self.texts
            .write_column(out, "service", rows.iter().map(|red| red.service));
        self.texts
            .write_column(out, "name", rows.iter().map(|red| red.name));
        native::column(out, "kind", KIND);
        native::all(out, rows.iter().map(|red| red.kind));
        native::column(out, "status", STATUS);
        native::all(out, rows.iter().map(|red| red.status));
        native::column(out, "count", "UInt64");
        native::all(out, rows.iter().map(|red| red.count));
        native::column(out, "duration_sum_ns", "UInt64");
        native::all(out, rows.iter().map(|red| red.sum));
        native::column(out, "buckets", "Map(Int16, UInt64)");
        native::offsets(out, before, rows.iter().map(|red| red.buckets_end));
        native::all(out, buckets.iter().map(|bucket| bucket.0));
        native::all(out, buckets.iter().map(|bucket| bucket.1));
        native::column(out, "duration_min_ns", "UInt64");
        native::all(out, rows.iter().map(|red| red.least));
        native::column(out, "duration_max_ns", "UInt64");
        native::all(out, rows.iter().map(|red| red.greatest));
        native::column(out, "in_hours", "UInt8");
        native::all(out, rows.iter().map(|_| 1_u8));
    }

    pub(crate) fn write_half_edges(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let rows = self.halves.get(range).unwrap_or_default();
        native::block(out, HALF_EDGE_COLUMNS.len(), rows.len());
        native::column(out, "time", "DateTime64(9)");
        native::all(out, rows.iter().map(|half| half.time));
        native::column(out, "trace_id", "FixedString(16)");
        native::all(out, rows.iter().map(|half| half.trace_id));
        native::column(out, "span_id", "FixedString(8)");
        native::all(out, rows.iter().map(|half| half.span_id));
        native::column(out, "side", SIDE);
        native::all(out, rows.iter().map(|_| SIDE_SPAN));
        self.texts
            .write_column(out, "service", rows.iter().map(|half| half.service));
        native::column(out, "duration_ns", "UInt64");
        native::all(out, rows.iter().map(|half| half.duration_ns));
        native::column(out, "error", "Bool");
        native::all(out, rows.iter().map(|half| half.error));
        self.texts
            .write_column(out, "peer", rows.iter().map(|half| half.peer));
        native::column(out, "connection_type", CONNECTION);
        native::all(out, rows.iter().map(|half| half.connection));
        native::column(out, "parent_span_id", "FixedString(8)");
        native::all(out, rows.iter().map(|half| half.parent_span_id));
        native::column(out, "kind", KIND);
        native::all(out, rows.iter().map(|half| half.kind));
    }
}

/// The columns that [`MeasureBlock::write_red`] writes.
pub(crate) const RED_COLUMNS: [&str; 11] = [
    "minute",
    "service",
    "name",
    "kind",
    "status",
    "count",
    "duration_sum_ns",
    "buckets",
    "duration_min_ns",
    "duration_max_ns",
    "in_hours",
];

/// The columns that [`MeasureBlock::write_half_edges`] writes.
pub(crate) const HALF_EDGE_COLUMNS: [&str; 11] = [
    "time",
    "trace_id",
    "span_id",
    "side",
    "service",
    "duration_ns",
    "error",
    "peer",
    "connection_type",
    "parent_span_id",
    "kind",
];

/// The side of all rows; the others are of earlier writers.
const SIDE_SPAN: u8 = 3;
