//! Spans, their events and links.

use super::sealed::Parse;
use super::{Attributes, Extent, Messages};
use crate::error::DecodeError;
use crate::wire::{FIXED32, FIXED64, LEN, Reader, VARINT, key};

/// A span. Ids are as sent: of any length.
#[derive(Debug, Clone, Copy)]
pub struct SpanView<'a> {
    /// The trace's id.
    pub trace_id: &'a [u8],
    /// The span's id.
    pub span_id: &'a [u8],
    /// The parent's id, empty for a root.
    pub parent_span_id: &'a [u8],
    /// W3C trace state.
    pub trace_state: &'a [u8],
    /// OTLP flags.
    pub flags: u32,
    /// The span's name.
    pub name: &'a [u8],
    /// The kind's number.
    pub kind: i32,
    /// Start, nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_ns: u64,
    /// Attributes that the sender left out.
    pub dropped_attributes_count: u32,
    /// Events that the sender left out.
    pub dropped_events_count: u32,
    /// Links that the sender left out.
    pub dropped_links_count: u32,
    /// The status code's number.
    pub status_code: i32,
    /// The status message.
    pub status_message: &'a [u8],
    attributes: Reader<'a>,
    events: Reader<'a>,
    links: Reader<'a>,
}

const TRACE_ID: u32 = key(1, LEN);
const SPAN_ID: u32 = key(2, LEN);
const TRACE_STATE: u32 = key(3, LEN);
const PARENT_SPAN_ID: u32 = key(4, LEN);
const NAME: u32 = key(5, LEN);
const KIND: u32 = key(6, VARINT);
const START: u32 = key(7, FIXED64);
const END: u32 = key(8, FIXED64);
const ATTRIBUTES: u32 = key(9, LEN);
const DROPPED_ATTRIBUTES: u32 = key(10, VARINT);
const EVENTS: u32 = key(11, LEN);
const DROPPED_EVENTS: u32 = key(12, VARINT);
const LINKS: u32 = key(13, LEN);
const DROPPED_LINKS: u32 = key(14, VARINT);
const STATUS: u32 = key(15, LEN);
const FLAGS: u32 = key(16, FIXED32);

const STATUS_MESSAGE: u32 = key(2, LEN);
const STATUS_CODE: u32 = key(3, VARINT);

impl<'a> SpanView<'a> {
    /// The attributes.
    #[inline]
    pub fn attributes(&self) -> Attributes<'a> {
        Messages::new(self.attributes, 9)
    }

    /// The events.
    #[inline]
    pub fn events(&self) -> Messages<'a, EventView<'a>> {
        Messages::new(self.events, 11)
    }

    /// The links.
    #[inline]
    pub fn links(&self) -> Messages<'a, LinkView<'a>> {
        Messages::new(self.links, 13)
    }

    fn merge_status(&mut self, mut fields: Reader<'a>) -> Result<(), DecodeError> {
        while !fields.is_empty() {
            match fields.key()? {
                STATUS_MESSAGE => self.status_message = fields.bytes()?,
                STATUS_CODE => self.status_code = fields.varint()? as i32,
                other => fields.unused(other, 0b1100)?,
            }
        }
        Ok(())
    }
}

impl<'a> Parse<'a> for SpanView<'a> {
    fn parse(whole: Reader<'a>) -> Result<Self, DecodeError> {
        let none = Reader::new(&[], 0);
        let mut span = Self {
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: &[],
            flags: 0,
            name: &[],
            kind: 0,
            start_ns: 0,
            end_ns: 0,
            dropped_attributes_count: 0,
            dropped_events_count: 0,
            dropped_links_count: 0,
            status_code: 0,
            status_message: &[],
            attributes: none,
            events: none,
            links: none,
        };
        let (mut attributes, mut events, mut links) = (Extent::NONE, Extent::NONE, Extent::NONE);
        let mut reader = whole;
        while !reader.is_empty() {
            let before = reader.left();
            match reader.key()? {
                TRACE_ID => span.trace_id = reader.bytes()?,
                SPAN_ID => span.span_id = reader.bytes()?,
                TRACE_STATE => span.trace_state = reader.bytes()?,
                PARENT_SPAN_ID => span.parent_span_id = reader.bytes()?,
                NAME => span.name = reader.bytes()?,
                KIND => span.kind = reader.varint()? as i32,
                START => span.start_ns = reader.fixed64()?,
                END => span.end_ns = reader.fixed64()?,
                ATTRIBUTES => {
                    reader.bytes()?;
                    // They come in a row.
                    while reader.short_item(ATTRIBUTES).is_some() {}
                    attributes.cover(before, reader.left());
                }
                DROPPED_ATTRIBUTES => span.dropped_attributes_count = reader.varint()? as u32,
                EVENTS => {
                    reader.bytes()?;
                    events.cover(before, reader.left());
                }
                DROPPED_EVENTS => span.dropped_events_count = reader.varint()? as u32,
                LINKS => {
                    reader.bytes()?;
                    links.cover(before, reader.left());
                }
                DROPPED_LINKS => span.dropped_links_count = reader.varint()? as u32,
                STATUS => span.merge_status(reader.message()?)?,
                FLAGS => span.flags = reader.fixed32()?,
                other => reader.unused(other, 0x1_fffe)?,
            }
        }
        span.attributes = attributes.of(whole);
        span.events = events.of(whole);
        span.links = links.of(whole);
        Ok(span)
    }
}

