//! OTLP/JSON from prost's structs, the slow and simple way. The fuzz targets use this file too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};

fn any_json(value: &Option<AnyValue>) -> Json {
    match value.as_ref().map(|any| &any.value) {
        None => Json::Null,
        Some(None) | Some(Some(AnyOf::StringValueStrindex(_))) => json!({}),
        Some(Some(AnyOf::StringValue(v))) => json!({ "stringValue": v }),
        Some(Some(AnyOf::BoolValue(v))) => json!({ "boolValue": v }),
        Some(Some(AnyOf::IntValue(v))) => json!({ "intValue": v.to_string() }),
        Some(Some(AnyOf::DoubleValue(v))) if v.is_finite() => json!({ "doubleValue": v }),
        Some(Some(AnyOf::DoubleValue(v))) => {
            json!({ "doubleValue": if v.is_nan() { "NaN" } else if *v > 0.0 { "Infinity" } else { "-Infinity" } })
        }
        Some(Some(AnyOf::BytesValue(v))) => {
            json!({ "bytesValue": STANDARD.encode(v) })
        }
        Some(Some(AnyOf::ArrayValue(list))) => {
            let values = list
                .values
                .iter()
                .map(|v| any_json(&Some(v.clone())))
                .collect::<Vec<_>>();
            json!({ "arrayValue": { "values": values } })
        }
        Some(Some(AnyOf::KvlistValue(list))) => {
            json!({ "kvlistValue": { "values": pairs_json(&list.values) } })
        }
    }
}

fn pairs_json(pairs: &[KeyValue]) -> Json {
    pairs
        .iter()
        .map(|pair| json!({ "key": pair.key, "value": any_json(&pair.value) }))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The request in OTLP/JSON.
pub fn request_json(request: &ExportTraceServiceRequest) -> Json {
    let spans = |spans: &[Span]| -> Json {
        spans
            .iter()
            .map(|span| {
                json!({
                    "traceId": hex(&span.trace_id), "spanId": hex(&span.span_id),
                    "traceState": span.trace_state, "parentSpanId": hex(&span.parent_span_id),
                    "flags": span.flags, "name": span.name, "kind": span.kind,
                    "startTimeUnixNano": span.start_time_unix_nano,
                    "endTimeUnixNano": span.end_time_unix_nano.to_string(),
                    "attributes": pairs_json(&span.attributes),
                    "droppedAttributesCount": span.dropped_attributes_count,
                    "events": span.events.iter().map(|event| json!({
                        "timeUnixNano": event.time_unix_nano.to_string(), "name": event.name,
                        "attributes": pairs_json(&event.attributes),
                        "droppedAttributesCount": event.dropped_attributes_count,
                    })).collect::<Json>(),
                    "droppedEventsCount": span.dropped_events_count,
                    "links": span.links.iter().map(|link| json!({
                        "traceId": hex(&link.trace_id), "spanId": hex(&link.span_id),
                        "traceState": link.trace_state, "flags": link.flags,
                        "attributes": pairs_json(&link.attributes),
                        "droppedAttributesCount": link.dropped_attributes_count,
                    })).collect::<Json>(),
                    "droppedLinksCount": span.dropped_links_count,
                    "status": span.status.as_ref().map(|s| json!({ "message": s.message, "code": s.code })),
                })
            })
            .collect()
    };
    let resources = request.resource_spans.iter().map(|r| {
        json!({
            "resource": r.resource.as_ref().map(|resource| json!({
                "attributes": pairs_json(&resource.attributes),
                "droppedAttributesCount": resource.dropped_attributes_count,
            })),
            "scopeSpans": r.scope_spans.iter().map(|s| json!({
                "scope": s.scope.as_ref().map(|scope| json!({
                    "name": scope.name, "version": scope.version,
                    "attributes": pairs_json(&scope.attributes),
                    "droppedAttributesCount": scope.dropped_attributes_count,
                })),
                "spans": spans(&s.spans),
                "schemaUrl": s.schema_url,
            })).collect::<Json>(),
            "schemaUrl": r.schema_url,
        })
    });
    json!({ "resourceSpans": resources.collect::<Json>() })
}
