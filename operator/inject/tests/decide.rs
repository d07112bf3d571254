//! What becomes of single pods.

#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may stop on the first surprise

use serde_json::{Value, json};
use spanloom_crds::LabelSelector;
use spanloom_inject::pod::Pod;
use spanloom_inject::{Namespace, Outcome, PipelineId, Reason, Target};

const ENDPOINT: &str = "http://traces-collector.tracing.svc:4317";

fn target(name: &str, created: &str) -> Target {
    let trace = ("spanloom.dev/trace".to_owned(), "enabled".to_owned());
    Target {
        id: ("tracing".to_owned(), name.to_owned()),
        created: created.to_owned(),
        only_own_namespace: false,
        excluded: vec!["kube-system".to_owned()],
        namespaces: LabelSelector {
            match_labels: [trace].into(),
            ..LabelSelector::default()
        },
        pods: LabelSelector::default(),
        endpoint: ENDPOINT.to_owned(),
    }
}

fn traces() -> PipelineId {
    ("tracing".to_owned(), "traces".to_owned())
}

fn namespace() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        labels: [("spanloom.dev/trace".to_owned(), "enabled".to_owned())].into(),
        ..Namespace::default()
    }
}

fn pod() -> Value {
    json!({
        "metadata": {
            "generateName": "checkout-5d4f8c7b9d-",
            "labels": {"app": "checkout", "pod-template-hash": "5d4f8c7b9d"},
            "ownerReferences": [
                {"kind": "ReplicaSet", "name": "checkout-5d4f8c7b9d", "controller": true},
            ],
        },
        "spec": {"containers": [{"name": "app", "image": "registry.test:5000/checkout:1.4.2"}]},
    })
}

fn decide(pod: &Value, namespace: &Namespace, targets: &[Target], asked: &PipelineId) -> Outcome {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    spanloom_inject::decide(&pod, namespace, targets, asked)
}

fn decided(pod: &Value) -> Outcome {
    decide(
        pod,
        &namespace(),
        &[target("traces", "2026-01-01T00:00:00Z")],
        &traces(),
    )
}

/// The pod as it is after the patch.
fn patched(pod: &Value, outcome: &Outcome) -> Value {
    let patch = serde_json::to_value(&outcome.patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn env(pod: &Value, container: usize) -> Vec<(String, String)> {
    let entries = pod["spec"]["containers"][container]["env"].as_array();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = entries.into_iter().flatten();
    entries
        .map(|entry| (text(&entry["name"]), text(&entry["value"])))
        .collect()
}

/// This pod is not injected: it gets the reason and nothing else.
#[track_caller]
fn is_left_alone(pod: &Value, reason: Reason) {
    let outcome = decided(pod);
    assert_eq!(outcome.reason, Some(reason));
    let mut expected = pod.clone();
    let annotations = &mut expected["metadata"]["annotations"];
    annotations["spanloom.dev/injection"] = json!(reason.name());
    annotations["spanloom.dev/injected-by"] = json!("tracing/traces");
    let mut found = patched(pod, &outcome);
    let annotations = found["metadata"]["annotations"].as_object_mut().unwrap();
    annotations.remove("spanloom.dev/skipped-containers");
    assert_eq!(found, expected);
}

#[test]
fn a_container_gets_what_its_sdk_needs() {
    let after = patched(&pod(), &decided(&pod()));
    let expected = [
        ("SPANLOOM_POD_NAME", ""),
        ("OTEL_SERVICE_NAME", "checkout"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ENDPOINT),
        ("OTEL_PROPAGATORS", "tracecontext,baggage"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.namespace=shop,service.version=1.4.2,\
             service.instance.id=shop.$(SPANLOOM_POD_NAME).app,k8s.container.name=app",
        ),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(env(&after, 0), expected);
    let field = &after["spec"]["containers"][0]["env"][0]["valueFrom"]["fieldRef"];
    assert_eq!(field["fieldPath"], "metadata.name");
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["spanloom.dev/injection"], "Injected");
    assert_eq!(annotations["spanloom.dev/injected-by"], "tracing/traces");
}

#[test]
fn what_is_set_stays() {
    let mut pod = pod();
    let own = json!([
        {"name": "OTEL_PROPAGATORS", "value": "b3"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "team=a, service.name=shop"},
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": ""},
        {"name": "MODE", "value": "$(SPANLOOM_POD_NAME)"},
    ]);
    pod["spec"]["containers"][0]["env"] = own.clone();
    let after = patched(&pod, &decided(&pod));
    let names: Vec<_> = env(&after, 0).into_iter().map(|(name, _)| name).collect();
    let expected = [
        "OTEL_PROPAGATORS",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "MODE",
        // After the variable that names it, which so means what it meant before.
        "SPANLOOM_POD_NAME",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ];
    assert_eq!(names, expected);
    let kept = &after["spec"]["containers"][0]["env"].as_array().unwrap()[..4];
    assert_eq!(kept, own.as_array().unwrap());
}

#[test]
fn an_endpoint_of_its_own_stays() {
    for own in [
        json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://elsewhere:4317"}),
        json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}),
        json!({"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": "http://elsewhere:4317"}),
        json!({"name": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "value": ""}),
        json!({"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": "api-key=secret"}),
        json!({"name": "JAVA_TOOL_OPTIONS", "value": "-Dotel.exporter.otlp.endpoint=http://own:4317"}),
    ] {
        let mut pod = pod();
        pod["spec"]["containers"][0]["env"] = json!([own]);
        is_left_alone(&pod, Reason::OwnEndpoint);
    }
    for (field, arguments) in [
        (
            "command",
            json!([
                "opentelemetry-instrument",
                "--exporter_otlp_endpoint",
                "http://own:4317"
            ]),
        ),
        (
            "args",
            json!(["-Dotel.exporter.otlp.traces.endpoint=http://own:4317"]),
        ),
    ] {
        let mut pod = pod();
        pod["spec"]["containers"][0][field] = arguments;
        is_left_alone(&pod, Reason::OwnEndpoint);
    }
}

