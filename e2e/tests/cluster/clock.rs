//! A collector's clock is an hour off, by libfaketime: its certificates, its log and its batches do not care.

use std::time::Duration;

use serde_json::json;

use super::loss::{await_more, nodes, place_senders, stop_and_check};
use super::support::directory::Directory;
use super::support::install;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

/// The path of libfaketime, which `cargo xtask` finds or installs.
const LIBRARY: &str = "SPANLOOM_FAKETIME";

const MOUNT: &str = "/faketime";

/// How far the clock of the collectors is ahead of their node's, in seconds, by the last thing they logged.
fn offset(pipeline: &Pipeline, node: &str) -> Result<i64, String> {
    let pod = pipeline.collector_on(node);
    let pod = pod["metadata"]["name"].as_str().unwrap();
    let log = [
        "logs",
        pod,
        "--container=collector",
        "--timestamps",
        "--tail=1",
    ];
    let line = pipeline.namespace.try_kubectl(&log)?;
    let (of_node, said) = line.split_once(' ').ok_or("nothing was logged")?;
    let said: serde_json::Value = serde_json::from_str(said).map_err(|error| error.to_string())?;
    let own = said["timestamp"].as_str().ok_or("no timestamp")?;
    let [of_node, own] = [of_node, own].map(|text| text.parse::<jiff::Timestamp>().unwrap());
    Ok(own.duration_since(of_node).as_secs())
}

#[test]
fn an_hour_off_loses_nothing() {
    let Some(library) = std::env::var_os(LIBRARY) else {
        println!("SKIPPED: {LIBRARY} does not name libfaketime; cargo xtask test sets it");
        return;
    };
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    namespace.enforce("privileged");
    let nodes = nodes();
    let directory = Directory::of_root(&namespace, &nodes);
    directory.write("libfaketime.so.1", &std::fs::read(library).unwrap());
    let set = |seconds: &str| directory.write("offset", seconds.as_bytes());
    set("+0");
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    place_senders(&pipeline, &nodes);

    pipeline.apply(&json!({"managementState": "Unmanaged"}));
    let mount = json!([{"name": "faketime", "mountPath": MOUNT, "readOnly": true}]);
    let variables = json!([
        {"name": "LD_PRELOAD", "value": format!("{MOUNT}/libfaketime.so.1")},
        {"name": "FAKETIME_TIMESTAMP_FILE", "value": format!("{MOUNT}/offset")},
        // The file is read each time.
        {"name": "FAKETIME_NO_CACHE", "value": "1"},
        // Only the wall clock is ever set.
        {"name": "FAKETIME_DONT_FAKE_MONOTONIC", "value": "1"},
    ]);
    let patch = json!({"spec": {"template": {"spec": {
        "volumes": [{"name": "faketime", "hostPath": {"path": directory.path(), "type": "Directory"}}],
        "containers": [{"name": "collector", "volumeMounts": mount, "env": variables}],
    }}}});
    let daemon_set = "daemonset/traces-collector";
    namespace.kubectl(&["patch", daemon_set, "--patch", &patch.to_string()]);
    let await_rollout = || {
        namespace.kubectl(&["rollout", "status", daemon_set, "--timeout=180s"]);
    };
    await_rollout();
    await_more(&namespace);
    for wanted in [-3600, 3600] {
        // It changes under those that run, and is so for those that begin.
        set(&format!("{wanted:+}"));
        await_more(&namespace);
        namespace.kubectl(&["rollout", "restart", daemon_set]);
        await_rollout();
        for node in &nodes {
            await_some("a clock that is set", LIMIT, || {
                let offset = offset(&pipeline, node)?;
                let is_near =
                    Duration::from_secs(offset.abs_diff(wanted)) < Duration::from_secs(120);
                want(is_near, || format!("{offset} s"))
            });
        }
        await_more(&namespace);
    }
    set("+0");
    await_more(&namespace);
    // The operator takes the clock away.
    pipeline.apply(&json!({}));
    pipeline.await_ready();
    stop_and_check(&pipeline);
}
