//! Tempo's API: what breaks Grafana's data source, and what a person reads when something is wrong. What is answered to
//! queries is held against a real Tempo's answers end to end (`e2e/golden`).

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;
use serde_json::Value;
use spanloom_query::Limits;

use crate::harness::{Answer, Service, Span, T0, span};

/// The answer to `/api/v2/traces/{id}`, as far as Grafana reads it.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    trace: Option<Trace>,
    #[prost(message, optional, tag = "2")]
    metrics: Option<Nothing>,
}

#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

async fn protobuf(service: &Service, path: &str) -> (u16, Vec<u8>) {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http();
    let request = http::Request::get(format!("http://{}{path}", service.address()))
        .header("accept", "application/protobuf")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    (status, body.unwrap().to_bytes().to_vec())
}

fn window() -> String {
    format!("start={}&end={}", T0 - 60, T0 + 60)
}

#[tokio::test]
async fn a_trace_is_in_its_envelope_and_nothing_in_it_is_null() {
    let service = Service::start().await;
    service
        .insert(&[span(1, 1, 0, 0), span(1, 2, 1, 5), span(0xab, 3, 9, 0)])
        .await;
    for (id, spans) in [("1", 2), ("0001", 2), ("ab", 1)] {
        let (status, body) = protobuf(&service, &format!("/tempo/api/v2/traces/{id}")).await;
        assert_eq!(status, 200, "{id}");
        let envelope = Envelope::decode(&*body).unwrap();
        assert!(envelope.metrics.is_some());
        let trace = envelope.trace.unwrap();
        let mut count = 0;
        for resource in &trace.resource_spans {
            // Its spans are dropped without a word where it has no attributes.
            let attributes = &resource.resource.as_ref().unwrap().attributes;
            assert!(attributes.iter().any(|one| one.key == "service.name"));
            for scope in &resource.scope_spans {
                assert!(scope.scope.is_some());
                for span in &scope.spans {
                    assert!(span.status.is_some());
                    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
                    count += 1;
                }
            }
        }
        assert_eq!(count, spans, "{id}");
        let (_, bare) = protobuf(&service, &format!("/api/traces/{id}")).await;
        assert_eq!(Trace::decode(&*bare).unwrap(), trace);
    }
    // Where a range is given, nothing is an empty envelope, of which no part is null.
    let unknown = format!("/api/v2/traces/ff?{}", window());
    assert_eq!(
        protobuf(&service, &unknown).await,
        (200, vec![10, 0, 18, 0])
    );
    for path in ["/api/v2/traces/ff", "/api/traces/ff"] {
        let answer = service.ask(path).await;
        assert_eq!(
            (answer.status, &*answer.content_type),
            (404, TEXT),
            "{path}"
        );
    }
    let json = service.ask("/api/v2/traces/1").await.body;
    assert_eq!(
        json["trace"]["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["kind"],
        "SPAN_KIND_SERVER"
    );
    assert!(service.ask("/api/traces/1").await.body["batches"].is_array());
}

/// Spans of two resources with two scopes each, more than is sent as one piece; one of them twice.
fn large() -> Vec<Span> {
    // Hardly to be compressed.
    let wide =
        "CAST(map('wide', randomPrintableASCII(65536)), 'Map(LowCardinality(String), String)')";
    let one = |id: u64| {
        let service = if id.is_multiple_of(2) { "cart" } else { "pay" };
        let text = |text: &str| format!("'{text}'");
        span(1, id, id / 2, i64::try_from(id).unwrap())
            .service(service)
            .takes_ms(5)
            .with("attr_str", wide)
            .with(
                "resource",
                &text(&format!("{{\"service.name\":\"{service}\"}}")),
            )
            .with(
                "scope_name",
                &text(if id.is_multiple_of(3) { "one" } else { "other" }),
            )
            .with(
                "envelope",
                &text("{\"resourceSchemaUrl\":\"r\",\"scopeSchemaUrl\":\"s\"}"),
            )
    };
    let again = one(7).takes_ms(9);
    (1..=300).map(one).chain([again]).collect()
}

#[tokio::test]
async fn a_large_trace_has_each_span_once_and_is_cut_where_it_is_too_large() {
    let service = Service::start().await;
    service.insert(&large()).await;
    let (status, body) = protobuf(&service, "/api/v2/traces/1").await;
    assert_eq!(status, 200);
    assert!(body.len() > 300 << 16);
    let trace = Envelope::decode(&*body).unwrap().trace.unwrap();
    let (_, bare) = protobuf(&service, "/api/traces/1").await;
    assert_eq!(Trace::decode(&*bare).unwrap(), trace);
    assert_eq!(trace.resource_spans.len(), 2);
    let mut ids = BTreeSet::new();
    for resource in &trace.resource_spans {
        assert_eq!(
            (resource.scope_spans.len(), &*resource.schema_url),
            (2, "r")
        );
        for scope in &resource.scope_spans {
            assert_eq!(scope.schema_url, "s");
            for span in &scope.spans {
                let id = u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap());
                assert!(ids.insert(id), "{id} is there twice");
                let expect = if id == 7 { 9_000_000 } else { 5_000_000 };
                assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, expect);
            }
        }
    }
    assert_eq!(ids, (1..=300).collect());
    for (path, list) in [
        ("/api/v2/traces/1", "/trace/resourceSpans"),
        ("/api/traces/1", "/batches"),
    ] {
        let json = service.ask(path).await.body;
        let resources = json.pointer(list).unwrap().as_array().unwrap();
        let scopes = resources.iter().flat_map(|resource| {
            assert_eq!(resource["schemaUrl"], "r");
            assert!(resource["resource"]["attributes"].is_array());
            resource["scopeSpans"].as_array().unwrap()
        });
        let counts = scopes.map(|scope| {
            assert_eq!(scope["schemaUrl"], "s");
            assert!(scope["scope"]["name"].is_string());
            scope["spans"].as_array().unwrap().len()
        });
        assert_eq!(counts.sum::<usize>(), 300, "{path}");
    }

    for (limits, count) in [
        (
            Limits {
                trace_spans: 10,
                ..Limits::default()
            },
            10..=10,
        ),
        (
            Limits {
                trace_bytes: 600_000,
                ..Limits::default()
            },
            5..=15,
        ),
    ] {
        let service = Service::with_limits(limits).await;
        service.insert(&large()).await;
        let json = service.ask("/api/v2/traces/1").await.body;
        assert_eq!(json["status"], "PARTIAL");
        assert!(json["message"].as_str().unwrap().contains("more spans"));
        let (_, body) = protobuf(&service, "/api/v2/traces/1").await;
        let trace = Envelope::decode(&*body).unwrap().trace.unwrap();
        let scopes = trace.resource_spans.iter().flat_map(|one| &one.scope_spans);
        let sum: usize = scopes.map(|scope| scope.spans.len()).sum();
        assert!(count.contains(&sum), "{sum}");
    }
}

