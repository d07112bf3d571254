//! A JSON Patch (RFC 6902) that only adds.

use serde::Serialize;
use serde_json::{Map, Value};

/// An operation of a patch.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Adds a value.
    Add {
        /// Where, a JSON pointer.
        path: String,
        /// What.
        value: Value,
    },
}

impl Operation {
    /// Adds `value` at `path`.
    pub fn add(path: impl Into<String>, value: Value) -> Self {
        Self::Add {
            path: path.into(),
            value,
        }
    }
}

/// Adds members to the object at `path`; `is_there` says whether there is one yet.
pub fn add_members(
    is_there: bool,
    path: &str,
    members: Vec<(&str, String)>,
    patch: &mut Vec<Operation>,
) {
    if members.is_empty() {
        return;
    }
    if is_there {
        patch.extend(members.into_iter().map(|(key, value)| {
            Operation::add(format!("{path}/{}", escape(key)), Value::String(value))
        }));
    } else {
        let members = members.into_iter();
        let object: Map<_, _> = members
            .map(|(key, value)| (key.to_owned(), Value::String(value)))
            .collect();
        patch.push(Operation::add(path, Value::Object(object)));
    }
}

/// Adds items to the end of the list at `path`; `is_there` says whether there is one yet.
pub fn append(is_there: bool, path: &str, items: Vec<Value>, patch: &mut Vec<Operation>) {
    if items.is_empty() {
        return;
    }
    if is_there {
        let items = items.into_iter();
        patch.extend(items.map(|item| Operation::add(format!("{path}/-"), item)));
    } else {
        patch.push(Operation::add(path, Value::Array(items)));
    }
}

/// A key as a part of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
