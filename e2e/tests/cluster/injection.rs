//! Pods that are traced because their namespace has a label; nothing in them is changed by hand.

use serde_json::{Value, json};

use super::support::apps::{App, ask};
use super::support::install;
use super::support::kube::{apply, kubectl, try_get, try_kubectl};
use super::support::namespace::Namespace;
use super::support::pipeline::{NAME, Pipeline, attribute};
use super::support::{LIMIT, await_some, want};

/// The webhook's Deployment.
const WEBHOOK: &str = "deployment/spanloom-webhook";

/// Asks for a namespace's pods to be traced.
fn label(namespace: &Namespace) {
    kubectl(&[
        "label",
        "namespace",
        namespace.name(),
        "spanloom.dev/trace=enabled",
    ]);
}

/// A pod that does nothing, and which `restricted` allows.
fn pod(name: &str, annotations: &Value, environment: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "app",
                "image": "spanloom.test/demo-python:1",
                "args": ["idle"],
                "env": environment,
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// What would become of a pod.
fn try_admit(namespace: &Namespace, pod: &Value) -> Result<Value, String> {
    let create = [
        "create",
        "--dry-run=server",
        "--output=json",
        "--filename=-",
    ];
    let arguments = [&["--namespace", namespace.name()][..], &create].concat();
    let text = try_kubectl(&arguments, Some(&pod.to_string()))?;
    serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))
}

fn outcome(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"]["spanloom.dev/injection"]
}

/// Waits until pods of the namespace are injected: the webhook and the API server hear of it a moment later.
fn await_injection(namespace: &Namespace) -> Value {
    await_some("an injected pod", LIMIT, || {
        let admitted = try_admit(namespace, &pod("tried", &json!({}), &json!([])))?;
        want(outcome(&admitted) == "Injected", || admitted.to_string())?;
        Ok(admitted)
    })
}

fn variables(pod: &Value) -> Vec<(&str, &str)> {
    let all = pod["spec"]["containers"][0]["env"].as_array();
    let all = all.into_iter().flatten();
    all.map(|variable| {
        let text = |key: &str| variable[key].as_str().unwrap_or_default();
        (text("name"), text("value"))
    })
    .collect()
}

/// How often the webhook counted a reason for the namespace's pipeline, at all replicas.
fn counted(namespace: &Namespace, pipeline: &str, reason: &str) -> u64 {
    install::counted(
        "webhook",
        &format!(
            "spanloom_webhook_admissions_total{{namespace=\"{}\",pipeline=\"{pipeline}\",reason=\"{reason}\"}}",
            namespace.name()
        ),
    )
}

