//! OTLP spans as Tempo writes them in JSON: protobuf's own mapping, unlike OTLP's. Ids are base64, enums are
//! their names, 64-bit integers are strings, and what has its default is left out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::Link};
use serde_json::{Map, Value as Json, json};

/// An object that leaves out what has its default.
#[derive(Default)]
struct Object(Map<String, Json>);

impl Object {
    fn with(mut self, key: &str, value: impl Into<Json>) -> Self {
        let value = value.into();
        let is_default = match &value {
            Json::Null => true,
            Json::Bool(value) => !value,
            Json::Number(number) => number.as_f64() == Some(0.0),
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(_) => false,
        };
        if !is_default {
            self.0.insert(key.to_owned(), value);
        }
        self
    }

    fn list<T>(self, key: &str, items: &[T], one: impl Fn(&T) -> Json) -> Self {
        self.with(key, items.iter().map(one).collect::<Vec<_>>())
    }

    fn json(self) -> Json {
        Json::Object(self.0)
    }
}

/// A resource.
pub fn resource(resource: &Resource) -> Json {
    Object::default()
        .list("attributes", &resource.attributes, key_value)
        .with("droppedAttributesCount", resource.dropped_attributes_count)
        .json()
}

/// A scope.
pub fn scope(scope: &InstrumentationScope) -> Json {
    Object::default()
        .with("name", scope.name.as_str())
        .with("version", scope.version.as_str())
        .list("attributes", &scope.attributes, key_value)
        .with("droppedAttributesCount", scope.dropped_attributes_count)
        .json()
}

/// The names of OTLP's span kinds, by their numbers.
const KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

/// The names of OTLP's status codes, by their numbers.
const CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// The name of a number; 0 is left out.
fn name_of(names: &[&'static str], number: i32) -> Option<&'static str> {
    let place = usize::try_from(number).ok().filter(|place| *place > 0)?;
    names.get(place).copied()
}

/// A span.
pub fn span(span: &Span) -> Json {
    Object::default()
        .with("traceId", bytes(&span.trace_id))
        .with("spanId", bytes(&span.span_id))
        .with("traceState", span.trace_state.as_str())
        .with("parentSpanId", bytes(&span.parent_span_id))
        .with("flags", span.flags)
        .with("name", span.name.as_str())
        .with("kind", name_of(&KINDS, span.kind))
        .with("startTimeUnixNano", integer(span.start_time_unix_nano))
        .with("endTimeUnixNano", integer(span.end_time_unix_nano))
        .list("attributes", &span.attributes, key_value)
        .with("droppedAttributesCount", span.dropped_attributes_count)
        .list("events", &span.events, event)
        .with("droppedEventsCount", span.dropped_events_count)
        .list("links", &span.links, link)
        .with("droppedLinksCount", span.dropped_links_count)
        .with("status", span.status.as_ref().map(status))
        .json()
}

fn status(status: &Status) -> Json {
    Object::default()
        .with("message", status.message.as_str())
        .with("code", name_of(&CODES, status.code))
        .json()
}

fn event(event: &Event) -> Json {
    Object::default()
        .with("timeUnixNano", integer(event.time_unix_nano))
        .with("name", event.name.as_str())
        .list("attributes", &event.attributes, key_value)
        .with("droppedAttributesCount", event.dropped_attributes_count)
        .json()
}

fn link(link: &Link) -> Json {
    Object::default()
        .with("traceId", bytes(&link.trace_id))
        .with("spanId", bytes(&link.span_id))
        .with("traceState", link.trace_state.as_str())
        .list("attributes", &link.attributes, key_value)
        .with("droppedAttributesCount", link.dropped_attributes_count)
        .with("flags", link.flags)
        .json()
}

fn bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn integer(number: u64) -> Option<String> {
    (number != 0).then(|| number.to_string())
}

fn key_value(pair: &KeyValue) -> Json {
    let value = pair.value.as_ref().map_or_else(|| json!({}), any);
    json!({"key": pair.key, "value": value})
}

/// A value: the one that is set is written, whatever it is.
fn any(value: &AnyValue) -> Json {
    match &value.value {
        None => json!({}),
        Some(Value::StringValue(text)) => json!({"stringValue": text}),
        Some(Value::BoolValue(value)) => json!({"boolValue": value}),
        Some(Value::IntValue(number)) => json!({"intValue": number.to_string()}),
        Some(Value::DoubleValue(number)) => json!({"doubleValue": double(*number)}),
        Some(Value::BytesValue(value)) => json!({"bytesValue": bytes(value)}),
        Some(Value::ArrayValue(array)) => {
            json!({"arrayValue": Object::default().list("values", &array.values, any).json()})
        }
        Some(Value::KvlistValue(list)) => {
            json!({"kvlistValue": Object::default().list("values", &list.values, key_value).json()})
        }
        // A number of a profile's dictionary, which spans do not have.
        Some(_) => json!({}),
    }
}

/// A double; JSON has no word for those that are not numbers.
pub fn double(number: f64) -> Json {
    match number {
        _ if number.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        _ => json!(number),
    }
}
