//! The CustomResourceDefinition: the schemas of the spec's types and of the status, and what stands
//! around them.

use serde_json::{Value, json};

use crate::document::KIND;
use crate::schema::{LAPTOP, LATER, ORDER, document, rule, schema_of};
use crate::status::Status;

/// The CustomResourceDefinition's name.
pub const CRD_NAME: &str = "tracingpipelines.spanloom.dev";
/// The API group.
pub const GROUP: &str = "spanloom.dev";
/// The served version.
pub const VERSION: &str = "v1alpha1";
/// The name in URLs.
pub const PLURAL: &str = "tracingpipelines";

/// The longest pipeline name: `<name>-migrate-<hash>` and the pods of `<name>-clickhouse` still fit
/// into a label.
pub const MAX_NAME: usize = 40;

/// What the API server fills in.
const DEFAULT: &str = "x-default";

/// The CustomResourceDefinition, with keys in order: equal programs print equal bytes.
pub fn crd() -> Value {
    let mut spec = without_marks(document()["properties"]["spec"].clone());
    spec["default"] = json!({});
    let mut status = schema_of::<Status>();
    for (path, more) in status_rules() {
        add(&mut status, path, more);
    }
    sorted(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": CRD_NAME},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND, "listKind": "TracingPipelineList", "plural": PLURAL,
                "singular": "tracingpipeline", "shortNames": ["tp"], "categories": ["spanloom"],
            },
            "versions": [{
                "name": VERSION, "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": columns(),
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A TracingPipeline configures how traces are received, \
                                    processed, sampled and stored.",
                    "properties": {
                        "apiVersion": {"type": "string", "description": "`spanloom.dev/v1alpha1`"},
                        "kind": {"type": "string", "description": "`TracingPipeline`"},
                        "metadata": {"type": "object"},
                        "spec": spec,
                        "status": status,
                    },
                    "x-kubernetes-validations": [
                        rule(
                            "size(self.metadata.name) <= 40 && \
                             self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                            "metadata.name must start with a letter, contain only lower-case \
                             letters, digits and '-', and have at most 40 characters",
                        ),
                    ],
                }},
            }],
        },
    }))
}

/// The CustomResourceDefinition as YAML.
///
/// # Errors
/// Never for this value; the serializer can fail in general.
pub fn crd_yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&crd())
}

fn columns() -> Value {
    json!([
        {"name": "Mode", "type": "string", "jsonPath": ".spec.injection.mode",
         "description": "What is injected into pods"},
        {"name": "Injected", "type": "string", "jsonPath": ".status.injection.summary",
         "description": "Injected and selected pods"},
        {"name": "Collectors", "type": "string", "jsonPath": ".status.collectors.summary",
         "description": "Ready and desired collectors"},
        {"name": "Spans/s", "type": "integer", "jsonPath": ".status.spansPerSecond",
         "description": "Spans received per second, approximately"},
        {"name": "Ready", "type": "string",
         "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status",
         "description": "Whether spans are received, stored and returned by queries"},
        {"name": "Reason", "type": "string", "priority": 1,
         "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason",
         "description": "Why"},
        {"name": "Message", "type": "string", "priority": 1,
         "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message",
         "description": "What is wrong, and how to fix it"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

fn status_rules() -> Vec<(&'static str, Value)> {
    vec![
        (
            "conditions",
            json!({"maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
        ),
        (
            "conditions[].status",
            json!({"enum": ["True", "False", "Unknown"]}),
        ),
        ("conditions[].message", json!({"maxLength": 32_768})),
        (
            "conditions[].lastTransitionTime",
            json!({"format": "date-time"}),
        ),
        ("rollout.startedAt", json!({"format": "date-time"})),
        (
            "rollout.state",
            json!({"enum": ["Progressing", "Complete", "Failed", "RolledBack"]}),
        ),
    ]
}

/// The schema as Kubernetes takes it: our own marks are taken out, or become its own.
fn without_marks(schema: Value) -> Value {
    match schema {
        Value::Object(map) => {
            let own = [ORDER, LATER, LAPTOP];
            let fields = map
                .into_iter()
                .filter(|(key, _)| !own.contains(&key.as_str()))
                .map(|(key, value)| match key.as_str() {
                    DEFAULT => ("default".to_owned(), value),
                    _ => (key, without_marks(value)),
                });
            Value::Object(fields.collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_marks).collect()),
        value => value,
    }
}

/// Adds `more` to the schema at a dotted `path`; `[]` stands for a list's items. A path that is not
/// there adds nothing: the test that every rule is found forbids it.
fn add(schema: &mut Value, path: &str, more: Value) {
    let Some(Value::Object(place)) = find(schema, path) else {
        return;
    };
    if let Value::Object(more) = more {
        place.extend(more);
    }
}

fn find<'s>(schema: &'s mut Value, path: &str) -> Option<&'s mut Value> {
    let mut at = schema;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let (field, is_list) = match step.strip_suffix("[]") {
            Some(field) => (field, true),
            None => (step, false),
        };
        at = at.get_mut("properties")?.get_mut(field)?;
        if is_list {
            at = at.get_mut("items")?;
        }
    }
    Some(at)
}

/// The value with all keys in order, whatever map another crate's features choose.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_place() {
        let mut status = schema_of::<Status>();
        for (path, _) in status_rules() {
            assert!(find(&mut status, path).is_some(), "no status.{path}");
        }
    }
}
