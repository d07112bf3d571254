//! OTLP spans as Tempo writes them in JSON: protobuf's own mapping, unlike OTLP's. Ids are base64, enums are
//! their names, 64-bit integers are strings, and what has its default is left out.

use std::fmt::Display;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::Link};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value as Json, json};

/// An object that leaves out what has its default. It is written as it is made: a trace has many.
struct Object<M>(M);

impl<M: SerializeMap> Object<M> {
    fn text(&mut self, key: &'static str, text: &str) -> Result<(), M::Error> {
        match text {
            "" => Ok(()),
            text => self.0.serialize_entry(key, text),
        }
    }

    fn bytes(&mut self, key: &'static str, bytes: &[u8]) -> Result<(), M::Error> {
        match bytes {
            [] => Ok(()),
            bytes => self.0.serialize_entry(key, &Base64(bytes)),
        }
    }

    /// An integer of 32 bits.
    fn number(&mut self, key: &'static str, number: u32) -> Result<(), M::Error> {
        match number {
            0 => Ok(()),
            number => self.0.serialize_entry(key, &number),
        }
    }

    /// An integer of 64 bits.
    fn integer(&mut self, key: &'static str, number: u64) -> Result<(), M::Error> {
        match number {
            0 => Ok(()),
            number => self.0.serialize_entry(key, &Digits(number)),
        }
    }

    fn list<T>(&mut self, key: &'static str, items: &[T]) -> Result<(), M::Error>
    where
        for<'a> Of<'a, T>: Serialize,
    {
        match items {
            [] => Ok(()),
            items => self.0.serialize_entry(key, &List(items)),
        }
    }
}

/// A message of OTLP, to be written.
pub struct Of<'a, T>(pub &'a T);

/// Writes a message. Neither it nor a vector can fail: there are no maps with keys that are no texts.
pub fn write<'a, T>(message: &'a T, bytes: &mut Vec<u8>)
where
    Of<'a, T>: Serialize,
{
    let length = bytes.len();
    if serde_json::to_writer(&mut *bytes, &Of(message)).is_err() {
        bytes.truncate(length);
        bytes.extend_from_slice(b"{}");
    }
}

struct List<'a, T>(&'a [T]);

impl<'a, T> Serialize for List<'a, T>
where
    Of<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Of))
    }
}

struct Digits<T>(T);

impl<T: Display> Serialize for Digits<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Base64<'a>(&'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

impl Serialize for Of<'_, Resource> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.list("attributes", &self.0.attributes)?;
        object.number("droppedAttributesCount", self.0.dropped_attributes_count)?;
        object.0.end()
    }
}

impl Serialize for Of<'_, InstrumentationScope> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.text("name", &self.0.name)?;
        object.text("version", &self.0.version)?;
        object.list("attributes", &self.0.attributes)?;
        object.number("droppedAttributesCount", self.0.dropped_attributes_count)?;
        object.0.end()
    }
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

/// The name of a number; nothing for 0, which is left out.
fn name_of(names: &[&'static str], number: i32) -> &'static str {
    let place = usize::try_from(number).ok().filter(|place| *place > 0);
    let name = place.and_then(|place| names.get(place));
    name.copied().unwrap_or_default()
}

impl Serialize for Of<'_, Span> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(span) = self;
        let mut object = Object(serializer.serialize_map(None)?);
        object.bytes("traceId", &span.trace_id)?;
        object.bytes("spanId", &span.span_id)?;
        object.text("traceState", &span.trace_state)?;
        object.bytes("parentSpanId", &span.parent_span_id)?;
        object.number("flags", span.flags)?;
        object.text("name", &span.name)?;
        object.text("kind", name_of(&KINDS, span.kind))?;
        object.integer("startTimeUnixNano", span.start_time_unix_nano)?;
        object.integer("endTimeUnixNano", span.end_time_unix_nano)?;
        object.list("attributes", &span.attributes)?;
        object.number("droppedAttributesCount", span.dropped_attributes_count)?;
        object.list("events", &span.events)?;
        object.number("droppedEventsCount", span.dropped_events_count)?;
        object.list("links", &span.links)?;
        object.number("droppedLinksCount", span.dropped_links_count)?;
        if let Some(status) = &span.status {
            object.0.serialize_entry("status", &Of(status))?;
        }
        object.0.end()
    }
}

impl Serialize for Of<'_, Status> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.text("message", &self.0.message)?;
        object.text("code", name_of(&CODES, self.0.code))?;
        object.0.end()
    }
}

impl Serialize for Of<'_, Event> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut object = Object(serializer.serialize_map(None)?);
        object.integer("timeUnixNano", event.time_unix_nano)?;
        object.text("name", &event.name)?;
        object.list("attributes", &event.attributes)?;
        object.number("droppedAttributesCount", event.dropped_attributes_count)?;
        object.0.end()
    }
}

impl Serialize for Of<'_, Link> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(link) = self;
        let mut object = Object(serializer.serialize_map(None)?);
        object.bytes("traceId", &link.trace_id)?;
        object.bytes("spanId", &link.span_id)?;
        object.text("traceState", &link.trace_state)?;
        object.list("attributes", &link.attributes)?;
        object.number("droppedAttributesCount", link.dropped_attributes_count)?;
        object.number("flags", link.flags)?;
        object.0.end()
    }
}

impl Serialize for Of<'_, KeyValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const NONE: AnyValue = AnyValue { value: None };
        let value = self.0.value.as_ref().unwrap_or(&NONE);
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("key", &self.0.key)?;
        map.serialize_entry("value", &Of(value))?;
        map.end()
    }
}

/// A value: the one that is set is written, whatever it is.
impl Serialize for Of<'_, AnyValue> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.0.value {
            Some(Value::StringValue(text)) => map.serialize_entry("stringValue", text)?,
            Some(Value::BoolValue(value)) => map.serialize_entry("boolValue", value)?,
            Some(Value::IntValue(number)) => map.serialize_entry("intValue", &Digits(number))?,
            Some(Value::DoubleValue(number)) => {
                map.serialize_entry("doubleValue", &double(*number))?;
            }
            Some(Value::BytesValue(value)) => map.serialize_entry("bytesValue", &Base64(value))?,
            Some(Value::ArrayValue(array)) => {
                map.serialize_entry("arrayValue", &Values(&array.values))?;
            }
            Some(Value::KvlistValue(list)) => {
                map.serialize_entry("kvlistValue", &Values(&list.values))?;
            }
            // A number of a profile's dictionary, which spans do not have.
            None | Some(_) => {}
        }
        map.end()
    }
}

/// What an array or a map has.
struct Values<'a, T>(&'a [T]);

impl<T> Serialize for Values<'_, T>
where
    for<'a> Of<'a, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.list("values", self.0)?;
        object.0.end()
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
