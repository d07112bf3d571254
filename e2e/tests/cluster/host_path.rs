//! A log in a directory of the nodes outlives its pods; what keeps it from being used is said.

use serde_json::{Value, json};

use super::loss::{
    Faults, RATE, SENDERS, await_acknowledged, await_more, await_stored, nodes, place_senders,
    scale_clickhouse, stop_clickhouse, stop_senders,
};
use super::support::install;
use super::support::kube::{apply, kubectl};
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;
use super::support::{LIMIT, await_some, random_word, want};

/// The user of the collectors.
const USER: u32 = 65_532;

/// Where the nodes' directories are.
const PARENT: &str = "/tmp";

const COLLECTORS: &str = "--selector=app.kubernetes.io/component=collector";

/// A directory of every node. It is removed in the end.
struct Directory<'a> {
    namespace: &'a Namespace,
    name: String,
    pods: Vec<String>,
}

impl<'a> Directory<'a> {
    /// Made as the kubelet would: only root can write to it.
    fn of_root(namespace: &'a Namespace) -> Self {
        let directory = Self {
            namespace,
            name: format!("spanloom-e2e-{}", random_word()),
            pods: (1..=nodes().len()).map(|n| format!("node-{n}")).collect(),
        };
        for (pod, node) in directory.pods.iter().zip(nodes()) {
            apply(&directory.helper(pod, &node));
        }
        for pod in &directory.pods {
            let pod = format!("pod/{pod}");
            namespace.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"]);
        }
        directory.run("os.makedirs(d, 0o755, exist_ok=True)");
        directory
    }

    fn path(&self) -> String {
        format!("{PARENT}/{}", self.name)
    }

    /// A pod that may do anything in the parent directory of its node.
    fn helper(&self, pod: &str, node: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "namespace": self.namespace.name()},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsUser": 0},
                "volumes": [{"name": "parent", "hostPath": {"path": PARENT, "type": "Directory"}}],
                "containers": [{
                    "name": "helper",
                    "image": "spanloom.test/demo-python:1",
                    "args": ["idle"],
                    "volumeMounts": [{"name": "parent", "mountPath": "/parent"}],
                }],
            },
        })
    }

    /// Runs a line of Python on every node, where `d` is the directory.
    fn run(&self, line: &str) {
        let script = format!("import os, shutil; d = '/parent/{}'; {line}", self.name);
        for pod in &self.pods {
            self.namespace
                .kubectl(&["exec", pod, "--", "/usr/bin/python", "-c", &script]);
        }
    }

    /// As the documentation says.
    fn give_to_collectors(&self) {
        self.run(&format!("os.chown(d, {USER}, {USER}); os.chmod(d, 0o700)"));
    }
}

impl Drop for Directory<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.run("shutil.rmtree(d, ignore_errors=True)");
        }
    }
}

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
    let enforce = |level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl(&[
            "label",
            "namespace",
            namespace.name(),
            &label,
            "--overwrite",
        ]);
    };
    enforce("privileged");
    let directory = Directory::of_root(&namespace);
    let collector = json!({"log": {"size": "512Mi", "hostPath": directory.path()}, "maxSurge": 1});

    // What is missing is said: first the namespace does not allow it, then only root can write to it.
    enforce("restricted");
    let pipeline = Pipeline::applied(&namespace, &json!({"collector": collector}));
    await_said(&pipeline, "hostPath");
    enforce("privileged");
    await_said(&pipeline, "must be a folder that this user can write to");
    directory.give_to_collectors();
    pipeline.place_asker();
    pipeline.await_ready();

    // What every pod has left when it is deleted, the next one on its node delivers.
    place_senders(&pipeline, &nodes());
    let unmanaged = json!({"managementState": "Unmanaged", "collector": collector});
    pipeline.apply(&unmanaged);
    stop_clickhouse(&namespace);
    for name in SENDERS {
        await_acknowledged(&namespace, name, 10 * RATE);
    }
    namespace.kubectl(&["delete", "pods", COLLECTORS, "--wait=true"]);
    await_more(&namespace);
    scale_clickhouse(&namespace, "--replicas=1");

    // Their replacement does not wait for the store either.
    let mut slower = collector.clone();
    slower["resources"] = json!({"requests": {"memory": "300Mi"}, "limits": {"memory": "512Mi"}});
    pipeline.apply(&json!({"collector": slower}));
    pipeline.await_ready();
    await_more(&namespace);
    let report = stop_senders(&namespace);
    // While a node has no collector, an SDK may give up what it could not send.
    println!("{} were not sent", report.refused.len());
    let faults = await_stored(&pipeline, &report);
    assert!(faults == Faults::default(), "{faults}");
    namespace.kubectl(&["delete", "tracingpipeline/traces"]);
    namespace.kubectl(&["wait", "--for=delete", "pods", COLLECTORS, "--timeout=120s"]);
}