#[test]
fn pods_of_a_labelled_namespace_are_traced() {
    let _installed = install::shared();
    let namespace = install::pipeline_namespace();
    let pipeline = Pipeline::ready(&namespace, &json!({}));
    label(&namespace);
    let admitted = await_injection(&namespace);
    let endpoint = format!("http://{NAME}-collector.{}.svc:4317", namespace.name());
    let found = variables(&admitted);
    assert!(
        found.contains(&("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &endpoint)),
        "{found:?}"
    );
    assert_eq!(
        counted(&namespace, NAME, "Injected"),
        0,
        "dry runs are not counted"
    );

    // A service in Python and one in Node, no address told to them, on two nodes.
    let nodes = kubectl(&[
        "get",
        "nodes",
        "--output=jsonpath={.items[*].metadata.name}",
    ]);
    let nodes: Vec<_> = nodes.split_whitespace().collect();
    App::python("callee", "service")
        .on(nodes[0])
        .place(&namespace);
    App::node("caller", "http://callee")
        .on(nodes[1])
        .place(&namespace);
    let answer = ask(&namespace, "caller", "/call");
    let trace_id = answer["traceId"].as_str().unwrap();
    assert_eq!(answer["below"]["traceId"], trace_id, "{answer}");
    let spans = pipeline.await_trace(trace_id, 3);
    for span in &spans {
        let found = |key: &str| attribute(span, "resource", key);
        assert_eq!(
            found("service.namespace"),
            Some(namespace.name()),
            "{span:#}"
        );
        assert_eq!(found("service.version"), Some("1"), "{span:#}");
        assert_eq!(found("k8s.container.name"), Some("app"), "{span:#}");
        let pod = found("k8s.pod.name").unwrap();
        let instance = format!("{}.{pod}.app", namespace.name());
        assert_eq!(found("service.instance.id"), Some(&*instance), "{span:#}");
    }
    assert!(counted(&namespace, NAME, "Injected") >= 2);
    pipeline.await_condition("InjectionReady", "True", Some("Ready"));
    // The pod that questions are asked from was there before the label, Spanloom's own do not count.
    await_some("the pods in the status", LIMIT, || {
        let found = namespace.try_get(&["tracingpipeline", NAME])?;
        let count = &found["status"]["injection"];
        let expected = json!({"matched": 3, "injected": 2, "outdated": 1, "summary": "2/3"});
        want(*count == expected, || count.to_string())
    });
    what_is_left_alone(&namespace, &endpoint);
    the_oldest_pipeline_injects(&namespace);
}

fn what_is_left_alone(namespace: &Namespace, endpoint: &str) {
    let admit = |annotations: Value, environment: Value| {
        try_admit(namespace, &pod("tried", &annotations, &environment)).unwrap()
    };
    let opted_out = admit(json!({"spanloom.dev/inject": "false"}), json!([]));
    assert_eq!(outcome(&opted_out), "OptedOut");
    assert!(variables(&opted_out).is_empty(), "{opted_out:#}");
    let elsewhere =
        json!([{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://elsewhere:4317"}]);
    let own = admit(json!({}), elsewhere);
    assert_eq!(outcome(&own), "OwnEndpoint");
    assert_eq!(variables(&own).len(), 1, "{own:#}");
    let other = admit(
        json!({"instrumentation.opentelemetry.io/inject-python": "true"}),
        json!([]),
    );
    assert_eq!(outcome(&other), "AlreadyInstrumented");

    // What was admitted once is admitted again, as when a person applies what kubectl printed.
    let mut once = admit(
        json!({}),
        json!([{"name": "OTEL_SERVICE_NAME", "value": "own"}]),
    );
    let found = variables(&once);
    assert!(found.contains(&("OTEL_SERVICE_NAME", "own")), "{found:?}");
    assert!(
        found.contains(&("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)),
        "{found:?}"
    );
    for key in [
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "managedFields",
    ] {
        once["metadata"].as_object_mut().unwrap().remove(key);
    }
    let twice = try_admit(namespace, &once).unwrap();
    assert_eq!(twice["spec"]["containers"], once["spec"]["containers"]);
    assert_eq!(
        twice["metadata"]["annotations"],
        once["metadata"]["annotations"]
    );

    // A whole namespace.
    let annotate = |value: &str| {
        let annotation = format!("spanloom.dev/inject{value}");
        kubectl(&[
            "annotate",
            "--overwrite",
            "namespace",
            namespace.name(),
            &annotation,
        ]);
    };
    annotate("=false");
    await_some("a pod that is left alone", LIMIT, || {
        let pod = try_admit(namespace, &pod("tried", &json!({}), &json!([])))?;
        want(outcome(&pod) == "OptedOut", || pod.to_string())
    });
    annotate("-");
    await_injection(namespace);
}

/// Another pipeline of the namespace selects the same pods.
fn the_oldest_pipeline_injects(namespace: &Namespace) {
    let another = |enabled: bool| {
        apply(&json!({
            "apiVersion": "spanloom.dev/v1alpha1",
            "kind": "TracingPipeline",
            "metadata": {"name": "another", "namespace": namespace.name()},
            "spec": {"enabled": enabled, "storage": {"external": {"url": "http://nowhere:8123"}}},
        }))
    };
    another(true);
    let entry = format!("another.{}.inject.spanloom.dev", namespace.name());
    await_some("the other pipeline's entry", LIMIT, || {
        let found = entries();
        want(found.contains(&entry), || format!("{found:?}"))
    });
    let created = await_some("a conflict that is counted", LIMIT, || {
        let name = format!("conflict-{}", super::support::random_word());
        let mut wanted = pod(&name, &json!({}), &json!([]));
        wanted["metadata"]["namespace"] = json!(namespace.name());
        apply(&wanted);
        let created = namespace.try_get(&["pod", &name])?;
        let conflicts = counted(namespace, "another", "PipelineConflict");
        want(conflicts > 0, || format!("{conflicts} conflicts"))?;
        Ok(created)
    });
    let by = &created["metadata"]["annotations"]["spanloom.dev/injected-by"];
    assert_eq!(*by, format!("{}/{NAME}", namespace.name()));
    // Nothing is injected for a pipeline that is switched off, and its entry is removed.
    another(false);
    await_some("an entry that is gone", LIMIT, || {
        let found = entries();
        want(!found.contains(&entry), || format!("{found:?}"))
    });
    kubectl(&[
        "--namespace",
        namespace.name(),
        "delete",
        "tracingpipeline",
        "another",
    ]);
}

/// The names of the webhook configuration's entries.
fn entries() -> Vec<String> {
    let name = "mutatingwebhookconfigurations/spanloom-webhook";
    let path = "--output=jsonpath={.webhooks[*].name}";
    let names = kubectl(&["get", name, path]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// Pods start while no replica answers, and the configuration survives an upgrade.
#[test]
fn a_webhook_that_is_away_holds_up_no_pod() {
    let _installed = install::alone();
    let namespace = install::pipeline_namespace();
    // Its store does not matter: pods are injected all the same.
    let pipeline = Pipeline::applied(
        &namespace,
        &json!({"storage": {"external": {"url": "http://nowhere:8123"}}}),
    );
    label(&namespace);
    await_injection(&namespace);
    let before = entries();
    assert!(!before.is_empty());
    install::upgrade();
    assert_eq!(entries(), before, "after helm upgrade");
    await_injection(&namespace);

    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        kubectl(&[
            "--namespace",
            install::NAMESPACE,
            "scale",
            WEBHOOK,
            &replicas,
        ]);
    };
    scale("0");
    await_some("a webhook without pods", LIMIT, || {
        let selector = "--selector=app.kubernetes.io/component=webhook";
        let pods = try_get(install::NAMESPACE, &["pods", selector])?;
        want(pods["items"] == json!([]), || pods.to_string())
    });
    let mut missed = pod("missed", &json!({}), &json!([]));
    missed["metadata"]["namespace"] = json!(namespace.name());
    apply(&missed);
    namespace.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/missed",
        "--timeout=120s",
    ]);
    let found = namespace.get(&["pod", "missed"]);
    assert!(
        outcome(&found).is_null() && variables(&found).is_empty(),
        "{found:#}"
    );
    // The gap is reported.
    pipeline.await_condition("InjectionReady", "False", Some("WebhookNotReady"));
    scale("2");
    await_injection(&namespace);
    pipeline.await_condition("InjectionReady", "True", Some("Ready"));
    await_some("the pod that was missed, in the status", LIMIT, || {
        let found = namespace.try_get(&["tracingpipeline", NAME])?;
        let count = &found["status"]["injection"];
        want(count["outdated"] == 1, || count.to_string())
    });
}
