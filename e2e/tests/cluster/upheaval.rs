//! What disturbs every pipeline of the cluster, so that each has the installation alone: the operator
//! dies in the middle of its work, a node is drained or [hangs](dead_node), the release is removed and comes
//! back, it is [upgraded](upgrade), its certificate authority is [replaced](rotation).
//!
//! The name of this file puts them last: while one waits for the others to end, no other begins.

mod dead_node;
mod rotation;
mod upgrade;

use std::time::Duration;

use serde_json::json;

use super::loss::{
    await_more, await_time, nodes, place_senders, stop_and_check, without_clickhouse,
};
use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::{kubectl, try_get, try_kubectl};
use super::support::pipeline::{NAME, Pipeline, attribute};
use super::support::{LIMIT, await_some, want};

/// How long the store is away while nothing else runs. [A rollout](super::loss) is without it for a minute.
const AWAY: Duration = Duration::from_secs(20);

/// Kills the operator's pods without a chance to tidy up.
fn kill_operator() {
    kubectl(&[
        "--namespace",
        install::NAMESPACE,
        "delete",
        "pods",
        "--selector=app.kubernetes.io/component=operator",
        "--grace-period=0",
        "--force",
    ]);
}

#[test]
fn an_operator_that_is_killed_again_and_again_gets_there() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::applied(&namespace, &json!({}));
    // Each time as soon as it has come one step further.
    for object in [
        "secret/traces-clickhouse",
        "statefulset/traces-clickhouse",
        "configmap/traces-collector",
        "daemonset/traces-collector",
    ] {
        await_some(object, LIMIT, || namespace.try_get(&[object]));
        kill_operator();
    }
    pipeline.await_ready();
    install::await_operator();
    let jobs = namespace.get(&["jobs"]);
    assert!(jobs["items"].as_array().unwrap().len() <= 1, "{jobs}");
}

#[test]
fn a_release_that_is_removed_and_comes_back_finds_its_data() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    let spec = json!({});
    let pipeline = Pipeline::ready(&namespace, &spec);
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);
    let answer = ask(&namespace, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap().to_owned();
    pipeline.await_trace(&trace_id, 1);
    let claim = || namespace.get(&["persistentvolumeclaim", "data-traces-clickhouse-0"]);
    let before = claim()["metadata"]["uid"].clone();

    // Without the release collectors may not see pods. One that starts takes spans all the same.
    install::uninstall();
    let collectors = ["pods", "--selector=app.kubernetes.io/component=collector"];
    namespace.kubectl(&[&["delete"][..], &collectors].concat());
    namespace.kubectl(&[
        "rollout",
        "status",
        "daemonset/traces-collector",
        "--timeout=180s",
    ]);
    let answer = ask(&namespace, "app", "/work");
    let spans = pipeline.await_trace(answer["traceId"].as_str().unwrap(), 1);
    let pod = attribute(&spans[0], "resource", "k8s.pod.name");
    assert_eq!(pod, None, "enriched without rights");
    install::upgrade();

    namespace.kubectl(&[
        "delete",
        "tracingpipeline",
        NAME,
        "--wait=true",
        "--timeout=120s",
    ]);
    install::uninstall();
    await_some("an end of all pods of the pipeline", LIMIT, || {
        let pods = namespace.try_get(&["pods", "--selector=spanloom.dev/pipeline=traces"])?;
        want(pods["items"] == json!([]), || "pods are left".to_owned())
    });
    // Nothing is stuck: the release's own namespace can go, and comes back.
    kubectl(&[
        "delete",
        "namespace",
        install::NAMESPACE,
        "--wait=true",
        "--timeout=120s",
    ]);
    assert!(try_get("default", &["namespace", install::NAMESPACE]).is_err());
    assert_eq!(
        claim()["metadata"]["uid"],
        before,
        "the volume claim was deleted"
    );

    install::upgrade();
    pipeline.apply(&spec);
    pipeline.await_ready();
    pipeline.await_trace(&trace_id, 1);
    assert_eq!(claim()["metadata"]["uid"], before, "another volume");
    let left = try_kubectl(&["get", "namespace", install::NAMESPACE], None);
    assert!(left.is_ok(), "{left:?}");
}

#[test]
fn a_drained_node_loses_nothing() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    let spec = json!({"query": {"replicas": 2}});
    let pipeline = Pipeline::ready(&namespace, &spec);
    let nodes = nodes();
    place_senders(&pipeline, &nodes);
    // Not the node of the store, whose pod would have to move too.
    let store = namespace.kubectl(&[
        "get",
        "pod/traces-clickhouse-0",
        "--output=jsonpath={.spec.nodeName}",
    ]);
    let node = nodes.iter().find(|node| **node != store).unwrap().clone();
    let _back = Uncordon(node.clone());
    // Not the sender: it is bound to the node. What an earlier scenario left may be going just now, and
    // without its DaemonSet it moves only by force.
    kubectl(&[
        "drain",
        &node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--pod-selector=spanloom.dev/pipeline=traces",
        "--timeout=180s",
    ]);
    pipeline.await_ready();
    // The collector of a drained node goes on until the node does.
    await_more(&namespace);
    // It is deleted while it cannot store what it has.
    let pod = pipeline.collector_on(&node);
    let (name, uid) = (&pod["metadata"]["name"], &pod["metadata"]["uid"]);
    without_clickhouse(&pipeline, &spec, &spec, || {
        namespace.kubectl(&["delete", "pod", name.as_str().unwrap(), "--wait=false"]);
        await_time("some time without ClickHouse", AWAY);
    });
    assert_ne!(&pipeline.collector_on(&node)["metadata"]["uid"], uid);
    await_more(&namespace);
    stop_and_check(&pipeline);
}

/// Lets pods onto the node again, whatever came of the scenario.
struct Uncordon(String);

impl Drop for Uncordon {
    fn drop(&mut self) {
        let _ = super::support::kube::try_kubectl(&["uncordon", &self.0], None);
    }
}
