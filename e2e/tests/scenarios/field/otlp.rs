//! OTLP requests, written once as JSON: sent so, or as the protobuf of the same fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// How a request is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Protobuf,
}

impl Form {
    /// For names that tell the two forms' spans apart.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    pub fn encode(self, request: &Value) -> Vec<u8> {
        match self {
            Self::Json => request.to_string().into_bytes(),
            Self::Protobuf => message("Request", request),
        }
    }
}

/// A resource's spans, of a scope with one attribute.
pub fn resource_spans(attributes: Vec<Value>, spans: &[Value]) -> Value {
    let scope = json!({"name": "field", "attributes": [attribute("scope.key", text("in scope"))]});
    json!({
        "resource": {"attributes": attributes},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    })
}

pub fn attribute(key: &str, value: Value) -> Value {
    json!({"key": key, "value": value})
}

/// Attributes with text as their values.
pub fn texts(pairs: &[(&str, &str)]) -> Value {
    pairs
        .iter()
        .map(|(key, value)| attribute(key, text(value)))
        .collect()
}

pub fn text(value: &str) -> Value {
    json!({"stringValue": value})
}

pub fn int(value: i64) -> Value {
    json!({"intValue": value.to_string()})
}

pub fn double(value: f64) -> Value {
    json!({"doubleValue": value})
}

pub fn boolean(value: bool) -> Value {
    json!({"boolValue": value})
}

pub fn bytes(value: &[u8]) -> Value {
    json!({"bytesValue": STANDARD.encode(value)})
}

pub fn array(values: &[Value]) -> Value {
    json!({"arrayValue": {"values": values}})
}

pub fn map(pairs: &[(&str, Value)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(key, value)| attribute(key, value.clone()));
    json!({"kvlistValue": {"values": pairs.collect::<Vec<_>>()}})
}

/// How a field is written.
enum Wire {
    Message(&'static str),
    Text,
    /// Hexadecimal in JSON.
    Id,
    /// Base64 in JSON.
    Bytes,
    Varint,
    Fixed64,
    Double,
}

/// A field's number and how it is written, from opentelemetry-proto.
fn field(of: &str, name: &str) -> (u64, Wire) {
    match (of, name) {
        ("Request", "resourceSpans") => (1, Wire::Message("ResourceSpans")),
        ("ResourceSpans", "resource") => (1, Wire::Message("Resource")),
        ("ResourceSpans", "scopeSpans") => (2, Wire::Message("ScopeSpans")),
        ("ResourceSpans" | "ScopeSpans", "schemaUrl") => (3, Wire::Text),
        ("Resource", "attributes") => (1, Wire::Message("KeyValue")),
        ("ScopeSpans", "scope") => (1, Wire::Message("Scope")),
        ("ScopeSpans", "spans") => (2, Wire::Message("Span")),
        ("Scope", "name") => (1, Wire::Text),
        ("Scope", "version") => (2, Wire::Text),
        ("Scope", "attributes") => (3, Wire::Message("KeyValue")),
        ("Span" | "Link", "traceId") => (1, Wire::Id),
        ("Span" | "Link", "spanId") => (2, Wire::Id),
        ("Span" | "Link", "traceState") => (3, Wire::Text),
        ("Span", "parentSpanId") => (4, Wire::Id),
        ("Span", "name") => (5, Wire::Text),
        ("Span", "kind") => (6, Wire::Varint),
        ("Span", "startTimeUnixNano") => (7, Wire::Fixed64),
        ("Span", "endTimeUnixNano") => (8, Wire::Fixed64),
        ("Span", "attributes") => (9, Wire::Message("KeyValue")),
        ("Span", "events") => (11, Wire::Message("Event")),
        ("Span", "links") => (13, Wire::Message("Link")),
        ("Span", "status") => (15, Wire::Message("Status")),
        ("Event", "timeUnixNano") => (1, Wire::Fixed64),
        ("Event", "name") => (2, Wire::Text),
        ("Event", "attributes") => (3, Wire::Message("KeyValue")),
        ("Link", "attributes") => (4, Wire::Message("KeyValue")),
        ("Status", "message") => (2, Wire::Text),
        ("Status", "code") => (3, Wire::Varint),
        ("KeyValue", "key") => (1, Wire::Text),
        ("KeyValue", "value") => (2, Wire::Message("AnyValue")),
        ("AnyValue", "stringValue") => (1, Wire::Text),
        ("AnyValue", "boolValue") => (2, Wire::Varint),
        ("AnyValue", "intValue") => (3, Wire::Varint),
        ("AnyValue", "doubleValue") => (4, Wire::Double),
        ("AnyValue", "arrayValue") => (5, Wire::Message("ArrayValue")),
        ("AnyValue", "kvlistValue") => (6, Wire::Message("KeyValueList")),
        ("AnyValue", "bytesValue") => (7, Wire::Bytes),
        ("ArrayValue", "values") => (1, Wire::Message("AnyValue")),
        ("KeyValueList", "values") => (1, Wire::Message("KeyValue")),
        other => panic!("{other:?} is not in the table"),
    }
}

fn message(of: &str, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().unwrap() {
        let (number, wire) = field(of, name);
        let one = std::slice::from_ref(value);
        for value in value.as_array().map_or(one, Vec::as_slice) {
            write_field(&mut out, number, &wire, value);
        }
    }
    out
}

fn write_field(out: &mut Vec<u8>, number: u64, wire: &Wire, value: &Value) {
    let string = || value.as_str().unwrap();
    let delimited = match wire {
        Wire::Message(of) => message(of, value),
        Wire::Text => string().as_bytes().to_vec(),
        Wire::Id => unhex(string()),
        Wire::Bytes => STANDARD.decode(string()).unwrap(),
        Wire::Varint => {
            varint(out, number << 3);
            return varint(out, integer(value));
        }
        Wire::Fixed64 => {
            varint(out, number << 3 | 1);
            return out.extend(integer(value).to_le_bytes());
        }
        Wire::Double => {
            varint(out, number << 3 | 1);
            return out.extend(value.as_f64().unwrap().to_le_bytes());
        }
    };
    varint(out, number << 3 | 2);
    varint(out, delimited.len() as u64);
    out.extend(delimited);
}

/// A number, the text of one, or a boolean.
fn integer(value: &Value) -> u64 {
    match value {
        Value::String(text) => text
            .parse()
            .or_else(|_| text.parse().map(i64::cast_unsigned))
            .unwrap(),
        Value::Bool(value) => u64::from(*value),
        other => other.as_u64().unwrap(),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let number = u128::from_str_radix(text, 16).unwrap();
    number.to_be_bytes()[16 - text.len() / 2..].to_vec()
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
