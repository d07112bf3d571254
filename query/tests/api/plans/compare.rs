//! `compare()` in ClickHouse counts what the evaluator does.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NEVER, Random, encoded, stored};
use crate::harness::{Service, T0, at_ms};

/// How often each value of each attribute is there, however many steps and values there are.
#[tokio::test]
async fn clickhouse_compares_as_the_evaluator_does() {
    const COMPARISONS: usize = 24;
    let service = Service::start().await;
    let mut random = Random(11);
    let mut spans = Vec::new();
    for trace in 1..=60 {
        for id in 1..=3 {
            let parent = if id == 1 { 0 } else { trace as u64 * 10 + 1 };
            spans.push(stored(&mut random, trace, trace as u64 * 10 + id, parent));
        }
    }
    // A client and a server with one id, of which the first has the child; a circle; a trace without a root.
    for (id, parent, kind) in [(611, 0, "CLIENT"), (611, 0, "SERVER"), (612, 611, "SERVER")] {
        spans.push(stored(&mut random, 61, id, parent).is(kind, "OK"));
    }
    for (trace, id, parent) in [
        (62, 621, 622),
        (62, 622, 621),
        (63, 631, 630),
        (63, 632, 631),
    ] {
        spans.push(stored(&mut random, trace, id, parent));
    }
    service.insert(&spans).await;
    let filters = [
        "true",
        "nestedSetParent < 0",
        "kind = server",
        "duration >= 1ms && name != \"b\"",
    ];
    let selections = [
        "status = error",
        "duration > 1ms",
        "span.i = 1",
        "kind = client || name = \"a\"",
    ];
    // From one span's start to another's, which is not part of it.
    let (from, to) = (at_ms(20 * 100 + 201), at_ms(40 * 100 + 401));
    let windows = [String::new(), format!(", {from}, {to}")];
    let mut texts = BTreeSet::new();
    for _ in 0..COMPARISONS {
        let filter = random.of(&filters);
        let top = random.of(&["1", "2", "10"]);
        let window = random.of(&[&windows[0], &windows[1]]);
        let selection = random.of(&selections);
        let compare = format!("compare({{ {selection} }}, {top}{window})");
        let compare = compare + random.of(&["", " with (extrapolate=true)"]);
        let of = |filter: &str| encoded(&format!("{{ {filter} }} | {compare}"));
        let range = format!("start={}&end={}", T0 - 60, T0 + 60);
        let step = random.of(&["1s", "7s", "120s"]);
        let ask = async |filter: &str| {
            let path = format!(
                "/tempo/api/metrics/query_range?{range}&step={step}&q={}",
                of(filter)
            );
            let answer = service.ask(&path).await;
            assert_eq!(answer.status, 200, "{filter}: {}", answer.text);
            answer.body["series"].clone()
        };
        let planned = ask(filter).await;
        let alone = ask(&format!("({filter}) || {NEVER}")).await;
        let list = |value: &Value| value.as_array().unwrap().clone();
        let (planned, alone) = (list(&planned), list(&alone));
        assert_eq!(planned.len(), alone.len(), "{{ {filter} }} | {compare}");
        for (one, other) in planned.iter().zip(&alone) {
            assert_eq!(one["labels"], other["labels"], "{{ {filter} }} | {compare}");
            let samples = |series: &Value| -> Vec<(String, i64)> {
                let samples = series["samples"].as_array().unwrap().iter();
                #[allow(clippy::cast_possible_truncation)] // small
                let millionths =
                    |sample: &Value| (sample["value"].as_f64().unwrap_or(0.0) * 1e6).round() as i64;
                samples
                    .map(|sample| (sample["timestampMs"].to_string(), millionths(sample)))
                    .collect()
            };
            assert_eq!(
                samples(one),
                samples(other),
                "{{ {filter} }} | {compare}, step {step}: {}",
                one["labels"]
            );
        }
        texts.extend(planned.iter().map(|series| series["labels"].to_string()));
    }
    let metrics = service.ask("/metrics").await.text;
    let counted = "clickhouse_duration_seconds_count{query=\"traceql_compare\",outcome=\"ok\"}";
    assert!(metrics.contains(counted), "ClickHouse compared nothing");
    // Of several steps, attributes that have values of one type and of several, and what traces say.
    for label in [
        "span.s",
        "span.i",
        "span.http.route",
        "rootName",
        "statusMessage",
        "resource.r",
    ] {
        assert!(
            texts
                .iter()
                .any(|text| text.contains(&format!("\"{label}\""))),
            "{label}: {texts:?}"
        );
    }
}
