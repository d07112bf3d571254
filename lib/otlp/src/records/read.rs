//! Records to spans.

use thiserror::Error;

use super::{OWN, VERSION};
use crate::error::{DecodeError, DecodeErrorKind};
use crate::ids::{self, TraceId};
use crate::nested;
use crate::record::{
    Attr, EventRecord, LinkRecord, ResourceRecord, ScopeRecord, SpanKind, SpanRecord, SpanSink,
    StatusCode, Value, service_of,
};
use crate::text;
use crate::view::{KeyValueView, ResourceSpansView, ScopeSpansView, SpanView, TracesView};
use crate::wire::{Reader, VARINT, key};

/// Why a span cannot be taken as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidSpan {
    /// The trace id is not 16 bytes, or zero.
    #[error("the trace id is zero or not 16 bytes long")]
    TraceId,
    /// The span id is not 8 bytes, or zero.
    #[error("the span id is zero or not 8 bytes long")]
    SpanId,
    /// The parent's id is neither empty nor 8 bytes.
    #[error("the parent span id is neither empty nor 8 bytes long")]
    ParentSpanId,
    /// A link's ids are not of the right lengths, or zero.
    #[error("the ids of a link are zero or not 16 and 8 bytes long")]
    Link,
    /// Its attributes, events or links cannot be read.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Why bytes cannot be read as records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordsError {
    /// They do not begin with a version.
    #[error("the bytes are not records: they do not begin with a version")]
    NoVersion,
    /// They are of a version that this program does not know.
    #[error("the records have version {0}, this program reads versions up to {VERSION}")]
    Version(u64),
    /// They are not protobuf, or a resource or scope is invalid.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A span is invalid.
    #[error("span {number} of the records is invalid: {what}")]
    Span {
        /// Which one, counted from 0; of those wanted, where only some are.
        number: u64,
        /// What is wrong with it.
        what: InvalidSpan,
    },
}

/// Hands what [`RecordWriter`](super::RecordWriter) has written to `sink`, and says how many spans it was.
///
/// After an error the sink has what came before it.
pub fn read<S: SpanSink>(records: &[u8], sink: &mut S) -> Result<u64, RecordsError> {
    strict(Walk::all(), records, sink)
}

/// The same for the spans of some traces only; says how many of them it was. A resource or scope that has none of
/// them is not handed on, and a span that is not wanted is hardly looked at.
pub fn pick<S: SpanSink>(
    records: &[u8],
    wanted: impl FnMut(TraceId) -> bool,
    sink: &mut S,
) -> Result<u64, RecordsError> {
    let walk = Walk {
        wanted: Some(wanted),
        spans: 0,
    };
    strict(walk, records, sink)
}

fn strict<S: SpanSink>(
    mut walk: Walk<impl FnMut(TraceId) -> bool>,
    records: &[u8],
    sink: &mut S,
) -> Result<u64, RecordsError> {
    check_version(records)?;
    walk.run(records, sink, |_, number, what| {
        Err(RecordsError::Span { number, what })
    })?;
    Ok(walk.spans)
}

/// The same for any `ExportTraceServiceRequest`: nothing in it is changed, and a span that cannot be taken
/// as it is goes to `refuse`.
pub fn read_request<S: SpanSink>(
    request: &[u8],
    sink: &mut S,
    mut refuse: impl FnMut(&mut S, InvalidSpan),
) -> Result<(), DecodeError> {
    Walk::all().run(request, sink, |sink, _, what| {
        refuse(sink, what);
        Ok(())
    })
}

/// Whether these bytes begin as [`RecordWriter`](super::RecordWriter) begins, with a version that can be read.
///
/// # Errors
/// [`RecordsError::NoVersion`] or [`RecordsError::Version`].
pub fn check_version(records: &[u8]) -> Result<(), RecordsError> {
    let mut reader = Reader::new(records, 0);
    if reader.key() != Ok(key(OWN, VARINT)) {
        return Err(RecordsError::NoVersion);
    }
    match reader.varint() {
        Ok(version @ 1..) if version <= u64::from(VERSION) => Ok(()),
        Ok(version) => Err(RecordsError::Version(version)),
        Err(_) => Err(RecordsError::NoVersion),
    }
}

/// One way through a request.
struct Walk<F> {
    /// Whose spans are handed on; none: everything is, resources and scopes without spans too.
    wanted: Option<F>,
    /// Spans handed on or refused.
    spans: u64,
}

