//! A TracingPipeline in a scenario's namespace, and questions to its query service and store.

use serde_json::{Value, json};

use super::apps::{Answer, App, try_fetch_through};
use super::kube::{apply, try_apply, try_raw_json};
use super::namespace::Namespace;
use super::{LIMIT, await_some, want};

/// The name of every scenario's pipeline.
pub const NAME: &str = "traces";

/// The pod that questions are asked from.
const ASKER: &str = "asker";

/// A pipeline in its namespace.
pub struct Pipeline<'a> {
    pub namespace: &'a Namespace,
}

/// The document.
pub fn document(namespace: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "spanloom.dev/v1alpha1",
        "kind": "TracingPipeline",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": spec,
    })
}

impl<'a> Pipeline<'a> {
    /// Applies it, places a pod to ask from, and waits until it is Ready.
    pub fn ready(namespace: &'a Namespace, spec: &Value) -> Self {
        let pipeline = Self::applied(namespace, spec);
        pipeline.place_asker();
        pipeline.await_ready();
        pipeline
    }

    /// Places the pod that questions are asked from.
    pub fn place_asker(&self) {
        App::python(ASKER, "asker").place(self.namespace);
    }

    /// Places the pod that questions are asked from on a node.
    pub fn place_asker_on(&self, node: &str) {
        App::python(ASKER, "asker").on(node).place(self.namespace);
    }

    /// Applies it.
    pub fn applied(namespace: &'a Namespace, spec: &Value) -> Self {
        apply(&document(namespace.name(), spec));
        Self { namespace }
    }

    /// Applies it again, with another spec.
    pub fn apply(&self, spec: &Value) -> String {
        apply(&document(self.namespace.name(), spec))
    }

    /// What the API server says of another spec.
    pub fn try_apply(&self, spec: &Value) -> Result<String, String> {
        try_apply(&document(self.namespace.name(), spec))
    }

    /// Waits for the condition Ready of the newest generation: a probe went through every collector.
    pub fn await_ready(&self) {
        self.await_condition("Ready", "True", None);
    }

    /// Waits for a condition of the newest generation; gives it.
    pub fn await_condition(&self, kind: &str, status: &str, reason: Option<&str>) -> Value {
        await_some(&format!("the condition {kind}={status}"), LIMIT, || {
            let namespace = self.namespace.name();
            let object = try_raw_json(&format!(
                "/apis/spanloom.dev/v1alpha1/namespaces/{namespace}/tracingpipelines/{NAME}"
            ))?;
            let generation = &object["metadata"]["generation"];
            let conditions = &object["status"]["conditions"];
            let condition = conditions
                .as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == kind);
            let condition = condition.ok_or_else(|| format!("there are {conditions}"))?;
            want(
                condition["status"] == status
                    && condition["observedGeneration"] == *generation
                    && reason.is_none_or(|reason| condition["reason"] == reason),
                || format!("at generation {generation}: {conditions}"),
            )?;
            Ok(condition.clone())
        })
    }

    /// The collector's pod of a node that is not being deleted.
    pub fn collector_on(&self, node: &str) -> Value {
        let selector = "--selector=app.kubernetes.io/component=collector";
        let pods = self.namespace.get(&["pods", selector]);
        let mut pods = pods["items"].as_array().unwrap().iter();
        let found = pods.find(|pod| {
            pod["spec"]["nodeName"] == node && pod["metadata"]["deletionTimestamp"].is_null()
        });
        found
            .unwrap_or_else(|| panic!("no collector on {node}"))
            .clone()
    }

    /// Where apps send their spans, as the status says.
    pub fn otlp_http(&self) -> String {
        let object = self.namespace.get(&["tracingpipeline", NAME]);
        let endpoint = object["status"]["endpoints"]["otlpHttp"].as_str();
        endpoint.expect("status.endpoints.otlpHttp").to_owned()
    }

    /// The query service's URL, as the status says.
    pub fn query_url(&self) -> String {
        let object = self.namespace.get(&["tracingpipeline", NAME]);
        let endpoint = object["status"]["endpoints"]["query"].as_str();
        endpoint.expect("status.endpoints.query").to_owned()
    }

    /// Asks a URL from inside.
    pub fn fetch(&self, url: &str, options: &[&str]) -> Result<Answer, String> {
        try_fetch_through(self.namespace, ASKER, url, options)
    }

    /// Asks the query service.
    pub fn query(&self, path: &str) -> Result<Value, String> {
        let answer = self.fetch(&format!("{}{path}", self.query_url()), &[])?;
        want(answer.status == 200, || format!("{path}: {answer:?}"))?;
        Ok(answer.json())
    }

    /// Waits until a trace has that many spans; gives them.
    pub fn await_trace(&self, trace_id: &str, spans: usize) -> Vec<Value> {
        await_some(&format!("the trace {trace_id}"), LIMIT, || {
            let trace = self.query(&format!("/api/v1/traces/{trace_id}"))?;
            let found = trace["spans"].as_array().cloned().unwrap_or_default();
            want(found.len() == spans, || {
                format!("{} of {spans} spans: {trace}", found.len())
            })?;
            Ok(found)
        })
    }

    /// Asks the managed store itself, as its owner.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        let secret = self.namespace.try_get(&["secret", "traces-clickhouse"])?;
        let decoded = |key: &str| -> Result<String, String> {
            use std::process::{Command, Stdio};
            let text = secret["data"][key]
                .as_str()
                .ok_or("the Secret has no such key")?;
            // One more crate for three lines of base64 would be too much.
            let script = format!("printf %s '{text}' | base64 -d");
            let output = Command::new("sh")
                .args(["-c", &script])
                .stdin(Stdio::null())
                .output()
                .map_err(|error| error.to_string())?;
            String::from_utf8(output.stdout).map_err(|error| error.to_string())
        };
        let user = format!("X-ClickHouse-User: {}", decoded("username")?);
        let key = format!("X-ClickHouse-Key: {}", decoded("password")?);
        let url = format!(
            "https://traces-clickhouse.{}.svc:8443/",
            self.namespace.name()
        );
        let answer = self.fetch(&url, &["--header", &user, "--header", &key, "--data", sql])?;
        want(answer.status == 200, || format!("{sql}: {answer:?}"))?;
        Ok(answer.body)
    }

    /// Asks the managed store, which must answer.
    pub fn sql(&self, sql: &str) -> String {
        await_some("the store's answer", LIMIT, || self.try_sql(sql))
    }
}

/// The attributes of a span or its resource by key, as text.
pub fn attribute<'v>(span: &'v Value, scope: &str, key: &str) -> Option<&'v str> {
    let attributes = match scope {
        "resource" => &span["resource"]["attributes"],
        _ => &span["attributes"],
    };
    let attributes = attributes.as_array()?.iter();
    attributes
        .filter(|attribute| attribute["key"] == key)
        .find_map(|attribute| attribute["value"].as_str())
}
