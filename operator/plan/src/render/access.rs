//! Service accounts, and what the agents may read.

use serde_json::{Value, json};

use super::{Desired, Stage, common};
use crate::pipeline::Pipeline;

pub(super) fn access(pipeline: &Pipeline) -> Vec<Desired> {
    let collector = || common::metadata(pipeline, "collector", "collector");
    let name = pipeline.object("collector");
    let objects = [
        common::service_account(pipeline, "collector"),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": collector(),
            "rules": [{
                "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name],
                "verbs": ["get", "list", "watch"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": collector(),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": pipeline.namespace}],
        }),
        common::service_account(pipeline, "migrate"),
        common::service_account(pipeline, "query"),
    ];
    objects
        .into_iter()
        .map(|object| Desired::new(Stage::Base, object))
        .collect()
}

/// The one binding that lets the agents of all pipelines read pods. `pipelines` are namespaces and
/// names.
pub fn collectors_binding(release: &str, pipelines: &[(String, String)]) -> Value {
    let mut pipelines = pipelines.to_vec();
    pipelines.sort();
    let subjects: Vec<_> = pipelines
        .iter()
        .map(|(namespace, name)| {
            json!({
                "kind": "ServiceAccount", "name": format!("{name}-collector"),
                "namespace": namespace,
            })
        })
        .collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": format!("{release}-collectors")},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": format!("{release}-collector"),
        },
        "subjects": subjects,
    })
}
