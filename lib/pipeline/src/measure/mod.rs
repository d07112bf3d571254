//! Measures: what is counted from every span before sampling, so that rates, percentiles and the
//! service graph do not depend on what is kept.
//!
//! They are gathered per batch and travel beside its spans, as a bundle of their own: it has a form as bytes
//! ([`bundle`]), and bundles from outside can be added to it ([`Recorder::merge`]). Texts (services, names, peers) are
//! kept once per batch and referred to by number.

mod account;
pub mod buckets;
pub mod bundle;
mod edges;
mod merge;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use spanloom_otlp::record::{SpanKind, SpanRecord, StatusCode};
use std::hash::BuildHasher;

pub use account::AccountRow;
pub use buckets::Counts;
pub use bundle::BundleError;
pub use edges::{ConnectionType, HalfEdge};
pub use merge::{LeftOut, MergeLimits};

const NS_PER_MINUTE: u64 = 60_000_000_000;

/// Memory of a text beside its content, roughly, and of a cell beside its counts.
const TEXT_BYTES: usize = 40;
const CELL_BYTES: usize = 160;

/// A text of a batch's measures, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextId(pub u32);

/// What one batch of spans adds to the rollups.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// The texts that [`TextId`]s name.
    pub texts: Vec<Box<str>>,
    /// Rate, errors, duration: one cell per minute, service, name, kind and status.
    pub red: Vec<RedCell>,
    /// The spans as ends of calls between services.
    pub half_edges: Vec<HalfEdge>,
    /// Where spans went, of this agent and of those that sent it theirs.
    pub accounts: Vec<AccountRow>,
}

impl Measures {
    /// The text with this number; empty for a number that is not of these measures.
    pub fn text(&self, id: TextId) -> &str {
        self.texts.get(id.0 as usize).map_or("", |text| text)
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.red.is_empty() && self.half_edges.is_empty() && self.accounts.is_empty()
    }
}

/// Spans of one minute, service, name, kind and status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedCell {
    /// Start of the minute, seconds since the Unix epoch. A span counts where it starts.
    pub minute: u32,
    /// The service.
    pub service: TextId,
    /// The span name.
    pub name: TextId,
    /// The span kind.
    pub kind: SpanKind,
    /// The span status.
    pub status: StatusCode,
    /// Number of spans.
    pub count: u64,
    /// Sum of their durations, nanoseconds.
    pub duration_sum_ns: u64,
    /// The shortest of them, nanoseconds.
    pub duration_min_ns: u64,
    /// The longest of them, nanoseconds.
    pub duration_max_ns: u64,
    /// Spans per [bucket](buckets).
    pub buckets: Counts,
}

/// Room is made for at most so many half-edges before they come.
const MAX_EXPECTED: usize = 65_536;

/// Gathers measures; one per worker, emptied with each batch.
#[derive(Debug, Default)]
pub struct Recorder {
    measures: Measures,
    text_ids: HashTable<TextId>,
    cells: HashMap<CellKey, u32, RandomState>,
    hasher: RandomState,
    /// Bytes of texts and of counts, to bound a batch's memory.
    own_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CellKey {
    minute: u32,
    service: TextId,
    name: TextId,
    kind: SpanKind,
    status: StatusCode,
}

impl Recorder {
    /// Counts a span of the service whose number [`Recorder::text`] gave.
    #[inline]
    pub fn span(&mut self, service: TextId, span: &SpanRecord<'_>) {
        self.red(service, span);
        edges::record(self, service, span);
    }

    /// The number of a text in this batch.
    #[inline]
    pub fn text(&mut self, text: &str) -> TextId {
        let texts = &mut self.measures.texts;
        let hash = self.hasher.hash_one(text);
        let same = |id: &TextId| {
            texts
                .get(id.0 as usize)
                .is_some_and(|known| **known == *text)
        };
        if let Some(id) = self.text_ids.find(hash, same) {
            return *id;
        }
        // A batch holds far fewer than 2^32 texts: its rows bound them.
        let id = TextId(texts.len() as u32);
        texts.push(text.into());
        self.own_bytes += text.len();
        let hasher = &self.hasher;
        self.text_ids.insert_unique(hash, id, |id| {
            hasher.hash_one(texts.get(id.0 as usize).map_or("", |text| text))
        });
        id
    }

    /// Memory held, in bytes, roughly.
    pub fn bytes(&self) -> usize {
        self.own_bytes
            + self.measures.texts.len() * TEXT_BYTES
            + self.measures.red.len() * CELL_BYTES
            + self.measures.half_edges.len() * size_of::<HalfEdge>()
    }

    /// Takes what was gathered, and leaves the recorder empty.
    pub fn take(&mut self) -> Measures {
        self.text_ids.clear();
        self.cells.clear();
        self.own_bytes = 0;
        edges::forget_inner_parents(&mut self.measures.half_edges);
        // The next batch is about as large as this one.
        let next = Measures {
            half_edges: Vec::with_capacity(self.measures.half_edges.len().min(MAX_EXPECTED)),
            ..Measures::default()
        };
        std::mem::replace(&mut self.measures, next)
    }

    #[inline]
    fn red(&mut self, service: TextId, span: &SpanRecord<'_>) {
        let name = self.text(span.name);
        // Saturates in the year 6053.
        let minute = u32::try_from(span.start_ns / NS_PER_MINUTE * 60).unwrap_or(u32::MAX);
        let key = CellKey {
            minute,
            service,
            name,
            kind: span.kind,
            status: span.status,
        };
        let grown = match self.cell(key) {
            Some(cell) => {
                cell.count += 1;
                cell.duration_sum_ns = cell.duration_sum_ns.saturating_add(span.duration_ns);
                cell.duration_min_ns = cell.duration_min_ns.min(span.duration_ns);
                cell.duration_max_ns = cell.duration_max_ns.max(span.duration_ns);
                cell.buckets.add(buckets::key_of(span.duration_ns))
            }
            None => 0,
        };
        self.own_bytes += grown;
    }

    /// The cell with this key, new or known; there always is one.
    #[inline]
    fn cell(&mut self, key: CellKey) -> Option<&mut RedCell> {
        let red = &mut self.measures.red;
        let index = *self.cells.entry(key).or_insert_with(|| {
            red.push(RedCell {
                minute: key.minute,
                service: key.service,
                name: key.name,
                kind: key.kind,
                status: key.status,
                count: 0,
                duration_sum_ns: 0,
                duration_min_ns: u64::MAX,
                duration_max_ns: 0,
                buckets: Counts::default(),
            });
            (red.len() - 1) as u32
        });
        red.get_mut(index as usize)
    }
}

#[cfg(test)]
mod tests;
