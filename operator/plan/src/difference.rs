//! What has to be written: the difference between what is there and what should be. Pure.

use serde_json::Value;
use spanloom_crds::Amount;

use crate::hash::hash_of;
use crate::render::APPLIED_HASH;

/// Whether `live` is what was last asked for, so that nothing needs to be written: it carries the
/// same hash, and every field that we own has our value. Fields of others do not matter.
pub fn is_applied(live: &Value, desired: &Value) -> bool {
    let hash = |object: &Value| object["metadata"]["annotations"][APPLIED_HASH].clone();
    hash(live) == hash(desired) && covers(live, desired)
}

/// Names what is in an object, but for what the API server counts and says itself.
pub fn content_hash(live: &Value) -> String {
    let mut content = live.clone();
    if let Some(object) = content.as_object_mut() {
        object.remove("status");
    }
    if let Some(metadata) = content.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["resourceVersion", "generation", "managedFields"] {
            metadata.remove(name);
        }
    }
    hash_of(&content)
}

/// Whether `live` has everything that `desired` has.
pub(crate) fn covers(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, wanted)| match live.get(key) {
                Some(found) => covers(found, wanted),
                None => is_empty(wanted),
            })
        }
        (Value::Array(live), Value::Array(desired)) => {
            let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
            if !desired.is_empty() && desired.iter().all(|item| name(item).is_some()) {
                // Kubernetes merges such lists by name: others may have added to them.
                return desired.iter().all(|wanted| {
                    live.iter()
                        .any(|found| name(found) == name(wanted) && covers(found, wanted))
                });
            }
            live.len() == desired.len() && live.iter().zip(desired).all(|(l, d)| covers(l, d))
        }
        (Value::String(live), Value::String(desired)) => {
            live == desired || is_same_amount(live, desired)
        }
        (live, desired) => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        // What is empty or false is often left out.
        Value::String(text) => text.is_empty(),
        Value::Bool(is_true) => !is_true,
        Value::Number(_) => false,
    }
}

/// The API server writes amounts its own way: `1000m` comes back as `1`.
fn is_same_amount(live: &str, desired: &str) -> bool {
    let milli = |text: &str| Amount::Text(text.to_owned()).milli();
    milli(desired).is_some_and(|wanted| milli(live) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(hash: &str, spec: Value) -> Value {
        json!({"metadata": {"annotations": {APPLIED_HASH: hash}}, "spec": spec})
    }

    #[track_caller]
    fn applied(live: Value, desired: Value, expected: bool) {
        let is = is_applied(&object("a", live.clone()), &object("a", desired.clone()));
        assert_eq!(is, expected, "{live} {desired}");
    }

    #[test]
    fn fields_of_others_do_not_matter_and_ours_do() {
        applied(json!({"a": 1, "foreign": 2}), json!({"a": 1}), true);
        applied(json!({"a": 2}), json!({"a": 1}), false);
        applied(json!({}), json!({"a": 1}), false);
        applied(json!({}), json!({"volumes": [], "labels": {}}), true);
        let env = json!({"env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]});
        applied(
            env.clone(),
            json!({"env": [{"name": "A", "value": "1"}]}),
            true,
        );
        applied(env, json!({"env": [{"name": "A", "value": "2"}]}), false);
        applied(json!({"args": ["a", "b"]}), json!({"args": ["a"]}), false);
        applied(json!({"cpu": "1"}), json!({"cpu": "1000m"}), true);
        applied(json!({"memory": "1Gi"}), json!({"memory": "1024Mi"}), true);
        applied(json!({"memory": "1Gi"}), json!({"memory": "1025Mi"}), false);
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_is_seen_by_the_hash() {
        let live = object("old", json!({"a": 1, "b": 2}));
        assert!(!is_applied(&live, &object("new", json!({"a": 1}))));
    }

    #[test]
    fn what_the_server_counts_is_not_content() {
        let one = json!({"metadata": {"resourceVersion": "1", "name": "a"}, "status": {"x": 1}});
        let two = json!({"metadata": {"resourceVersion": "2", "name": "a"}});
        assert_eq!(content_hash(&one), content_hash(&two));
        assert_ne!(
            content_hash(&one),
            content_hash(&json!({"metadata": {"name": "b"}}))
        );
    }
}
