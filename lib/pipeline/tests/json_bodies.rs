//! Exports in JSON: names that OTLP does not have, and the largest body.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

mod common;

use common::*;
use spanloom_pipeline::Config;

#[tokio::test(flavor = "multi_thread")]
async fn spans_under_unknown_names_are_not_lost_silently() {
    let p = start(quick());
    for body in [
        r#"{"resource_spans":[{"scope_spans":[{"spans":[{"name":"x"}]}]}]}"#,
        r#"{"resourceSpans":[{"instrumentationLibrarySpans":[{"spans":[{"name":"x"}]}]}]}"#,
    ] {
        let answer = p.json(body).await;
        assert_eq!(answer.status, 200);
        let text = answer.text();
        assert!(
            text.contains("partialSuccess") && text.contains("unknown names"),
            "{text}"
        );
    }
    let ignored = r#"spanloom_processing_changes_total{reason="unknown_field"}"#;
    assert_eq!(p.metric(ignored), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_the_largest_size_is_taken() {
    // As a collector divides its memory.
    let max_request_bytes = 2 << 20;
    let p = start(Config {
        memory_limit_bytes: max_request_bytes / 2 * 5,
        max_request_bytes,
        ..quick()
    });
    let span = |id: usize| {
        format!(
            r#"{{"traceId":"{:032x}","spanId":"{id:016x}","name":"GET","startTimeUnixNano":"{}"}}"#,
            1,
            now_ns()
        )
    };
    let mut body = r#"{"resourceSpans":[{"scopeSpans":[{"spans":["#.to_owned();
    body.push_str(&span(1));
    let mut id = 1;
    while body.len() + 200 < max_request_bytes {
        id += 1;
        body.push(',');
        body.push_str(&span(id));
    }
    body.push_str("]}]}]}");
    body.push_str(&" ".repeat(max_request_bytes - body.len()));
    let answer = p.json(body.clone()).await;
    assert_eq!(
        (answer.status, p.store.len()),
        (200, id),
        "{}",
        answer.text()
    );
    body.push(' ');
    assert_eq!(p.json(body.clone()).await.status, 413);
    // A client that sends before it listens sees it too, or it would send the same for ever.
    body.push_str(&" ".repeat(8 << 20));
    assert_eq!(p.json(body).await.status, 413);
}
