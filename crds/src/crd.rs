//! The CustomResourceDefinition. Structure and descriptions come from the types; what a schema can
//! say beyond them (defaults, bounds, list types, CEL rules) from the table here.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::document::{KIND, Spec};
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

const SIZE: &str = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
const AMOUNT: &str = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
const NAME: &str = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";

/// The CustomResourceDefinition, with keys in order: equal programs print equal bytes.
pub fn crd() -> Value {
    let mut spec = schema_of::<Spec>();
    for (path, more) in rules() {
        add(&mut spec, path, more);
    }
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
                    "description": "How traces are received, protected, sampled and stored.",
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
                            "metadata.name must begin with a letter, have lower-case letters, \
                             digits and - only, and at most 40 of them",
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
        {"name": "Agents", "type": "string", "jsonPath": ".status.agents.summary",
         "description": "Agents that are ready, of those that should be"},
        {"name": "Spans/s", "type": "integer", "jsonPath": ".status.spansPerSecond",
         "description": "Spans received each second, a coarse figure"},
        {"name": "Ready", "type": "string",
         "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status",
         "description": "Whether spans go all the way"},
        {"name": "Reason", "type": "string", "priority": 1,
         "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason",
         "description": "Why"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

fn rules() -> Vec<(&'static str, Value)> {
    let name = || json!({"pattern": NAME, "minLength": 1, "maxLength": 253});
    let mut rules = vec![
        ("", json!({"default": {}})),
        ("enabled", json!({"default": true})),
        ("managementState", json!({"default": "Managed"})),
        (
            "images.registry",
            json!({"minLength": 1, "maxLength": 200, "pattern": r"^[-._:/A-Za-z0-9]*[-._A-Za-z0-9]$"}),
        ),
        (
            "images.pullSecrets",
            json!({"maxItems": 8, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
        ),
        ("images.pullSecrets[].name", name()),
    ];
    rules.extend(processing_rules());
    rules.extend(storage_rules());
    for place in ["collector", "query", "storage.managed"] {
        let (requests, limits): (&'static str, &'static str) = match place {
            "collector" => ("collector.resources.requests", "collector.resources.limits"),
            "query" => ("query.resources.requests", "query.resources.limits"),
            _ => (
                "storage.managed.resources.requests",
                "storage.managed.resources.limits",
            ),
        };
        for path in [requests, limits] {
            rules.push((path, json!({"maxProperties": 8})));
        }
    }
    rules.extend([
        ("collector.tolerations", json!({"maxItems": 32, "x-kubernetes-list-type": "atomic"})),
        ("collector.tolerations[]", json!({"x-kubernetes-validations": [
            rule("!has(self.value) || !has(self.operator) || self.operator != 'Exists'", "value means nothing with Exists"),
            rule("has(self.key) || (has(self.operator) && self.operator == 'Exists')", "key is needed with Equal"),
        ]})),
        ("collector.tolerations[].key", json!({"maxLength": 317})),
        ("collector.tolerations[].value", json!({"maxLength": 63})),
        ("collector.nodeSelector", json!({"maxProperties": 32, "x-kubernetes-map-type": "atomic"})),
        ("collector.priorityClassName", name()),
        ("query.replicas", json!({"minimum": 1, "maximum": 100})),
        ("query.auth.tokensSecret.name", name()),
        ("query.tls.secret.name", name()),
        ("grafana", json!({"default": {}})),
        ("grafana.datasources", json!({"default": true})),
    ]);
    rules
}

fn processing_rules() -> Vec<(&'static str, Value)> {
    let count = || json!({"minimum": 1, "maximum": 65_536, "default": 128});
    let keys = || json!({"maxItems": 32, "x-kubernetes-list-type": "set"});
    let key = || json!({"minLength": 1, "maxLength": 317});
    vec![
        ("processing", json!({"default": {}})),
        ("processing.resource", json!({"maxProperties": 64})),
        ("processing.kubernetes.labels", keys()),
        ("processing.kubernetes.labels[]", key()),
        ("processing.kubernetes.annotations", keys()),
        ("processing.kubernetes.annotations[]", key()),
        (
            "processing.redact",
            json!({"maxItems": 64, "x-kubernetes-list-type": "atomic"}),
        ),
        (
            "processing.redact[]",
            json!({"x-kubernetes-validations": [
                rule("has(self.keys) != has(self.values)", "needs either keys or values, one rule each"),
            ]}),
        ),
        (
            "processing.redact[].keys",
            json!({"minItems": 1, "maxItems": 64, "x-kubernetes-list-type": "set"}),
        ),
        (
            "processing.redact[].keys[]",
            json!({"minLength": 1, "maxLength": 256}),
        ),
        (
            "processing.redact[].values",
            json!({"minLength": 1, "maxLength": 1024}),
        ),
        (
            "processing.drop",
            json!({"maxItems": 64, "x-kubernetes-list-type": "atomic"}),
        ),
        (
            "processing.drop[]",
            json!({"minLength": 1, "maxLength": 4096}),
        ),
        ("processing.limits", json!({"default": {}})),
        ("processing.limits.attributesPerSpan", count()),
        ("processing.limits.eventsPerSpan", count()),
        ("processing.limits.linksPerSpan", count()),
        (
            "processing.limits.attributeValueBytes",
            json!({"default": "8Ki", "pattern": SIZE, "maxLength": 24}),
        ),
        ("sampling", json!({"default": {}})),
        ("sampling.head", json!({"default": {}})),
        (
            "sampling.head.ratio",
            json!({"minimum": 0, "maximum": 1, "default": 1}),
        ),
    ]
}

fn storage_rules() -> Vec<(&'static str, Value)> {
    let both = "!has(self.managed) || !has(oldSelf.managed)";
    let class = |of: &str| {
        format!("(has({of}.managed.storageClassName) ? {of}.managed.storageClassName : '')")
    };
    vec![
        (
            "storage",
            json!({"default": {}, "x-kubernetes-validations": [
                rule("!has(self.managed) || !has(self.external)", "keep one of managed and external"),
                rule("has(self.external) == has(oldSelf.external)",
                     "managed cannot become external or the other way round: what is stored would stay behind; make a second pipeline"),
                rule(&format!("{both} || !has(self.managed.size) || !has(oldSelf.managed.size) || \
                     quantity(string(self.managed.size)).compareTo(quantity(string(oldSelf.managed.size))) >= 0"),
                     "managed.size can grow, not shrink"),
                rule(&format!("{both} || {} == {}", class("self"), class("oldSelf")),
                     "managed.storageClassName cannot be changed"),
            ]}),
        ),
        (
            "storage.managed.size",
            json!({"default": "50Gi", "pattern": SIZE, "maxLength": 24, "x-kubernetes-validations": [
                rule("quantity(string(self)).compareTo(quantity('1Gi')) >= 0", "must be at least 1Gi"),
            ]}),
        ),
        (
            "storage.managed.storageClassName",
            json!({"pattern": NAME, "maxLength": 253}),
        ),
        (
            "storage.external",
            json!({"x-kubernetes-validations": [
                rule("!has(self.tls) || self.url.startsWith('https://')", "tls means nothing with http"),
            ]}),
        ),
        (
            "storage.external.url",
            json!({"pattern": r"^https?://[^@?#\s]+$", "maxLength": 1024}),
        ),
        (
            "storage.external.database",
            json!({"default": "spanloom", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength": 128,
            "x-kubernetes-validations": [
                rule("self == oldSelf", "the database keeps its name: what is stored would stay behind; make a second pipeline"),
            ]}),
        ),
        (
            "storage.external.cluster",
            json!({"pattern": r"^[-_.{}A-Za-z0-9]+$", "maxLength": 128}),
        ),
        (
            "storage.external.credentialsSecret.name",
            json!({"pattern": NAME, "maxLength": 253}),
        ),
        (
            "storage.external.tls.caSecret.name",
            json!({"pattern": NAME, "maxLength": 253}),
        ),
        (
            "storage.external.tls.caSecret.key",
            json!({"default": "ca.crt", "pattern": "^[-._a-zA-Z0-9]+$", "maxLength": 253}),
        ),
        ("storage.retention", json!({"default": {}})),
        (
            "storage.retention.hot",
            json!({"default": "7d", "pattern": "^([0-9]+[smhdw])+$", "maxLength": 32}),
        ),
    ]
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

/// The structural schema of a type.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    structural(&mut schema);
    schema
}

/// Makes what schemars writes what Kubernetes takes: no unions, no `null`, no closed objects.
fn structural(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    for key in ["title", "$schema", "additionalProperties", "default"] {
        // An open map keeps the schema of its values.
        if key != "additionalProperties" || map.get(key).is_some_and(Value::is_boolean) {
            map.remove(key);
        }
    }
    if let Some(Value::Array(types)) = map.get("type") {
        let one = types.iter().find(|name| *name != "null").cloned();
        map.insert("type".to_owned(), one.unwrap_or(Value::Null));
    }
    if let Some(Value::Array(options)) = map.remove("anyOf") {
        union(map, options);
    }
    if let Some(Value::Array(options)) = map.remove("oneOf") {
        let words: Vec<_> = options
            .iter()
            .filter_map(|o| o.get("const"))
            .cloned()
            .collect();
        map.insert("type".to_owned(), json!("string"));
        map.insert("enum".to_owned(), Value::Array(words));
    }
    // Formats of Rust's, not of OpenAPI's.
    if let Some("uint64" | "uint32" | "uint") = map.get("format").and_then(Value::as_str) {
        map.insert("format".to_owned(), json!("int64"));
        map.entry("minimum").or_insert(json!(0));
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(structural);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            structural(inner);
        }
    }
}

/// `T or null` is `T`; `a number or text` is Kubernetes' own union.
fn union(map: &mut Map<String, Value>, options: Vec<Value>) {
    let is = |option: &Value, name: &str| option.get("type").is_some_and(|t| t == name);
    let options: Vec<_> = options.into_iter().filter(|o| !is(o, "null")).collect();
    if options.iter().any(|o| is(o, "integer")) && options.iter().any(|o| is(o, "string")) {
        map.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
        map.insert(
            "anyOf".to_owned(),
            json!([{"type": "integer"}, {"type": "string"}]),
        );
        map.entry("pattern").or_insert(json!(AMOUNT));
        map.entry("maxLength").or_insert(json!(24));
        return;
    }
    if let Some(Value::Object(mut inner)) = options.into_iter().next() {
        let mut inner_value = Value::Object(std::mem::take(&mut inner));
        structural(&mut inner_value);
        if let Value::Object(inner) = inner_value {
            for (key, value) in inner {
                // The field's own description says more than its type's.
                map.entry(key).or_insert(value);
            }
        }
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
        let mut spec = schema_of::<Spec>();
        for (path, _) in rules() {
            assert!(find(&mut spec, path).is_some(), "no spec.{path}");
        }
        let mut status = schema_of::<Status>();
        for (path, _) in status_rules() {
            assert!(find(&mut status, path).is_some(), "no status.{path}");
        }
    }
}
