//! What prost and the views make of the same bytes. The fuzz targets use this file too.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyOf;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use spanloom_otlp::DecodeError;
use spanloom_otlp::record::{RawValue, Value};
use spanloom_otlp::view::{KeyValueView, TracesView};

/// The request that the views see. A missing resource, scope, status or value is an empty one, text
/// is made UTF-8 if need be.
pub fn viewed(bytes: &[u8]) -> Result<ExportTraceServiceRequest, DecodeError> {
    let mut request = ExportTraceServiceRequest::default();
    for resource_spans in TracesView::new(bytes).resource_spans() {
        let view = resource_spans?;
        let mut scope_spans = Vec::new();
        for scope in view.scope_spans() {
            let scope = scope?;
            scope_spans.push(ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: text(scope.scope.name),
                    version: text(scope.scope.version),
                    attributes: pairs(scope.scope.attributes())?,
                    dropped_attributes_count: scope.scope.dropped_attributes_count,
                }),
                spans: spans(scope)?,
                schema_url: text(scope.schema_url),
            });
        }
        request.resource_spans.push(ResourceSpans {
            resource: Some(Resource {
                attributes: pairs(view.resource.attributes())?,
                dropped_attributes_count: view.resource.dropped_attributes_count,
                entity_refs: Vec::new(),
            }),
            scope_spans,
            schema_url: text(view.schema_url),
        });
    }
    Ok(request)
}

fn spans(scope: spanloom_otlp::view::ScopeSpansView<'_>) -> Result<Vec<Span>, DecodeError> {
    let mut spans = Vec::new();
    for span in scope.spans() {
        let span = span?;
        let mut events = Vec::new();
        for event in span.events() {
            let event = event?;
            events.push(Event {
                time_unix_nano: event.time_ns,
                name: text(event.name),
                attributes: pairs(event.attributes())?,
                dropped_attributes_count: event.dropped_attributes_count,
            });
        }
        let mut links = Vec::new();
        for link in span.links() {
            let link = link?;
            links.push(Link {
                trace_id: link.trace_id.to_vec(),
                span_id: link.span_id.to_vec(),
                trace_state: text(link.trace_state),
                attributes: pairs(link.attributes())?,
                dropped_attributes_count: link.dropped_attributes_count,
                flags: link.flags,
            });
        }
        spans.push(Span {
            trace_id: span.trace_id.to_vec(),
            span_id: span.span_id.to_vec(),
            trace_state: text(span.trace_state),
            parent_span_id: span.parent_span_id.to_vec(),
            flags: span.flags,
            name: text(span.name),
            kind: span.kind,
            start_time_unix_nano: span.start_ns,
            end_time_unix_nano: span.end_ns,
            attributes: pairs(span.attributes())?,
            dropped_attributes_count: span.dropped_attributes_count,
            events,
            dropped_events_count: span.dropped_events_count,
            links,
            dropped_links_count: span.dropped_links_count,
            status: Some(Status {
                message: text(span.status_message),
                code: span.status_code,
            }),
        });
    }
    Ok(spans)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue {
        key,
        value: Some(value),
        ..Default::default()
    }
}

fn pairs<'a>(
    items: impl Iterator<Item = Result<KeyValueView<'a>, DecodeError>>,
) -> Result<Vec<KeyValue>, DecodeError> {
    items
        .map(|item| {
            let item = item?;
            spanloom_otlp::nested::check_depth(item.value)?;
            Ok(pair(text(item.key), owned(item.value)?))
        })
        .collect()
}

/// Recursive, after the depth was checked.
fn owned(value: RawValue<'_>) -> Result<AnyValue, DecodeError> {
    let value = match value {
        Value::Empty => None,
        Value::Str(v) => Some(AnyOf::StringValue(text(v))),
        Value::Bool(v) => Some(AnyOf::BoolValue(v)),
        Value::Int(v) => Some(AnyOf::IntValue(v)),
        Value::Double(v) => Some(AnyOf::DoubleValue(v)),
        Value::Bytes(v) => Some(AnyOf::BytesValue(v.to_vec())),
        Value::Array(list) => Some(AnyOf::ArrayValue(ArrayValue {
            values: list
                .array_items()
                .map(|item| owned(item?))
                .collect::<Result<_, _>>()?,
        })),
        Value::KvList(list) => {
            let pairs = list.kv_items().map(|item| {
                let item = item?;
                Ok(pair(text(item.key), owned(item.value)?))
            });
            Some(AnyOf::KvlistValue(KeyValueList {
                values: pairs.collect::<Result<_, _>>()?,
            }))
        }
    };
    Ok(AnyValue { value })
}

/// What prost read, in the form of [`viewed`].
pub fn normal(mut request: ExportTraceServiceRequest) -> ExportTraceServiceRequest {
    for resource_spans in &mut request.resource_spans {
        let resource = resource_spans.resource.get_or_insert_default();
        resource.entity_refs.clear();
        normal_pairs(&mut resource.attributes);
        for scope_spans in &mut resource_spans.scope_spans {
            normal_pairs(&mut scope_spans.scope.get_or_insert_default().attributes);
            for span in &mut scope_spans.spans {
                span.status.get_or_insert_default();
                normal_pairs(&mut span.attributes);
                span.events
                    .iter_mut()
                    .for_each(|event| normal_pairs(&mut event.attributes));
                span.links
                    .iter_mut()
                    .for_each(|link| normal_pairs(&mut link.attributes));
            }
        }
    }
    request
}

fn normal_pairs(pairs: &mut [KeyValue]) {
    for pair in pairs {
        pair.key_strindex = 0;
        normal_value(pair.value.get_or_insert_default());
    }
}

fn normal_value(value: &mut AnyValue) {
    match &mut value.value {
        Some(AnyOf::StringValueStrindex(_)) => value.value = None,
        Some(AnyOf::ArrayValue(list)) => list.values.iter_mut().for_each(normal_value),
        Some(AnyOf::KvlistValue(list)) => normal_pairs(&mut list.values),
        _ => {}
    }
}

/// Reads the bytes with prost and with the views: they must agree, but for the differences that
/// `view` documents.
pub fn compare(bytes: &[u8]) -> Result<(), String> {
    use prost::Message as _;
    use spanloom_otlp::DecodeErrorKind;
    let theirs = ExportTraceServiceRequest::decode(bytes);
    match (viewed(bytes), theirs) {
        (Ok(ours), Ok(theirs)) => {
            // Compared as bytes, so that NaN equals itself.
            let (ours, theirs) = (ours.encode_to_vec(), normal(theirs).encode_to_vec());
            if ours == theirs {
                Ok(())
            } else {
                Err("they read different things".to_owned())
            }
        }
        (Err(_), Err(_)) => Ok(()),
        (Err(ours), Ok(_)) if ours.kind == DecodeErrorKind::SplitValue => Ok(()),
        (Err(ours), Ok(_)) => Err(format!("only the views refuse it: {ours}")),
        (Ok(_), Err(theirs)) => {
            let theirs = theirs.to_string();
            let known = [
                "not UTF-8",
                "recursion limit",
                "entity_refs",
                "key_strindex",
            ];
            match known.iter().any(|text| theirs.contains(text)) {
                true => Ok(()),
                false => Err(format!("only prost refuses it: {theirs}")),
            }
        }
    }
}
