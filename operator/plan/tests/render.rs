//! What a pipeline is rendered to: whole documents, each field known to Kubernetes, and the same bytes
//! for the same input.
//!
//! `UPDATE_GOLDEN=1 cargo test -p spanloom-plan --test render` writes the files.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "render/log.rs"]
mod log;
#[path = "render/store.rs"]
mod store;

use std::fmt::Write as _;
use std::path::Path;

use k8s_openapi::api;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spanloom_plan::leaf::Leaf;
use spanloom_plan::pipeline::Pipeline;
use spanloom_plan::release::Release;
use spanloom_plan::render::{
    Desired, Known, LastGood, Stage, Token, agents_hash, collectors_binding, render, roll_back,
};

fn release() -> Release {
    Release {
        namespace: "tracing".to_owned(),
        name: "spanloom".to_owned(),
        namespaces: vec!["tracing".to_owned()],
        image_registry: "ghcr.io/spanloom".to_owned(),
        image_tag: "1.2.3".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        image_architectures: vec!["amd64".to_owned(), "arm64".to_owned()],
        clickhouse_image: "example.test/clickhouse:1".to_owned(),
        migration_deadline: std::time::Duration::from_secs(3_600),
        ..Release::default()
    }
}

fn pipeline(spec: Value) -> Pipeline {
    Pipeline::read(&json!({
        "apiVersion": "spanloom.dev/v1alpha1", "kind": "TracingPipeline",
        "metadata": {"name": "prod", "namespace": "tracing", "uid": "0-1-2", "generation": 3},
        "spec": spec,
    }))
    .unwrap_or_else(|why| panic!("{}: {}", why.reason, why.message))
}

fn known() -> Known {
    Known {
        store_password: "generated".to_owned(),
        store_leaf: Leaf {
            certificate: "leaf".to_owned(),
            key: "key".to_owned(),
            issuer: "spanloom CA 1".to_owned(),
            names: "prod-clickhouse.tracing.svc".to_owned(),
            made: 1,
            ends: 2,
        },
        ca_bundle: "authority".to_owned(),
        ..Known::default()
    }
}

fn yaml(objects: &[Desired]) -> String {
    let mut text = String::new();
    for desired in objects {
        let object = serde_yaml::to_string(&sorted(&desired.object)).unwrap();
        writeln!(text, "--- # {:?}\n{object}", desired.stage).unwrap();
    }
    text
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        value => value.clone(),
    }
}

#[track_caller]
fn golden(name: &str, objects: &[Desired]) {
    golden_text(&format!("{name}.yaml"), &yaml(objects));
}

#[track_caller]
fn golden_text(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == text,
        "{name} is rendered differently; if that is meant, run UPDATE_GOLDEN=1 and look at the diff"
    );
}

fn full() -> Value {
    let resources = json!({"requests": {"cpu": "200m"}, "limits": {"memory": "1Gi", "cpu": 2}});
    json!({
        "enabled": true,
        "processing": {"kubernetes": {"labels": ["app.kubernetes.io/version"]},
                       "drop": ["{ span.http.route = \"/healthz\" }"]},
        "storage": {
            "external": {
                "url": "https://ch.example:8443", "database": "traces", "cluster": "main",
                "credentialsSecret": {"name": "ch"},
                "tls": {"caSecret": {"name": "ch-ca", "key": "bundle.pem"}},
            },
            "retention": {"hot": "30d"},
        },
        "collector": {
            "resources": resources, "nodeSelector": {"pool": "apps"},
            "tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 3}],
            "priorityClassName": "system-node-critical", "maxSurge": 3,
            "acknowledge": "Logged", "log": {"size": "1Gi"},
            "podLabels": {"team": "a", "app.kubernetes.io/name": "not-ours"},
            "podAnnotations": {"example.com/note": "b"},
        },
        "grafana": {"datasources": true, "instanceSelector": {"matchLabels": {"dashboards": "grafana"}}},
        "query": {
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "query"}}}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": {"matchExpressions": [{"key": "noisy", "operator": "Exists"}]}}]}},
            "replicas": 3, "auth": {"tokensSecret": {"name": "tokens"}},
            "tls": {"secret": {"name": "query-tls"}}, "resources": resources,
        },
        "images": {"registry": "mirror.example/spanloom", "pullSecrets": [{"name": "pull"}]},
    })
}

#[test]
fn the_smallest_pipeline() {
    golden(
        "minimal",
        &render(&pipeline(json!({})), &release(), &known()),
    );
}

