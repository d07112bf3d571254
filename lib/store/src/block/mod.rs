//! Batches of spans as ClickHouse columns.
//!
//! [`SpanBlock`] takes what the pipeline made of each span and keeps columns, not spans: texts that
//! repeat become numbers, what a resource and scope have in common is kept once. Frozen, a batch is
//! one compressed block of ClickHouse's Native format for each table, with the token under which it
//! is inserted; nothing of that changes any more, however often it is sent. The same spans under the same
//! [`BatchId`] give the same blocks and tokens, in another process too.

mod accounts;
mod compress;
mod dictionary;
mod frozen;
mod hours;
mod id;
mod keys;
mod measures;
mod native;
mod nested;
mod out;
mod pool;
mod spans;
mod strings;
pub(crate) mod tags;
mod traces;

use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink, Value};
use spanloom_otlp::value_json;
use std::sync::Arc;

use self::keys::{Keys, Place};
use self::nested::date_time;
use self::out::Out;
use self::spans::{CurrentResource, Row};
use self::tags::{Held, Scope, Tags};
use crate::tag_cache::Verdict;

pub use self::accounts::AccountRow;
pub(crate) use self::frozen::FrozenTable;
pub use self::frozen::{Frozen, TableId};
pub use self::id::BatchId;
pub use self::measures::{ConnectionType, HalfEdgeRow, MeasureBlock, RedRow, Text};
pub(crate) use self::pool::Parts;
pub use self::pool::{BlockPool, BlockPoolOptions};

/// The service of the operator's probes. Their spans are in `spans` and nowhere else: neither in the
/// trace index nor in the tag catalogue.
pub const PROBE_SERVICE: &str = "spanloom-probe";

/// Builds batches; one for each worker.
#[derive(Debug)]
pub struct SpanBlock {
    id: BatchId,
    pool: Arc<BlockPool>,
    parts: Parts,
    keys: Keys,
    current: CurrentResource,
    held: Held,
    /// The current resource is a probe's.
    probe: bool,
    scratch: Vec<u8>,
}

/// A batch that no more is added to, but for its measures.
#[derive(Debug)]
pub struct SealedBlock {
    id: BatchId,
    pool: Arc<BlockPool>,
    parts: Parts,
}

impl SealedBlock {
    /// The measures that go with the batch.
    pub fn measures(&mut self) -> &mut MeasureBlock {
        &mut self.parts.measures
    }

    /// Writes and compresses the batch's blocks. It takes milliseconds: long for whoever answers requests.
    pub fn freeze(self) -> Frozen {
        Frozen::new(self.id, self.pool, self.parts)
    }
}

impl SpanBlock {
    /// A builder whose memory comes from `pool` and goes back there once a batch is stored.
    pub fn new(pool: &Arc<BlockPool>) -> Self {
        Self {
            id: BatchId::random(),
            parts: pool.take(),
            keys: Keys::new(pool.tags().state.clone()),
            pool: Arc::clone(pool),
            current: CurrentResource::default(),
            held: Held::default(),
            probe: false,
            scratch: Vec::new(),
        }
    }

    /// The columns of `spans` that a block writes, in its order; all others have defaults.
    pub fn column_names() -> Vec<&'static str> {
        spans::column_names()
    }

    /// The id of the batch that is being built.
    pub fn batch_id(&self) -> BatchId {
        self.id
    }

    /// The batch that is being built is one that was built before, and had this id.
    pub fn set_batch_id(&mut self, id: BatchId) {
        self.id = id;
    }

    /// Spans held.
    pub fn rows(&self) -> usize {
        self.parts.spans.rows.len()
    }

    /// Memory that the batch uses, the measures included.
    pub fn bytes(&self) -> usize {
        self.parts.bytes() + self.keys.bytes()
    }

    /// The measures that go with this batch.
    pub fn measures(&mut self) -> &mut MeasureBlock {
        &mut self.parts.measures
    }

    /// Appends the `spans` rows of a range as one uncompressed Native block.
    pub fn write_native(&self, range: std::ops::Range<usize>, out: &mut Vec<u8>) {
        self.parts.spans.write(range, &mut Out::plain(out));
    }

    /// The batch, frozen at once ([`seal`](Self::seal)).
    pub fn freeze(&mut self) -> Frozen {
        self.seal().freeze()
    }

    /// Takes the batch out and leaves the builder empty, with a new id. The next span needs its
    /// resource and scope again.
    pub fn seal(&mut self) -> SealedBlock {
        self.leave_out_known_tags();
        let parts = std::mem::replace(&mut self.parts, self.pool.take());
        let id = std::mem::replace(&mut self.id, BatchId::random());
        self.keys.next_block();
        self.current = CurrentResource::default();
        self.held.clear();
        SealedBlock {
            id,
            pool: Arc::clone(&self.pool),
            parts,
        }
    }

    fn leave_out_known_tags(&mut self) {
        let Self {
            pool, parts, keys, ..
        } = self;
        let metrics = &pool.tags().metrics;
        let rows = &parts.tags.rows;
        let asked = rows
            .iter()
            .map(|tag| (tag.hash, tag.key_hash, tag.has_value()));
        let mut verdicts = pool.tags().check(asked).into_iter();
        parts.tags.rows.retain(|tag| {
            let verdict = verdicts.next().unwrap_or(Verdict::New);
            if verdict == Verdict::TooMany {
                metrics.high_cardinality.inc();
                if let Some(key) = keys.key(tag.number) {
                    key.tag.high_until = key.tag.high_until.max(tag.day());
                }
            }
            verdict == Verdict::New
        });
        metrics.batch_full.inc_by(parts.tags.refused);
    }
}