impl Walk<fn(TraceId) -> bool> {
    fn all() -> Self {
        Self {
            wanted: None,
            spans: 0,
        }
    }
}

impl<F: FnMut(TraceId) -> bool> Walk<F> {
    fn run<S: SpanSink, E: From<DecodeError>>(
        &mut self,
        bytes: &[u8],
        sink: &mut S,
        mut refuse: impl FnMut(&mut S, u64, InvalidSpan) -> Result<(), E>,
    ) -> Result<(), E> {
        let texts = Texts { of: bytes };
        let (mut owner, mut lists) = (Vec::new(), Lists::default());
        for resource_spans in TracesView::new(bytes).resource_spans() {
            let resource_spans = resource_spans?;
            let mut resource_due = true;
            if self.wanted.is_none() {
                sink.resource(&texts.resource(&resource_spans, &mut owner)?);
                resource_due = false;
            }
            for scope_spans in resource_spans.scope_spans() {
                let scope_spans = scope_spans?;
                let mut scope_due = true;
                if self.wanted.is_none() {
                    sink.scope(&texts.scope(&scope_spans, &mut owner)?);
                    scope_due = false;
                }
                for span in scope_spans.spans() {
                    let span = span?;
                    if self.passes_over(&span) {
                        continue;
                    }
                    if std::mem::take(&mut resource_due) {
                        sink.resource(&texts.resource(&resource_spans, &mut owner)?);
                    }
                    if std::mem::take(&mut scope_due) {
                        sink.scope(&texts.scope(&scope_spans, &mut owner)?);
                    }
                    if let Err(what) = texts.span(&span, &mut lists, sink) {
                        refuse(sink, self.spans, what)?;
                    }
                    self.spans += 1;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn passes_over(&mut self, span: &SpanView<'_>) -> bool {
        let Some(wanted) = &mut self.wanted else {
            return false;
        };
        !TraceId::from_slice(span.trace_id).is_some_and(wanted)
    }
}

/// The lists of a span, used again for the next.
#[derive(Default)]
struct Lists<'a> {
    attributes: Vec<Attr<'a>>,
    /// Attributes of all events and links.
    inner: Vec<Attr<'a>>,
    /// Events and links without their attributes, and where these end in `inner`.
    events: Vec<(EventRecord<'a>, usize)>,
    links: Vec<(LinkRecord<'a>, usize)>,
    /// Empty: memory for the finished ones.
    event_records: Vec<EventRecord<'static>>,
    link_records: Vec<LinkRecord<'static>>,
}

/// Checks text, and says where in `of` it is not UTF-8.
#[derive(Clone, Copy)]
struct Texts<'a> {
    of: &'a [u8],
}

impl<'a> Texts<'a> {
    #[inline]
    fn text(self, bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        text::utf8(bytes).ok_or_else(|| self.not_utf8(bytes))
    }

    #[cold]
    fn not_utf8(self, bytes: &[u8]) -> DecodeError {
        DecodeError {
            kind: DecodeErrorKind::NotUtf8,
            offset: bytes.as_ptr().addr().wrapping_sub(self.of.as_ptr().addr()),
        }
    }

    fn resource<'l>(
        self,
        view: &ResourceSpansView<'a>,
        list: &'l mut Vec<Attr<'a>>,
    ) -> Result<ResourceRecord<'l>, DecodeError> {
        list.clear();
        self.attributes(view.resource.attributes(), list)?;
        let service = match self.text(view.service)? {
            "" => service_of(list),
            service => service,
        };
        Ok(ResourceRecord {
            service,
            attributes: list,
            dropped_attributes_count: view.resource.dropped_attributes_count,
            schema_url: self.text(view.schema_url)?,
        })
    }

    fn scope<'l>(
        self,
        view: &ScopeSpansView<'a>,
        list: &'l mut Vec<Attr<'a>>,
    ) -> Result<ScopeRecord<'l>, DecodeError> {
        list.clear();
        self.attributes(view.scope.attributes(), list)?;
        Ok(ScopeRecord {
            name: self.text(view.scope.name)?,
            version: self.text(view.scope.version)?,
            attributes: list,
            dropped_attributes_count: view.scope.dropped_attributes_count,
            schema_url: self.text(view.schema_url)?,
        })
    }

