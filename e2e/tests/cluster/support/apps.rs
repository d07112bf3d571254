//! The demo apps in pods: a Python service, a Node service that calls it, a sender of numbered
//! spans, and a pod to ask from.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::kube::{apply, try_raw_json};
use super::namespace::Namespace;
use super::{LIMIT, await_some, want};

const PYTHON: &str = "spanloom.test/demo-python:1";
const NODE: &str = "spanloom.test/demo-node:1";

/// An app to place.
pub struct App<'a> {
    /// Its Deployment, Service and `service.name`.
    pub name: &'a str,
    pub image: &'static str,
    pub args: Vec<&'a str>,
    pub environment: Vec<(&'a str, String)>,
    /// The node it runs on, or any.
    pub node: Option<String>,
    pub labels: Vec<(&'a str, &'a str)>,
    pub annotations: Vec<(&'a str, &'a str)>,
}

impl<'a> App<'a> {
    /// A service in Python.
    pub fn python(name: &'a str, mode: &'a str) -> Self {
        Self {
            name,
            image: PYTHON,
            args: vec![mode],
            environment: Vec::new(),
            node: None,
            labels: Vec::new(),
            annotations: Vec::new(),
        }
    }

    /// A service in Node that calls another one.
    pub fn node(name: &'a str, target: &str) -> Self {
        let mut app = Self::python(name, "");
        app.image = NODE;
        app.args = Vec::new();
        app.environment.push(("TARGET", target.to_owned()));
        app
    }

    /// On this node.
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    /// With a variable.
    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Its Deployment.
    fn deployment(&self) -> Value {
        let mut environment: Vec<_> = self
            .environment
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        // In seconds for Python, in milliseconds for Node.
        let patience = if self.image == NODE { "120000" } else { "120" };
        for (name, value) in [
            ("OTEL_SERVICE_NAME", self.name),
            // Spans are looked for soon after they were made.
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
            // A busy machine may take longer than the SDKs' 10 s and 30 s.
            ("OTEL_EXPORTER_OTLP_TIMEOUT", patience),
            ("OTEL_BSP_EXPORT_TIMEOUT", "120000"),
        ] {
            let is_set = self.environment.iter().any(|(set, _)| *set == name);
            if !is_set {
                environment.push(json!({"name": name, "value": value}));
            }
        }
        let map = |pairs: &[(&str, &str)]| -> serde_json::Map<String, Value> {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect()
        };
        let mut labels = map(&self.labels);
        labels.insert("app".to_owned(), json!(self.name));
        let selector = match &self.node {
            Some(node) => json!({"kubernetes.io/hostname": node}),
            None => json!({}),
        };
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": labels, "annotations": map(&self.annotations)},
                    "spec": {
                        "nodeSelector": selector,
                        "automountServiceAccountToken": false,
                        "terminationGracePeriodSeconds": 5,
                        "securityContext": {
                            "runAsNonRoot": true,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": "app",
                            "image": self.image,
                            "imagePullPolicy": "IfNotPresent",
                            "args": self.args,
                            "env": environment,
                            "ports": [{"containerPort": 8080}],
                            // With a small request it gets next to nothing on a busy machine.
                            "resources": {"requests": {"cpu": "100m"}},
                            "securityContext": {
                                "allowPrivilegeEscalation": false,
                                "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }],
                    },
                },
            },
        })
    }

    /// Places it behind a Service of its name and waits until it answers.
    pub fn place(mut self, namespace: &Namespace) {
        let serves = self.args.first() != Some(&"idle");
        let mut deployment = self.deployment();
        deployment["metadata"]["namespace"] = json!(namespace.name());
        if serves {
            let probe = json!({
                "httpGet": {"path": "/healthz", "port": 8080},
                "periodSeconds": 2,
                // An app that is slow for a moment stays in its Service.
                "timeoutSeconds": 10,
            });
            deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe;
        }
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name, "namespace": namespace.name()},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        });
        self.args.clear();
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": [deployment, service]}));
        let name = format!("deployment/{}", self.name);
        namespace.kubectl(&["rollout", "status", &name, "--timeout=180s"]);
    }
}

/// Asks an app through the API server.
pub fn try_ask(namespace: &Namespace, app: &str, path: &str) -> Result<Value, String> {
    let namespace = namespace.name();
    try_raw_json(&format!(
        "/api/v1/namespaces/{namespace}/services/{app}:80/proxy{path}"
    ))
}

/// Asks an app until it answers: a Service's addresses follow its pods a moment later.
pub fn ask(namespace: &Namespace, app: &str, path: &str) -> Value {
    await_some(&format!("{app}'s answer"), LIMIT, || {
        try_ask(namespace, app, path)
    })
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u64,
    pub headers: Value,
    pub body: String,
}

impl Answer {
    /// As `demo.py fetch` gives it.
    fn of(said: &Value) -> Self {
        Self {
            status: said["status"].as_u64().unwrap_or_default(),
            headers: said["headers"].clone(),
            body: said["body"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Asks a URL from inside the cluster, with a program of its own in the pod of a Python app.
pub fn try_fetch(
    namespace: &Namespace,
    app: &str,
    url: &str,
    options: &[&str],
) -> Result<Answer, String> {
    let pod = format!("deployment/{app}");
    let mut arguments = vec![
        "exec",
        &pod,
        "--",
        "/usr/bin/python",
        "/app/demo.py",
        "fetch",
        url,
    ];
    arguments.extend(options);
    let text = namespace.try_kubectl(&arguments)?;
    let said: Value = serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
    Ok(Answer::of(&said))
}

/// Asks a URL from inside the cluster, through an `asker` app: a tenth of what a program in the pod costs.
pub fn try_fetch_through(
    namespace: &Namespace,
    asker: &str,
    url: &str,
    options: &[&str],
) -> Result<Answer, String> {
    let arguments = json!([&[url], options].concat()).to_string();
    let hex: String = arguments.bytes().map(|b| format!("{b:02x}")).collect();
    let said = try_ask(namespace, asker, &format!("/fetch?{hex}"))?;
    Ok(Answer::of(&said))
}

/// What a sender says of its spans, by `trace id:span id`.
#[derive(Debug)]
pub struct Report {
    pub acknowledged: BTreeSet<String>,
    pub refused: BTreeSet<String>,
}

/// Tells the sender to stop, waits until every export has an answer, and gives the answers.
pub fn stop_sender(namespace: &Namespace, app: &str) -> Report {
    ask(namespace, app, "/stop");
    await_some("the answer to the last export", LIMIT, || {
        let said = try_ask(namespace, app, "/")?;
        want(said["ended"] == true && said["pending"] == 0, || {
            said.to_string()
        })
    });
    let report = ask(namespace, app, "/report");
    let ids = |key: &str| {
        let ids = report[key].as_array().unwrap().iter();
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    };
    Report {
        acknowledged: ids("acknowledged"),
        refused: ids("refused"),
    }
}
