//! Whether a document has the shape that its schema says: a walk that finds every field that is not
//! known, or not built yet, and every value of another kind.

use serde_json::Value as Schema;
use serde_yaml::Value;

use crate::errors::{Path, Problem};
use crate::schema::{LATER, ORDER};

/// What stands in a place.
#[derive(Debug)]
enum Shape<'s> {
    /// An object whose fields the schema lists.
    Object,
    /// Any keys; their values have this schema.
    Map(&'s Schema),
    List(&'s Schema),
    Text,
    Number,
    /// A whole number, not negative.
    Count,
    /// True or false.
    Switch,
    /// One of these words.
    Word(Vec<&'s str>),
    /// A size, as text or number.
    Size,
}

impl<'s> Shape<'s> {
    fn of(schema: &'s Schema) -> Self {
        if schema["x-kubernetes-int-or-string"] == true {
            return Self::Size;
        }
        if let Some(words) = schema["enum"].as_array() {
            return Self::Word(words.iter().filter_map(Schema::as_str).collect());
        }
        match schema["type"].as_str() {
            Some("array") => Self::List(&schema["items"]),
            Some("boolean") => Self::Switch,
            Some("integer") => Self::Count,
            Some("number") => Self::Number,
            Some("string") => Self::Text,
            _ if schema["additionalProperties"].is_object() => {
                Self::Map(&schema["additionalProperties"])
            }
            _ => Self::Object,
        }
    }

    fn wanted(&self) -> String {
        let wanted = match self {
            Self::Object => "a map of fields",
            Self::Map(values) => match Shape::of(values) {
                Shape::Size => "a map of strings to sizes",
                _ => "a map of strings to strings",
            },
            Self::List(_) => "a list",
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Count => "a non-negative integer",
            Self::Size => "a size such as 8Ki or 8192",
            Self::Switch => "true or false",
            Self::Word(words) => return words.join(" or "),
        };
        wanted.to_owned()
    }
}

/// Finds everything in `value` that does not fit `schema`. An empty value (`key:`) counts as left
/// out, as in Kubernetes.
pub(crate) fn misfits(schema: &Schema, value: &Value, path: &Path, problems: &mut Vec<Problem>) {
    let shape = Shape::of(schema);
    match (&shape, value) {
        (Shape::Object, Value::Mapping(map)) => object(schema, map, path, problems),
        (Shape::Map(values), Value::Mapping(map)) => each(values, map, path, problems),
        (Shape::Switch, Value::Bool(_)) => {}
        (Shape::Word(words), Value::String(word)) if words.contains(&word.as_str()) => {}
        (Shape::List(item), Value::Sequence(list)) => {
            for (n, value) in list.iter().enumerate() {
                misfits(item, value, &path.index(n), problems);
            }
        }
        (Shape::Text | Shape::Size, Value::String(_)) | (Shape::Number, Value::Number(_)) => {}
        (Shape::Count | Shape::Size, Value::Number(n)) if n.is_u64() => {}
        _ => {
            let wanted = shape.wanted();
            let text = format!("must be {wanted}, but is {}", describe(value));
            let advice = match (shape, value) {
                (Shape::Text, Value::Bool(_) | Value::Number(_)) => "put it in quotes",
                _ => "",
            };
            problems.push(Problem::new(path.clone(), text, advice));
        }
    }
}

/// The texts of a list in a schema.
fn texts<'s>(schema: &'s Schema, key: &str) -> impl Iterator<Item = &'s str> + Clone {
    let list = schema[key].as_array().map(Vec::as_slice);
    list.unwrap_or_default().iter().filter_map(Schema::as_str)
}

fn object(schema: &Schema, map: &serde_yaml::Mapping, path: &Path, problems: &mut Vec<Problem>) {
    let fields = texts(schema, ORDER);
    let known = || {
        let names: Vec<_> = fields.clone().collect();
        format!("known fields here: {}", names.join(", "))
    };
    for (key, _) in map {
        let Value::String(key) = key else {
            let text = format!("a field name must be a string, but is {}", describe(key));
            problems.push(Problem::new(path.clone(), text, known()));
            continue;
        };
        if fields.clone().any(|field| field == key) {
            continue;
        }
        let (text, advice) = match texts(schema, LATER).any(|field| field == key) {
            true => ("not supported yet", format!("remove it; {}", known())),
            false => ("unknown field", known()),
        };
        problems.push(Problem {
            at_key: true,
            ..Problem::new(path.key(key), text, advice)
        });
    }
    for field in fields.clone() {
        match map.get(field).filter(|value| !value.is_null()) {
            Some(value) => {
                let schema = &schema["properties"][field];
                misfits(schema, value, &path.key(field), problems);
            }
            None if texts(schema, "required").any(|required| required == field) => {
                let text = format!("the field {field} is missing");
                problems.push(Problem::new(path.clone(), text, ""));
            }
            None => {}
        }
    }
}

fn each(schema: &Schema, map: &serde_yaml::Mapping, path: &Path, problems: &mut Vec<Problem>) {
    for (key, value) in map {
        match key {
            Value::String(key) => misfits(schema, value, &path.key(key), problems),
            key => {
                let text = format!("a key must be a string, but is {}", describe(key));
                problems.push(Problem::new(path.clone(), text, "put it in quotes"));
            }
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "empty".to_owned(),
        Value::Bool(b) => format!("the boolean {b}"),
        Value::Number(n) => format!("the number {n}"),
        Value::String(text) => {
            let shown: String = text.chars().take(60).collect();
            format!("the string {shown:?}")
        }
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a map".to_owned(),
        Value::Tagged(tagged) => format!("tagged {}", tagged.tag),
    }
}