#[test]
fn variables_from_elsewhere_are_not_overridden_unasked() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "settings"}}]);
    is_left_alone(&pod, Reason::EnvFromUnknown);
    pod["metadata"]["annotations"] = json!({"spanloom.dev/inject": "true"});
    assert_eq!(decided(&pod).reason, Some(Reason::Injected));
    pod["metadata"]["annotations"] = json!({});
    let worker = json!({"name": "worker", "image": "worker"});
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(worker);
    let outcome = decided(&pod);
    let after = patched(&pod, &outcome);
    assert_eq!(outcome.reason, Some(Reason::Injected));
    assert_eq!((env(&after, 0).len(), env(&after, 1).len()), (0, 5));
    let skipped = &after["metadata"]["annotations"]["spanloom.dev/skipped-containers"];
    assert_eq!(skipped, "app=EnvFromUnknown");
}

#[test]
fn pods_that_are_left_alone() {
    for (at, value, reason) in [
        ("/spec/hostNetwork", json!(true), Reason::HostNetwork),
        ("/spec/os", json!({"name": "windows"}), Reason::Windows),
        (
            "/spec/nodeSelector",
            json!({"kubernetes.io/os": "windows"}),
            Reason::Windows,
        ),
        (
            "/metadata/annotations",
            json!({"spanloom.dev/inject": "false"}),
            Reason::OptedOut,
        ),
        (
            "/metadata/annotations",
            json!({"spanloom.dev/container-names": "app, typo"}),
            Reason::ContainerNotFound,
        ),
        (
            "/metadata/annotations",
            json!({"spanloom.dev/container-names": ""}),
            Reason::ContainerNotFound,
        ),
        (
            "/spec/containers",
            json!([{"name": "istio-proxy"}]),
            Reason::NoAppContainer,
        ),
        ("/spec/containers", json!([]), Reason::NoAppContainer),
    ] {
        let mut pod = pod();
        let (parent, key) = at.rsplit_once('/').unwrap();
        pod.pointer_mut(parent).unwrap()[key] = value;
        is_left_alone(&pod, reason);
    }
}

#[test]
fn pods_of_other_products_are_left_alone() {
    for (kind, key, value) in [
        (
            "annotations",
            "instrumentation.opentelemetry.io/inject-python",
            "true",
        ),
        (
            "annotations",
            "instrumentation.opentelemetry.io/inject-sdk",
            "observability/main",
        ),
        ("annotations", "sidecar.opentelemetry.io/inject", "agent"),
        ("labels", "sidecar.opentelemetry.io/injected", "shop.agent"),
        (
            "annotations",
            "admission.datadoghq.com/java-lib.version",
            "v1",
        ),
        ("labels", "admission.datadoghq.com/enabled", "true"),
        ("labels", "dash0.com/instrumented", "true"),
        ("labels", "odigos.io/agents-meta-hash", "abc"),
        ("labels", "odigos.io/inject-instrumentation", "true"),
    ] {
        let mut pod = pod();
        pod["metadata"][kind][key] = json!(value);
        is_left_alone(&pod, Reason::AlreadyInstrumented);
    }
    for name in [
        "opentelemetry-auto-instrumentation-java",
        "datadog-lib-java-init",
    ] {
        let mut pod = pod();
        pod["spec"]["initContainers"] = json!([{"name": name}]);
        is_left_alone(&pod, Reason::AlreadyInstrumented);
    }
    for (key, value) in [
        ("sidecar.opentelemetry.io/inject", "false"),
        ("instrumentation.opentelemetry.io/inject-java", "false"),
        ("admission.datadoghq.com/enabled", "false"),
        ("dash0.com/instrumented", "false"),
    ] {
        let mut pod = pod();
        pod["metadata"]["annotations"][key] = json!(value);
        assert_eq!(decided(&pod).reason, Some(Reason::Injected), "{key}");
    }
}

