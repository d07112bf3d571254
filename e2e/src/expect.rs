//! One form for a span, whoever tells of it: an SDK that sent it, or the API that holds it.
//!
//! The clients print spans in the shape of the API (`GET /api/v1/traces/{id}`); [`span`] takes away
//! what only the API says (the place in the tree, readable times) and what carries no meaning (the order
//! of attributes, how a double is written), so that two spans are equal when all of OTLP is.

use serde_json::{Map, Value, json};

/// The fields that OTLP carries.
const FIELDS: &[&str] = &[
    "spanId",
    "parentSpanId",
    "name",
    "kind",
    "status",
    "statusMessage",
    "startUnixNano",
    "durationNs",
    "traceState",
    "flags",
    "attributes",
    "droppedAttributesCount",
    "events",
    "droppedEventsCount",
    "links",
    "droppedLinksCount",
    "resource",
    "scope",
];

/// The span in a form that can be compared.
pub fn span(given: &Value) -> Value {
    let fields = FIELDS.iter().filter_map(|field| {
        let value = given.get(field)?;
        Some(((*field).to_owned(), normal(field, value)))
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn normal(key: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) if key == "attributes" => attributes(items),
        Value::Array(items) => items.iter().map(|item| normal("", item)).collect(),
        Value::Object(members) => Value::Object(
            members
                .iter()
                // An event's time in words; its nanoseconds stand beside it.
                .filter(|(key, _)| *key != "time")
                .map(|(key, value)| (key.clone(), normal(key, value)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// Sorted by key: the store keeps attributes by type and key, not in the order of the wire.
fn attributes(items: &[Value]) -> Value {
    let mut items: Vec<Value> = items.iter().map(typed).collect();
    items.sort_by_key(|item| item["key"].to_string());
    Value::Array(items)
}

/// An attribute, or an item of an array: doubles as text, so that 1 and 1.0 do not differ.
fn typed(item: &Value) -> Value {
    let mut item = item.clone();
    let value = match (item["type"].as_str(), &item["value"]) {
        (Some("double"), Value::Number(number)) => number.as_f64().map(|n| json!(format!("{n:?}"))),
        (Some("array" | "kvlist"), Value::Array(items)) => Some(items.iter().map(typed).collect()),
        _ => None,
    };
    if let (Some(value), Some(members)) = (value, item.as_object_mut()) {
        members.insert("value".to_owned(), value);
    }
    item
}

/// Compares two sets of spans by their ids and says, field by field, what differs.
pub fn differences(sent: &[Value], came: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    for sent in sent.iter().map(span) {
        let id = &sent["spanId"];
        let Some(came) = came.iter().map(span).find(|came| came["spanId"] == *id) else {
            found.push(format!("span {id} ({}) did not come back", sent["name"]));
            continue;
        };
        for field in FIELDS {
            compare(
                &format!("{} of {}", field, sent["name"]),
                &sent[field],
                &came[field],
                &mut found,
            );
        }
    }
    if sent.len() != came.len() {
        found.push(format!(
            "{} spans were sent, {} came back",
            sent.len(),
            came.len()
        ));
    }
    found
}

/// Goes down to the smallest part that differs.
fn compare(place: &str, sent: &Value, came: &Value, found: &mut Vec<String>) {
    match (sent, came) {
        _ if sent == came => {}
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                let name = left["key"]
                    .as_str()
                    .map_or(index.to_string(), str::to_owned);
                compare(&format!("{place} / {name}"), left, right, found);
            }
        }
        (Value::Object(left), Value::Object(right)) if left.keys().eq(right.keys()) => {
            for (key, left) in left {
                compare(&format!("{place} / {key}"), left, &right[key], found);
            }
        }
        _ => found.push(format!("{place}: sent {sent}, came back {came}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &Value, came: &Value, expected: &[&str]) {
        let found = differences(std::slice::from_ref(sent), std::slice::from_ref(came));
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.contains(expected),
                "{found:?} does not say {expected:?}"
            );
        }
    }

    #[test]
    fn order_and_notation_do_not_matter() {
        let sent = json!({"spanId": "1", "name": "n", "events": [{}], "attributes": [
            {"key": "b", "type": "double", "value": 1},
            {"key": "a", "type": "array", "value": [{"type": "double", "value": 2}]},
        ]});
        let came = json!({"spanId": "1", "name": "n", "depth": 3, "events": [{"time": "t"}], "attributes": [
            {"key": "a", "type": "array", "value": [{"type": "double", "value": 2.0}]},
            {"key": "b", "type": "double", "value": 1.0},
        ]});
        check(&sent, &came, &[]);
    }

    #[test]
    fn each_difference_is_named() {
        let sent = json!({"spanId": "1", "name": "n", "attributes": [
            {"key": "a", "type": "int", "value": "1"},
        ], "scope": {"name": "x"}});
        check(&sent, &json!({"spanId": "2"}), &["did not come back"]);
        let came = json!({"spanId": "1", "name": "n", "attributes": [
            {"key": "a", "type": "int", "value": "2"},
        ], "scope": {"name": "x"}});
        check(
            &sent,
            &came,
            &["attributes of \"n\" / a / value: sent \"1\", came back \"2\""],
        );
        let came = json!({"spanId": "1", "name": "n", "attributes": [], "scope": {"name": "y"}});
        check(
            &sent,
            &came,
            &["attributes of \"n\"", "scope of \"n\" / name"],
        );
    }
}
