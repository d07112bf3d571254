//! The official SDK for Rust, over gRPC and HTTP.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Array, Context, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::{Value as Json, json};

use super::sdk::check_trace;
use super::support::up;

const SERVICE: &str = "e2e-rust-größe";

fn attributes() -> Vec<KeyValue> {
    let strings = |items: &[&'static str]| {
        Value::Array(Array::String(
            items.iter().map(|item| StringValue::from(*item)).collect(),
        ))
    };
    vec![
        KeyValue::new("string", "text"),
        KeyValue::new("string.empty", ""),
        KeyValue::new("string.non_ascii", "größe 名前 🧵"),
        KeyValue::new("bool", true),
        KeyValue::new("int", 42),
        KeyValue::new("int.beyond_double", 9_007_199_254_740_993_i64),
        KeyValue::new("int.min", i64::MIN),
        KeyValue::new("double", 0.1),
        KeyValue::new("double.whole", 3.0),
        KeyValue::new("double.exponent", -1.5e300),
        KeyValue::new("double.nan", f64::NAN),
        KeyValue::new("array.string", strings(&["a", "", "ü"])),
        KeyValue::new("array.bool", Value::Array(Array::Bool(vec![true, false]))),
        KeyValue::new("array.int", Value::Array(Array::I64(vec![1, i64::MAX]))),
        KeyValue::new("array.double", Value::Array(Array::F64(vec![1.0, 5e-324]))),
        KeyValue::new("array.empty", Value::Array(Array::I64(Vec::new()))),
        KeyValue::new("http.request.method", "GET"),
        KeyValue::new("http.response.status_code", 500),
    ]
}

fn resource() -> Resource {
    let attributes = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("resource.int", i64::MAX),
        KeyValue::new("resource.empty", ""),
    ];
    Resource::builder_empty()
        .with_schema_url(attributes, "https://example.com/resource/3")
        .build()
}

/// Makes the spans; every feature of the API is used once.
fn tell(provider: &SdkTracerProvider) -> TraceId {
    let scope = InstrumentationScope::builder("e2e.rust")
        .with_version("3.4.5")
        .with_schema_url("https://example.com/scope/3")
        .with_attributes([KeyValue::new("scope.int", 9_007_199_254_740_993_i64)])
        .build();
    let tracer = provider.tracer_with_scope(scope);
    let trace_state =
        TraceState::from_key_value([("rojo", "00f067aa0ba902b7"), ("congo", "t61rcWkgMzE")])
            .unwrap();
    let trace_id = TraceId::from_bytes(
        super::support::now_ns()
            .to_be_bytes()
            .repeat(2)
            .try_into()
            .unwrap(),
    );
    let remote = |trace_id, span: u64| {
        let span_id = SpanId::from_bytes(span.to_be_bytes());
        SpanContext::new(
            trace_id,
            span_id,
            TraceFlags::SAMPLED,
            true,
            trace_state.clone(),
        )
    };
    let outside = Context::new().with_remote_span_context(remote(trace_id, 0xabcdef));
    let root = tracer
        .span_builder("GET /orders/{id}")
        .with_kind(SpanKind::Server)
        .with_attributes(attributes())
        .with_links(vec![Link::new(
            remote(TraceId::from_bytes([0xff; 16]), u64::MAX),
            vec![KeyValue::new("link.ü", "ö")],
            0,
        )])
        .start_with_context(&tracer, &outside);
    let here = outside.with_span(root);
    let span = here.span();
    span.add_event("bare event", Vec::new());
    span.add_event("full event 事", attributes());
    span.record_error(&std::io::Error::other("wrong valüe"));
    span.set_status(Status::error("it broke: größer"));
    let bare = provider.tracer("bare");
    for kind in [
        SpanKind::Internal,
        SpanKind::Client,
        SpanKind::Producer,
        SpanKind::Consumer,
    ] {
        let name = format!("a {kind:?} span");
        let child = bare
            .span_builder(name)
            .with_kind(kind)
            .start_with_context(&bare, &here);
        here.with_span(child).span().set_status(Status::Ok);
    }
    span.end();
    trace_id
}

fn value(given: &Value) -> Json {
    let array = |items: Vec<Json>| json!({"type": "array", "value": items});
    match given {
        Value::Bool(value) => json!({"type": "bool", "value": value}),
        Value::I64(value) => json!({"type": "int", "value": value.to_string()}),
        Value::F64(value) if value.is_nan() => json!({"type": "double", "value": "NaN"}),
        Value::F64(value) => json!({"type": "double", "value": value}),
        Value::String(value) => json!({"type": "string", "value": value.as_str()}),
        Value::Array(Array::Bool(items)) => array(
            items
                .iter()
                .map(|item| value(&Value::Bool(*item)))
                .collect(),
        ),
        Value::Array(Array::I64(items)) => {
            array(items.iter().map(|item| value(&Value::I64(*item))).collect())
        }
        Value::Array(Array::F64(items)) => {
            array(items.iter().map(|item| value(&Value::F64(*item))).collect())
        }
        Value::Array(Array::String(items)) => array(
            items
                .iter()
                .map(|item| value(&Value::String(item.clone())))
                .collect(),
        ),
        other => panic!("a kind of value that did not exist when this was written: {other:?}"),
    }
}

