//! What the operator keeps for the webhook, and what it says of injected pods.

use serde_json::{Value, json};

use super::api::Api;
use super::passes::{APPS, CORE, PIPELINE, Run, leading, start, writes};

const CONFIGURATION: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/spanloom-webhook";
const ENTRY: &str = "prod.tracing.inject.spanloom.dev";

/// A release with a webhook, as the chart makes it, and one pipeline.
fn run(spec: Value) -> Run {
    let api = Api::new();
    api.put(
        CONFIGURATION,
        json!({"metadata": {"name": "spanloom-webhook"}}),
    );
    api.put(PIPELINE, pipeline(spec));
    start(api, leading(), true)
}

fn pipeline(spec: Value) -> Value {
    json!({
        "apiVersion": "spanloom.dev/v1alpha1", "kind": "TracingPipeline",
        "metadata": {"name": "prod", "namespace": "tracing"}, "spec": spec,
    })
}

/// The names of the configuration's entries.
fn entries(run: &Run) -> Vec<String> {
    let found = run.api.get(CONFIGURATION).unwrap();
    let entries = found["webhooks"].as_array().cloned().unwrap_or_default();
    let names = entries.iter().filter_map(|entry| entry["name"].as_str());
    names.map(str::to_owned).collect()
}

fn secret() -> String {
    format!("{CORE}/secrets/spanloom-webhook-tls")
}

#[tokio::test(start_paused = true)]
async fn each_pipeline_that_injects_has_an_entry() {
    let run = run(json!({}));
    run.wait(5).await;
    assert_eq!(entries(&run), [ENTRY]);
    let found = run.api.get(&secret()).unwrap();
    for key in ["tls.crt", "tls.key", "ca.crt"] {
        assert!(found["data"][key].is_string(), "{key}");
    }
    let bundle = run.api.get(CONFIGURATION).unwrap();
    let bundle = &bundle["webhooks"][0]["clientConfig"]["caBundle"];
    assert_eq!(*bundle, found["data"]["ca.crt"]);

    run.api
        .change(PIPELINE, &json!({"spec": {"injection": {"mode": "None"}}}));
    run.wait(3).await;
    assert!(entries(&run).is_empty());
    assert_eq!(run.condition("InjectionReady")["reason"], "Off");
    run.api
        .change(PIPELINE, &json!({"spec": {"injection": {"mode": "Node"}}}));
    run.wait(3).await;
    assert_eq!(entries(&run), [ENTRY]);
    run.api.delete(PIPELINE);
    run.wait(3).await;
    assert!(entries(&run).is_empty());
}

/// The webhook's pods wait for their certificate, also where there is no pipeline yet.
#[tokio::test(start_paused = true)]
async fn the_certificate_is_there_before_any_pipeline() {
    let api = Api::new();
    api.put(
        CONFIGURATION,
        json!({"metadata": {"name": "spanloom-webhook"}}),
    );
    let run = start(api, leading(), true);
    run.wait(5).await;
    let before = run.api.get(&secret()).expect("a certificate");
    assert!(entries(&run).is_empty());
    run.api.delete(&secret());
    run.wait(130).await;
    let again = run.api.get(&secret()).expect("another certificate");
    assert_ne!(again["data"]["tls.crt"], before["data"]["tls.crt"]);
    assert_eq!(again["data"]["ca.crt"], before["data"]["ca.crt"]);
}

#[tokio::test(start_paused = true)]
async fn what_others_change_comes_back_and_nothing_is_written_at_rest() {
    let run = run(json!({}));
    run.wait(5).await;
    let entry = |run: &Run| run.api.get(CONFIGURATION).unwrap()["webhooks"][0].clone();
    let before = entry(&run);
    let mut harmful = before.clone();
    harmful["failurePolicy"] = json!("Fail");
    run.api
        .change(CONFIGURATION, &json!({"webhooks": [harmful]}));
    run.wait(130).await;
    assert_eq!(entry(&run), before);
    run.api.take_seen();
    run.wait(900).await;
    let seen = run.api.take_seen();
    assert_eq!(writes(&seen, "webhook"), 0, "{seen:?}");
}

/// Without the chart's webhook nothing is kept for it, and nothing is asked for that the operator may not see.
#[tokio::test(start_paused = true)]
async fn a_release_without_a_webhook_keeps_nothing() {
    let api = Api::new();
    api.put(PIPELINE, pipeline(json!({})));
    let run = start(api, leading(), false);
    run.wait(40).await;
    assert!(run.api.get(&secret()).is_none());
    assert_eq!(run.condition("InjectionReady")["reason"], "NoWebhook");
    let seen = run.api.take_seen();
    let asked = |path: &str| seen.iter().any(|seen| seen.path.starts_with(path));
    assert!(!asked("/apis/admissionregistration.k8s.io") && !asked("/api/v1/pods"));
    assert!(run.api.get(PIPELINE).unwrap()["status"]["injection"].is_null());
}

#[tokio::test(start_paused = true)]
async fn pods_are_counted() {
    let run = run(json!({}));
    run.api.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop", "labels": {"spanloom.dev/trace": "enabled"}}}),
    );
    let put = |namespace: &str, name: &str, annotations: Value| {
        let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        run.api.put(&path, json!({"metadata": metadata}));
    };
    let said = |reason: &str| json!({"spanloom.dev/injection": reason, "spanloom.dev/injected-by": "tracing/prod"});
    put("shop", "a", said("Injected"));
    put("shop", "b", said("HostNetwork"));
    put("shop", "c", json!({}));
    put("other", "d", json!({}));
    let deployment = format!("{APPS}/deployments/spanloom-webhook");
    run.api.put(
        &deployment,
        json!({"metadata": {"name": "spanloom-webhook"}}),
    );
    run.wait(20).await;
    assert_eq!(run.condition("InjectionReady")["reason"], "WebhookNotReady");
    let counts = || run.api.get(PIPELINE).unwrap()["status"]["injection"].clone();
    let expected = json!({
        "matched": 3, "injected": 1, "outdated": 1, "skipped": {"HostNetwork": 1}, "summary": "1/3",
    });
    assert_eq!(counts(), expected);
    run.api
        .change(&deployment, &json!({"status": {"readyReplicas": 2}}));
    put("shop", "c", said("Injected"));
    run.wait(60).await;
    assert_eq!(run.condition("InjectionReady")["status"], "True");
    assert_eq!(counts()["summary"], "2/3");
    // Pods that come and go write the status at most twice a minute.
    run.api.take_seen();
    for n in 0..120 {
        put("shop", &format!("more-{n}"), said("Injected"));
        run.wait(1).await;
    }
    let written = writes(&run.api.take_seen(), "prod/status");
    assert!(
        (1..=5).contains(&written),
        "{written} writes in two minutes"
    );
}
