//! Records back to OTLP.

use crate::record::{
    EventRecord, LinkRecord, ResourceRecord, ScopeRecord, SpanRecord, SpanSink, StatusCode,
};
use crate::write::{self, Mark};

/// A [`SpanSink`] that writes an `ExportTraceServiceRequest`.
///
/// What a [`SpanRecord`] does not hold is not sent. A resource or scope without spans after it is
/// written all the same.
#[derive(Debug, Default)]
pub struct OtlpSink {
    pub(crate) out: Vec<u8>,
    resource: Option<Mark>,
    scope: Option<Mark>,
}

impl OtlpSink {
    /// An empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that begins after what is in `out`.
    pub fn append_to(out: Vec<u8>) -> Self {
        Self {
            out,
            ..Self::default()
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The finished request.
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.close_resource();
        self.out
    }

    fn close_scope(&mut self) {
        if let Some(mark) = self.scope.take() {
            write::close(&mut self.out, mark);
        }
    }

    /// A scope or span without a resource gets an empty one.
    fn open_resource(&mut self) {
        if self.resource.is_none() {
            self.resource = Some(open_group(&mut self.out, 1));
        }
    }

    /// A span without a scope gets an empty one.
    #[cold]
    fn open_scope(&mut self) {
        self.open_resource();
        self.scope = Some(open_group(&mut self.out, 2));
    }

    fn close_resource(&mut self) {
        self.close_scope();
        if let Some(mark) = self.resource.take() {
            write::close(&mut self.out, mark);
        }
    }
}

impl SpanSink for OtlpSink {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.close_resource();
        let out = &mut self.out;
        self.resource = Some(open_group(out, 1));
        write::message(out, 1, |out| {
            write::attributes(out, 1, resource.attributes);
            count(out, 2, resource.dropped_attributes_count);
        });
        text(out, 3, resource.schema_url);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.close_scope();
        self.open_resource();
        let out = &mut self.out;
        self.scope = Some(open_group(out, 2));
        write::message(out, 1, |out| {
            text(out, 1, scope.name);
            text(out, 2, scope.version);
            write::attributes(out, 3, scope.attributes);
            count(out, 4, scope.dropped_attributes_count);
        });
        text(out, 3, scope.schema_url);
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        if self.scope.is_none() {
            self.open_scope();
        }
        let out = &mut self.out;
        // Most spans have 128 B to 16 KiB.
        let mark = write::open_with::<2>(out, 2);
        write::bytes(out, 1, &span.trace_id);
        write::bytes(out, 2, &span.span_id);
        text(out, 3, span.trace_state);
        if span.parent_span_id != [0; 8] {
            write::bytes(out, 4, &span.parent_span_id);
        }
        text(out, 5, span.name);
        count(out, 6, span.kind as u32);
        write::fixed64(out, 7, span.start_ns);
        write::fixed64(out, 8, span.start_ns.saturating_add(span.duration_ns));
        write::attributes(out, 9, span.attributes);
        count(out, 10, span.dropped_attributes_count);
        for item in span.events {
            write::message(out, 11, |out| event(out, item));
        }
        count(out, 12, span.dropped_events_count);
        for item in span.links {
            write::message(out, 13, |out| link(out, item));
        }
        count(out, 14, span.dropped_links_count);
        if !span.status_message.is_empty() || span.status != StatusCode::Unset {
            write::message(out, 15, |out| {
                text(out, 2, span.status_message);
                count(out, 3, span.status as u32);
            });
        }
        if span.flags != 0 {
            write::fixed32(out, 16, span.flags);
        }
        write::close(out, mark);
    }
}

/// Begins the spans of a resource or scope, mostly 16 KiB to 2 MiB of them.
fn open_group(out: &mut Vec<u8>, field: u32) -> Mark {
    write::open_with::<3>(out, field)
}

fn event(out: &mut Vec<u8>, event: &EventRecord<'_>) {
    write::fixed64(out, 1, event.time_ns);
    text(out, 2, event.name);
    write::attributes(out, 3, event.attributes);
    count(out, 4, event.dropped_attributes_count);
}

fn link(out: &mut Vec<u8>, link: &LinkRecord<'_>) {
    write::bytes(out, 1, &link.trace_id);
    write::bytes(out, 2, &link.span_id);
    text(out, 3, link.trace_state);
    write::attributes(out, 4, link.attributes);
    count(out, 5, link.dropped_attributes_count);
    if link.flags != 0 {
        write::fixed32(out, 6, link.flags);
    }
}

