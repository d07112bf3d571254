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

use crate::ids::unhex;
use crate::params::{SPAN_KINDS, SPAN_STATUSES};
use crate::trace::span;
use crate::trace::value::{Attribute, ValueType, double_of};

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

/// A span of the trace `trace_id`.
pub fn span_of(trace_id: [u8; 16], stored: span::Span) -> Span {
    let start = stored.start_unix_nano.parse().unwrap_or(0_u64);
    let duration = stored.duration_ns.parse().unwrap_or(0_u64);
    let number = |names: &[&str], name: &str| {
        let place = names.iter().position(|known| *known == name).unwrap_or(0);
        i32::try_from(place).unwrap_or(0)
    };
    Span {
        trace_id: trace_id.to_vec(),
        span_id: unhex::<8>(&stored.span_id).to_vec(),
        trace_state: stored.trace_state,
        parent_span_id: stored
            .parent_span_id
            .as_deref()
            .map(|id| unhex::<8>(id).to_vec())
            .unwrap_or_default(),
        flags: stored.flags,
        name: stored.name,
        kind: number(&SPAN_KINDS, &stored.kind),
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(duration),
        attributes: attributes(&stored.attributes),
        dropped_attributes_count: stored.dropped_attributes_count,
        events: stored.events.into_iter().map(event_of).collect(),
        dropped_events_count: stored.dropped_events_count,
        links: stored.links.into_iter().map(link_of).collect(),
        dropped_links_count: stored.dropped_links_count,
        // Grafana reads it without a look.
        status: Some(Status {
            message: stored.status_message,
            code: number(&SPAN_STATUSES, &stored.status),
        }),
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
