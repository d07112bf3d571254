//! What holds for every pod: a patch only adds, patching again changes nothing, and nothing panics.

#![allow(clippy::expect_used, clippy::unwrap_used)] // tests may stop on the first surprise

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use spanloom_crds::LabelSelector;
use spanloom_inject::pod::Pod;
use spanloom_inject::{Namespace, Outcome, PipelineId, Reason, Target};

fn asked() -> PipelineId {
    ("tracing".to_owned(), "traces".to_owned())
}

fn target() -> Target {
    Target {
        id: asked(),
        created: "2026-01-01T00:00:00Z".to_owned(),
        only_own_namespace: false,
        excluded: Vec::new(),
        namespaces: LabelSelector::default(),
        pods: LabelSelector::default(),
        endpoint: "http://traces-collector.tracing.svc:4317".to_owned(),
    }
}

fn decide(pod: &Value, namespace: &Namespace, targets: &[Target], asked: &PipelineId) -> Outcome {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    spanloom_inject::decide(&pod, namespace, targets, asked)
}

fn namespace() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        ..Namespace::default()
    }
}

fn variable() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("OTEL_SERVICE_NAME"),
        Just("OTEL_RESOURCE_ATTRIBUTES"),
        Just("OTEL_PROPAGATORS"),
        Just("SPANLOOM_POD_NAME"),
        Just("OTEL_EXPORTER_OTLP_ENDPOINT"),
        Just("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        Just("PATH"),
    ];
    let value = prop_oneof![
        Just(json!({"value": ""})),
        Just(json!({"value": "service.name=a"})),
        Just(json!({"value": "http://traces-collector.tracing.svc:4317"})),
        Just(json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})),
        Just(json!({})),
    ];
    (name, value).prop_map(|(name, mut value)| {
        value["name"] = json!(name);
        value
    })
}

fn container() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        4 => Just("app"), 2 => Just("worker"), 1 => Just("istio-proxy"), 1 => Just("otc-container"),
    ];
    let env = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Value::Null)),
        6 => prop::collection::vec(variable(), 0..3).prop_map(|list| Some(Value::Array(list))),
    ];
    let from = prop_oneof![4 => Just(None), 1 => Just(Some(json!([{"secretRef": {"name": "s"}}])))];
    (name, env, from).prop_map(|(name, env, from)| {
        let mut container = json!({"name": name, "image": "app:1"});
        let fields = [("env", env), ("envFrom", from)];
        for (key, value) in fields
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
        {
            container[key] = value;
        }
        container
    })
}

fn annotations() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let one = prop_oneof![
        Just(("spanloom.dev/inject", "true")),
        Just(("spanloom.dev/inject", "false")),
        Just(("spanloom.dev/container-names", "app,worker")),
        Just(("spanloom.dev/injection", "Injected")),
        Just(("spanloom.dev/injection", "HostNetwork")),
        Just(("kubectl.kubernetes.io/default-container", "app")),
        Just(("instrumentation.opentelemetry.io/inject-java", "true")),
        Just(("a~b/c", "d")),
    ];
    let some = prop::collection::vec(one, 0..3).prop_map(|pairs| {
        let pairs = pairs.into_iter();
        Some(
            pairs
                .map(|(key, value)| (key.to_owned(), json!(value)))
                .collect(),
        )
    });
    prop_oneof![2 => Just(None), 3 => some]
}

prop_compose! {
    fn pod()(
        containers in prop::collection::vec(container(), 0..4),
        init in prop::option::of(prop::collection::vec(container(), 0..2)),
        annotations in annotations(),
        host_network in prop::bool::weighted(0.1),
        windows in prop::bool::weighted(0.1),
    ) -> Value {
        let mut pod = json!({"metadata": {"name": "a"}, "spec": {"containers": containers}});
        if let Some(init) = init {
            pod["spec"]["initContainers"] = Value::Array(init);
        }
        if let Some(annotations) = annotations {
            pod["metadata"]["annotations"] = Value::Object(annotations);
        }
        if host_network {
            pod["spec"]["hostNetwork"] = json!(true);
        }
        if windows {
            pod["spec"]["os"] = json!({"name": "windows"});
        }
        pod
    }
}

/// Any JSON: what is no pod must not stop the webhook.
fn anything() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("metadata"),
        Just("spec"),
        Just("containers"),
        Just("env"),
        Just("annotations"),
        Just("name"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 32, 4, move |inner| {
        let pairs = prop::collection::vec((key.clone(), inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
            pairs.prop_map(|pairs| {
                let pairs = pairs.into_iter();
                Value::Object(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn apply(pod: &Value, patch: &[spanloom_inject::Operation]) -> Value {
    let patch = serde_json::to_value(patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

/// Everything of `before` is in `after`, lists in their order. Our own annotations may change.
fn only_adds(before: &Value, after: &Value, path: &str) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                let is_ours =
                    path.ends_with("/annotations") && key.starts_with("spanloom.dev/injec");
                if !(is_ours && key != "spanloom.dev/inject") {
                    only_adds(value, &new[key], &format!("{path}/{key}"));
                }
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert!(new.len() >= old.len(), "{path}");
            for (n, (old, new)) in old.iter().zip(new).enumerate() {
                only_adds(old, new, &format!("{path}/{n}"));
            }
        }
        // An empty list, written as nothing.
        (Value::Null, Value::Array(_)) => {}
        _ => assert_eq!(before, after, "{path}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn patching_twice_is_patching_once(pod in pod()) {
        let targets = [target()];
        let first = decide(&pod, &namespace(), &targets, &asked());
        let once = apply(&pod, &first.patch);
        only_adds(&pod, &once, "");
        let second = decide(&once, &namespace(), &targets, &asked());
        prop_assert_eq!(&second.patch, &vec![], "{:?}", first);
        prop_assert_eq!(second.reason, first.reason);
        if first.reason != Some(Reason::Injected) {
            prop_assert_eq!(&once["spec"], &pod["spec"]);
        }
    }

    /// A later webhook adds a container: it is injected when ours is asked again, and the others stay.
    #[test]
    fn containers_that_come_later_are_injected(pod in pod(), late in container()) {
        let targets = [target()];
        let first = decide(&pod, &namespace(), &targets, &asked());
        let mut between = apply(&pod, &first.patch);
        between["spec"]["containers"].as_array_mut().unwrap().push(late.clone());
        let second = decide(&between, &namespace(), &targets, &asked());
        let mut whole = pod.clone();
        whole["spec"]["containers"].as_array_mut().unwrap().push(late);
        let at_once = decide(&whole, &namespace(), &targets, &asked());
        let (at_once, reason) = (apply(&whole, &at_once.patch), at_once.reason);
        if reason == Some(Reason::Injected) {
            prop_assert_eq!(second.reason, reason);
            let after = apply(&between, &second.patch);
            // Where the choice is another with the new container, the first one's variables stay.
            only_adds(&at_once["spec"], &after["spec"], "/spec");
        }
    }

    #[test]
    fn what_is_no_pod_does_no_harm(pod in anything()) {
        // It is none, or it is decided about.
        if let Ok(pod) = serde_json::from_value::<Pod>(pod) {
            let _ = spanloom_inject::decide(&pod, &namespace(), &[target()], &asked());
        }
    }
}
