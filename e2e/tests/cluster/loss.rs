//! Nothing that was acknowledged is lost or doubled: over a rollout of the collectors, over a minute
//! without ClickHouse (and over a node that is drained, in [`super::upheaval`]).
//!
//! A sender with the official SDK and its own retries sends spans with unique ids at a stated rate and
//! notes which exports were acknowledged; what is stored is compared with that, in spans and in rollups.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::support::apps::{App, Report, ask, stop_sender, try_ask};
use super::support::install;
use super::support::kube::kubectl;
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// Spans a second of each sender.
pub const RATE: u64 = 40;

/// A sender on each node.
pub const SENDERS: [&str; 2] = ["sender-one", "sender-two"];

/// The names of the nodes, in order.
pub fn nodes() -> Vec<String> {
    let names = kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[*].metadata.name}",
    ]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// A sender on each node, sending.
pub fn place_senders(pipeline: &Pipeline, nodes: &[String]) {
    for (name, node) in SENDERS.iter().zip(nodes) {
        App::python(name, "sender")
            .on(node)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
            .with("RATE", RATE.to_string())
            // The SDK tries again for this long.
            .with("OTEL_EXPORTER_OTLP_TIMEOUT", "180")
            .with("WORKERS", "256")
            .place(pipeline.namespace);
    }
    for name in SENDERS {
        await_acknowledged(pipeline.namespace, name, 1);
    }
}

/// Waits until that many more spans were acknowledged than now.
pub fn await_acknowledged(namespace: &Namespace, sender: &str, more: u64) {
    let count = |said: &serde_json::Value| said["acknowledgedCount"].as_u64().unwrap();
    let before = count(&ask(namespace, sender, "/"));
    await_some("acknowledged spans", LIMIT, || {
        let said = try_ask(namespace, sender, "/")?;
        want(count(&said) >= before + more, || said.to_string())
    });
}

/// Stops them all; what they say.
pub fn stop_senders(namespace: &Namespace) -> Report {
    let mut all = Report {
        acknowledged: BTreeSet::new(),
        refused: BTreeSet::new(),
    };
    for name in SENDERS {
        let report = stop_sender(namespace, name);
        all.acknowledged.extend(report.acknowledged);
        all.refused.extend(report.refused);
    }
    all
}

/// Every acknowledged span is stored once, nothing else is, and the rollups count the same.
pub fn check_stored(pipeline: &Pipeline, report: &Report) {
    let services = "service IN ('sender-one', 'sender-two')";
    let stored = pipeline.sql(&format!(
        "SELECT concat(lower(hex(trace_id)), ':', lower(hex(span_id))) FROM spanloom.spans \
         WHERE {services} FORMAT TSV"
    ));
    let rows: Vec<_> = stored.lines().collect();
    let unique: BTreeSet<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    let lost: Vec<_> = report.acknowledged.difference(&unique).take(5).collect();
    let sent: BTreeSet<_> = report
        .acknowledged
        .union(&report.refused)
        .cloned()
        .collect();
    let invented: Vec<_> = unique.difference(&sent).take(5).collect();
    println!(
        "{} acknowledged, {} refused, {} stored in {} rows",
        report.acknowledged.len(),
        report.refused.len(),
        unique.len(),
        rows.len()
    );
    assert!(lost.is_empty(), "acknowledged but not stored: {lost:?} …");
    assert!(invented.is_empty(), "stored but never sent: {invented:?} …");
    assert_eq!(rows.len(), unique.len(), "spans are stored twice");
    let counted = pipeline.sql(&format!(
        "SELECT sum(count) FROM spanloom.red WHERE {services} FORMAT TSV"
    ));
    assert_eq!(
        counted.trim(),
        rows.len().to_string(),
        "rollups and spans differ"
    );
}

#[test]
fn a_rollout_of_the_collectors_loses_nothing() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    place_senders(&pipeline, &nodes());

    for memory in ["300Mi", "310Mi"] {
        pipeline.apply(&json!({"collector": {"resources": {
            "requests": {"cpu": "50m", "memory": memory},
            "limits": {"memory": "512Mi"},
        }}}));
        pipeline.await_ready();
        let requested = namespace.kubectl(&[
            "get",
            "daemonset/traces-collector",
            "--output=jsonpath={.spec.template.spec.containers[0].resources.requests.memory}",
        ]);
        assert_eq!(requested, memory);
        namespace.kubectl(&[
            "rollout",
            "status",
            "daemonset/traces-collector",
            "--timeout=180s",
        ]);
        for name in SENDERS {
            await_acknowledged(&namespace, name, RATE);
        }
    }
    let report = stop_senders(&namespace);
    assert!(
        report.refused.is_empty(),
        "{} refused",
        report.refused.len()
    );
    check_stored(&pipeline, &report);
}

#[test]
fn a_minute_without_clickhouse_loses_nothing() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    place_senders(&pipeline, &nodes());

    // Nobody but us touches the store meanwhile.
    pipeline.apply(&json!({"managementState": "Unmanaged"}));
    let scale = |replicas: &str| {
        namespace.kubectl(&["scale", "statefulset/traces-clickhouse", replicas]);
    };
    scale("--replicas=0");
    namespace.kubectl(&[
        "wait",
        "--for=delete",
        "pod/traces-clickhouse-0",
        "--timeout=120s",
    ]);
    let gone = Instant::now();
    // New exports wait or are refused so that they are sent again; none is acknowledged.
    let acknowledged = || {
        SENDERS.map(|name| {
            ask(&namespace, name, "/")["acknowledgedCount"]
                .as_u64()
                .unwrap()
        })
    };
    let at_once = acknowledged();
    let pending = |name: &str| try_ask(&namespace, name, "/").map(|said| said["pending"].clone());
    await_some("a minute without ClickHouse", LIMIT, || {
        want(gone.elapsed() >= Duration::from_secs(60), || {
            "not yet".to_owned()
        })
    });
    let later = acknowledged();
    for (before, after) in at_once.iter().zip(&later) {
        // What ClickHouse had confirmed may have been on its way.
        assert!(
            after - before <= 2 * RATE,
            "{at_once:?} became {later:?} without a store"
        );
    }
    println!("waiting after a minute: {:?}", SENDERS.map(pending));
    scale("--replicas=1");
    pipeline.apply(&json!({"managementState": "Managed"}));
    pipeline.await_ready();
    for name in SENDERS {
        await_acknowledged(&namespace, name, RATE);
    }
    let report = stop_senders(&namespace);
    assert!(
        report.refused.is_empty(),
        "{} refused",
        report.refused.len()
    );
    check_stored(&pipeline, &report);
}