#[test]
fn the_app_is_found_beside_proxies() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([{"name": "migrate"}]);
    pod["spec"]["containers"] =
        json!([{"name": "istio-proxy"}, {"name": "app"}, {"name": "worker"}]);
    let counts = |pod: &Value| {
        let after = patched(pod, &decided(pod));
        let env = |at: &str| {
            after
                .pointer(at)
                .and_then(Value::as_array)
                .map_or(0, Vec::len)
        };
        [
            "/spec/initContainers/0/env",
            "/spec/containers/0/env",
            "/spec/containers/1/env",
            "/spec/containers/2/env",
        ]
        .map(env)
    };
    assert_eq!(counts(&pod), [0, 0, 5, 5]);
    let annotate = |pod: &mut Value, key: &str, value: &str| {
        pod["metadata"]["annotations"][key] = json!(value);
    };
    annotate(&mut pod, "kubectl.kubernetes.io/default-container", "typo");
    assert_eq!(counts(&pod), [0, 0, 5, 5]);
    annotate(
        &mut pod,
        "kubectl.kubernetes.io/default-container",
        "worker",
    );
    // A mesh writes the annotation itself.
    assert_eq!(counts(&pod), [0, 0, 5, 5]);
    pod["spec"]["containers"][0]["name"] = json!("helper");
    assert_eq!(counts(&pod), [0, 0, 0, 5]);
    annotate(&mut pod, "spanloom.dev/container-names", "app, migrate,app");
    assert_eq!(counts(&pod), [5, 0, 5, 0]);
}

