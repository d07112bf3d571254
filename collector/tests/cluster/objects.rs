//! What an API server shows.

use serde_json::{Value, json};
use spanloom_crds::agent::{AgentConfig, PipelineRef};

/// What the operator would write for this spec.
pub fn config(generation: i64, spec: &str) -> AgentConfig {
    let document = spanloom_crds::parse_document(&format!(
        "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nmetadata: {{name: prod}}\n\
         spec: {{{spec}}}\n"
    ))
    .unwrap();
    let pipeline = PipelineRef {
        name: "prod".to_owned(),
        namespace: "tracing".to_owned(),
        uid: "uid-of-prod".to_owned(),
    };
    let resolved = spanloom_crds::resolve(&document).unwrap();
    AgentConfig {
        hash: format!("hash-{generation}"),
        generation,
        ..AgentConfig::new(pipeline, true, resolved)
    }
}

/// A pod of a Deployment.
pub fn pod(name: &str, address: &str, containers: &[&str]) -> Value {
    let containers: Vec<_> = containers
        .iter()
        .map(|name| json!({"name": name}))
        .collect();
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-of-{name}"),
            "labels": {"app.kubernetes.io/version": "1.2", "pod-template-hash": "abc12"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "name": "web-abc12", "uid": "x", "controller": true}],
        },
        "spec": {"nodeName": "node-a", "containers": containers},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}
