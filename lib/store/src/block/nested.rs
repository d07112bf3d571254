//! Events and links of a block's spans.

use spanloom_otlp::record::{EventRecord, LinkRecord};
use spanloom_otlp::value_json;
use std::ops::Range;

use super::dictionary::Dictionary;
use super::native;
use super::out::Out;
use super::strings::Strings;
use crate::schema::spans::{EVENTS, LINKS};

#[derive(Debug, Clone, Copy)]
struct Event {
    time: i64,
    name: u32,
    dropped: u32,
    attributes_end: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u32,
    dropped: u32,
    state_end: usize,
    attributes_end: usize,
}

/// The `events` column.
#[derive(Debug, Default)]
pub(crate) struct Events {
    rows: Vec<Event>,
    names: Dictionary,
    attributes: Strings,
}

/// The `links` column.
#[derive(Debug, Default)]
pub(crate) struct Links {
    rows: Vec<Link>,
    states: Strings,
    attributes: Strings,
}

/// Nanoseconds as `DateTime64(9)` holds them.
#[inline]
pub(crate) fn date_time(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

impl Events {
    pub(crate) fn push(&mut self, event: &EventRecord<'_>, scratch: &mut Vec<u8>) {
        scratch.clear();
        value_json::write_attributes(scratch, event.attributes);
        self.attributes.push(scratch);
        self.rows.push(Event {
            time: date_time(event.time_ns),
            name: self.names.intern(event.name.as_bytes()),
            dropped: event.dropped_attributes_count,
            attributes_end: self.attributes.end(),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.names.clear();
        self.attributes.clear();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Event>() + self.names.bytes() + self.attributes.end()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Event>()
            + self.names.capacity()
            + self.attributes.capacity()
    }

    /// The column of spans whose last events end at `ends`; `before` is where the first one begins.
    pub(crate) fn write(
        &self,
        out: &mut Out<'_>,
        before: usize,
        ends: impl ExactSizeIterator<Item = usize> + Clone,
    ) {
        let after = ends.clone().last().unwrap_or(before);
        let rows = self.rows.get(before..after).unwrap_or_default();
        native::column(out.buffer(), "events", EVENTS);
        native::low_cardinality_version(out.buffer());
        native::offsets(out.buffer(), before, ends);
        native::all(out.buffer(), rows.iter().map(|event| event.time));
        self.names
            .write_data(out.buffer(), rows.iter().map(|event| event.name));
        let range = bytes_of(before..after, |i| Some(self.rows.get(i)?.attributes_end));
        self.attributes.write(out, range.start, range.end);
        native::all(out.buffer(), rows.iter().map(|event| event.dropped));
    }
}

impl Links {
    pub(crate) fn push(&mut self, link: &LinkRecord<'_>, scratch: &mut Vec<u8>) {
        scratch.clear();
        value_json::write_attributes(scratch, link.attributes);
        self.attributes.push(scratch);
        self.states.push(link.trace_state.as_bytes());
        self.rows.push(Link {
            trace_id: link.trace_id,
            span_id: link.span_id,
            flags: link.flags,
            dropped: link.dropped_attributes_count,
            state_end: self.states.end(),
            attributes_end: self.attributes.end(),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.states.clear();
        self.attributes.clear();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Link>() + self.states.end() + self.attributes.end()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Link>()
            + self.states.capacity()
            + self.attributes.capacity()
    }

    /// As [`Events::write`].
    pub(crate) fn write(
        &self,
        out: &mut Out<'_>,
        before: usize,
        ends: impl ExactSizeIterator<Item = usize> + Clone,
    ) {
        let after = ends.clone().last().unwrap_or(before);
        let rows = self.rows.get(before..after).unwrap_or_default();
        native::column(out.buffer(), "links", LINKS);
        native::offsets(out.buffer(), before, ends);
        native::all(out.buffer(), rows.iter().map(|link| link.trace_id));
        native::all(out.buffer(), rows.iter().map(|link| link.span_id));
        let states = bytes_of(before..after, |i| Some(self.rows.get(i)?.state_end));
        self.states.write(out, states.start, states.end);
        native::all(out.buffer(), rows.iter().map(|link| link.flags));
        let attributes = bytes_of(before..after, |i| Some(self.rows.get(i)?.attributes_end));
        self.attributes.write(out, attributes.start, attributes.end);
        native::all(out.buffer(), rows.iter().map(|link| link.dropped));
    }
}

/// Where the values of a range of rows lie, by where each row's values end.
#[inline]
pub(crate) fn bytes_of(
    rows: Range<usize>,
    end_of: impl Fn(usize) -> Option<usize>,
) -> Range<usize> {
    let before = |row: usize| row.checked_sub(1).and_then(&end_of).unwrap_or(0);
    let start = before(rows.start);
    let end = if rows.is_empty() {
        start
    } else {
        before(rows.end)
    };
    start..end
}
