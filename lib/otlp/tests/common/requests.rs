//! Requests made at random. The collector's tests use this file too.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        ".{0,40}".prop_map(|v| Some(AnyOf::StringValue(v))),
        any::<bool>().prop_map(|v| Some(AnyOf::BoolValue(v))),
        any::<i64>().prop_map(|v| Some(AnyOf::IntValue(v))),
        any::<f64>()
            .prop_filter("NaN equals nothing", |v| !v.is_nan())
            .prop_map(|v| Some(AnyOf::DoubleValue(v))),
        any::<Vec<u8>>().prop_map(|v| Some(AnyOf::BytesValue(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 16, 4, |inner| {
        let pair = (".{0,8}", prop::option::of(inner.clone())).prop_map(pair);
        prop_oneof![
            prop::collection::vec(inner, 0..4)
                .prop_map(|values| AnyOf::ArrayValue(ArrayValue { values })),
            prop::collection::vec(pair, 0..4)
                .prop_map(|values| AnyOf::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn pair((key, value): (String, Option<AnyValue>)) -> KeyValue {
    KeyValue {
        key,
        value,
        ..Default::default()
    }
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof!["[a-z.]{0,20}", ".{0,200}"];
    prop::collection::vec((key, prop::option::of(any_value())).prop_map(pair), 0..5)
}

fn event() -> impl Strategy<Value = Event> {
    (any::<u64>(), ".{0,10}", attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn id() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..20)
}

fn link() -> impl Strategy<Value = Link> {
    (
        id(),
        id(),
        ".{0,10}",
        attributes(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
                trace_id,
                span_id,
                trace_state,
                attributes,
                dropped_attributes_count,
                flags,
            },
        )
}

fn span() -> impl Strategy<Value = Span> {
    let texts = (id(), id(), id(), ".{0,10}", ".{0,300}");
    let numbers = (any::<[u32; 4]>(), any::<[u64; 2]>(), any::<i32>());
    let lists = (
        attributes(),
        prop::collection::vec(event(), 0..3),
        prop::collection::vec(link(), 0..3),
        prop::option::of(
            (".{0,10}", any::<i32>()).prop_map(|(message, code)| Status { message, code }),
        ),
    );
    (texts, numbers, lists).prop_map(|(texts, numbers, (attributes, events, links, status))| {
        let (trace_id, span_id, parent_span_id, trace_state, name) = texts;
        let ([flags, attrs, evs, lks], [start, end], kind) = numbers;
        Span {
            trace_id,
            span_id,
            trace_state,
            parent_span_id,
            flags,
            name,
            kind,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes,
            dropped_attributes_count: attrs,
            events,
            dropped_events_count: evs,
            links,
            dropped_links_count: lks,
            status,
        }
    })
}

fn scope_spans() -> impl Strategy<Value = ScopeSpans> {
    let scope = (".{0,10}", ".{0,10}", attributes(), any::<u32>()).prop_map(
        |(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        },
    );
    (
        prop::option::of(scope),
        prop::collection::vec(span(), 0..3),
        ".{0,10}",
    )
        .prop_map(|(scope, spans, schema_url)| ScopeSpans {
            scope,
            spans,
            schema_url,
        })
}

fn resource_spans() -> impl Strategy<Value = ResourceSpans> {
    let resource = (attributes(), any::<u32>()).prop_map(|(attributes, count)| Resource {
        attributes,
        dropped_attributes_count: count,
        entity_refs: Vec::new(),
    });
    (
        prop::option::of(resource),
        prop::collection::vec(scope_spans(), 0..3),
        ".{0,10}",
    )
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans {
            resource,
            scope_spans,
            schema_url,
        })
}

pub fn request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    prop::collection::vec(resource_spans(), 0..3)
        .prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}
