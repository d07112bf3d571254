//! Whether docs/operate.md lists what the NetworkPolicies let in and out, and nothing else.

use std::collections::BTreeSet;

use anyhow::Context;
use serde_json::Value;

/// What the docs say before the list.
const HEADING: &str = "| part | direction | peers | ports |";

/// Where the policies and the docs differ.
pub fn compare(objects: &[Value], docs: &str) -> anyhow::Result<Vec<String>> {
    let made = flows(objects);
    let listed = listed(docs)?;
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>, what: &str| -> Vec<String> {
        a.difference(b)
            .map(|row| format!("{what}: {row}"))
            .collect()
    };
    let mut differences = only(&made, &listed, "not in the docs");
    differences.extend(only(&listed, &made, "only in the docs"));
    Ok(differences)
}

/// The rows of the list.
fn listed(docs: &str) -> anyhow::Result<BTreeSet<String>> {
    let (_, list) = docs
        .split_once(HEADING)
        .context("docs/operate.md has no list of network flows")?;
    let rows = list
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    Ok(rows.map(str::to_owned).collect())
}

/// What the policies say, as rows.
fn flows(objects: &[Value]) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for policy in objects.iter().filter(|o| o["kind"] == "NetworkPolicy") {
        let part = component(&policy["spec"]["podSelector"]);
        for (direction, peers, rules) in [
            ("in", "from", &policy["spec"]["ingress"]),
            ("out", "to", &policy["spec"]["egress"]),
        ] {
            for rule in rules.as_array().into_iter().flatten() {
                let peers = match rule[peers].as_array() {
                    None => "anywhere".to_owned(),
                    Some(peers) => {
                        let names: Vec<_> = peers.iter().map(peer).collect();
                        names.join(", ")
                    }
                };
                let ports = ports(&rule["ports"]);
                rows.insert(format!("| {part} | {direction} | {peers} | {ports} |"));
            }
        }
    }
    rows
}

fn peer(peer: &Value) -> String {
    if peer["podSelector"].is_object() {
        component(&peer["podSelector"])
    } else {
        "all pods".to_owned()
    }
}

/// The components that a selector finds.
fn component(selector: &Value) -> String {
    let key = "app.kubernetes.io/component";
    if let Some(name) = selector["matchLabels"][key].as_str() {
        return name.to_owned();
    }
    let expressions = selector["matchExpressions"].as_array();
    let found = expressions.into_iter().flatten().find(|e| e["key"] == key);
    let values = found.and_then(|e| e["values"].as_array());
    let names: Vec<_> = values
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    names.join(", ")
}

fn ports(ports: &Value) -> String {
    let names: BTreeSet<_> = ports
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|port| port["port"].as_u64())
        .collect();
    let names: Vec<_> = names.iter().map(u64::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flow_that_is_not_listed_is_found_and_one_that_is_not_made() {
        let labels = |name: &str| json!({"matchLabels": {"app.kubernetes.io/component": name}});
        let policy = json!({
            "kind": "NetworkPolicy",
            "spec": {
                "podSelector": labels("query"),
                "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 3200}]}],
                "egress": [
                    {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]},
                    {"to": [{"podSelector": labels("clickhouse")}], "ports": [{"port": 8443}]},
                ],
            },
        });
        let docs = |rows: &str| format!("text\n{HEADING}\n|---|---|---|---|\n{rows}\nmore");
        let right = "| query | in | all pods | 3200 |\n| query | out | anywhere | 53 |\n\
                     | query | out | clickhouse | 8443 |";
        let differences = |rows: &str| compare(std::slice::from_ref(&policy), &docs(rows)).unwrap();
        assert_eq!(differences(right), Vec::<String>::new());
        let wrong = right.replace("8443", "9000");
        assert_eq!(
            differences(&wrong),
            [
                "not in the docs: | query | out | clickhouse | 8443 |",
                "only in the docs: | query | out | clickhouse | 9000 |",
            ]
        );
    }
}