/// A number, left out where zero.
#[inline]
fn count(out: &mut Vec<u8>, field: u32, n: u32) {
    if n != 0 {
        write::uint(out, field, u64::from(n));
    }
}

/// Text, left out where empty.
#[inline]
fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        write::bytes(out, field, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Attr, SpanKind, StatusCode, Value};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
    use prost::Message as _;

    fn plain() -> SpanRecord<'static> {
        SpanRecord {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent_span_id: [0; 8],
            trace_state: "",
            flags: 0,
            name: "",
            kind: SpanKind::Unspecified,
            start_ns: 5,
            duration_ns: 7,
            status: StatusCode::Unset,
            status_message: "",
            attributes: &[],
            dropped_attributes_count: 0,
            events: &[],
            dropped_events_count: 0,
            links: &[],
            dropped_links_count: 0,
        }
    }

    #[test]
    fn every_field_is_sent() {
        let attributes = [Attr {
            key: "k",
            value: Value::Int(-1),
        }];
        let long = "x".repeat(300);
        let mut sink = OtlpSink::new();
        assert!(sink.is_empty());
        for n in 1..=2 {
            sink.resource(&ResourceRecord {
                service: "s",
                attributes: &attributes,
                dropped_attributes_count: n,
                schema_url: "resource-url",
            });
            for version in ["1", "2"] {
                sink.scope(&ScopeRecord {
                    name: &long,
                    version,
                    attributes: &attributes,
                    dropped_attributes_count: 3,
                    schema_url: "scope-url",
                });
                sink.span(&plain());
            }
        }
        let event = EventRecord {
            time_ns: 9,
            name: "event",
            attributes: &attributes,
            dropped_attributes_count: 4,
        };
        let link = LinkRecord {
            trace_id: [3; 16],
            span_id: [4; 8],
            trace_state: "b=2",
            flags: 1,
            attributes: &attributes,
            dropped_attributes_count: 5,
        };
        sink.span(&SpanRecord {
            parent_span_id: [5; 8],
            trace_state: "a=1",
            flags: 257,
            name: &long,
            kind: SpanKind::Consumer,
            status: StatusCode::Error,
            status_message: "why",
            attributes: &attributes,
            dropped_attributes_count: 6,
            events: &[event, event],
            dropped_events_count: 7,
            links: &[link],
            dropped_links_count: 8,
            ..plain()
        });
        let bytes = sink.into_bytes();
        let request = ExportTraceServiceRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(request.resource_spans.len(), 2);
        let resource = &request.resource_spans[1];
        assert_eq!(resource.schema_url, "resource-url");
        assert_eq!(
            resource.resource.as_ref().unwrap().dropped_attributes_count,
            2
        );
        let [first, scope] = resource.scope_spans.as_slice() else {
            panic!("two scopes")
        };
        assert_eq!(
            (first.spans.len(), scope.schema_url.as_str()),
            (1, "scope-url")
        );
        let head = scope.scope.as_ref().unwrap();
        assert_eq!(
            (head.name.as_str(), head.version.as_str()),
            (long.as_str(), "2")
        );
        let [bare, span] = scope.spans.as_slice() else {
            panic!("two spans")
        };
        assert_eq!(
            (bare.parent_span_id.len(), bare.status.is_none()),
            (0, true)
        );
        assert_eq!(
            (span.start_time_unix_nano, span.end_time_unix_nano),
            (5, 12)
        );
        assert_eq!(
            (span.kind, span.flags, span.parent_span_id.len()),
            (5, 257, 8)
        );
        assert_eq!(
            (span.name.as_str(), span.trace_state.as_str()),
            (long.as_str(), "a=1")
        );
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "why"));
        let value = span.attributes[0].value.as_ref().unwrap().value.as_ref();
        assert_eq!(value, Some(&AnyOf::IntValue(-1)));
        assert_eq!(span.dropped_attributes_count, 6);
        assert_eq!((span.events.len(), span.dropped_events_count), (2, 7));
        assert_eq!(
            (span.events[1].time_unix_nano, span.events[1].name.as_str()),
            (9, "event")
        );
        assert_eq!((span.links.len(), span.dropped_links_count), (1, 8));
        let link = &span.links[0];
        assert_eq!((link.flags, link.trace_state.as_str()), (1, "b=2"));
        assert_eq!(link.dropped_attributes_count, 5);
    }
}
