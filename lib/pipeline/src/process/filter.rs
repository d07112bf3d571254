//! A span as TraceQL filters see it, before redaction and cuts.

use spanloom_otlp::nested::Nested;
use spanloom_otlp::record::{Attr, RawValue, SpanKind, SpanRecord, StatusCode, Value};
use spanloom_traceql::{Array, AttributeScope, ChildField, Kind, Scalar, Span, Status, ValueRef};

use super::span::{RawOwner, Scratch};
use super::text;

/// A span that a filter may drop.
pub(super) struct Candidate<'c, 'r> {
    pub(super) owner: &'c RawOwner<'r>,
    pub(super) record: &'c SpanRecord<'r>,
    pub(super) scratch: &'c Scratch<'r>,
}

/// An array value, read in place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Items<'a>(Nested<'a>);

impl Array for Items<'_> {
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        // An array was read through when it was collected: nothing is left out here.
        self.0
            .array_items()
            .map_while(Result::ok)
            .any(|item| test(raw_scalar(item)))
    }
}

fn raw_scalar(value: RawValue<'_>) -> Scalar<'_> {
    match value {
        Value::Str(bytes) => text::utf8(bytes).map_or(Scalar::Other, Scalar::Str),
        Value::Bool(bool) => Scalar::Bool(bool),
        Value::Int(int) => Scalar::Int(int),
        Value::Double(double) => Scalar::Float(double),
        Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::KvList(_) => Scalar::Other,
    }
}

fn value<'a>(value: Value<'a>) -> Option<ValueRef<'a, Items<'a>>> {
    let scalar = match value {
        Value::Empty => return None,
        Value::Array(items) => return Some(ValueRef::Array(Items(items))),
        Value::Str(text) => Scalar::Str(text),
        Value::Bool(bool) => Scalar::Bool(bool),
        Value::Int(int) => Scalar::Int(int),
        Value::Double(double) => Scalar::Float(double),
        Value::Bytes(_) | Value::KvList(_) => Scalar::Other,
    };
    Some(ValueRef::One(scalar))
}

fn find<'a>(attributes: &[Attr<'a>], key: &str) -> Option<ValueRef<'a, Items<'a>>> {
    value(
        attributes
            .iter()
            .find(|attribute| attribute.key == key)?
            .value,
    )
}

fn test_all(
    found: Option<ValueRef<'_, Items<'_>>>,
    test: &mut dyn FnMut(Scalar<'_>) -> bool,
) -> bool {
    match found {
        None => false,
        Some(ValueRef::One(scalar)) => test(scalar),
        Some(ValueRef::Array(items)) => items.any(test),
    }
}

impl<'r> Candidate<'_, 'r> {
    fn inner(&self, start: usize, end: usize) -> &[Attr<'r>] {
        self.scratch.inner.get(start..end).unwrap_or_default()
    }
}

impl Span for Candidate<'_, '_> {
    type Array<'a>
        = Items<'a>
    where
        Self: 'a;

    fn name(&self) -> &str {
        self.record.name
    }

    fn status(&self) -> Status {
        match self.record.status {
            StatusCode::Unset => Status::Unset,
            StatusCode::Ok => Status::Ok,
            StatusCode::Error => Status::Error,
        }
    }

    fn status_message(&self) -> &str {
        self.record.status_message
    }

    fn kind(&self) -> Kind {
        match self.record.kind {
            SpanKind::Unspecified => Kind::Unspecified,
            SpanKind::Internal => Kind::Internal,
            SpanKind::Server => Kind::Server,
            SpanKind::Client => Kind::Client,
            SpanKind::Producer => Kind::Producer,
            SpanKind::Consumer => Kind::Consumer,
        }
    }

    fn duration_ns(&self) -> u64 {
        self.record.duration_ns
    }

    fn trace_id(&self) -> &[u8] {
        &self.record.trace_id
    }

    fn span_id(&self) -> &[u8] {
        &self.record.span_id
    }

    fn parent_span_id(&self) -> &[u8] {
        &self.record.parent_span_id
    }

    fn scope_name(&self) -> &str {
        self.owner.scope_name
    }

    fn scope_version(&self) -> &str {
        self.owner.scope_version
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Items<'_>>> {
        match scope {
            AttributeScope::Span => find(&self.scratch.attributes, key),
            AttributeScope::Resource => find(self.owner.resource, key),
            AttributeScope::Instrumentation => find(self.owner.scope, key),
        }
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        let (events, links) = (&self.scratch.events, &self.scratch.links);
        match field {
            ChildField::EventName => events
                .iter()
                .any(|event| test(Scalar::Str(event.record.name))),
            ChildField::EventTimeSinceStart => events.iter().any(|event| {
                let since = i128::from(event.record.time_ns) - i128::from(self.record.start_ns);
                let clamped = since.clamp(i64::MIN.into(), i64::MAX.into());
                test(Scalar::Int(clamped as i64))
            }),
            ChildField::EventAttribute(key) => events
                .iter()
                .any(|event| test_all(find(self.inner(event.start, event.end), key), test)),
            ChildField::LinkTraceId => links
                .iter()
                .any(|link| test(Scalar::Id(&link.record.trace_id))),
            ChildField::LinkSpanId => links
                .iter()
                .any(|link| test(Scalar::Id(&link.record.span_id))),
            ChildField::LinkAttribute(key) => links
                .iter()
                .any(|link| test_all(find(self.inner(link.start, link.end), key), test)),
        }
    }
}
