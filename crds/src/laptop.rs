//! What a document says that means nothing on a laptop.

use serde_json::Value as Schema;
use serde_yaml::Value;

use crate::document::TracingPipeline;
use crate::errors::Path;
use crate::schema::{self, LAPTOP};

/// One line that names the given fields which `spanloom up` does not use; none when there are none.
pub fn laptop_notes(document: &TracingPipeline) -> Vec<String> {
    let mut fields = Vec::new();
    // What is not given is left out when it is written.
    if let Ok(written) = serde_yaml::to_value(document) {
        collect(schema::document(), &written, &Path::default(), &mut fields);
    }
    if fields.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "these fields have no effect with spanloom up: {}",
        fields.join(", ")
    )]
}

fn collect(schema: &Schema, value: &Value, path: &Path, fields: &mut Vec<String>) {
    let Value::Mapping(map) = value else {
        return;
    };
    for (key, value) in map {
        let Some(key) = key.as_str() else {
            continue;
        };
        let (schema, path) = (&schema["properties"][key], path.key(key));
        match schema[LAPTOP].as_str() {
            Some(_) if is_empty(value) => {}
            Some("") => fields.push(path.to_string()),
            Some(instead) => fields.push(format!("{path} ({instead})")),
            None => collect(schema, value, &path, fields),
        }
    }
}

/// An object without fields, or with empty ones: nothing of it is given.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Mapping(map) => map.iter().all(|(_, value)| is_empty(value)),
        _ => false,
    }
}
