//! Install, apply, point two services at the pipeline: one trace, with each span's pod on it.

use serde_json::json;

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::kubectl;
use super::support::namespace::Namespace;
use super::support::pipeline::{NAME, Pipeline, attribute};

/// Passes that the operator made over the namespace's pipeline so far.
fn passes(namespace: &Namespace) -> u64 {
    install::counted(
        "operator",
        &format!(
            "spanloom_operator_reconciles_total{{namespace=\"{}\",pipeline=\"{NAME}\"}}",
            namespace.name()
        ),
    )
}

#[test]
fn two_services_on_two_nodes_make_one_trace() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let spec =
        json!({"processing": {"kubernetes": {"labels": ["team"], "annotations": ["ticket"]}}});
    let pipeline = Pipeline::ready(&namespace, &spec);
    let passes = passes(&namespace);
    println!("{passes} passes until Ready");
    assert!((1..=30).contains(&passes), "{passes} passes until Ready");
    let endpoint = pipeline.otlp_http();
    let nodes = kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[*].metadata.name}",
    ]);
    let nodes: Vec<_> = nodes.split_whitespace().collect();
    let mut callee = App::python("callee", "service")
        .on(nodes[0])
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        // What a client says of its place is not believed.
        .with(
            "OTEL_RESOURCE_ATTRIBUTES",
            "k8s.pod.name=liar,k8s.namespace.name=elsewhere,k8s.node.name=moon",
        );
    callee.labels.push(("team", "payments"));
    callee.annotations.push(("ticket", "T-1"));
    callee.place(&namespace);
    App::node("caller", "http://callee")
        .on(nodes[1])
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .place(&namespace);

    let answer = ask(&namespace, "caller", "/call");
    let trace_id = answer["traceId"].as_str().unwrap();
    assert_eq!(answer["below"]["traceId"], trace_id, "{answer}");
    let spans = pipeline.await_trace(trace_id, 3);
    let pods = namespace.get(&["pods"]);
    for span in &spans {
        let service = span["service"].as_str().unwrap();
        let pod = pods["items"].as_array().unwrap().iter();
        let pod = pod
            .clone()
            .find(|pod| pod["metadata"]["labels"]["app"] == service)
            .unwrap_or_else(|| panic!("no pod of {service}"));
        for (key, expected) in [
            ("k8s.namespace.name", &json!(namespace.name())),
            ("k8s.pod.name", &pod["metadata"]["name"]),
            ("k8s.pod.uid", &pod["metadata"]["uid"]),
            ("k8s.node.name", &pod["spec"]["nodeName"]),
            ("k8s.deployment.name", &json!(service)),
        ] {
            let found = attribute(span, "resource", key);
            assert_eq!(found, expected.as_str(), "{key} of {span:#}");
        }
    }
    let callee = spans
        .iter()
        .find(|span| span["service"] == "callee")
        .unwrap();
    let label = attribute(callee, "resource", "k8s.pod.label.team");
    let annotation = attribute(callee, "resource", "k8s.pod.annotation.ticket");
    assert_eq!((label, annotation), (Some("payments"), Some("T-1")));
}
