//! A directory of the nodes' own, and what is put there. The namespace must allow privileged pods.

use serde_json::{Value, json};

use super::kube::{apply, try_kubectl};
use super::namespace::Namespace;
use super::random_word;

/// The user of the collectors.
const USER: u32 = 65_532;

/// Where the nodes' directories are.
const PARENT: &str = "/tmp";

/// A directory of every node. It is removed in the end.
pub struct Directory<'a> {
    namespace: &'a Namespace,
    name: String,
    pods: Vec<String>,
}

impl<'a> Directory<'a> {
    /// Made as the kubelet would: only root can write to it.
    pub fn of_root(namespace: &'a Namespace, nodes: &[String]) -> Self {
        let directory = Self {
            namespace,
            name: format!("spanloom-e2e-{}", random_word()),
            pods: (1..=nodes.len()).map(|n| format!("node-{n}")).collect(),
        };
        for (pod, node) in directory.pods.iter().zip(nodes) {
            apply(&directory.helper(pod, node));
        }
        for pod in &directory.pods {
            let pod = format!("pod/{pod}");
            namespace.kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"]);
        }
        directory.run("os.makedirs(d, 0o755, exist_ok=True)");
        directory
    }

    /// Its path on the nodes.
    pub fn path(&self) -> String {
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

    /// Puts a file there, on every node. It is complete when it has its name.
    pub fn write(&self, file: &str, contents: &[u8]) {
        let hex: String = contents.iter().map(|byte| format!("{byte:02x}")).collect();
        let script = format!(
            "import os, sys; f = '/parent/{}/{file}'; \
             open(f + '.new', 'wb').write(bytes.fromhex(sys.stdin.read())); os.rename(f + '.new', f)",
            self.name
        );
        for pod in &self.pods {
            let namespace = self.namespace.name();
            let exec = ["exec", "--stdin", "--namespace", namespace, pod];
            let python = ["--", "/usr/bin/python", "-c", &script];
            let written = try_kubectl(&[&exec[..], &python].concat(), Some(&hex));
            written.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// As the documentation says.
    pub fn give_to_collectors(&self) {
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