/// The spans of a trace that is read unsorted, by their ids, with their ends.
async fn ends(service: &Service) -> (Value, BTreeMap<String, u64>) {
    let answer = service.ask("/api/v2/traces/1").await.body;
    let mut ends = BTreeMap::new();
    for resource in answer["trace"]["resourceSpans"].as_array().unwrap() {
        for scope in resource["scopeSpans"].as_array().unwrap() {
            for span in scope["spans"].as_array().unwrap() {
                let end = span["endTimeUnixNano"].as_str().unwrap().parse().unwrap();
                let id = span["spanId"].as_str().unwrap().to_owned();
                assert_eq!(ends.insert(id, end), None, "{span} is there twice");
            }
        }
    }
    (answer["status"].clone(), ends)
}

#[tokio::test]
async fn a_trace_of_thousands_of_spans_has_the_copy_of_each_that_ends_last() {
    const SPANS: u64 = 6_000;
    let store = async |service: &Service| {
        service.insert(&[span(1, SPANS, 0, 0).takes_ms(1)]).await;
        // The second copies end last; every third span has two that end at once.
        for (which, ns) in [
            ("1", 5),
            ("number % 2 = 0", 9),
            ("number % 3 = 0", 9),
            ("number % 5 = 0", 2),
        ] {
            service
                .sql(&format!(
                    "INSERT INTO spans (time, trace_id, span_id, service, name, duration_ns, resource, attr_str) SELECT \
                     fromUnixTimestamp64Nano(toInt64({T0}000000000 + number)), \
                     toFixedString(concat(repeat('\\0', 15), unhex('01')), 16), \
                     toFixedString(unhex(leftPad(hex(number), 16, '0')), 8), 'cart', 'x', {ns}, \
                     '{{\"service.name\":\"cart\"}}', CAST(map('text', randomPrintableASCII(100)), \
                     'Map(LowCardinality(String), String)') FROM numbers(1, {SPANS} - 1) WHERE {which}"
                ))
                .await;
        }
        service
            .sql(&format!(
                "INSERT INTO trace_index (day, trace_id, start, end, span_count) SELECT toDate({T0}), any(trace_id), \
                 min(time), max(time) + INTERVAL 1 SECOND, count() FROM spans"
            ))
            .await;
    };
    let service = Service::start().await;
    store(&service).await;
    let (status, spans) = ends(&service).await;
    assert_eq!(status, Value::Null);
    assert_eq!(spans.len() as u64, SPANS);
    let begin = u64::try_from(T0).unwrap() * 1_000_000_000;
    let mut found: Vec<u64> = spans.values().map(|end| end - begin).collect();
    found.sort_unstable();
    // A span of number n starts after n ns.
    let mut expect: Vec<u64> = (1..SPANS)
        .map(|n| match n.is_multiple_of(2) || n.is_multiple_of(3) {
            true => n + 9,
            false => n + 5,
        })
        .chain([1_000_000])
        .collect();
    expect.sort_unstable();
    assert_eq!(found, expect);
    // What does not fit are the latest spans.
    let limits = Limits {
        trace_bytes: 400_000,
        ..Limits::default()
    };
    let service = Service::with_limits(limits).await;
    store(&service).await;
    let (status, spans) = ends(&service).await;
    assert_eq!(status, "PARTIAL");
    assert!((100..5_000).contains(&spans.len()), "{}", spans.len());
    let latest = spans.values().filter(|end| **end < begin + 1_000_000).max();
    assert!(
        *latest.unwrap() <= begin + spans.len() as u64 + 9,
        "{latest:?}"
    );
}

