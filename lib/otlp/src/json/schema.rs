//! The messages of an `ExportTraceServiceRequest`: JSON names, field numbers and types.

/// A message type.
pub(super) struct Message {
    pub fields: &'static [Field],
    /// Whether it holds one of its fields at most.
    pub oneof: bool,
    /// Whether spans are below it.
    pub leads_to_spans: bool,
}

/// A field of a message.
pub(super) struct Field {
    pub name: &'static str,
    pub number: u32,
    pub kind: Kind,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    String,
    Strings,
    /// An id, in hexadecimal: OTLP's own rule.
    Hex,
    /// Other bytes, in base64.
    Base64,
    Bool,
    Int64,
    UInt32,
    Enum,
    Fixed32,
    Fixed64,
    Double,
    One(&'static Message),
    Many(&'static Message),
}

use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int64, Many, One, UInt32};

const fn field(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { name, number, kind }
}

const fn message(fields: &'static [Field]) -> Message {
    Message {
        fields,
        oneof: false,
        leads_to_spans: false,
    }
}

const fn leading_to_spans(fields: &'static [Field]) -> Message {
    Message {
        leads_to_spans: true,
        ..message(fields)
    }
}

pub(super) static REQUEST: Message =
    leading_to_spans(&[field(1, "resourceSpans", Many(&RESOURCE_SPANS))]);

static RESOURCE_SPANS: Message = leading_to_spans(&[
    field(1, "resource", One(&RESOURCE)),
    field(2, "scopeSpans", Many(&SCOPE_SPANS)),
    field(3, "schemaUrl", Kind::String),
]);

static RESOURCE: Message = message(&[
    field(1, "attributes", Many(&KEY_VALUE)),
    field(2, "droppedAttributesCount", UInt32),
    field(3, "entityRefs", Many(&ENTITY_REF)),
]);

static ENTITY_REF: Message = message(&[
    field(1, "schemaUrl", Kind::String),
    field(2, "type", Kind::String),
    field(3, "idKeys", Kind::Strings),
    field(4, "descriptionKeys", Kind::Strings),
]);

static SCOPE_SPANS: Message = leading_to_spans(&[
    field(1, "scope", One(&SCOPE)),
    field(2, "spans", Many(&SPAN)),
    field(3, "schemaUrl", Kind::String),
]);

static SCOPE: Message = message(&[
    field(1, "name", Kind::String),
    field(2, "version", Kind::String),
    field(3, "attributes", Many(&KEY_VALUE)),
    field(4, "droppedAttributesCount", UInt32),
]);

static SPAN: Message = message(&[
    field(1, "traceId", Hex),
    field(2, "spanId", Hex),
    field(3, "traceState", Kind::String),
    field(4, "parentSpanId", Hex),
    field(5, "name", Kind::String),
    field(6, "kind", Enum),
    field(7, "startTimeUnixNano", Fixed64),
    field(8, "endTimeUnixNano", Fixed64),
    field(9, "attributes", Many(&KEY_VALUE)),
    field(10, "droppedAttributesCount", UInt32),
    field(11, "events", Many(&EVENT)),
    field(12, "droppedEventsCount", UInt32),
    field(13, "links", Many(&LINK)),
    field(14, "droppedLinksCount", UInt32),
    field(15, "status", One(&STATUS)),
    field(16, "flags", Fixed32),
]);

static EVENT: Message = message(&[
    field(1, "timeUnixNano", Fixed64),
    field(2, "name", Kind::String),
    field(3, "attributes", Many(&KEY_VALUE)),
    field(4, "droppedAttributesCount", UInt32),
]);

static LINK: Message = message(&[
    field(1, "traceId", Hex),
    field(2, "spanId", Hex),
    field(3, "traceState", Kind::String),
    field(4, "attributes", Many(&KEY_VALUE)),
    field(5, "droppedAttributesCount", UInt32),
    field(6, "flags", Fixed32),
]);

static STATUS: Message = message(&[field(2, "message", Kind::String), field(3, "code", Enum)]);

static KEY_VALUE: Message = message(&[
    field(1, "key", Kind::String),
    field(2, "value", One(&ANY_VALUE)),
]);

/// `AnyValue.doubleValue`, which also takes what `intValue` cannot hold.
pub(super) const DOUBLE_VALUE: u32 = 4;

static ANY_VALUE: Message = Message {
    fields: &[
        field(1, "stringValue", Kind::String),
        field(2, "boolValue", Bool),
        field(3, "intValue", Int64),
        field(DOUBLE_VALUE, "doubleValue", Double),
        field(5, "arrayValue", One(&ARRAY_VALUE)),
        field(6, "kvlistValue", One(&KEY_VALUE_LIST)),
        field(7, "bytesValue", Base64),
    ],
    oneof: true,
    leads_to_spans: false,
};

static ARRAY_VALUE: Message = message(&[field(1, "values", Many(&ANY_VALUE))]);

static KEY_VALUE_LIST: Message = message(&[field(1, "values", Many(&KEY_VALUE))]);