    #[inline]
    fn span<S: SpanSink>(
        self,
        view: &SpanView<'a>,
        lists: &mut Lists<'a>,
        sink: &mut S,
    ) -> Result<(), InvalidSpan> {
        let mut record = self.frame(view)?;
        lists.attributes.clear();
        self.attributes(view.attributes(), &mut lists.attributes)?;
        self.events_and_links(view, lists)?;
        record.attributes = &lists.attributes;
        if lists.events.is_empty() && lists.links.is_empty() {
            sink.span(&record);
            return Ok(());
        }
        let mut events = emptied(std::mem::take(&mut lists.event_records));
        let mut links = emptied(std::mem::take(&mut lists.link_records));
        let mut start = 0;
        for &(event, end) in &lists.events {
            let attributes = lists.inner.get(start..end).unwrap_or_default();
            events.push(EventRecord {
                attributes,
                ..event
            });
            start = end;
        }
        for &(link, end) in &lists.links {
            let attributes = lists.inner.get(start..end).unwrap_or_default();
            links.push(LinkRecord { attributes, ..link });
            start = end;
        }
        sink.span(&SpanRecord {
            events: &events,
            links: &links,
            ..record
        });
        lists.event_records = emptied(events);
        lists.link_records = emptied(links);
        Ok(())
    }

    /// What a span is without its lists.
    #[inline]
    fn frame(self, view: &SpanView<'a>) -> Result<SpanRecord<'a>, InvalidSpan> {
        Ok(SpanRecord {
            trace_id: ids::not_zero(view.trace_id).ok_or(InvalidSpan::TraceId)?,
            span_id: ids::not_zero(view.span_id).ok_or(InvalidSpan::SpanId)?,
            parent_span_id: match view.parent_span_id {
                [] => [0; 8],
                parent => parent.try_into().map_err(|_| InvalidSpan::ParentSpanId)?,
            },
            trace_state: self.text(view.trace_state)?,
            flags: view.flags,
            name: self.text(view.name)?,
            kind: SpanKind::from_i32(view.kind),
            start_ns: view.start_ns,
            duration_ns: view.end_ns.saturating_sub(view.start_ns),
            status: StatusCode::from_i32(view.status_code),
            status_message: self.text(view.status_message)?,
            attributes: &[],
            dropped_attributes_count: view.dropped_attributes_count,
            events: &[],
            dropped_events_count: view.dropped_events_count,
            links: &[],
            dropped_links_count: view.dropped_links_count,
        })
    }

    #[inline]
    fn events_and_links(
        self,
        view: &SpanView<'a>,
        lists: &mut Lists<'a>,
    ) -> Result<(), InvalidSpan> {
        lists.inner.clear();
        lists.events.clear();
        lists.links.clear();
        for event in view.events() {
            let event = event?;
            self.attributes(event.attributes(), &mut lists.inner)?;
            let record = EventRecord {
                time_ns: event.time_ns,
                name: self.text(event.name)?,
                attributes: &[],
                dropped_attributes_count: event.dropped_attributes_count,
            };
            lists.events.push((record, lists.inner.len()));
        }
        for link in view.links() {
            let link = link?;
            self.attributes(link.attributes(), &mut lists.inner)?;
            let record = LinkRecord {
                trace_id: ids::not_zero(link.trace_id).ok_or(InvalidSpan::Link)?,
                span_id: ids::not_zero(link.span_id).ok_or(InvalidSpan::Link)?,
                trace_state: self.text(link.trace_state)?,
                flags: link.flags,
                attributes: &[],
                dropped_attributes_count: link.dropped_attributes_count,
            };
            lists.links.push((record, lists.inner.len()));
        }
        Ok(())
    }

    #[inline]
    fn attributes(
        self,
        attributes: impl Iterator<Item = Result<KeyValueView<'a>, DecodeError>>,
        out: &mut Vec<Attr<'a>>,
    ) -> Result<(), DecodeError> {
        for attribute in attributes {
            let KeyValueView { key, value } = attribute?;
            if matches!(value, Value::Array(_) | Value::KvList(_)) {
                nested::check_depth(value)?;
            }
            out.push(Attr {
                key: self.text(key)?,
                value: value.try_map(|text| self.text(text))?,
            });
        }
        Ok(())
    }
}

/// The same memory for items that live as long as something else.
fn emptied<A, B>(mut items: Vec<A>) -> Vec<B> {
    items.clear();
    items.into_iter().filter_map(|_| None).collect()
}
