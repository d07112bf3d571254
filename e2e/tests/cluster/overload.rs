//! More spans than the collectors can take, for as long as `SPANLOOM_FAULTS` says: no container is restarted, and
//! what was acknowledged is stored.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::loss::{
    COLLECTORS, Faults, SENDERS, await_acknowledged, await_stored_within, await_time, nodes,
    stop_senders,
};
use super::support::apps::{App, ask};
use super::support::install;
use super::support::pipeline::Pipeline;

/// What a collector may use: about 300 spans a second of a debug build.
const CPU: &str = "30m";

/// Spans a second of each sender.
const RATE: u64 = 1_500;

/// How long: two minutes with `cargo xtask faults`' length.
fn length() -> Duration {
    let is_full = std::env::var("SPANLOOM_FAULTS").is_ok_and(|length| length == "full");
    Duration::from_secs(if is_full { 120 } else { 20 })
}

/// Each collector's pod: its uid and how often its containers were restarted.
fn lives(pipeline: &Pipeline) -> BTreeSet<(String, u64)> {
    let pods = pipeline.namespace.get(&["pods", COLLECTORS]);
    let pods = pods["items"].as_array().unwrap().iter();
    let restarts = |pod: &Value| {
        let containers = pod["status"]["containerStatuses"].as_array().unwrap();
        let each = containers.iter().map(|one| one["restartCount"].as_u64());
        each.map(Option::unwrap).sum()
    };
    let life = |pod: &Value| {
        (
            pod["metadata"]["uid"].as_str().unwrap().to_owned(),
            restarts(pod),
        )
    };
    pods.map(life).collect()
}

#[test]
fn an_overload_restarts_no_collector_and_loses_nothing() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(
        &namespace,
        &json!({"collector": {
            "log": {"size": "256Mi"},
            "resources": {
                "requests": {"cpu": CPU, "memory": "128Mi"},
                "limits": {"cpu": CPU, "memory": "128Mi"},
            },
        }}),
    );
    let before = lives(&pipeline);
    for (name, node) in SENDERS.iter().zip(&nodes()) {
        App::python(name, "sender")
            .on(node)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
            .with("RATE", RATE.to_string())
            .with("EXPORT_SECONDS", "0.25")
            .with("WORKERS", "8")
            .with("QUEUE", (4 * RATE).to_string())
            .with("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
            .place(&namespace);
    }
    for name in SENDERS {
        await_acknowledged(&namespace, name, 1);
    }
    await_time("an overload", length());
    let skipped = SENDERS.map(|name| {
        let said = ask(&namespace, name, "/");
        println!("{name}: {said}");
        said["skipped"].as_u64().unwrap()
    });
    let report = stop_senders(&namespace);
    let taken = report.acknowledged.len() as u64;
    let not_taken = report.refused.len() as u64 + skipped.iter().sum::<u64>();
    // How much it is depends on the machine: on a busy one the senders send less.
    assert!(
        not_taken > taken / 4,
        "{taken} spans were taken and only {not_taken} were not: no overload"
    );
    let faults = await_stored_within(Duration::from_secs(240), &pipeline, &report);
    assert!(faults == Faults::default(), "{faults}");
    assert_eq!(lives(&pipeline), before, "a collector was restarted");
    pipeline.await_ready();
}