#[test]
fn every_field() {
    let known = Known {
        token: Some(Token {
            key: "grafana".to_owned(),
            value: "secret".to_owned(),
        }),
        query_ca: Some("query authority".to_owned()),
        ..Known::default()
    };
    let objects = render(&pipeline(full()), &release(), &known);
    golden("external", &objects);
    let kinds = |objects: &[Desired]| -> Vec<String> {
        let name = |o: &Desired| format!("{} {}", o.kind(), o.name());
        objects
            .iter()
            .map(name)
            .filter(|name| name.contains("grafana"))
            .collect()
    };
    assert_eq!(kinds(&objects), ["Secret prod-grafana-datasource"]);
    let operator = Known {
        grafana_operator: true,
        ..known
    };
    let objects = render(&pipeline(full()), &release(), &operator);
    assert_eq!(
        kinds(&objects),
        ["GrafanaDatasource prod-grafana-datasource"]
    );
    assert!(
        !yaml(&objects).contains("secret\n"),
        "the token is not copied"
    );
    golden("grafana-operator", &objects[objects.len() - 1..]);
}

#[test]
fn network_policies() {
    let release = with_network_policies();
    let objects = render(&pipeline(json!({})), &release, &known());
    let policies: Vec<_> = objects
        .into_iter()
        .filter(|object| object.kind() == "NetworkPolicy")
        .collect();
    golden("network-policies", &policies);
}

fn with_network_policies() -> Release {
    let mut release = release();
    let policies = json!({"queryFrom": [], "metricsFrom": [], "apiServerPorts": [443, 6443]});
    release.network_policies = serde_json::from_value(policies).unwrap();
    release
}

#[test]
fn every_field_is_known_to_kubernetes() {
    for spec in [json!({}), full()] {
        let token = Token {
            key: "t".to_owned(),
            value: "v".to_owned(),
        };
        let known = Known {
            token: spec["query"].is_object().then_some(token),
            ..known()
        };
        for desired in render(&pipeline(spec), &with_network_policies(), &known) {
            is_of_its_type(&desired.object);
        }
    }
    is_of_its_type(&collectors_binding(
        "spanloom",
        &[("a".to_owned(), "b".to_owned())],
    ));
}

fn is_of_its_type(object: &Value) {
    match object["kind"].as_str().unwrap() {
        "ConfigMap" => reads::<api::core::v1::ConfigMap>(object),
        "Secret" => reads::<api::core::v1::Secret>(object),
        "Service" => reads::<api::core::v1::Service>(object),
        "ServiceAccount" => reads::<api::core::v1::ServiceAccount>(object),
        "DaemonSet" => reads::<api::apps::v1::DaemonSet>(object),
        "Deployment" => reads::<api::apps::v1::Deployment>(object),
        "StatefulSet" => reads::<api::apps::v1::StatefulSet>(object),
        "Job" => reads::<api::batch::v1::Job>(object),
        "NetworkPolicy" => reads::<api::networking::v1::NetworkPolicy>(object),
        "PodDisruptionBudget" => reads::<api::policy::v1::PodDisruptionBudget>(object),
        "Role" => reads::<api::rbac::v1::Role>(object),
        "RoleBinding" => reads::<api::rbac::v1::RoleBinding>(object),
        "ClusterRoleBinding" => reads::<api::rbac::v1::ClusterRoleBinding>(object),
        kind => panic!("no type for {kind}"),
    }
}

/// Reads the object as its type and writes it again: what is lost on the way is no field.
fn reads<T: Serialize + DeserializeOwned>(object: &Value) {
    let typed: T =
        serde_json::from_value(object.clone()).unwrap_or_else(|e| panic!("{object}: {e}"));
    let again = serde_json::to_value(typed).unwrap();
    let mut lost = Vec::new();
    compare(object, &again, "", &mut lost);
    assert_eq!(lost, Vec::<String>::new(), "{}", object["metadata"]["name"]);
}

fn compare(ours: &Value, theirs: &Value, path: &str, lost: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                let path = format!("{path}.{key}");
                match theirs.get(key) {
                    Some(found) => compare(value, found, &path, lost),
                    None if value.as_object().is_some_and(serde_json::Map::is_empty) => {}
                    None if value.as_array().is_some_and(Vec::is_empty) => {}
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                compare(ours, theirs, &format!("{path}[{n}]"), lost);
            }
        }
        (ours, theirs) if ours == theirs => {}
        _ => lost.push(path.to_owned()),
    }
}

