//! One node hangs: its kubelet and its collector stand still. A change of the rules and of the pods goes to
//! all others, is not taken back, and reaches the node when it goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::loss::nodes;
use super::super::support::apps::{App, ask};
use super::super::support::install;
use super::super::support::kube::{try_get, try_raw_json};
use super::super::support::node::{self, Frozen};
use super::super::support::pipeline::{Pipeline, attribute};
use super::super::support::{LIMIT, await_some, want};

/// A rollout that makes no progress for so long is taken back.
const DEADLINE: Duration = Duration::from_secs(20);

fn await_node(node: &str, is_ready: bool) {
    await_some(&format!("Ready={is_ready} of {node}"), LIMIT, || {
        let node = try_raw_json(&format!("/api/v1/nodes/{node}"))?;
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
        want(ready == is_ready, || {
            node["status"]["conditions"].to_string()
        })
    });
}

/// A span of the app that came under the new rule.
fn await_new_rule(pipeline: &Pipeline, app: &str) {
    await_some("a span under the new rule", LIMIT, || {
        let answer = ask(pipeline.namespace, app, "/work");
        let trace_id = answer["traceId"].as_str().unwrap();
        let span = pipeline.await_trace(trace_id, 1).remove(0);
        want(
            attribute(&span, "span", "secret.card") == Some("***"),
            || span.to_string(),
        )
    });
}

#[test]
fn a_node_that_hangs_neither_blocks_nor_undoes_a_change() {
    if !node::can_be_reached() {
        println!("not run: only nodes of `cargo xtask cluster` can be frozen");
        return;
    }
    let _installed = install::alone();
    // DNS has one pod; the node that hangs must not be its node.
    let dns = try_get("kube-system", &["pods", "--selector=k8s-app=kube-dns"]).unwrap();
    let good = dns["items"][0]["spec"]["nodeName"]
        .as_str()
        .unwrap()
        .to_owned();
    let bad = nodes().into_iter().find(|node| *node != good).unwrap();
    let on_good = format!("operator.nodeSelector.spanloom\\.test/node={good}");
    let deadline = format!("operator.rolloutDeadlineSeconds={}", DEADLINE.as_secs());
    install::upgrade_with(&[&on_good, &deadline]);

    let namespace = install::pipeline_namespace();
    let selector = json!({"spanloom.test/node": good});
    let spec = |more: Value| {
        let mut spec = json!({
            "storage": {"managed": {"nodeSelector": selector}},
            "query": {"nodeSelector": selector},
        });
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let pipeline = Pipeline::applied(&namespace, &spec(json!({})));
    pipeline.place_asker_on(&good);
    pipeline.await_ready();
    for (app, node) in [("app", &good), ("app-of-bad", &bad)] {
        App::python(app, "service")
            .on(node)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
            .place(&namespace);
    }

    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let old = (
        uid(&pipeline.collector_on(&good)),
        uid(&pipeline.collector_on(&bad)),
    );
    let frozen = Frozen::freeze(&bad, &old.1);
    await_node(&bad, false);
    pipeline.apply(&spec(json!({
        "processing": {"redact": [{"keys": ["secret.*"]}]},
        "collector": {"podAnnotations": {"example.com/changed": "yes"}},
    })));
    let applied = Instant::now();
    let condition = pipeline.await_condition("CollectorsReady", "True", None);
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains(&bad), "does not name {bad}: {message}");
    pipeline.await_ready();
    await_new_rule(&pipeline, "app");
    assert_ne!(
        uid(&pipeline.collector_on(&good)),
        old.0,
        "the pods were not changed"
    );
    // Not later, either.
    await_some("two deadlines", LIMIT, || {
        want(applied.elapsed() > 2 * DEADLINE, || "not yet".to_owned())
    });
    let condition = pipeline.await_condition("CollectorsReady", "True", None);
    assert_eq!(condition["reason"], "Ready", "{condition}");
    await_new_rule(&pipeline, "app");

    drop(frozen);
    await_node(&bad, true);
    await_some("the new collector of the node that is back", LIMIT, || {
        let found = uid(&pipeline.collector_on(&bad));
        want(found != old.1, || "still the old one".to_owned())
    });
    pipeline.await_ready();
    await_new_rule(&pipeline, "app-of-bad");
    // As the others expect it.
    install::upgrade();
    install::await_operator();
}
