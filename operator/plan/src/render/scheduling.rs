//! On which nodes pods may run: where their image runs, and where the spec wants them.

use serde_json::{Value, json};
use spanloom_crds::Scheduling;

use crate::release::Release;

/// Writes what the spec says of nodes and priority into a pod's spec.
pub(super) fn schedule(pod: &mut Value, release: &Release, scheduling: Scheduling<'_>) {
    let mut selector = json!({"kubernetes.io/os": "linux"});
    for (key, value) in scheduling.node_selector {
        selector[key] = json!(value);
    }
    pod["nodeSelector"] = selector;
    if !scheduling.tolerations.is_empty() {
        pod["tolerations"] = json!(scheduling.tolerations);
    }
    let mut affinity = json!(scheduling.affinity);
    require_architecture(&mut affinity, &release.image_architectures);
    if !affinity.is_null() {
        pod["affinity"] = affinity;
    }
    if let Some(constraints) = scheduling.topology_spread_constraints {
        pod["topologySpreadConstraints"] = json!(constraints);
    }
    if let Some(class) = scheduling.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
}

/// A node must be of an architecture that the images are built for. A node has to match one of the terms,
/// so each of them says so.
fn require_architecture(affinity: &mut Value, architectures: &[String]) {
    if architectures.is_empty() {
        return;
    }
    let requirement = json!({
        "key": "kubernetes.io/arch", "operator": "In", "values": architectures,
    });
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = &mut affinity["nodeAffinity"][required]["nodeSelectorTerms"];
    match terms {
        Value::Array(terms) => {
            for term in terms {
                match &mut term["matchExpressions"] {
                    Value::Array(expressions) => expressions.push(requirement.clone()),
                    expressions => *expressions = json!([requirement]),
                }
            }
        }
        terms => *terms = json!([{"matchExpressions": [requirement]}]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spanloom_crds::Collector;

    fn pod(collector: Value) -> Value {
        let collector: Collector = serde_json::from_value(collector).unwrap();
        let release = Release {
            image_architectures: vec!["amd64".to_owned()],
            ..Release::default()
        };
        let mut pod = json!({});
        schedule(&mut pod, &release, collector.scheduling());
        pod
    }

    #[test]
    fn pods_go_where_their_image_runs() {
        let terms = |pod: &Value| {
            let affinity = &pod["affinity"]["nodeAffinity"];
            affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"].clone()
        };
        let arch = json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]});
        let plain = pod(json!({}));
        assert_eq!(plain["nodeSelector"], json!({"kubernetes.io/os": "linux"}));
        assert_eq!(terms(&plain), json!([{"matchExpressions": [arch]}]));

        // Each of a user's terms would do on its own.
        let zone = json!({"key": "zone", "operator": "Exists"});
        let named = json!({"key": "metadata.name", "operator": "In", "values": ["a"]});
        let affinity = json!({"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [zone]}, {"matchFields": [named]},
            ]},
        }});
        let chosen = pod(json!({"affinity": affinity, "nodeSelector": {"pool": "x"}}));
        assert_eq!(
            terms(&chosen),
            json!([
                {"matchExpressions": [zone, arch]},
                {"matchExpressions": [arch], "matchFields": [named]},
            ])
        );
        assert_eq!(chosen["nodeSelector"]["pool"], "x");
    }
}