const TEXT: &str = "text/plain; charset=utf-8";

#[track_caller]
fn check_refused(answer: &Answer, status: u16, says: &str) {
    assert_eq!(
        (answer.status, &*answer.content_type),
        (status, TEXT),
        "{}",
        answer.text
    );
    assert!(answer.text.contains(says), "{}", answer.text);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_plain_text() {
    let service = Service::start().await;
    let ask = async |path: String| service.ask(&path).await;
    assert_eq!(ask("/tempo/api/echo".into()).await.text, "echo\n");
    // A data source whose URL ends with a slash.
    assert_eq!(ask("/tempo//api/echo".into()).await.text, "echo\n");
    let version = ask("/api/status/buildinfo".into()).await.body["version"].clone();
    assert!(version.as_str().unwrap().starts_with("3."), "{version}");
    let window = window();
    for (path, says) in [
        ("search?q=%7B%20.a%20%3D%20%7D", "line 1, column 8"),
        ("search?q=%7B%7D%20%7C%20rate()", "metrics"),
        ("search?q=%7B%7D&limit=0", "limit"),
        ("search?q=%7B%7D&limit=x", "limit"),
        ("search?q=%7B%7D&start=5", "end"),
        ("search?tags=x", "tags"),
        ("metrics/query?q=%7B%7D", "search"),
        ("metrics/query", "q"),
        ("metrics/query_range?q=%7B%7D%7Crate()&step=x", "step"),
        (
            "metrics/query_range?q=%7B%7D%7Crate()&start=5&end=5",
            "after",
        ),
        ("v2/search/tags?scope=x", "scope"),
        ("v2/search/tags?limit=x", "limit"),
        ("v2/traces/xyz", "hexadecimal"),
    ] {
        check_refused(&ask(format!("/tempo/api/{path}")).await, 400, says);
    }
    for path in ["overrides", "v2/search/tag/name", "v2/search/tag//values"] {
        check_refused(&ask(format!("/tempo/api/{path}")).await, 404, "not found");
    }
    // What we do not know is ignored, and nothing found is an empty answer.
    let answer = ask(format!(
        "/api/search?{window}&q=%7B%7D&color=red&color=blue"
    ))
    .await;
    assert_eq!(
        (answer.status, &answer.body["traces"]),
        (200, &serde_json::json!([]))
    );
    let answer = ask(format!(
        "/api/v2/search/tag/span.nothing/values?{window}&q=%7B%20name%20%3D"
    ))
    .await;
    assert_eq!(
        (answer.status, &answer.body["tagValues"]),
        (200, &serde_json::json!([]))
    );
}

#[tokio::test]
async fn traces_are_by_their_start_and_counts_are_of_the_window() {
    let service = Service::start().await;
    // The match of the trace that starts first is the last.
    service
        .insert(&[
            span(1, 1, 0, 0),
            span(1, 2, 1, 9_000).name("late"),
            span(2, 3, 0, 1_000).name("late"),
            span(3, 4, 0, 2_000).name("late"),
            span(3, 5, 4, 2_001).name("late"),
        ])
        .await;
    let late = "q=%7B%20name%20%3D%20%22late%22%20%7D";
    for (limit, expect) in [(10, vec!["3", "2", "1"]), (2, vec!["3", "2"])] {
        let path = format!("/api/search?{}&limit={limit}&spss=1&{late}", window());
        let body = service.ask(&path).await.body;
        let traces = body["traces"].as_array().unwrap();
        let ids: Vec<_> = traces
            .iter()
            .map(|trace| trace["traceID"].as_str().unwrap().trim_start_matches('0'))
            .collect();
        assert_eq!(ids, expect);
        let set = &traces[0]["spanSets"][0];
        assert_eq!(
            (
                set["matched"].as_u64(),
                set["spans"].as_array().unwrap().len()
            ),
            (Some(2), 1)
        );
    }
    // Aggregated by ClickHouse, by the evaluator for each span, and by the evaluator for whole traces.
    for filter in [
        "name = \"late\"",
        "name =~ \"\\\\wate\"",
        "name = \"late\" && nestedSetLeft >= 0",
    ] {
        let query = format!("{{ {filter} }} | count_over_time() by (resource.service.name)");
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/api/metrics/query?{}&q={query}", window());
        let answer = service.ask(&path).await;
        assert_eq!(
            answer.body["series"][0]["value"], 4.0,
            "{filter}: {}",
            answer.text
        );
    }
}