fn pairs<'a>(given: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Json {
    let pair = |(key, item): (&str, &Value)| {
        let mut pair = value(item);
        pair["key"] = json!(key);
        pair
    };
    given.into_iter().map(pair).collect()
}

fn of(given: &[KeyValue]) -> Json {
    pairs(given.iter().map(|pair| (pair.key.as_str(), &pair.value)))
}

fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

fn flags(context_flags: TraceFlags, is_remote: bool) -> u32 {
    u32::from(context_flags.to_u8()) | 0x100 | if is_remote { 0x200 } else { 0 }
}

/// What the SDK holds of a finished span, in the form of the API.
fn view(span: &SpanData) -> Json {
    let (status, message) = match &span.status {
        Status::Unset => ("unset", String::new()),
        Status::Ok => ("ok", String::new()),
        Status::Error { description } => ("error", description.to_string()),
    };
    let events = span.events.iter().map(|event| {
        json!({
            "name": event.name,
            "timeUnixNano": nanoseconds(event.timestamp).to_string(),
            "attributes": of(&event.attributes),
            "droppedAttributesCount": event.dropped_attributes_count,
        })
    });
    let links = span.links.iter().map(|link| {
        let context = &link.span_context;
        json!({
            "traceId": context.trace_id().to_string(),
            "spanId": context.span_id().to_string(),
            "traceState": context.trace_state().header(),
            "flags": flags(context.trace_flags(), context.is_remote()),
            "attributes": of(&link.attributes),
            "droppedAttributesCount": link.dropped_attributes_count,
        })
    });
    let scope = &span.instrumentation_scope;
    let scope_attributes: Vec<KeyValue> = scope.attributes().cloned().collect();
    let resource = resource();
    json!({
        "spanId": span.span_context.span_id().to_string(),
        "parentSpanId": span.parent_span_id.to_string(),
        "name": span.name,
        "kind": format!("{:?}", span.span_kind).to_lowercase(),
        "status": status,
        "statusMessage": message,
        "startUnixNano": nanoseconds(span.start_time).to_string(),
        "durationNs": (nanoseconds(span.end_time) - nanoseconds(span.start_time)).to_string(),
        "traceState": span.span_context.trace_state().header(),
        "flags": flags(span.span_context.trace_flags(), span.parent_span_is_remote),
        "attributes": of(&span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": events.collect::<Json>(),
        "droppedEventsCount": span.events.dropped_count,
        "links": links.collect::<Json>(),
        "droppedLinksCount": span.links.dropped_count,
        "resource": {
            "attributes": pairs(resource.iter().map(|(key, value)| (key.as_str(), value))),
            "droppedAttributesCount": 0,
            "schemaUrl": resource.schema_url().unwrap_or_default(),
        },
        "scope": {
            "name": scope.name(),
            "version": scope.version().unwrap_or_default(),
            "attributes": of(&scope_attributes),
            "droppedAttributesCount": 0,
            "schemaUrl": scope.schema_url().unwrap_or_default(),
        },
    })
}

/// Sends by `exporter` and gives what the SDK says that it sent.
fn send(exporter: SpanExporter) -> Json {
    let memory = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_batch_exporter(exporter)
        .with_simple_exporter(memory.clone())
        .build();
    let trace_id = tell(&provider);
    provider.force_flush().unwrap();
    let spans: Vec<Json> = memory
        .get_finished_spans()
        .unwrap()
        .iter()
        .map(view)
        .collect();
    provider.shutdown().unwrap();
    json!({"traceId": trace_id.to_string(), "spans": spans})
}

#[test]
fn grpc_and_http() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let timeout = Duration::from_secs(120);
    let grpc = {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let endpoint = format!("http://{}", up.addresses().otlp_grpc);
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(timeout);
        let exporter = exporter.build().unwrap();
        send(exporter)
    };
    let endpoint = format!("http://{}/v1/traces", up.addresses().otlp_http);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_timeout(timeout);
    let http = send(exporter.build().unwrap());
    for sent in [grpc, http] {
        let trace_id = sent["traceId"].as_str().unwrap();
        let trace = up.get_json(&format!("/api/v1/traces/{trace_id}")).unwrap();
        check_trace(&trace, &sent, SERVICE);
    }
}
