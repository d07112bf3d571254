//! The CustomResourceDefinition: written to the files that people apply, and whole.
//!
//! `UPDATE_GOLDEN=1 cargo test -p spanloom-crds --features kube --test crd` writes the files.

use std::path::Path;

use serde_json::Value;
use spanloom_crds::crd::{crd, crd_yaml};

/// Where the same bytes are kept: beside the types, and in the chart, for the first install.
const FILES: [&str; 2] = [
    "yaml/tracingpipelines.yaml",
    "../charts/spanloom/crds/tracingpipelines.yaml",
];

#[test]
fn the_files_are_those_of_the_types() {
    let yaml = format!(
        "# Made from the types in crds/src: UPDATE_GOLDEN=1 cargo test -p spanloom-crds --features kube --test crd\n{}",
        crd_yaml().unwrap()
    );
    for file in FILES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &yaml).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == yaml,
            "{file} is not what the types say; run UPDATE_GOLDEN=1 cargo test -p spanloom-crds \
             --features kube --test crd"
        );
    }
}

fn schema() -> Value {
    crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

fn each(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        each(inner, &format!("{path}.{name}"), visit);
    }
    if let Some(items) = schema.get("items") {
        each(items, &format!("{path}[]"), visit);
    }
    if let Some(values) = schema.get("additionalProperties") {
        each(values, &format!("{path}{{}}"), visit);
    }
}

#[test]
fn every_field_is_described_and_structural() {
    let mut fields = 0;
    each(&schema(), "", &mut |path, schema| {
        fields += 1;
        let is_field = !path.ends_with("[]") && !path.ends_with("{}") && !path.is_empty();
        if is_field && path != ".metadata" {
            assert!(
                schema["description"].is_string(),
                "{path} has no description"
            );
        }
        let is_typed = schema["type"].is_string() || schema["x-kubernetes-int-or-string"] == true;
        assert!(is_typed, "{path} has no type: {schema}");
        for banned in ["$ref", "oneOf", "allOf", "const", "nullable", "$defs"] {
            assert!(schema.get(banned).is_none(), "{path} has {banned}");
        }
        if schema["type"] == "array" {
            let list = &schema["x-kubernetes-list-type"];
            assert!(list.is_string(), "{path} has no list type");
            assert!(schema["maxItems"].is_u64(), "{path} has no bound");
        }
        if let Some(rules) = schema["x-kubernetes-validations"].as_array() {
            for rule in rules {
                assert!(rule["message"].is_string(), "{path}: {rule}");
            }
        }
    });
    assert!(fields > 90, "only {fields} fields");
}

#[test]
fn defaults_are_those_of_the_resolved_document() {
    // What the API server fills in must mean the same as leaving it out.
    fn filled(schema: &Value) -> Option<Value> {
        let mut value = schema.get("default")?.clone();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(inner) = filled(inner) {
                value[name] = inner;
            }
        }
        Some(value)
    }
    let mut document = serde_json::json!({
        "apiVersion": "spanloom.dev/v1alpha1", "kind": "TracingPipeline",
        "spec": filled(&schema()["properties"]["spec"]).unwrap(),
    });
    assert_eq!(
        document["spec"]["processing"]["limits"]["eventsPerSpan"],
        128
    );
    document["metadata"] = serde_json::json!({"name": "a"});
    let document = serde_json::from_value(document).unwrap();
    assert_eq!(
        spanloom_crds::resolve(&document).unwrap(),
        spanloom_crds::resolved::Resolved::default()
    );
}
