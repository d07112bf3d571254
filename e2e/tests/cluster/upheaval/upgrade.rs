//! The release is upgraded from the earliest chart that people may have: `e2e/compat` names it.
//!
//! It runs with today's images: those of its own commit would have to be built. Today's operator would put
//! today's definition in force at once, so that the earlier release is told to leave it alone.

use std::path::Path;

use serde_json::{Value, json};

use super::super::loss::{await_more, nodes, place_senders, stop_and_check};
use super::super::support::apps::{App, ask};
use super::super::support::install;
use super::super::support::kube::{kubectl, try_kubectl};
use super::super::support::pipeline::{Pipeline, attribute, document};
use super::super::support::{LIMIT, await_some, want};

const DEFINITION: &str = "customresourcedefinition/tracingpipelines.spanloom.dev";

/// The versions in a definition: all that it says of the documents.
fn versions(arguments: &[&str]) -> Value {
    let text = kubectl(&[arguments, &["--output=json"]].concat());
    let definition: Value = serde_json::from_str(&text).unwrap();
    let versions = definition["spec"]["versions"].clone();
    assert!(versions[0]["schema"].is_object(), "{definition}");
    versions
}

fn versions_in_force() -> Value {
    versions(&["get", DEFINITION])
}

fn versions_in(file: &Path) -> Value {
    let file = file.to_str().unwrap();
    versions(&["create", "--dry-run=client", "--filename", file])
}

#[test]
fn an_upgrade_from_the_earliest_chart_keeps_all_there_was() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    let earlier = spanloom_e2e::compat::earlier_chart().unwrap();

    // From nothing: Helm installs a definition only where there is none.
    install::uninstall();
    kubectl(&["delete", DEFINITION, "--wait=true", "--timeout=120s"]);
    install::upgrade_to(&earlier, &["operator.applyCrds=false"]);
    let its_own = versions_in(&earlier.join("crds/tracingpipelines.yaml"));
    assert_eq!(versions_in_force(), its_own);
    // The two charts may have the same definition. So that there is something to upgrade for certain, one
    // field is made unknown.
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/processing/properties/redact";
    let removal = json!([{"op": "remove", "path": field}]).to_string();
    kubectl(&["patch", DEFINITION, "--type=json", "--patch", &removal]);
    let newer = json!({"processing": {"redact": [{"keys": ["secret.*"]}]}});
    let newer_document = document(namespace.name(), &newer).to_string();
    let dry = ["apply", "--dry-run=server", "--filename", "-"];
    await_some("a refusal of the field", LIMIT, || {
        let said = try_kubectl(&dry, Some(&newer_document));
        let is_refused = matches!(&said, Err(error) if error.contains("redact"));
        want(is_refused, || format!("{said:?}"))
    });

    let pipeline = Pipeline::ready(&namespace, &json!({}));
    App::python("app", "service")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", pipeline.otlp_http())
        .place(&namespace);
    let trace = || {
        let answer = ask(&namespace, "app", "/work");
        answer["traceId"].as_str().unwrap().to_owned()
    };
    let before = trace();
    pipeline.await_trace(&before, 1);
    place_senders(&pipeline, &nodes());
    let claim = || {
        let claim = namespace.get(&["persistentvolumeclaim", "data-traces-clickhouse-0"]);
        claim["metadata"]["uid"].clone()
    };
    let volume = claim();

    install::upgrade();
    let todays = spanloom_e2e::workspace().join("crds/yaml/tracingpipelines.yaml");
    let todays = versions_in(&todays);
    await_some("today's definition", LIMIT, || {
        let found = versions_in_force();
        want(found == todays, || format!("{found}"))
    });
    // A document with what the upgrade has brought is taken, and the operator of today makes it so.
    await_some("today's field", LIMIT, || pipeline.try_apply(&newer));
    pipeline.await_ready();
    let spans = await_some("a span under the new rule", LIMIT, || {
        let spans = pipeline.await_trace(&trace(), 1);
        let card = attribute(&spans[0], "span", "secret.card");
        want(card == Some("***"), || format!("{spans:?}"))?;
        Ok(spans)
    });
    assert_eq!(spans[0]["service"], "app");

    // What was stored before is there, and nobody was disturbed.
    let spans = pipeline.await_trace(&before, 1);
    let card = attribute(&spans[0], "span", "secret.card");
    assert_eq!(card, Some("4111111111111111"));
    assert_eq!(claim(), volume, "another volume");
    await_more(&namespace);
    stop_and_check(&pipeline);
    let restarts = namespace.kubectl(&[
        "get",
        "pods",
        "--selector=spanloom.dev/pipeline=traces",
        "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}",
    ]);
    assert!(restarts.split(' ').all(|count| count == "0"), "{restarts}");
}
