//! NetworkPolicies: what the pods of a pipeline let in and out. docs/operate.md lists the same, and
//! `cargo xtask chart` compares the two.

use serde_json::{Value, json};
use spanloom_crds::resolved::Server;

use super::{Desired, Stage, common};
use crate::pipeline::Pipeline;
use crate::release::{NetworkPolicies, Release};

/// One for each component; none where the release wants none.
pub(super) fn policies(pipeline: &Pipeline, release: &Release) -> Vec<Desired> {
    let Some(wanted) = &release.network_policies else {
        return Vec::new();
    };
    let metrics = from(&metrics_peers(wanted, release), &[9464]);
    let query_peers = or_all_pods(&wanted.query_from);
    let api_server = json!({"ports": ports(&wanted.api_server_ports)});
    let mut all = vec![
        policy(
            pipeline,
            "collector",
            // Senders may be pods of the node's own network, which no selector finds.
            vec![json!({"ports": ports(&[4317, 4318])}), metrics.clone()],
            vec![dns(), api_server, store(pipeline)],
        ),
        policy(
            pipeline,
            "query",
            vec![from(&query_peers, &[3200]), metrics],
            vec![dns(), store(pipeline)],
        ),
        policy(pipeline, "migrate", vec![], vec![dns(), store(pipeline)]),
    ];
    if pipeline.runs_store() {
        let peers = ["collector", "query", "migrate"].map(|name| component(pipeline, name));
        let ingress = vec![from(&peers, &[8443])];
        all.push(policy(pipeline, "clickhouse", ingress, vec![]));
    }
    all
}

fn policy(
    pipeline: &Pipeline,
    component: &str,
    ingress: Vec<Value>,
    egress: Vec<Value>,
) -> Desired {
    Desired::new(
        Stage::Base,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": common::metadata(pipeline, component, component),
            "spec": {
                "podSelector": {"matchLabels": common::component_labels(pipeline, component)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": ingress, "egress": egress,
            },
        }),
    )
}

/// The way to the store.
fn store(pipeline: &Pipeline) -> Value {
    match &pipeline.resolved.storage.server {
        Server::Managed { .. } => json!({
            "to": [component(pipeline, "clickhouse")], "ports": ports(&[8443]),
        }),
        Server::External { url, .. } => json!({"ports": ports(&[port_of(url)])}),
    }
}

/// The port of a URL that was checked.
fn port_of(url: &str) -> u16 {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let port = authority
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    port.unwrap_or(if scheme == "http" { 80 } else { 443 })
}

fn dns() -> Value {
    json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
}

fn ports(ports: &[u16]) -> Value {
    let port = |port: &u16| json!({"protocol": "TCP", "port": port});
    ports.iter().map(port).collect()
}

fn from(peers: &[Value], to: &[u16]) -> Value {
    json!({"from": peers, "ports": ports(to)})
}

fn component(pipeline: &Pipeline, component: &str) -> Value {
    json!({"podSelector": {"matchLabels": common::component_labels(pipeline, component)}})
}

/// Who may read metrics; the operator reads the state of collectors and sends them its probe.
fn metrics_peers(wanted: &NetworkPolicies, release: &Release) -> Vec<Value> {
    let mut peers = or_all_pods(&wanted.metrics_from);
    peers.push(json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": release.namespace}},
        "podSelector": {"matchLabels": {
            "app.kubernetes.io/name": "spanloom", "app.kubernetes.io/component": "operator",
        }},
    }));
    peers
}

fn or_all_pods(peers: &[Value]) -> Vec<Value> {
    if peers.is_empty() {
        vec![json!({"namespaceSelector": {}})]
    } else {
        peers.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_external_store_is_that_of_its_url() {
        assert_eq!(port_of("http://a:8123"), 8123);
        assert_eq!(port_of("https://[fd00::1]:8443/x"), 8443);
        assert_eq!(port_of("https://a.example"), 443);
        assert_eq!(port_of("http://a.example/path"), 80);
    }
}
