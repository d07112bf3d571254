//! Whether values.schema.json knows the keys of values.yaml, and no others; and its one part that is made:
//! the schema of `pipeline.spec`, which is the CustomResourceDefinition's.

use std::path::Path;

use serde_json::Value;

/// Where the two differ.
pub fn compare(chart: &Path) -> anyhow::Result<Vec<String>> {
    let values: Value = serde_yaml::from_str(&std::fs::read_to_string(chart.join("values.yaml"))?)?;
    let schema = std::fs::read_to_string(chart.join("values.schema.json"))?;
    let mut schema: Value = serde_json::from_str(&schema)?;
    // Helm's own; nothing of ours reads it.
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("global");
    }
    let mut differences = Vec::new();
    walk("", &values, &schema, &mut differences);
    Ok(differences)
}

/// The schema of values, with that of `pipeline.spec` as the chart's CustomResourceDefinition has it.
pub fn made(chart: &Path) -> anyhow::Result<String> {
    let mut schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart.join("values.schema.json"))?)?;
    let definition = std::fs::read_to_string(chart.join("crds/tracingpipelines.yaml"))?;
    let definition: Value = serde_yaml::from_str(&definition)?;
    let version = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = plain(&version["properties"]["spec"]);
    schema["properties"]["pipeline"]["properties"]["spec"] = spec;
    Ok(format!("{}\n", serde_json::to_string_pretty(&schema)?))
}

/// A structural schema as plain JSON Schema: without what is Kubernetes' own, and closed, since the API
/// server would drop a field that it does not know.
fn plain(schema: &Value) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut plain_map = serde_json::Map::new();
    for (key, value) in map {
        if key.starts_with("x-kubernetes-") || key == "default" || key == "format" {
            continue;
        }
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(fields)) => fields
                .iter()
                .map(|(name, field)| (name.clone(), plain(field)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            ("items" | "additionalProperties", value) => plain(value),
            _ => value.clone(),
        };
        plain_map.insert(key.clone(), value);
    }
    if plain_map.contains_key("properties") {
        plain_map.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    Value::Object(plain_map)
}

fn walk(path: &str, values: &Value, schema: &Value, differences: &mut Vec<String>) {
    // The spec's fields are the CustomResourceDefinition's.
    let properties = schema["properties"].as_object();
    let Some(properties) = properties.filter(|_| path != ".pipeline.spec") else {
        return;
    };
    if schema["additionalProperties"] != Value::Bool(false) {
        differences.push(format!("{path}: keys that do not exist are not refused"));
    }
    let Some(values) = values.as_object() else {
        differences.push(format!("{path}: the schema has keys, values.yaml has none"));
        return;
    };
    for (key, value) in values {
        match properties.get(key) {
            Some(property) => walk(&format!("{path}.{key}"), value, property, differences),
            None => differences.push(format!("{path}.{key}: not in the schema")),
        }
    }
    // What a value may have beside its default: `limits` and the like.
    let optional = path.ends_with(".resources") || path.ends_with(".digests");
    for key in properties
        .keys()
        .filter(|key| !optional && !values.contains_key(*key))
    {
        differences.push(format!("{path}.{key}: not in values.yaml"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(values: &Value, schema: &Value, expect: &[&str]) {
        let mut differences = Vec::new();
        walk("", values, schema, &mut differences);
        assert_eq!(differences, expect);
    }

    #[test]
    fn both_ways() {
        let schema = json!({
            "additionalProperties": false,
            "properties": {"a": {"type": "integer"}, "b": {"properties": {"c": {}}, "additionalProperties": false}},
        });
        check(&json!({"a": 1, "b": {"c": 1}}), &schema, &[]);
        check(
            &json!({"a": 1, "b": {}}),
            &schema,
            &[".b.c: not in values.yaml"],
        );
        check(
            &json!({"a": 1, "b": {"c": 1, "d": 1}}),
            &schema,
            &[".b.d: not in the schema"],
        );
        let open = json!({"properties": {"a": {}}});
        check(
            &json!({"a": 1}),
            &open,
            &[": keys that do not exist are not refused"],
        );
    }
}
