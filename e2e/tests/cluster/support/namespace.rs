//! A namespace for one scenario: shown when the scenario fails, gone afterwards.

use std::sync::Once;

use serde_json::json;

use super::kube::{apply, kubectl, try_get, try_kubectl};
use super::random_word;

/// The namespace of a scenario.
pub struct Namespace {
    name: String,
    /// Other namespaces that tell why, such as the operator's.
    pub also_show: Vec<String>,
    /// The release has rights in it, so that it stays until the release goes.
    pub is_pooled: bool,
}

impl Namespace {
    /// A fresh one, where only pods are allowed that need no privilege.
    pub fn new(purpose: &str) -> Self {
        let name = format!("e2e-{purpose}-{}", random_word());
        Self::create(&name, true);
        Self::adopt(name)
    }

    /// One that exists already becomes this scenario's.
    pub fn adopt(name: String) -> Self {
        Self {
            name,
            also_show: Vec::new(),
            is_pooled: false,
        }
    }

    /// Makes a namespace; one of a scenario is removed by the next run if this one is broken off.
    pub fn create(name: &str, of_scenario: bool) {
        // Before the first of this run's own.
        static CLEAN: Once = Once::new();
        CLEAN.call_once(remove_leftovers);
        apply(&json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "labels": {
                    "pod-security.kubernetes.io/enforce": "restricted",
                    "spanloom.test/scenario": of_scenario.to_string(),
                },
            },
        }));
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// kubectl in this namespace; what it printed, or why it failed.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["--namespace", &self.name];
        all.extend(arguments);
        try_kubectl(&all, None)
    }

    /// Which pods it allows: those of this level of the Pod Security Standards.
    pub fn enforce(&self, level: &str) {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        kubectl(&["label", "namespace", &self.name, &label, "--overwrite"]);
    }

    /// An object here.
    pub fn get(&self, arguments: &[&str]) -> serde_json::Value {
        self.try_get(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// An object here, or why there is none.
    pub fn try_get(&self, arguments: &[&str]) -> Result<serde_json::Value, String> {
        try_get(&self.name, arguments)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show(&self.name);
            for other in &self.also_show {
                show(other);
            }
        }
        // Nobody waits for it: the next scenario has another one.
        if self.is_pooled {
            let kinds = "tracingpipelines,deployments,services";
            let _ = self.try_kubectl(&["delete", kinds, "--all", "--wait=false"]);
            return;
        }
        let _ = try_kubectl(&["delete", "namespace", &self.name, "--wait=false"], None);
    }
}

/// Everything that tells why: pods, events, pipelines, logs.
pub fn show(namespace: &str) {
    let part = |title: &str, arguments: &[&str]| {
        let mut all = vec!["--namespace", namespace];
        all.extend(arguments);
        let text = try_kubectl(&all, None).unwrap_or_else(|error| error);
        eprintln!("--- {title} of {namespace}\n{text}");
    };
    part(
        "what there is",
        &[
            "get",
            "pods,daemonsets,deployments,statefulsets,jobs,services,configmaps,persistentvolumeclaims",
            "--output=wide",
        ],
    );
    // The logs first: where a long output is cut, they mostly hold the cause.
    let pods = try_get(namespace, &["pods"]).unwrap_or_default();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let log = ["logs", name, "--all-containers", "--prefix", "--tail=30"];
        part(&format!("the log of {name}"), &log);
        let restarted = pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|status| status["restartCount"].as_u64() > Some(0));
        if restarted {
            let log = [&log[..], &["--previous"]].concat();
            part(&format!("the earlier log of {name}"), &log);
        }
    }
    part("events", &["get", "events", "--sort-by=.lastTimestamp"]);
    part("pipelines", &["get", "tracingpipelines", "--output=yaml"]);
}

/// Deletes what earlier runs that were broken off have left.
fn remove_leftovers() {
    let arguments = [
        "delete",
        "namespace",
        "--selector=spanloom.test/scenario=true",
    ];
    kubectl(&[&arguments[..], &["--wait=false"]].concat());
}
