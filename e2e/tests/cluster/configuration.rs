//! Changes of the document: live in seconds without a restart; a bad one is taken back.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::namespace::Namespace;
use super::support::pipeline::{Pipeline, attribute};
use super::support::{LIMIT, await_some, want};

/// What the documentation promises.
const LIVE_LIMIT: Duration = Duration::from_secs(10);

/// Between two spans that are made to see when a change is live.
const BETWEEN_SPANS: Duration = Duration::from_millis(500);

/// The collectors' pods: name, uid, restarts.
fn collectors(namespace: &Namespace) -> Vec<(String, String, u64)> {
    let pods = namespace.get(&["pods", "--selector=app.kubernetes.io/component=collector"]);
    let mut all: Vec<_> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (
                text(&pod["metadata"]["name"]),
                text(&pod["metadata"]["uid"]),
                pod["status"]["containerStatuses"][0]["restartCount"]
                    .as_u64()
                    .unwrap(),
            )
        })
        .collect();
    all.sort();
    all
}

/// One span of the service, read back.
fn span(pipeline: &Pipeline) -> Value {
    let answer = ask(pipeline.namespace, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap();
    pipeline.await_trace(trace_id, 1).remove(0)
}

#[test]
fn a_change_is_live_without_a_restart() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);
    let before = span(&pipeline);
    assert_eq!(
        attribute(&before, "span", "secret.card"),
        Some("4111111111111111")
    );
    let pods = collectors(&namespace);

    pipeline.apply(&json!({"processing": {
        "resource": {"deployment.environment.name": "blue"},
        "redact": [{"keys": ["secret.*"]}],
    }}));
    let applied = Instant::now();
    // Spans are made all the time and read back afterwards: what reading takes is not counted.
    let mut sent = Vec::new();
    while applied.elapsed() < LIVE_LIMIT {
        let at = applied.elapsed();
        let answer = ask(&namespace, "app", "/work");
        sent.push((at, answer["traceId"].as_str().unwrap().to_owned()));
        std::thread::sleep(BETWEEN_SPANS);
    }
    let live = sent.iter().find_map(|(at, trace_id)| {
        let span = pipeline.await_trace(trace_id, 1).remove(0);
        let environment = attribute(&span, "resource", "deployment.environment.name");
        (environment == Some("blue")).then_some((*at, span))
    });
    let limit = LIVE_LIMIT.as_secs();
    let (sent, after) = live.unwrap_or_else(|| panic!("the change was not live in {limit} s"));
    println!(
        "the change was live {:.1} s after it was applied",
        sent.as_secs_f64()
    );
    assert!(sent < LIVE_LIMIT, "it took {sent:?}");
    assert_eq!(attribute(&after, "span", "secret.card"), Some("***"));
    pipeline.await_ready();
    assert_eq!(
        collectors(&namespace),
        pods,
        "a collector was replaced or restarted"
    );
}

#[test]
fn what_cannot_be_right_is_refused() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline {
        namespace: &namespace,
    };
    for (spec, says) in [
        (json!({"sampling": {"head": {"ratio": 2}}}), "ratio"),
        (json!({"smapling": {}}), "smapling"),
        (
            json!({"storage": {"managed": {}, "external": {"url": "https://x:8443"}}}),
            "managed",
        ),
    ] {
        let refused = pipeline.try_apply(&spec).unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    // What only the parser can tell is in the status, with its place.
    pipeline.apply(&json!({"processing": {"drop": ["{ span.x = }"]}}));
    let condition = pipeline.await_condition("Accepted", "False", None);
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains("drop"), "{message}");
}

#[test]
fn a_bad_rollout_is_taken_back() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);

    // An image that nobody has: the new collectors never start.
    pipeline.apply(&json!({"images": {"registry": "spanloom.test/nowhere"}}));
    let condition = pipeline.await_condition("CollectorsReady", "False", Some("RolledBack"));
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.contains("Image") || message.contains("image"),
        "no cause in {message:?}"
    );
    // The last good ones are there on every node, and spans are taken.
    span(&pipeline);
    await_some("collectors that are all ready again", LIMIT, || {
        let set = namespace.try_get(&["daemonset", "traces-collector"])?;
        let status = &set["status"];
        want(
            status["numberReady"] == status["desiredNumberScheduled"]
                && status["updatedNumberScheduled"] == status["desiredNumberScheduled"],
            || status.to_string(),
        )
    });

    // A good document ends it.
    pipeline.apply(&json!({}));
    pipeline.await_ready();
}