/// An event of a span.
#[derive(Debug, Clone, Copy)]
pub struct EventView<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The event's name.
    pub name: &'a [u8],
    /// Attributes that the sender left out.
    pub dropped_attributes_count: u32,
    attributes: Reader<'a>,
}

const EVENT_TIME: u32 = key(1, FIXED64);
const EVENT_NAME: u32 = key(2, LEN);
const EVENT_ATTRIBUTES: u32 = key(3, LEN);
const EVENT_DROPPED: u32 = key(4, VARINT);

impl<'a> EventView<'a> {
    /// The event's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Messages::new(self.attributes, 3)
    }
}

impl<'a> Parse<'a> for EventView<'a> {
    fn parse(whole: Reader<'a>) -> Result<Self, DecodeError> {
        let mut event = Self {
            time_ns: 0,
            name: &[],
            dropped_attributes_count: 0,
            attributes: whole,
        };
        let mut attributes = Extent::NONE;
        let mut reader = whole;
        while !reader.is_empty() {
            let before = reader.left();
            match reader.key()? {
                EVENT_TIME => event.time_ns = reader.fixed64()?,
                EVENT_NAME => event.name = reader.bytes()?,
                EVENT_ATTRIBUTES => {
                    reader.bytes()?;
                    attributes.cover(before, reader.left());
                }
                EVENT_DROPPED => event.dropped_attributes_count = reader.varint()? as u32,
                other => reader.unused(other, 0b1_1110)?,
            }
        }
        event.attributes = attributes.of(whole);
        Ok(event)
    }
}

/// A link to another span. Ids are as sent: of any length.
#[derive(Debug, Clone, Copy)]
pub struct LinkView<'a> {
    /// The linked trace.
    pub trace_id: &'a [u8],
    /// The linked span.
    pub span_id: &'a [u8],
    /// The link's W3C trace state.
    pub trace_state: &'a [u8],
    /// The link's flags.
    pub flags: u32,
    /// Attributes that the sender left out.
    pub dropped_attributes_count: u32,
    attributes: Reader<'a>,
}

const LINK_ATTRIBUTES: u32 = key(4, LEN);
const LINK_DROPPED: u32 = key(5, VARINT);
const LINK_FLAGS: u32 = key(6, FIXED32);

impl<'a> LinkView<'a> {
    /// The link's attributes.
    pub fn attributes(&self) -> Attributes<'a> {
        Messages::new(self.attributes, 4)
    }
}

impl<'a> Parse<'a> for LinkView<'a> {
    fn parse(whole: Reader<'a>) -> Result<Self, DecodeError> {
        let mut link = Self {
            trace_id: &[],
            span_id: &[],
            trace_state: &[],
            flags: 0,
            dropped_attributes_count: 0,
            attributes: whole,
        };
        let mut attributes = Extent::NONE;
        let mut reader = whole;
        while !reader.is_empty() {
            let before = reader.left();
            match reader.key()? {
                TRACE_ID => link.trace_id = reader.bytes()?,
                SPAN_ID => link.span_id = reader.bytes()?,
                TRACE_STATE => link.trace_state = reader.bytes()?,
                LINK_ATTRIBUTES => {
                    reader.bytes()?;
                    attributes.cover(before, reader.left());
                }
                LINK_DROPPED => link.dropped_attributes_count = reader.varint()? as u32,
                LINK_FLAGS => link.flags = reader.fixed32()?,
                other => reader.unused(other, 0b111_1110)?,
            }
        }
        link.attributes = attributes.of(whole);
        Ok(link)
    }
}
