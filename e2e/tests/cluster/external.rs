//! A ClickHouse of one's own: here the one of another pipeline, with its password and its authority.

use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::apply;
use super::support::namespace::Namespace;
use super::support::pipeline::Pipeline;

/// What the pipeline that has the store keeps it under.
const SECRET: &str = "traces-clickhouse";
const AUTHORITIES: &str = "traces-ca";

/// A Secret in the namespace.
fn secret(namespace: &Namespace, name: &str, content: (&str, &Value)) {
    let (kind, content) = content;
    apply(&json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace.name()},
        kind: content,
    }));
}

#[test]
fn spans_go_to_a_clickhouse_of_ones_own() {
    let _installed = install::shared();
    let [owner, user] = [install::pipeline_namespace(), install::pipeline_namespace()];
    let store = Pipeline::ready(&owner, &json!({}));
    let credentials = owner.get(&["secret", SECRET]);
    let authorities = owner.get(&["configmap", AUTHORITIES]);
    secret(&user, "store", ("data", &credentials["data"]));
    secret(&user, "store-ca", ("stringData", &authorities["data"]));
    let external = json!({
        "url": format!("https://traces-clickhouse.{}.svc:8443", owner.name()),
        "database": "shared",
        "credentialsSecret": {"name": "store"},
        "tls": {"caSecret": {"name": "store-ca"}},
    });
    let pipeline = Pipeline::ready(&user, &json!({"storage": {"external": external}}));

    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&user);
    let answer = ask(&user, "app", "/work");
    let trace_id = answer["traceId"].as_str().unwrap();
    pipeline.await_trace(trace_id, 1);
    let count = |database: &str| {
        let condition = format!("trace_id = unhex('{trace_id}')");
        let sql = format!("SELECT count() FROM {database}.spans WHERE {condition}");
        store.sql(&sql).trim().to_owned()
    };
    assert_eq!([count("shared"), count("spanloom")], ["1", "0"]);
    let own = user.get(&["statefulsets,persistentvolumeclaims"]);
    assert_eq!(own["items"], json!([]), "a store of its own");
}
