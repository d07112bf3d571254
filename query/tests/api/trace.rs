//! `GET /api/v1/traces/{id}`.

use serde_json::Value;
use spanloom_query::Limits;

use crate::harness::{Service, span};

async fn trace(service: &Service, id: &str) -> Value {
    service
        .get("/api/v1/traces/{id}", &format!("/api/v1/traces/{id}"))
        .await
}

/// Each span as `<dots for depth><id>` with its marks.
fn shape(trace: &Value) -> String {
    let spans = trace["spans"].as_array().unwrap().iter().map(|span| {
        let depth = usize::try_from(span["depth"].as_u64().unwrap()).unwrap();
        let id = u64::from_str_radix(span["spanId"].as_str().unwrap(), 16).unwrap();
        let orphan = if span["orphan"] == true { "!" } else { "" };
        let skew = span["clockSkewNs"]
            .as_str()
            .map(|ns| format!("~{ns}"))
            .unwrap_or_default();
        let copies = span["duplicates"]
            .as_u64()
            .map(|n| format!("x{}", n + 1))
            .unwrap_or_default();
        format!("{}{id}{orphan}{skew}{copies}", ".".repeat(depth))
    });
    spans.collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_comes_back() {
    let service = Service::start().await;
    let full = span(0xab, 7, 3, 0)
        .name("naïve 💡")
        .is("CLIENT", "ERROR")
        .with("status_message", "'it broke'")
        .with("trace_state", "'ot=th:8'")
        .with("flags", "769")
        .with("http_request_method", "'GET'")
        .with("url_path", "'/a?b'")
        .with("http_response_status_code", "503")
        .with("resource", r#"'{"service.name":"cart","pid":7,"tags":["a",1.0]}'"#)
        .with("scope_name", "'lib'")
        .with("scope_version", "'1.2'")
        .with("scope_attributes", r#"'{"s":true}'"#)
        .with(
            "envelope",
            r#"'{"resourceSchemaUrl":"u1","resourceDroppedAttributesCount":1,"scopeSchemaUrl":"u2","scopeDroppedAttributesCount":2}'"#,
        )
        .with("attr_str", r"map('text','line\nbreak','','no key')")
        .with("attr_int", "map('big',toInt64(9223372036854775807))")
        .with("attr_double", "map('pi',3.25,'nan',nan,'inf',-inf)")
        .with(
            "attr_other",
            r#"map('yes','true','raw','{"bytesValue":"AAE="}','list','[1,"x"]','none','null','kv','{"kvlistValue":{"k":2}}')"#,
        )
        .with("dropped_attributes_count", "3")
        .with("dropped_events_count", "4")
        .with("dropped_links_count", "5")
        .with(
            "events",
            r#"[(fromUnixTimestamp64Nano(toInt64(1780000020000000001)),'exception','{"exception.type":"E"}',toUInt32(6))]"#,
        )
        .with(
            "links",
            r#"[(toFixedString(unhex('000000000000000000000000000000cd'),16),toFixedString(unhex('00000000000000ef'),8),'a=b',toUInt32(1),'{"l":1}',toUInt32(8))]"#,
        );
    service.insert(&[full]).await;
    let answer = trace(&service, "AB").await;
    let expect: Value = serde_json::from_str(include_str!("full_span.json")).unwrap();
    assert_eq!(answer, expect, "{answer:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_shapes_and_odd_traces() {
    let service = Service::start().await;
    let invalid = span(7, 1, 0, 0).with("status_message", "unhex('ff61')");
    service.insert(&[invalid]).await;
    service
        .insert(&[
            span(0xa1, 1, 0, 0),
            span(0xa1, 3, 1, 20),
            span(0xa1, 2, 1, 10),
            span(0xa1, 4, 2, 11),
            // An orphan with a child.
            span(0xa2, 5, 9, 5),
            span(0xa2, 6, 5, 6),
            span(0xa2, 1, 0, 0),
            // Copies; the longest counts.
            span(0xa3, 1, 0, 0),
            span(0xa3, 2, 1, 1).takes_ms(1),
            span(0xa3, 2, 1, 1).takes_ms(9),
            span(0xa3, 2, 1, 1).takes_ms(1),
            // A child before its parent.
            span(0xa4, 1, 0, 10),
            span(0xa4, 2, 1, 3),
            // A cycle.
            span(0xa5, 1, 2, 5),
            span(0xa5, 2, 1, 3),
        ])
        .await;
    let shapes = [
        ("a1", "1 .2 ..4 .3"),
        ("000A1", "1 .2 ..4 .3"),
        ("000000000000000000000000000000a1", "1 .2 ..4 .3"),
        ("a2", "1 5! .6"),
        ("a3", "1 .2x3"),
        ("a4", "1 .2~7000000"),
        ("a5", "2! .1"),
        ("7", "1"),
    ];
    for (id, expect) in shapes {
        assert_eq!(shape(&trace(&service, id).await), expect, "{id}");
    }
    assert_eq!(
        trace(&service, "a3").await["spans"][1]["durationNs"],
        "9000000"
    );
    assert_eq!(
        trace(&service, "a4").await["spans"][1]["startUnixNano"],
        "1780000020003000000"
    );
    assert_eq!(
        trace(&service, "7").await["spans"][0]["statusMessage"],
        "\u{fffd}a"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_and_large_traces() {
    let limits = Limits {
        trace_spans: 100_000,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    let chain = |trace: &str, spans: u32| {
        format!(
            "INSERT INTO spans (time, duration_ns, service, name, kind, trace_id, span_id, \
             parent_span_id, resource) SELECT \
             fromUnixTimestamp64Nano(toInt64(1780000020000000000 + number)), 1000, 's', 'n', 'SERVER', \
             toFixedString(unhex('{trace:0>32}'), 16), \
             reinterpretAsFixedString(toUInt64(number + 1)), \
             reinterpretAsFixedString(toUInt64(number)), '{{}}' FROM numbers({spans})"
        )
    };
    service.sql(&chain("de", 100_000)).await;
    service.sql(&chain("1a", 100_001)).await;
    service.index().await;
    // Checking 100,000 spans against the schema takes longer than making them.
    let deep = service.ask("/api/v1/traces/de").await.body;
    let spans = deep["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 100_000);
    assert!(
        spans
            .iter()
            .enumerate()
            .all(|(place, span)| span["depth"] == place)
    );
    assert_eq!(deep["truncated"], false);
    let large = service.ask("/api/v1/traces/1a").await.body;
    assert_eq!(large["spanCount"], 100_000);
    assert_eq!(large["truncated"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_bounded_in_bytes() {
    let limits = Limits {
        trace_bytes: 100_000,
        trace_bytes_in_flight: 1 << 20,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    let big = |id| span(1, id, 0, 0).with("status_message", "repeat('x', 40000)");
    service.insert(&[big(1), big(2), big(3), big(4)]).await;
    let answer = trace(&service, "1").await;
    assert_eq!(answer["truncated"], true);
    assert_eq!(answer["spanCount"], 2);

    let limits = Limits {
        trace_bytes_in_flight: 1 << 10,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    service.insert(&[big(1)]).await;
    let refused = service.ask("/api/v1/traces/1").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.body["type"], "urn:spanloom:problem:overloaded");
}
