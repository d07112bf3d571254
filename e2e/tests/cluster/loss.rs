//! Nothing that was acknowledged is lost or doubled: over a rollout of the collectors, over a minute
//! without ClickHouse (and over a node that is drained, in [`super::upheaval`]).
//!
//! A sender with the official SDK and its own retries sends spans with unique ids at a stated rate and
//! notes which exports were acknowledged; what is stored is compared with that, in spans and in rollups.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::password;
use super::support::apps::{App, Report, ask, stop_sender, try_ask};
use super::support::install;
use super::support::kube::kubectl;
use super::support::namespace::Namespace;
use super::support::node;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// Spans a second of each sender.
pub const RATE: u64 = 40;

/// How long the store is away.
const MINUTE: Duration = Duration::from_secs(60);

/// Which pods are collectors.
pub const COLLECTORS: &str = "--selector=app.kubernetes.io/component=collector";

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
    await_stored_within(STORED_WITHIN, pipeline, report)
}

/// The same for a log that takes so long to deliver.
pub fn await_stored_within(limit: Duration, pipeline: &Pipeline, report: &Report) -> Faults {
    let mut last = Faults::default();
    let until = Instant::now() + limit;
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
    let with = |memory: &str| {
        json!({"collector": {"resources": {
            "requests": {"cpu": "50m", "memory": memory},
            "limits": {"memory": "512Mi"},
        }}})
    };
    let await_rolled_out = |memory: &str| {
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
    };
    pipeline.apply(&with("300Mi"));
    await_rolled_out("300Mi");

    // Pods that are told to end wait for the store with what they have.
    pipeline.apply(&with("310Mi"));
    await_some("a rollout that has begun", LIMIT, || {
        let pods = namespace.try_get(&["pods", COLLECTORS])?;
        let mut pods = pods["items"].as_array().into_iter().flatten();
        let ends = pods.any(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        want(ends, || "no pod is being replaced".to_owned())
    });
    without_clickhouse(&pipeline, &with("310Mi"), &with("310Mi"), || {
        await_time("a minute without ClickHouse", MINUTE);
    });
    await_rolled_out("310Mi");
    stop_and_check(&pipeline);
}

/// Stops the managed store, and starts it again in the end: the pipeline, which is of the spec `before`, has
/// `after` then, and is Ready. The operator leaves everything as it is meanwhile.
pub fn without_clickhouse(
    pipeline: &Pipeline,
    before: &Value,
    after: &Value,
    meanwhile: impl FnOnce(),
) {
    let namespace = pipeline.namespace;
    let scale = |replicas| {
        namespace.kubectl(&["scale", "statefulset/traces-clickhouse", replicas]);
    };
    let mut unmanaged = before.clone();
    unmanaged["managementState"] = json!("Unmanaged");
    pipeline.apply(&unmanaged);
    scale("--replicas=0");
    namespace.kubectl(&[
        "wait",
        "--for=delete",
        "pod/traces-clickhouse-0",
        "--timeout=120s",
    ]);
    meanwhile();
    scale("--replicas=1");
    pipeline.apply(after);
    pipeline.await_ready();
}

/// Returns when that much time has gone by.
pub fn await_time(what: &str, time: Duration) {
    let begun = Instant::now();
    await_some(what, time + LIMIT, || {
        want(begun.elapsed() >= time, || "not yet".to_owned())
    });
}

#[test]
fn a_minute_without_clickhouse_loses_nothing() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let stored = json!({"acknowledge": "Stored"});
    let pipeline = Pipeline::ready(&namespace, &json!({"collector": stored}));
    place_senders(&pipeline, &nodes());

    let spec = json!({"collector": stored});
    without_clickhouse(&pipeline, &spec, &spec, || {
        // New exports wait or are refused so that they are sent again; none is acknowledged.
        let acknowledged = || {
            SENDERS.map(|name| {
                ask(&namespace, name, "/")["acknowledgedCount"]
                    .as_u64()
                    .unwrap()
            })
        };
        let at_once = acknowledged();
        let pending =
            |name: &str| try_ask(&namespace, name, "/").map(|said| said["pending"].clone());
        await_time("a minute without ClickHouse", MINUTE);
        let later = acknowledged();
        for (before, after) in at_once.iter().zip(&later) {
            // What ClickHouse had confirmed may have been on its way.
            assert!(
                after - before <= 2 * RATE,
                "{at_once:?} became {later:?} without a store"
            );
        }
        println!("waiting after a minute: {:?}", SENDERS.map(pending));
    });
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

    let mut slower = logged.clone();
    slower["resources"] = json!({"requests": {"memory": "300Mi"}, "limits": {"memory": "512Mi"}});
    let (before, after) = (json!({"collector": logged}), json!({"collector": slower}));
    // The backlog drains while the pods that have it are replaced.
    without_clickhouse(&pipeline, &before, &after, || {
        // Half a minute's worth of each, all of it in the log, which their containers find again.
        let half = || {
            for name in SENDERS {
                await_acknowledged(&namespace, name, 15 * RATE);
            }
        };
        half();
        restart_collectors(&pipeline);
        half();
    });
    await_more(&namespace);

    password::rotate(&pipeline);
    await_more(&namespace);
    stop_and_check(&pipeline);
}

/// Kills the collectors' containers, where they can be reached, and returns when they have started again.
fn restart_collectors(pipeline: &Pipeline) {
    if !node::can_be_reached() {
        println!("no container was killed: only those of `cargo xtask cluster` can be reached");
        return;
    }
    for node in nodes() {
        let pod = pipeline.collector_on(&node);
        node::kill_containers(&node, pod["metadata"]["uid"].as_str().unwrap());
        await_some("a container that was started again", LIMIT, || {
            let pod = pipeline.collector_on(&node);
            let status = &pod["status"]["containerStatuses"][0];
            let started = status["restartCount"].as_u64() > Some(0) && status["ready"] == true;
            want(started, || status.to_string())
        });
    }
}
