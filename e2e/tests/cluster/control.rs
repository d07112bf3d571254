//! Control runs of [`super::loss`]: collectors that do what ours must not are caught by the same check,
//! so that it would see if ours did.
//!
//! No release can do such harm. The pipeline is Unmanaged, and the DaemonSet is given the image of a binary that
//! is built for this alone, with the cargo feature `control-runs`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::loss::{
    OF_SENDERS, SENDERS, compare, nodes, place_senders_that_export_every, stop_senders,
};
use super::support::apps::try_ask;
use super::support::install;
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

const COLLECTORS: &str = "daemonset/traces-collector";
const STORE: &str = "statefulset/traces-clickhouse";

/// Makes collectors control runs: without these protections.
fn leave_out(namespace: &Namespace, protections: &str) {
    let path = "--output=jsonpath={.spec.template.spec.containers[0].image}";
    let image = namespace.kubectl(&["get", COLLECTORS, path]);
    let image = image.replace("spanloom-collector:", "spanloom-collector-control:");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{
        "name": "collector",
        "image": image.trim(),
        "env": [{"name": "SPANLOOM_CONTROL_WITHOUT", "value": protections}],
    }]}}}});
    namespace.kubectl(&["patch", COLLECTORS, "--patch", &patch.to_string()]);
    rolled_out(namespace, COLLECTORS);
}

fn rolled_out(namespace: &Namespace, object: &str) {
    namespace.kubectl(&["rollout", "status", object, "--timeout=180s"]);
}

/// The rollout that the check is made for.
fn roll_out(namespace: &Namespace) {
    namespace.kubectl(&["rollout", "restart", COLLECTORS]);
    rolled_out(namespace, COLLECTORS);
}

/// Exports are under way at any time.
fn place(pipeline: &Pipeline) {
    place_senders_that_export_every(pipeline, &nodes(), "0.05");
}

fn remove_senders(namespace: &Namespace) {
    for name in SENDERS {
        let name = format!("deployment/{name}");
        namespace.kubectl(&["delete", &name, "--cascade=foreground", "--timeout=120s"]);
    }
}

#[test]
fn collectors_that_do_not_drain_or_promise_too_early_are_caught() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    // A log would keep what these collectors lose.
    let stored = json!({"acknowledge": "Stored"});
    let pipeline = Pipeline::ready(&namespace, &json!({"collector": stored}));
    pipeline.apply(&json!({"managementState": "Unmanaged", "collector": stored}));
    pipeline.await_condition("Accepted", "True", Some("Unmanaged"));

    // Without draining, exports that were under way are refused, or sent again and stored twice. One
    // rollout may be lucky.
    leave_out(&namespace, "draining");
    place(&pipeline);
    let mut rollouts = 0;
    await_some("a fault of collectors that do not drain", LIMIT, || {
        roll_out(&namespace);
        rollouts += 1;
        let doubled = pipeline.try_sql(&format!(
            "SELECT count() - uniqExact(trace_id, span_id) FROM spanloom.spans WHERE {OF_SENDERS} \
             FORMAT TSV"
        ))?;
        let refused = SENDERS.map(|name| try_ask(&namespace, name, "/"));
        let is_refused = |said: &Result<Value, String>| {
            said.as_ref()
                .is_ok_and(|said| said["refusedCount"].as_u64() > Some(0))
        };
        want(
            doubled.trim() != "0" || refused.iter().any(is_refused),
            || format!("none after {rollouts} rollouts"),
        )
    });
    let earlier = stop_senders(&namespace);
    let faults = compare(&pipeline, &earlier);
    println!(
        "without draining, after {rollouts} rollouts: {} refused, {faults}",
        earlier.refused.len()
    );
    assert!(!faults.lost.is_empty() || faults.doubled > 0 || !earlier.refused.is_empty());
    remove_senders(&namespace);

    // With answers that come before the insert as well, what was promised is lost: for certain when there is
    // no store at the time.
    leave_out(&namespace, "draining,storing");
    place(&pipeline);
    let acknowledged = |name: &str| -> Result<u64, String> {
        let said = try_ask(&namespace, name, "/")?;
        Ok(said["acknowledgedCount"].as_u64().unwrap())
    };
    let before = SENDERS.map(|name| await_some("an answer", LIMIT, || acknowledged(name)));
    let count = |replicas: &str| {
        namespace.kubectl(&["scale", STORE, replicas]);
    };
    count("--replicas=0");
    let pod = "pod/traces-clickhouse-0";
    namespace.kubectl(&["wait", "--for=delete", pod, "--timeout=120s"]);
    // What is in memory now was promised. Collectors that know of no store do not take more for long.
    for (name, before) in SENDERS.iter().zip(before) {
        await_some("early answers", LIMIT, || {
            let now = acknowledged(name)?;
            want(now > before, || format!("{before}, then {now}"))
        });
    }
    roll_out(&namespace);
    count("--replicas=1");
    rolled_out(&namespace, STORE);
    let mut report = stop_senders(&namespace);
    // The first ones' rows are there as well.
    report.acknowledged.extend(earlier.acknowledged);
    report.refused.extend(earlier.refused);
    // What the last collectors still have is on its way, and not lost: they give up after 5 s.
    let quiet = Duration::from_secs(10);
    let mut last = (Instant::now(), String::new());
    await_some("an end of what is stored", LIMIT, || {
        let rows = pipeline.try_sql(&format!(
            "SELECT count() FROM spanloom.spans WHERE {OF_SENDERS} FORMAT TSV"
        ))?;
        if rows != last.1 {
            last = (Instant::now(), rows);
        }
        want(last.0.elapsed() > quiet, || "still storing".to_owned())
    });
    let faults = compare(&pipeline, &report);
    println!("with early answers: {faults}");
    assert!(!faults.lost.is_empty(), "early answers were not caught");
}
