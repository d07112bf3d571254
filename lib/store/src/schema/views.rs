//! The tables of the OpenTelemetry Collector's ClickHouse exporter, as views over ours.
//!
//! Names and types are those of its version 0.161, so that ClickStack, Grafana's ClickHouse plugin
//! and SQL written for it keep working. There every attribute is text; here it becomes text again.

use super::SchemaOptions;
use super::promoted::{Kind, PROMOTED_SPAN};
use super::render::literal;
use super::table::View;

/// Our JSON text of a value as the exporter's text: strings bare, bytes as base64, lists as JSON.
fn json_as_text(json: &str) -> String {
    format!(
        "multiIf(startsWith({json}, '\"'), JSONExtractString({json}), \
         startsWith({json}, '{{\"bytesValue\"'), JSONExtractString({json}, 'bytesValue'), \
         startsWith({json}, '{{\"doubleValue\"'), JSONExtractString({json}, 'doubleValue'), \
         startsWith({json}, '{{\"kvlistValue\"'), JSONExtractRaw({json}, 'kvlistValue'), \
         {json} = 'null', '', {json})"
    )
}

/// A JSON object of attributes as the exporter's map.
fn object_as_map(object: &str) -> String {
    format!(
        "CAST(arrayMap(kv -> (kv.1, {}), JSONExtractKeysAndValuesRaw({object})), \
         'Map(LowCardinality(String), String)')",
        json_as_text("kv.2")
    )
}

fn span_attributes() -> String {
    let promoted: Vec<String> = PROMOTED_SPAN
        .iter()
        .map(|p| match p.kind {
            Kind::Code => format!(
                "({}, if({} = 0, '', toString({2})))",
                literal(p.key),
                p.column,
                p.column
            ),
            Kind::Name | Kind::Text => format!("({}, toString({}))", literal(p.key), p.column),
        })
        .collect();
    let numbers = |map: &str| {
        format!("arrayMap((k, v) -> (toString(k), toString(v)), mapKeys({map}), mapValues({map}))")
    };
    format!(
        "CAST(arrayConcat(\n        \
         arrayMap((k, v) -> (toString(k), v), mapKeys(attr_str), mapValues(attr_str)),\n        \
         {},\n        {},\n        \
         arrayMap((k, v) -> (toString(k), {}), mapKeys(attr_other), mapValues(attr_other)),\n        \
         arrayFilter(kv -> kv.2 != '', [{}])), 'Map(LowCardinality(String), String)')",
        numbers("attr_int"),
        numbers("attr_double"),
        json_as_text("v"),
        promoted.join(", "),
    )
}

/// Ids as lower-case hexadecimal text, empty for zero.
fn hex_or_empty(id: &str, bytes: usize) -> String {
    format!("if({id} = toFixedString('', {bytes}), '', lower(hex({id})))")
}

/// `otel_traces`: a row a span.
pub fn otel_traces(options: &SchemaOptions) -> View {
    let columns = [
        ("Timestamp", "time".to_owned()),
        // Without a test for zero, which never is: so the index on this expression serves it.
        ("TraceId", "lower(hex(trace_id))".to_owned()),
        ("SpanId", "lower(hex(span_id))".to_owned()),
        ("ParentSpanId", hex_or_empty("parent_span_id", 8)),
        ("TraceState", "trace_state".to_owned()),
        ("SpanName", "name".to_owned()),
        (
            "SpanKind",
            "CAST(initcap(toString(kind)), 'LowCardinality(String)')".to_owned(),
        ),
        ("ServiceName", "service".to_owned()),
        ("ResourceAttributes", object_as_map("resource")),
        ("ScopeName", "CAST(scope_name, 'String')".to_owned()),
        ("ScopeVersion", "CAST(scope_version, 'String')".to_owned()),
        ("SpanAttributes", span_attributes()),
        ("Duration", "duration_ns".to_owned()),
        (
            "StatusCode",
            "CAST(initcap(toString(status)), 'LowCardinality(String)')".to_owned(),
        ),
        ("StatusMessage", "status_message".to_owned()),
        (
            "Events.Timestamp",
            "tupleElement(events, 'time')".to_owned(),
        ),
        ("Events.Name", "tupleElement(events, 'name')".to_owned()),
        (
            "Events.Attributes",
            format!(
                "arrayMap(o -> {}, tupleElement(events, 'attributes'))",
                object_as_map("o")
            ),
        ),
        (
            "Links.TraceId",
            "arrayMap(i -> lower(hex(i)), tupleElement(links, 'trace_id'))".to_owned(),
        ),
        (
            "Links.SpanId",
            "arrayMap(i -> lower(hex(i)), tupleElement(links, 'span_id'))".to_owned(),
        ),
        (
            "Links.TraceState",
            "tupleElement(links, 'trace_state')".to_owned(),
        ),
        (
            "Links.Attributes",
            format!(
                "arrayMap(o -> {}, tupleElement(links, 'attributes'))",
                object_as_map("o")
            ),
        ),
    ];
    let columns: Vec<String> = columns
        .into_iter()
        .map(|(name, expression)| format!("    {expression} AS `{name}`"))
        .collect();
    View {
        name: "otel_traces".into(),
        select: format!(
            "SELECT\n{}\nFROM {}",
            columns.join(",\n"),
            options.qualified("spans")
        ),
    }
}

/// `otel_traces_trace_id_ts`: a trace's time window. As in the exporter's table a trace may have
/// several rows, and readers take the least `Start` and the greatest `End`.
pub fn otel_traces_trace_id_ts(options: &SchemaOptions) -> View {
    View {
        name: "otel_traces_trace_id_ts".into(),
        // Whole seconds: the end is rounded up, else it would cut the last spans off.
        select: format!(
            "SELECT\n    lower(hex(trace_id)) AS `TraceId`,\n    toDateTime(start) AS `Start`,\n    \
             toDateTime(end) + toIntervalSecond(1) AS `End`\nFROM {}",
            options.qualified("trace_index")
        ),
    }
}
