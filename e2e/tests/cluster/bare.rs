//! The cluster itself, without Spanloom: what every other scenario stands on.

use super::support::apps::{App, ask, try_fetch};
use super::support::kube::kubectl;
use super::support::namespace::Namespace;
use serde_json::json;

use super::support::kube::{apply, try_kubectl};

/// The names of the nodes, in order.
fn nodes() -> Vec<String> {
    let names = kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[*].metadata.name}",
    ]);
    names.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn services_are_reached_by_name_across_nodes() {
    let namespace = Namespace::new("bare");
    let nodes = nodes();
    assert!(nodes.len() >= 2, "the scenarios need two nodes: {nodes:?}");
    let nowhere = "http://localhost:9";
    App::python("callee", "service")
        .on(&nodes[0])
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere)
        .place(&namespace);
    for (name, node) in [("far", &nodes[1]), ("near", &nodes[0])] {
        App::node(name, "http://callee")
            .on(node)
            .with("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere)
            .place(&namespace);
        let answer = ask(&namespace, name, "/call");
        assert_eq!(answer["traceId"], answer["below"]["traceId"], "{answer}");
    }

    // A full name, from a shell in a pod; and logs.
    let url = format!("http://callee.{}.svc.cluster.local/work", namespace.name());
    let answer = try_fetch(&namespace, "callee", &url, &[]).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let log = namespace.kubectl(&["logs", "deployment/callee"]);
    assert_eq!(log.lines().next(), Some("ready"), "{log}");
}

#[test]
fn an_image_can_be_a_volume() {
    let namespace = Namespace::new("volume");
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader", "namespace": namespace.name()},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "other", "image": {
                "reference": "spanloom.test/demo-node:1", "pullPolicy": "IfNotPresent",
            }}],
            "containers": [{
                "name": "reader",
                "image": "spanloom.test/demo-python:1",
                "args": ["idle"],
                "volumeMounts": [{"name": "other", "mountPath": "/other"}],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }));
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/reader",
        "--timeout=120s",
    ]);
    let list = "import os; print(sorted(os.listdir('/other/app')))";
    let listed = namespace.kubectl(&["exec", "reader", "--", "/usr/bin/python", "-c", list]);
    assert_eq!(listed.trim(), "['demo.cjs', 'node_modules']");
}

/// A pod that asks for privileges is refused: the other scenarios' pods are checked by the same rule.
#[test]
fn namespaces_enforce_restricted() {
    let namespace = Namespace::new("restricted");
    let name = namespace.name();
    let image = "--image=spanloom.test/demo-python:1";
    let refused = try_kubectl(&["--namespace", name, "run", "root", image], None).unwrap_err();
    assert!(refused.contains("violates PodSecurity"), "{refused}");
}