impl SpanSink for SpanBlock {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.held.clear();
        self.probe = resource.service == PROBE_SERVICE;
        self.held
            .replace(&mut self.keys, Scope::Resource, resource.attributes);
        self.parts
            .spans
            .resource(&mut self.current, resource, &mut self.scratch);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.held
            .replace(&mut self.keys, Scope::Instrumentation, scope.attributes);
        self.parts
            .spans
            .scope(&self.current, scope, &mut self.scratch);
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        let Parts {
            spans,
            traces,
            tags,
            ..
        } = &mut self.parts;
        let group = spans.current_group();
        let mut row = Row {
            time: date_time(span.start_ns),
            duration_ns: span.duration_ns,
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            group,
            name: spans.names.intern(span.name.as_bytes()),
            flags: span.flags,
            dropped_attributes: span.dropped_attributes_count,
            dropped_events: span.dropped_events_count,
            dropped_links: span.dropped_links_count,
            kind: span.kind as u8,
            status: span.status as u8,
            ..Row::default()
        };
        let day = traces::day(row.time);
        let state = &self.pool.tags().state;
        let mut listed = if self.probe { None } else { Some(tags) };
        if let Some(tags) = &mut listed {
            self.held.note(tags, state, &mut self.keys, day);
        }
        let mut attributes = Attributes {
            tags: listed.as_deref_mut(),
            keys: &mut self.keys,
            scratch: &mut self.scratch,
        };
        let texts = attributes.add(spans, &mut row, span, (state, day));
        for event in span.events {
            spans.events.push(event, &mut self.scratch);
            if let Some(tags) = &mut listed {
                tags.add_all((state, &mut self.keys), Scope::Event, day, event.attributes);
            }
        }
        for link in span.links {
            spans.links.push(link, &mut self.scratch);
            if let Some(tags) = &mut listed {
                tags.add_all((state, &mut self.keys), Scope::Link, day, link.attributes);
            }
        }
        if listed.is_some() {
            traces.add(&row, spans.group(group).service);
        }
        spans.push_row(row, [span.status_message, span.trace_state], texts);
    }
}

/// What a span's attributes are written with.
struct Attributes<'b> {
    /// None for spans that are not listed.
    tags: Option<&'b mut Tags>,
    keys: &'b mut Keys,
    scratch: &'b mut Vec<u8>,
}

impl Attributes<'_> {
    /// Puts a span's attributes into the columns, except for the promoted texts, which are returned.
    #[inline]
    fn add<'a>(
        &mut self,
        spans: &mut spans::SpanColumns,
        row: &mut Row,
        span: &SpanRecord<'a>,
        (state, day): (&foldhash::fast::RandomState, u16),
    ) -> [&'a str; spans::TEXTS] {
        let keys = &mut *self.keys;
        let mut texts = [""; spans::TEXTS];
        keys.restart();
        for attribute in span.attributes {
            let number = keys.intern(attribute.key.as_bytes());
            if let Some(tags) = &mut self.tags {
                tags.add((state, keys), number, Scope::Span, day, &attribute.value);
            }
            let place = keys.key(number).map_or(Place::Map, |key| key.place);
            match (attribute.value, place) {
                (Value::Str(text), Place::Name(column))
                    if !text.is_empty() && row.promoted.get(column) == Some(&0) =>
                {
                    if let Some(promoted) = row.promoted.get_mut(column) {
                        *promoted = spans.promote(column, text);
                    }
                }
                (Value::Str(text), Place::Text(column))
                    if !text.is_empty() && texts.get(column) == Some(&"") =>
                {
                    if let Some(promoted) = texts.get_mut(column) {
                        *promoted = text;
                    }
                }
                (Value::Int(code @ 1..=0xFFFF), Place::Code(column))
                    if row.codes.get(column) == Some(&0) =>
                {
                    if let Some(promoted) = row.codes.get_mut(column) {
                        *promoted = code as u16;
                    }
                }
                (Value::Str(text), _) => spans.push_str(keys, number, text),
                (Value::Int(value), _) => spans.push_int(keys, number, value),
                (Value::Double(value), _) => spans.push_double(keys, number, value),
                (Value::Bool(true), _) => spans.push_other(keys, number, b"true"),
                (Value::Bool(false), _) => spans.push_other(keys, number, b"false"),
                (other, _) => {
                    self.scratch.clear();
                    value_json::write_value(self.scratch, &other);
                    spans.push_other(keys, number, self.scratch);
                }
            }
        }
        texts
    }
}

#[cfg(test)]
mod bench;