fn find<'o>(objects: &'o [Desired], kind: &str, name: &str) -> &'o Value {
    let found = objects
        .iter()
        .find(|o| o.kind() == kind && o.name() == name);
    &found.unwrap_or_else(|| panic!("no {kind} {name}")).object
}

#[test]
fn objects_come_in_order_and_are_all_owned_and_named() {
    let objects = render(&pipeline(json!({})), &release(), &known());
    assert!(objects.is_sorted_by_key(|object| object.stage));
    let mut names = std::collections::HashSet::new();
    for desired in &objects {
        assert!(
            names.insert((desired.kind(), desired.name())),
            "{desired:?}"
        );
        let metadata = &desired.object["metadata"];
        assert_eq!(metadata["ownerReferences"][0]["uid"], "0-1-2");
        assert_eq!(metadata["ownerReferences"][0]["blockOwnerDeletion"], false);
        assert_eq!(metadata["labels"]["spanloom.dev/pipeline"], "prod");
        assert_eq!(
            metadata["labels"]["app.kubernetes.io/managed-by"],
            "spanloom-operator"
        );
        assert!(metadata["finalizers"].is_null());
        assert!(metadata["annotations"]["spanloom.dev/applied-hash"].is_string());
    }
    let first = |stage: Stage| {
        objects
            .iter()
            .position(|object| object.stage == stage)
            .unwrap()
    };
    assert!(first(Stage::Store) < first(Stage::Schema));
    assert!(first(Stage::Schema) < first(Stage::Agents));
}

#[test]
fn a_configuration_alone_rolls_no_pod() {
    let spec = json!({"processing": {"resource": {"a": "b"}}});
    let (old, new) = (json!({}), spec);
    let of = |spec: &Value| render(&pipeline(spec.clone()), &release(), &known());
    let (old, new) = (of(&old), of(&new));
    let same = |kind, name| find(&old, kind, name) == find(&new, kind, name);
    assert!(same("DaemonSet", "prod-collector"));
    assert!(same("Deployment", "prod-query"));
    assert!(!same("ConfigMap", "prod-collector"));
    let job = |objects: &[Desired]| {
        let job = objects.iter().find(|o| o.kind() == "Job").unwrap();
        job.name().to_owned()
    };
    assert_eq!(job(&old), job(&new));
    let retention = of(&json!({"storage": {"retention": {"hot": "3d"}}}));
    assert_ne!(
        job(&old),
        job(&retention),
        "another retention is another schema"
    );
}

#[test]
fn an_autoscalers_number_is_left_to_it() {
    let objects = render(&pipeline(json!({})), &release(), &known());
    assert!(find(&objects, "Deployment", "prod-query")["spec"]["replicas"].is_null());
    let three = render(
        &pipeline(json!({"query": {"replicas": 3}})),
        &release(),
        &known(),
    );
    assert_eq!(
        find(&three, "Deployment", "prod-query")["spec"]["replicas"],
        3
    );
}

#[test]
fn pods_are_what_restricted_asks_for() {
    let objects = render(&pipeline(full()), &release(), &known());
    let managed = render(&pipeline(json!({})), &release(), &known());
    let mut pods = 0;
    for desired in objects.iter().chain(&managed) {
        let pod = &desired.object["spec"]["template"]["spec"];
        if pod.is_null() {
            continue;
        }
        pods += 1;
        for name in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
            assert!(pod[name].is_null(), "{name}");
        }
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
            assert!(container["resources"]["limits"]["memory"].is_string());
            for port in container["ports"].as_array().into_iter().flatten() {
                assert!(port["hostPort"].is_null());
            }
        }
        for volume in pod["volumes"].as_array().into_iter().flatten() {
            assert!(volume["hostPath"].is_null());
        }
    }
    assert_eq!(pods, 7);
}

