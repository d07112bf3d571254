//! The document's schema, made from its types: what its shape is checked with, what the
//! CustomResourceDefinition says, and where a field means nothing.

use std::fmt;
use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value, json};

use crate::document::TracingPipeline;

/// The names of an object's fields, in the order of their declaration.
pub(crate) const ORDER: &str = "x-order";
/// The names of fields that are part of the design and not built yet.
pub(crate) const LATER: &str = "x-later";
/// Marks what means nothing on a laptop, with what to use instead.
pub(crate) const LAPTOP: &str = "x-laptop";

/// What a number or text of Kubernetes' amounts looks like.
const AMOUNT: &str = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";

/// The schema of the whole document, with our own marks in it.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(schema_of::<TracingPipeline>)
}

/// The structural schema of a type, with our own marks in it.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
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

/// A CEL rule of a schema.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({"rule": rule, "message": message})
}

/// Notes the names of a struct's fields in their order, which a schema's map does not keep.
pub(crate) fn in_order<T: for<'de> Deserialize<'de>>(schema: &mut Schema) {
    // The visitor is told the names, and nothing is read: it always ends with an error.
    let mut names: &'static [&'static str] = &[];
    let _ = T::deserialize(FieldNames(&mut names));
    schema.insert(ORDER.to_owned(), json!(names));
}

/// Takes down which fields a struct asks for.
struct FieldNames<'n>(&'n mut &'static [&'static str]);

/// There is nothing to read.
#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is nothing to read")
    }
}

impl std::error::Error for Nothing {}

impl serde::de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing::custom(""))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        *self.0 = fields;
        Err(Nothing::custom(""))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field of a schema, with its path.
    fn each(schema: &Value, path: &str, visit: &mut dyn FnMut(&str, &Value)) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            visit(&path, field);
            each(field, &path, visit);
            each(&field["items"], &format!("{path}[]"), visit);
        }
    }

    #[test]
    fn every_object_knows_the_order_of_its_fields() {
        let check = |path: &str, schema: &Value| {
            let Some(properties) = schema["properties"].as_object() else {
                return;
            };
            let mut order: Vec<_> = schema[ORDER].as_array().unwrap().iter().collect();
            order.sort_by_key(|name| name.as_str());
            let names: Vec<_> = properties.keys().collect();
            assert_eq!(order, names, "{path}: needs transform = in_order::<Self>");
        };
        check("", document());
        each(document(), "", &mut |path, field| {
            check(path, field);
            check(path, &field["items"]);
        });
    }

    #[test]
    fn the_docs_name_every_field() {
        let docs = include_str!("../../docs/pipeline.md");
        let spec = &document()["properties"]["spec"];
        each(spec, "", &mut |path, field| {
            let (_, name) = path.rsplit_once('.').unwrap();
            let words = docs.split(|c: char| !c.is_ascii_alphanumeric());
            // The fields of a pod's own are Kubernetes' to explain.
            let is_pods = [
                ".tolerations[]",
                ".affinity.",
                ".topologySpreadConstraints[]",
                ".instanceSelector.",
                ".namespaceSelector.",
                ".podSelector.",
                ".resources.",
            ];
            let is_known = is_pods.iter().any(|part| path.contains(part))
                || words.clone().any(|word| word == name);
            assert!(is_known, "docs/pipeline.md does not name spec{path}");
            if field[LAPTOP].is_string() {
                let (_, laptop) = docs.split_once("## With `spanloom up`").unwrap();
                let path = path.trim_start_matches('.');
                // "collector" and "all of storage.managed" stand for their fields.
                let whole = ["collector", "injection", "query", "storage.managed"];
                let is_part = |whole: &&str| path.starts_with(*whole);
                let path = whole.into_iter().find(is_part).unwrap_or(path);
                assert!(
                    laptop.contains(&format!("`{path}`")),
                    "With `spanloom up`: {path}"
                );
            }
        });
    }
}
