//! The managed store has another password: its clients are not replaced for that.

use serde_json::{Value, json};

use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, random_word, want};

/// The pods of collectors and query services, each with how often it was started.
fn clients(pipeline: &Pipeline) -> Vec<(String, Value)> {
    let of = "app.kubernetes.io/component in (collector, query)";
    let pods = pipeline.namespace.get(&["pods", "--selector", of]);
    let pods = pods["items"].as_array().into_iter().flatten();
    // Those that are told to end have been replaced before.
    let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let mut all: Vec<_> = pods
        .filter(stays)
        .map(|pod| {
            let starts = &pod["status"]["containerStatuses"][0]["restartCount"];
            (pod["metadata"]["uid"].to_string(), starts.clone())
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

/// Changes the password, and returns when the pipeline works with it.
pub fn rotate(pipeline: &Pipeline) {
    let before = clients(pipeline);
    let sets = || {
        let set = pipeline
            .namespace
            .get(&["statefulset", "traces-clickhouse"]);
        set["metadata"]["generation"].clone()
    };
    let generation = sets();
    let password = random_word();
    let patch = json!({"stringData": {"password": password}}).to_string();
    pipeline.namespace.kubectl(&[
        "patch",
        "secret/traces-clickhouse",
        "--type=merge",
        "--patch",
        &patch,
    ]);
    await_some("the server being renewed", LIMIT, || {
        let now = sets();
        want(now != generation, || format!("generation {now}"))
    });
    let store = "statefulset/traces-clickhouse";
    pipeline
        .namespace
        .kubectl(&["rollout", "status", store, "--timeout=180s"]);
    // As its owner, with the new password.
    assert_eq!(pipeline.sql("SELECT 1 FORMAT TSV").trim(), "1");
    pipeline.await_ready();
    assert_eq!(clients(pipeline), before, "a client was replaced");
}
