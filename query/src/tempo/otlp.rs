//! Spans of the store as OTLP has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event, span::Link};
use serde_json::Value as Json;

use crate::db::Text;
use crate::ids::unhex;
use crate::trace::rows::{self, SpanRow};
use crate::trace::span;
use crate::trace::value::{Attribute, TypedValue, ValueType, double_of};

const SERVICE_NAME: &str = "service.name";

/// A scope.
pub fn scope_of(scope: &span::Scope) -> InstrumentationScope {
    InstrumentationScope {
        name: scope.name.clone(),
        version: scope.version.clone(),
        attributes: attributes(&scope.attributes),
        dropped_attributes_count: scope.dropped_attributes_count,
    }
}

/// A resource, with the service that its spans are stored under where it has none.
///
/// Grafana drops the spans of a resource that has no attributes, so there is always a service.
pub fn resource_of(resource: &span::Resource, service: &str) -> Resource {
    let mut attributes = attributes(&resource.attributes);
    if !attributes.iter().any(|one| one.key == SERVICE_NAME) {
        attributes.push(KeyValue {
            key: SERVICE_NAME.to_owned(),
            value: Some(any(Value::StringValue(service.to_owned()))),
            ..KeyValue::default()
        });
    }
    Resource {
        attributes,
        dropped_attributes_count: resource.dropped_attributes_count,
        entity_refs: Vec::new(),
    }
}

/// The span of a row of the trace `trace_id`.
pub fn span_of(trace_id: [u8; 16], row: SpanRow) -> Span {
    let start = u64::try_from(row.start_ns).unwrap_or(0);
    let attributes = row_attributes(&row.promoted, &row.codes);
    let mut attributes: Vec<KeyValue> = attributes.collect();
    let strings = row.attr_str.into_iter();
    attributes.extend(strings.map(|(key, text)| pair(key.0, Value::StringValue(text.0))));
    let ints = row.attr_int.into_iter();
    attributes.extend(ints.map(|(key, number)| pair(key.0, Value::IntValue(number))));
    let doubles = row.attr_double.into_iter();
    attributes.extend(doubles.map(|(key, number)| pair(key.0, Value::DoubleValue(number))));
    let others = row.attr_other.into_iter();
    attributes.extend(others.map(|(key, json)| {
        let stored = TypedValue::stored(&json.0).under(String::new());
        KeyValue {
            key: key.0,
            value: Some(value(stored.r#type, &stored.value)),
            ..KeyValue::default()
        }
    }));
    attributes.sort_by(|one, other| one.key.cmp(&other.key));
    Span {
        trace_id: trace_id.to_vec(),
        span_id: row.span_id.to_vec(),
        trace_state: row.trace_state.0,
        parent_span_id: match row.parent_span_id {
            [0, 0, 0, 0, 0, 0, 0, 0] => Vec::new(),
            id => id.to_vec(),
        },
        flags: row.flags,
        name: row.name_text.0,
        kind: row.kind_number.into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(row.duration_ns),
        attributes,
        dropped_attributes_count: row.dropped_attributes_count,
        events: row
            .event_list
            .into_iter()
            .map(rows::event)
            .map(event_of)
            .collect(),
        dropped_events_count: row.dropped_events_count,
        links: row
            .link_list
            .into_iter()
            .map(rows::link)
            .map(link_of)
            .collect(),
        dropped_links_count: row.dropped_links_count,
        // Grafana reads it without a look.
        status: Some(Status {
            message: row.status_message.0,
            code: row.status_number.into(),
        }),
    }
}

/// The attributes that have columns.
fn row_attributes(texts: &[Text], codes: &[u16]) -> impl Iterator<Item = KeyValue> {
    let texts = rows::promoted_texts()
        .zip(texts)
        .filter(|(_, text)| !text.0.is_empty())
        .map(|(column, text)| pair(column.key.to_owned(), Value::StringValue(text.0.clone())));
    let codes = rows::promoted_codes()
        .zip(codes)
        .filter(|(_, code)| **code != 0)
        .map(|(column, code)| pair(column.key.to_owned(), Value::IntValue((*code).into())));
    texts.chain(codes)
}

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue {
        key,
        value: Some(any(value)),
        ..KeyValue::default()
    }
}

fn event_of(stored: span::Event) -> Event {
    Event {
        time_unix_nano: stored.time_unix_nano.parse().unwrap_or(0),
        name: stored.name,
        attributes: attributes(&stored.attributes),
        dropped_attributes_count: stored.dropped_attributes_count,
    }
}

fn link_of(stored: span::Link) -> Link {
    Link {
        trace_id: unhex::<16>(&stored.trace_id).to_vec(),
        span_id: unhex::<8>(&stored.span_id).to_vec(),
        trace_state: stored.trace_state,
        attributes: attributes(&stored.attributes),
        dropped_attributes_count: stored.dropped_attributes_count,
        flags: stored.flags,
    }
}

fn attributes(stored: &[Attribute]) -> Vec<KeyValue> {
    let one = |attribute: &Attribute| KeyValue {
        key: attribute.key.clone(),
        value: Some(value(attribute.r#type, &attribute.value)),
        ..KeyValue::default()
    };
    stored.iter().map(one).collect()
}

fn any(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

/// A value as our own API writes it.
fn value(r#type: ValueType, json: &Json) -> AnyValue {
    let text = || json.as_str().unwrap_or_default();
    let items = || json.as_array().into_iter().flatten();
    any(match r#type {
        ValueType::String => Value::StringValue(text().to_owned()),
        ValueType::Int => Value::IntValue(text().parse().unwrap_or(0)),
        ValueType::Double => Value::DoubleValue(double_of(json)),
        ValueType::Bool => Value::BoolValue(json.as_bool().unwrap_or(false)),
        ValueType::Bytes => Value::BytesValue(STANDARD.decode(text()).unwrap_or_default()),
        ValueType::Array => Value::ArrayValue(ArrayValue {
            values: items().map(typed).collect(),
        }),
        ValueType::Kvlist => Value::KvlistValue(KeyValueList {
            values: items()
                .map(|item| KeyValue {
                    key: item
                        .get("key")
                        .and_then(Json::as_str)
                        .unwrap_or_default()
                        .to_owned(),
                    value: Some(typed(item)),
                    ..KeyValue::default()
                })
                .collect(),
        }),
        ValueType::Empty => return AnyValue { value: None },
    })
}

fn typed(item: &Json) -> AnyValue {
    let null = Json::Null;
    let r#type = item
        .get("type")
        .and_then(Json::as_str)
        .and_then(ValueType::named);
    value(
        r#type.unwrap_or(ValueType::Empty),
        item.get("value").unwrap_or(&null),
    )
}
