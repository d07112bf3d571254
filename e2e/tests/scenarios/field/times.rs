//! Durations: ends that cannot be, means that do not wrap, and latency by kind.

use serde_json::{Value, json};

use super::otlp::texts;
use super::{CLIENT, Field, SERVER};

pub fn check(field: &Field<'_>) {
    ends_that_cannot_be(field);
    kinds_are_told_apart(field);
}

fn ends_that_cannot_be(field: &Field<'_>) {
    let before = ["end_in_the_future", "end_before_start"].map(|reason| field.changes(reason));
    let start = field.begun_ns;
    let cases = [
        ("before", start - 1, 0),
        ("none", 0, 0),
        ("greatest", u64::MAX, 0),
        ("greatest signed", i64::MAX as u64, 0),
        ("year 2262", i64::MAX as u64 - 5, 0),
        ("ordinary", start + 10_000_000, 10_000_000),
    ];
    let ends_at = |name: &str, end: u64| {
        let (trace, mut span) = field.alone(name, texts(&[]));
        span["endTimeUnixNano"] = json!(end.to_string());
        (trace, span)
    };
    let spans: Vec<_> = cases
        .iter()
        .map(|(name, end, _)| ends_at(name, *end))
        .collect();
    let sent: Vec<Value> = spans.iter().map(|(_, span)| span.clone()).collect();
    field.store(&[("ends", &sent)]);
    let service = field.service("ends");
    for ((name, _, duration), (trace, _)) in cases.iter().zip(&spans) {
        let duration = json!(duration.to_string());
        let listed = field.found(trace, &[("service", &service)]).unwrap();
        let shown = field.trace(trace);
        for answer in [&listed, &shown, &shown["spans"][0]] {
            assert_eq!(answer["durationNs"], duration, "{name}: {answer}");
        }
    }
    let long = [("service", &*service), ("minDuration", "1h")];
    assert_eq!(field.list("/api/v1/traces", &long)["traces"], json!([]));
    let after = ["end_in_the_future", "end_before_start"].map(|reason| field.changes(reason));
    assert!(
        (after[0] - before[0] - 3.0).abs() < 0.5,
        "{before:?} {after:?}"
    );
    assert!(after[1] > before[1], "{before:?} {after:?}");

    let mixed = [u64::MAX, u64::MAX, start + 9_000_000].map(|end| ends_at("mixed", end).1);
    field.store(&[("mixed", &mixed)]);
    let row = &field.latency("mixed", &[])[0];
    assert_eq!(
        (&row["count"], &row["averageNs"]),
        (&json!(3), &json!("3000000")),
        "{row}"
    );
    let median: u64 = row["p50Ns"].as_str().unwrap().parse().unwrap();
    assert!(median <= 1, "{row}");
}

fn kinds_are_told_apart(field: &Field<'_>) {
    let call = |kind: u8, duration: u64| {
        let mut span = field.span(&field.trace_id(), &field.span_id(), "GET", kind, 0);
        span["endTimeUnixNano"] = json!((field.begun_ns + duration).to_string());
        span
    };
    let mut spans: Vec<_> = (0..100).map(|_| call(SERVER, 1_000_000)).collect();
    spans.extend((0..10).map(|_| call(CLIENT, 1_000_000_000)));
    field.store(&[("kinds", &spans)]);
    let rows = field.latency("kinds", &[]);
    let said = |row: &Value| ["kind", "count", "averageNs"].map(|key| row[key].clone());
    let server = [json!("server"), json!(100), json!("1000000")];
    let client = [json!("client"), json!(10), json!("1000000000")];
    let all: Vec<_> = rows.iter().map(said).collect();
    assert_eq!(all.len(), 2, "{rows:?}");
    assert!(all.contains(&server) && all.contains(&client), "{rows:?}");
    let one = field.latency("kinds", &[("kind", "client")]);
    assert_eq!(one.iter().map(said).collect::<Vec<_>>(), [client]);
    // A week is answered from another table than an hour.
    let service = field.service("kinds");
    let week = field.list_since("/api/v1/latency", 6 * 86_400, &[("service", &service)]);
    assert_eq!(week["operations"], json!(rows));
}
