//! Nothing that was acknowledged is lost or doubled: over a rollout of the collectors, over a minute
//! without ClickHouse (and over a node that is drained, in [`super::upheaval`]).
//!
//! A sender with the official SDK and its own retries sends spans with unique ids at a stated rate and
//! notes which exports were acknowledged; what is stored is compared with that, in spans and in rollups.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::json;

use super::password;
use super::support::apps::{App, Report, ask, stop_sender, try_ask};
use super::support::install;
use super::support::kube::kubectl;
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// Spans a second of each sender.
pub const RATE: u64 = 40;

/// A log that is left is delivered within this time.
const STORED_WITHIN: Duration = Duration::from_secs(90);

/// Which rows are theirs, in SQL.
pub const OF_SENDERS: &str = "service IN ('sender-one', 'sender-two')";

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
    // Between two exports of a sender, in seconds.
    place_senders_that_export_every(pipeline, nodes, "0.5");
}

/// A sender on each node, sending, that begins an export every so many seconds.
pub fn place_senders_that_export_every(pipeline: &Pipeline, nodes: &[String], seconds: &str) {
    for (name, node) in SENDERS.iter().zip(nodes) {
        App::python(name, "sender")
            .on(node)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
            .with("RATE", RATE.to_string())
            .with("EXPORT_SECONDS", seconds)
            // The SDK tries again for this long: more than a busy machine takes to start a store.
            .with("OTEL_EXPORTER_OTLP_TIMEOUT", "600")
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

/// Waits until every sender had about a second's spans acknowledged from now on.
pub fn await_more(namespace: &Namespace) {
    for name in SENDERS {
        await_acknowledged(namespace, name, RATE);
    }
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

/// What is wrong with what is stored, held against what the senders were told.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Acknowledged, but not stored.
    pub lost: Vec<String>,
    /// Stored, but never sent.
    pub invented: Vec<String>,
    /// Rows beyond the first of a span.
    pub doubled: usize,
    /// Spans that the rollups count beyond the rows there are, or less than them.
    pub miscounted: i64,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, ids) in [("lost", &self.lost), ("never sent", &self.invented)] {
            let examples = ids.get(..5).unwrap_or(ids);
            write!(f, "{} {what} {examples:?}, ", ids.len())?;
        }
        let (doubled, miscounted) = (self.doubled, self.miscounted);
        write!(f, "{doubled} stored again, rollups differ by {miscounted}")
    }
}

/// Compares what is stored with what the senders were told.
pub fn compare(pipeline: &Pipeline, report: &Report) -> Faults {
    let stored = pipeline.sql(&format!(
        "SELECT concat(lower(hex(trace_id)), ':', lower(hex(span_id))) FROM spanloom.spans \
         WHERE {OF_SENDERS} FORMAT TSV"
    ));
    let rows: Vec<_> = stored.lines().collect();
    let unique: BTreeSet<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    println!(
        "{} acknowledged, {} refused, {} stored in {} rows",
        report.acknowledged.len(),
        report.refused.len(),
        unique.len(),
        rows.len()
    );
    let counted = pipeline.sql(&format!(
        "SELECT toInt64(sum(count)) FROM spanloom.red WHERE {OF_SENDERS} FORMAT TSV"
    ));
    let counted: i64 = counted.trim().parse().unwrap();
    let sent = report.acknowledged.union(&report.refused).cloned();
    let sent: BTreeSet<_> = sent.collect();
    Faults {
        lost: report.acknowledged.difference(&unique).cloned().collect(),
        invented: unique.difference(&sent).cloned().collect(),
        doubled: rows.len() - unique.len(),
        miscounted: counted - i64::try_from(rows.len()).unwrap(),
    }
}

/// Stops the senders: nobody was refused, every acknowledged span is stored once, nothing else is, and
/// the rollups count the same.
pub fn stop_and_check(pipeline: &Pipeline) {
    let report = stop_senders(pipeline.namespace);
    let refused = report.refused.len();
    assert!(refused == 0, "{refused} refused");
    // What the log has is stored a moment later.
    let faults = await_stored(pipeline, &report);
    assert!(faults == Faults::default(), "{faults}");
}

/// The same comparison, once what was acknowledged is stored or ought to be.
pub fn await_stored(pipeline: &Pipeline, report: &Report) -> Faults {
    let mut last = Faults::default();
    let until = Instant::now() + STORED_WITHIN;
    loop {
        let faults = compare(pipeline, report);
        // Twice the same: nothing more is on its way.
        let is_settled = faults.lost.is_empty() && faults == last;
        if is_settled || Instant::now() > until {
            return faults;
        }
        last = faults;
        std::thread::sleep(Duration::from_millis(500));
    }
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
        await_more(&namespace);
    }
    stop_and_check(&pipeline);
}

/// Has so many servers of the managed store. The pipeline must be `Unmanaged`.
pub fn scale_clickhouse(namespace: &Namespace, replicas: &str) {
    namespace.kubectl(&["scale", "statefulset/traces-clickhouse", replicas]);
}

/// Returns when ClickHouse is gone. The pipeline must be `Unmanaged`.
pub fn stop_clickhouse(namespace: &Namespace) {
    scale_clickhouse(namespace, "--replicas=0");
    namespace.kubectl(&[
        "wait",
        "--for=delete",
        "pod/traces-clickhouse-0",
        "--timeout=120s",
    ]);
}

#[test]
fn a_minute_without_clickhouse_loses_nothing() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let stored = json!({"acknowledge": "Stored"});
    let pipeline = Pipeline::ready(&namespace, &json!({"collector": stored}));
    place_senders(&pipeline, &nodes());

    // Nobody but us touches the store meanwhile.
    pipeline.apply(&json!({"managementState": "Unmanaged", "collector": stored}));
    stop_clickhouse(&namespace);
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
    scale_clickhouse(&namespace, "--replicas=1");
    pipeline.apply(&json!({"managementState": "Managed", "collector": stored}));
    pipeline.await_ready();
    await_more(&namespace);
    stop_and_check(&pipeline);
}

#[test]
fn with_a_log_senders_are_answered_without_clickhouse_and_nothing_is_lost() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let logged = json!({"acknowledge": "Logged", "log": {"size": "512Mi"}});
    let pipeline = Pipeline::ready(&namespace, &json!({"collector": logged}));
    place_senders(&pipeline, &nodes());

    pipeline.apply(&json!({"managementState": "Unmanaged", "collector": logged}));
    stop_clickhouse(&namespace);
    // Half a minute's worth of each, all of it in the log.
    for name in SENDERS {
        await_acknowledged(&namespace, name, 30 * RATE);
    }
    scale_clickhouse(&namespace, "--replicas=1");
    let mut slower = logged.clone();
    slower["resources"] = json!({"requests": {"memory": "300Mi"}, "limits": {"memory": "512Mi"}});
    // The backlog drains while the pods that have it are replaced.
    pipeline.apply(&json!({"managementState": "Managed", "collector": slower}));
    pipeline.await_ready();
    await_more(&namespace);

    password::rotate(&pipeline);
    await_more(&namespace);
    stop_and_check(&pipeline);
}
