//! Tempo's API: what breaks Grafana's data source, and what a person reads when something is wrong. What is answered to
//! queries is held against a real Tempo's answers end to end (`e2e/golden`).

use opentelemetry_proto::tonic::trace::v1::ResourceSpans;
use prost::Message;

use crate::harness::{Answer, Service, T0, span};

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