#[test]
fn the_service_is_named_after_the_farthest_owner() {
    let named = |pod: &Value| {
        let after = patched(pod, &decided(pod));
        let all = env(&after, 0);
        all.into_iter()
            .find(|(name, _)| name == "OTEL_SERVICE_NAME")
            .map(|(_, value)| value)
    };
    for (kind, name, expected) in [
        ("ReplicaSet", "checkout-5d4f8c7b9d", "checkout"),
        ("ReplicaSet", "bare", "bare"),
        ("StatefulSet", "ledger", "ledger"),
        ("DaemonSet", "agent", "agent"),
        ("Job", "report-29384756", "report"),
        ("Job", "import", "import"),
        ("Workflow", "custom", "custom"),
        ("Node", "node-a", "$(SPANLOOM_POD_NAME)"),
    ] {
        let mut pod = pod();
        pod["metadata"]["ownerReferences"] = json!([{"kind": "Other", "name": "x"}, {"kind": kind, "name": name, "controller": true}]);
        assert_eq!(named(&pod).as_deref(), Some(expected), "{kind} {name}");
    }
    let mut bare = json!({"metadata": {"name": "debug"}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(named(&bare).as_deref(), Some("debug"));
    bare["spec"]["containers"][0]["env"] =
        json!([{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "service.name=own"}]);
    assert_eq!(named(&bare), None);
    // What a reference stands for is not seen.
    bare["spec"]["containers"][0]["env"][0]["value"] = json!("$(BASE),team=a");
    assert_eq!(named(&bare), None);
}

#[test]
fn versions_that_need_no_escaping() {
    let version = |image: &str, label: Option<&str>| {
        let mut pod = pod();
        pod["spec"]["containers"][0]["image"] = json!(image);
        if let Some(label) = label {
            pod["metadata"]["labels"]["app.kubernetes.io/version"] = json!(label);
        }
        let after = patched(&pod, &decided(&pod));
        let attributes = env(&after, 0).pop().unwrap().1;
        let version = attributes
            .split(',')
            .find_map(|pair| pair.strip_prefix("service.version="));
        version.map(str::to_owned)
    };
    for (image, label, expected) in [
        ("app:1.2", None, Some("1.2")),
        ("app:1.2", Some("v3"), Some("v3")),
        ("host:5000/app", None, None),
        ("app:latest", None, None),
        ("app:1.2@sha256:00", None, Some("1.2")),
        ("app@sha256:00", None, None),
        ("app:a,b=c", None, None),
    ] {
        assert_eq!(
            version(image, label).as_deref(),
            expected,
            "{image} {label:?}"
        );
    }
}

#[test]
fn what_a_pod_says_counts_more_than_its_namespace() {
    let quiet = Namespace {
        inject: Some("false".to_owned()),
        ..namespace()
    };
    let targets = [target("traces", "2026-01-01T00:00:00Z")];
    let reason = |pod: &Value| decide(pod, &quiet, &targets, &traces()).reason;
    let mut pod = pod();
    assert_eq!(reason(&pod), Some(Reason::OptedOut));
    pod["metadata"]["annotations"] = json!({"spanloom.dev/inject": "true"});
    assert_eq!(reason(&pod), Some(Reason::Injected));
}

#[test]
fn the_oldest_pipeline_wins() {
    let targets = [
        target("younger", "2026-02-01T00:00:00Z"),
        target("traces", "2026-01-01T00:00:00Z"),
    ];
    let younger = ("tracing".to_owned(), "younger".to_owned());
    let outcome = decide(&pod(), &namespace(), &targets, &younger);
    assert_eq!(
        outcome,
        Outcome {
            reason: Some(Reason::PipelineConflict),
            ..Outcome::default()
        }
    );
    let outcome = decide(&pod(), &namespace(), &targets, &traces());
    assert_eq!(outcome.reason, Some(Reason::Injected));
    // Of one age, the first by name.
    let same = [
        target("younger", "2026-01-01T00:00:00Z"),
        targets[1].clone(),
    ];
    let outcome = decide(&pod(), &namespace(), &same, &traces());
    assert_eq!(outcome.reason, Some(Reason::Injected));
}

#[test]
fn pods_that_no_pipeline_selects() {
    let nothing = Outcome::default();
    let all = [target("traces", "2026-01-01T00:00:00Z")];
    let other = Namespace {
        name: "other".to_owned(),
        ..Namespace::default()
    };
    assert_eq!(decide(&pod(), &other, &all, &traces()), nothing);
    let unknown = ("tracing".to_owned(), "gone".to_owned());
    assert_eq!(decide(&pod(), &namespace(), &all, &unknown), nothing);
    let mut own = all.clone();
    own[0].only_own_namespace = true;
    assert_eq!(decide(&pod(), &namespace(), &own, &traces()), nothing);
    let mut everywhere = all.clone();
    everywhere[0].namespaces = LabelSelector::default();
    let system = Namespace {
        name: "kube-system".to_owned(),
        ..Namespace::default()
    };
    assert_eq!(decide(&pod(), &system, &everywhere, &traces()), nothing);
    let mut ours = pod();
    ours["metadata"]["labels"]["app.kubernetes.io/managed-by"] = json!("spanloom-operator");
    assert_eq!(decided(&ours), nothing);
}

#[test]
fn a_static_pod_is_not_touched() {
    let mut pod = pod();
    pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    let outcome = decided(&pod);
    assert_eq!(
        outcome,
        Outcome {
            reason: Some(Reason::MirrorPod),
            ..Outcome::default()
        }
    );
}

/// What a namespace asks another product for, a pod may decline; and what was injected stays injected.
#[test]
fn namespaces_of_other_products_are_left_alone() {
    let key = "instrumentation.opentelemetry.io/inject-java".to_owned();
    let asking = Namespace {
        instrumented: vec![key.clone()],
        ..namespace()
    };
    let targets = [target("traces", "2026-01-01T00:00:00Z")];
    let outcome = decide(&pod(), &asking, &targets, &traces());
    assert_eq!(outcome.reason, Some(Reason::AlreadyInstrumented));
    let mut declining = pod();
    declining["metadata"]["annotations"][&key] = json!("false");
    let outcome = decide(&declining, &asking, &targets, &traces());
    assert_eq!(outcome.reason, Some(Reason::Injected));
    let injected = patched(&pod(), &decided(&pod()));
    let outcome = decide(&injected, &asking, &targets, &traces());
    assert_eq!(
        (outcome.reason, outcome.patch.len()),
        (Some(Reason::Injected), 0)
    );
}

/// The API server refuses a pod whose annotations are longer than 256 KiB.
#[test]
fn annotations_that_are_long_already_get_no_longer() {
    let long = |bytes: usize| {
        let mut pod = pod();
        pod["metadata"]["annotations"]["a"] = json!("x".repeat(bytes));
        pod
    };
    let annotated = |pod: &Value| {
        let outcome = decided(pod);
        assert_eq!(outcome.reason, Some(Reason::Injected));
        let after = patched(pod, &outcome);
        assert_eq!(env(&after, 0).len(), 5);
        after["metadata"]["annotations"]["spanloom.dev/injection"] == "Injected"
    };
    assert!(annotated(&long(200 << 10)));
    assert!(!annotated(&long((256 << 10) - 10)));
}

/// What has `null` in a field is as what does not have it.
#[test]
fn fields_may_be_null() {
    let pod = json!({
        "metadata": {"name": null, "labels": null, "annotations": null, "ownerReferences": null},
        "spec": {"os": null, "initContainers": null, "containers": [
            {"name": "app", "image": null, "env": null, "envFrom": null, "command": null},
        ]},
    });
    let after = patched(&pod, &decided(&pod));
    assert_eq!(env(&after, 0).len(), 5);
}