#[test]
fn the_last_good_comes_back_as_it_was() {
    let release = release();
    let good = pipeline(json!({}));
    let objects = render(&good, &release, &known());
    let last_good = LastGood {
        hash: agents_hash(&objects, &good.agent_config()),
        config: good.agent_config(),
        daemon_set: find(&objects, "DaemonSet", "prod-collector").clone(),
    };
    let bad = pipeline(json!({
        "collector": {"priorityClassName": "missing"}, "sampling": {"head": {"ratio": 0.5}},
    }));
    let known = Known {
        last_good: Some(last_good.clone()),
        ..known()
    };
    let mut again = render(&bad, &release, &known);
    assert_ne!(agents_hash(&again, &bad.agent_config()), last_good.hash);
    roll_back(&bad, &mut again, &last_good);
    for (kind, name) in [
        ("DaemonSet", "prod-collector"),
        ("ConfigMap", "prod-collector"),
    ] {
        assert_eq!(find(&again, kind, name), find(&objects, kind, name));
    }
    let kept = find(&again, "ConfigMap", "prod-last-good");
    let kept: LastGood =
        serde_json::from_str(kept["data"]["last-good.json"].as_str().unwrap()).unwrap();
    assert_eq!(kept, last_good);
}

#[test]
fn what_cannot_be_used_says_why() {
    let read = |spec: Value| {
        let object = json!({"apiVersion": "a", "kind": "b", "metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        Pipeline::read(&object).unwrap_err()
    };
    let filter = read(json!({"processing": {"drop": ["{ .a == 1 }"]}}));
    assert_eq!(filter.reason, "InvalidFilter");
    assert!(
        filter
            .message
            .starts_with("spec.processing.drop[0]: in the filter, line 1, column 7")
    );
    let both = read(json!({"processing": {"drop": ["x"]}, "sampling": {"head": {"ratio": 2}}}));
    assert_eq!(both.reason, "InvalidSpec");
    assert!(
        both.message
            .contains("; spec.sampling.head.ratio: must be from 0 to 1")
    );
    assert_eq!(read(json!({"tomorrow": {}})).reason, "Unreadable");
    assert_eq!(read(json!("text")).reason, "Unreadable");
}

fn spec() -> impl Strategy<Value = Value> {
    let name = "[a-z][a-z0-9-]{0,10}[a-z0-9]";
    let text = "[ -~]{0,20}";
    let amounts = || {
        prop::option::of((1u32..4000, 128u32..4096)).prop_map(|given| {
            given.map(|(cpu, memory)| {
                json!({"limits": {"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}})
            })
        })
    };
    let secret = || prop::option::of(name.prop_map(|name| json!({"name": name})));
    let storage = prop_oneof![
        (1u32..900).prop_map(|size| json!({"managed": {"size": format!("{size}Gi")}})),
        (name, secret()).prop_map(|(host, secret)| json!({"external": {
            "url": format!("https://{host}:8443"), "credentialsSecret": secret,
        }})),
        Just(json!({})),
    ];
    let query = (prop::option::of(1u32..100), secret(), secret(), amounts()).prop_map(
        |(replicas, tokens, tls, resources)| {
            let tokens = tokens.map(|secret| json!({"tokensSecret": secret}));
            let tls = tls.map(|secret| json!({"secret": secret}));
            json!({"replicas": replicas, "auth": tokens, "tls": tls, "resources": resources})
        },
    );
    let collector = (
        amounts(),
        prop::collection::btree_map(name, text, 0..3),
        prop::option::of(name),
        prop::collection::vec(name, 0..3),
    )
        .prop_map(|(resources, nodes, class, taints)| {
            let tolerations: Vec<_> = taints
                .iter()
                .map(|key| json!({"key": key, "operator": "Exists"}))
                .collect();
            json!({"resources": resources, "nodeSelector": nodes, "priorityClassName": class,
                   "tolerations": tolerations})
        });
    let attributes = prop::collection::btree_map("[a-z.]{1,12}", text, 0..4);
    (
        any::<bool>(),
        storage,
        query,
        collector,
        attributes,
        any::<bool>(),
    )
        .prop_map(
            |(enabled, storage, query, collector, resource, datasources)| {
                json!({
                    "enabled": enabled, "storage": storage, "query": query, "collector": collector,
                    "processing": {"resource": resource}, "grafana": {"datasources": datasources},
                })
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_same_input_is_the_same_bytes(spec in spec(), grafana_operator: bool) {
        let token = Token { key: "k".to_owned(), value: "v".to_owned() };
        let known = Known {
            grafana_operator, token: spec["query"]["auth"].is_object().then_some(token),
            ..known()
        };
        let first = render(&pipeline(spec.clone()), &release(), &known);
        let second = render(&pipeline(spec), &release(), &known);
        prop_assert_eq!(yaml(&first), yaml(&second));
        for desired in first {
            if desired.kind() != "GrafanaDatasource" {
                is_of_its_type(&desired.object);
            }
        }
    }
}
