//! A log in a directory of the nodes outlives its pods; what keeps it from being used is said.

use serde_json::json;

use super::loss::{
    Faults, RATE, SENDERS, await_acknowledged, await_more, await_stored, nodes, place_senders,
    stop_senders, without_clickhouse,
};
use super::support::directory::Directory;
use super::support::install;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, want};

const COLLECTORS: &str = "--selector=app.kubernetes.io/component=collector";

/// Waits until the condition of the collectors says this.
fn await_said(pipeline: &Pipeline, text: &str) {
    await_some(&format!("a condition with {text:?}"), LIMIT, || {
        let path = "--output=jsonpath={.status.conditions[?(@.type==\"CollectorsReady\")]}";
        let condition = pipeline
            .namespace
            .try_kubectl(&["get", "tracingpipeline/traces", path])?;
        want(condition.contains(text), || condition.clone())
    });
}

#[test]
fn a_log_on_the_node_outlives_its_pods() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    namespace.enforce("privileged");
    let directory = Directory::of_root(&namespace, &nodes());
    let collector = json!({"log": {"size": "512Mi", "hostPath": directory.path()}, "maxSurge": 1});

    // What is missing is said: first the namespace does not allow it, then only root can write to it.
    namespace.enforce("restricted");
    let pipeline = Pipeline::applied(&namespace, &json!({"collector": collector}));
    await_said(&pipeline, "hostPath");
    namespace.enforce("privileged");
    await_said(&pipeline, "must be a folder that this user can write to");
    directory.give_to_collectors();
    pipeline.place_asker();
    pipeline.await_ready();

    // What every pod has left when it is deleted, the next one on its node delivers.
    place_senders(&pipeline, &nodes());
    // Their replacement does not wait for the store either.
    let mut slower = collector.clone();
    slower["resources"] = json!({"requests": {"memory": "300Mi"}, "limits": {"memory": "512Mi"}});
    let (before, after) = (
        json!({"collector": collector}),
        json!({"collector": slower}),
    );
    without_clickhouse(&pipeline, &before, &after, || {
        for name in SENDERS {
            await_acknowledged(&namespace, name, 10 * RATE);
        }
        namespace.kubectl(&["delete", "pods", COLLECTORS, "--wait=true"]);
        await_more(&namespace);
    });
    await_more(&namespace);
    let report = stop_senders(&namespace);
    // While a node has no collector, an SDK may give up what it could not send.
    println!("{} were not sent", report.refused.len());
    let faults = await_stored(&pipeline, &report);
    assert!(faults == Faults::default(), "{faults}");
    namespace.kubectl(&["delete", "tracingpipeline/traces"]);
    namespace.kubectl(&["wait", "--for=delete", "pods", COLLECTORS, "--timeout=120s"]);
}
