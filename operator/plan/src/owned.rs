//! Objects that exist, by kind and name.

use std::collections::BTreeMap;

use serde_json::Value;

/// An object's kind and name.
pub type Key = (String, String);

/// Objects of one pipeline, as they are.
pub type Owned = BTreeMap<Key, Value>;

/// The key of an object.
pub fn key_of(object: &Value) -> Key {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&object["kind"]), text(&object["metadata"]["name"]))
}

/// Whether an object's owner is the pipeline with this uid.
pub fn is_owned_by(object: &Value, uid: &str) -> bool {
    object["metadata"]["ownerReferences"]
        .as_array()
        .is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
}
