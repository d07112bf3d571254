//! The webhook by which pods are injected: its configuration in the API server, which has one entry for each
//! pipeline, and what the webhook itself knows of a pipeline.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spanloom_crds::{InjectionMode, LabelSelector};
use spanloom_inject::{LABEL_MANAGED_BY, MANAGER, Target};

use crate::difference::covers;
use crate::pipeline::Pipeline;
use crate::release::Release;

/// The label of a namespace with its name, which the API server sets.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// Namespaces that are never injected, beside the release's: without what runs there, there is no cluster.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", "kube-node-lease"];
/// How long the API server waits for an answer before it creates the pod as it is, in seconds.
const TIMEOUT_SECONDS: u8 = 3;

/// The name of the webhook's objects: its configuration, Deployment and Service.
pub fn webhook_name(release: &Release) -> String {
    format!("{}-webhook", release.name)
}

/// The Secret with the webhook's certificate, in the release's namespace.
pub fn webhook_secret(release: &Release) -> String {
    format!("{}-webhook-tls", release.name)
}

/// The names that the webhook's certificate is for.
pub fn webhook_names(release: &Release) -> Vec<String> {
    let (name, namespace) = (webhook_name(release), &release.namespace);
    vec![
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.cluster.local"),
    ]
}

/// Whether pods are injected for a pipeline.
pub fn injects(pipeline: &Pipeline) -> bool {
    pipeline.enabled() && pipeline.spec.injection.mode() != InjectionMode::None
}

/// What the webhook knows of a pipeline; none when nothing is injected for it.
pub fn target(pipeline: &Pipeline, release: &Release) -> Option<Target> {
    let injection = &pipeline.spec.injection;
    injects(pipeline).then(|| Target {
        id: (pipeline.namespace.clone(), pipeline.name.clone()),
        created: pipeline.created.clone(),
        only_own_namespace: only_own_namespace(pipeline, release),
        namespaces: injection.namespaces(),
        pods: injection.pods(),
        endpoint: format!(
            "http://{}.{}.svc:4317",
            pipeline.object("collector"),
            pipeline.namespace
        ),
    })
}

/// A pipeline in a namespace that was given to a team must not reach into those of others.
fn only_own_namespace(pipeline: &Pipeline, release: &Release) -> bool {
    pipeline.namespace != release.namespace
}

/// The webhook configuration as it should be, when it is not so. `found` is what there is; where the chart made
/// none, nothing is wanted. A pipeline that is not managed keeps the entry that it has.
pub fn configuration(
    pipelines: &[Pipeline],
    release: &Release,
    ca_bundle: &str,
    found: Option<&Value>,
) -> Option<Value> {
    let found = found?;
    let live: &[Value] = found["webhooks"].as_array().map_or(&[], Vec::as_slice);
    let mut entries: Vec<_> = pipelines
        .iter()
        .filter_map(|pipeline| match pipeline.managed() {
            true => injects(pipeline).then(|| entry(pipeline, release, ca_bundle)),
            false => kept(pipeline, live, ca_bundle),
        })
        .collect();
    entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let is_done = live.len() == entries.len()
        && entries.iter().all(|entry| {
            let same = |live: &&Value| live["name"] == entry["name"];
            live.iter()
                .find(same)
                .is_some_and(|live| is_as(live, entry))
        });
    (!is_done).then(|| {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": webhook_name(release)},
            "webhooks": entries,
        })
    })
}

/// Whether an entry is as it should be. What the API server adds does not matter, but for the selectors, where
/// anything that is too much leaves out pods.
fn is_as(live: &Value, entry: &Value) -> bool {
    let selectors = ["namespaceSelector", "objectSelector"];
    covers(live, entry) && selectors.iter().all(|key| live[key] == entry[key])
}

/// The entry of a pipeline whose objects are somebody else's to change; the authority changes all the same.
fn kept(pipeline: &Pipeline, live: &[Value], ca_bundle: &str) -> Option<Value> {
    let name = entry_name(pipeline);
    let mut entry = live.iter().find(|live| live["name"] == name)?.clone();
    entry["clientConfig"]["caBundle"] = json!(STANDARD.encode(ca_bundle));
    Some(entry)
}

/// Whether the webhook configuration that was found has an entry for a pipeline.
pub fn has_entry(pipeline: &Pipeline, found: &Value) -> bool {
    let name = entry_name(pipeline);
    let entries = found["webhooks"].as_array();
    entries.is_some_and(|entries| entries.iter().any(|entry| entry["name"] == name))
}

fn entry_name(pipeline: &Pipeline) -> String {
    format!(
        "{}.{}.inject.spanloom.dev",
        pipeline.name, pipeline.namespace
    )
}

/// The path at which the webhook is asked for a pipeline.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/inject/{namespace}/{name}")
}

fn entry(pipeline: &Pipeline, release: &Release, ca_bundle: &str) -> Value {
    let injection = &pipeline.spec.injection;
    let mut namespaces = selector(&injection.namespaces());
    let mut system: Vec<_> = SYSTEM_NAMESPACES.iter().map(|name| json!(name)).collect();
    system.push(json!(release.namespace));
    require(&mut namespaces, NAMESPACE_NAME, "NotIn", system);
    if only_own_namespace(pipeline, release) {
        let own = vec![json!(pipeline.namespace)];
        require(&mut namespaces, NAMESPACE_NAME, "In", own);
    }
    let mut pods = selector(&injection.pods());
    require(&mut pods, LABEL_MANAGED_BY, "NotIn", vec![json!(MANAGER)]);
    json!({
        "name": entry_name(pipeline),
        "admissionReviewVersions": ["v1"],
        "clientConfig": {
            "service": {
                "name": webhook_name(release), "namespace": release.namespace, "port": 443,
                "path": path(&pipeline.namespace, &pipeline.name),
            },
            "caBundle": STANDARD.encode(ca_bundle),
        },
        "rules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["CREATE"], "scope": "Namespaced",
        }],
        "namespaceSelector": namespaces,
        "objectSelector": pods,
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": TIMEOUT_SECONDS,
    })
}

fn selector(selector: &LabelSelector) -> Value {
    serde_json::to_value(selector).unwrap_or_default()
}

fn require(selector: &mut Value, key: &str, operator: &str, values: Vec<Value>) {
    let expression = json!({"key": key, "operator": operator, "values": values});
    match selector["matchExpressions"].as_array_mut() {
        Some(expressions) => expressions.push(expression),
        None => selector["matchExpressions"] = json!([expression]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            namespace: "tracing".to_owned(),
            name: "spanloom".to_owned(),
            ..Release::default()
        }
    }

    fn pipeline(namespace: &str, name: &str, spec: Value) -> Pipeline {
        let metadata = json!({
            "name": name, "namespace": namespace, "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        Pipeline::read(&json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn wanted(pipelines: &[Pipeline], found: &Value) -> Option<Vec<Value>> {
        let wanted = configuration(pipelines, &release(), "CA", Some(found))?;
        assert_eq!(wanted["metadata"]["name"], "spanloom-webhook");
        Some(wanted["webhooks"].as_array().unwrap().clone())
    }

    fn names(entries: &[Value]) -> Vec<&str> {
        let names = entries.iter().map(|entry| entry["name"].as_str());
        names.map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn each_pipeline_that_injects_has_an_entry() {
        let all = [
            pipeline("tracing", "prod", json!({})),
            pipeline(
                "shop",
                "own",
                json!({"injection": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            ),
            pipeline("tracing", "none", json!({"injection": {"mode": "None"}})),
            pipeline("tracing", "off", json!({"enabled": false})),
        ];
        let entries = wanted(&all, &json!({})).unwrap();
        let expected = [
            "own.shop.inject.spanloom.dev",
            "prod.tracing.inject.spanloom.dev",
        ];
        assert_eq!(names(&entries), expected);
        let not_ours = json!({
            "key": NAMESPACE_NAME, "operator": "NotIn",
            "values": ["kube-system", "kube-node-lease", "tracing"],
        });
        let own = json!({"key": NAMESPACE_NAME, "operator": "In", "values": ["shop"]});
        let labels = json!({"spanloom.dev/trace": "enabled"});
        let selector = |entry: &Value| entry["namespaceSelector"].clone();
        assert_eq!(
            selector(&entries[0]),
            json!({"matchLabels": labels, "matchExpressions": [not_ours, own]})
        );
        assert_eq!(
            selector(&entries[1]),
            json!({"matchLabels": labels, "matchExpressions": [not_ours]})
        );
        assert_eq!(
            entries[0]["objectSelector"]["matchLabels"],
            json!({"a": "b"})
        );
        let service = &entries[0]["clientConfig"]["service"];
        assert_eq!(service["path"], "/inject/shop/own");
        // What never changes: nothing that is created waits for long or fails because of us.
        for (key, value) in [
            ("failurePolicy", json!("Ignore")),
            ("timeoutSeconds", json!(3)),
            ("reinvocationPolicy", json!("IfNeeded")),
        ] {
            assert_eq!(entries[0][key], value);
        }
        assert_eq!(entries[0]["rules"][0]["operations"], json!(["CREATE"]));
    }

    #[test]
    fn it_is_written_only_when_it_differs() {
        let all = [pipeline("tracing", "prod", json!({}))];
        let entries = wanted(&all, &json!({})).unwrap();
        let found = json!({"webhooks": entries});
        assert_eq!(wanted(&all, &found), None);
        assert_eq!(wanted(&[], &json!({})), None);
        assert_eq!(wanted(&[], &found), Some(vec![]));
        let mut changed = found.clone();
        changed["webhooks"][0]["failurePolicy"] = json!("Fail");
        assert_eq!(wanted(&all, &changed), Some(entries.clone()));
        changed = found.clone();
        changed["webhooks"][0]["namespaceSelector"]["matchLabels"]["old"] = json!("label");
        assert_eq!(wanted(&all, &changed), Some(entries.clone()));
        changed = found.clone();
        changed["webhooks"][0]["matchConditions"] = json!([]);
        assert_eq!(wanted(&all, &changed), None);
        // The chart has no webhook.
        assert_eq!(configuration(&all, &release(), "CA", None), None);
        let other_ca = configuration(&all, &release(), "another", Some(&found));
        assert!(other_ca.is_some());
    }

    #[test]
    fn a_pipeline_that_is_not_managed_keeps_its_entry() {
        let managed = [pipeline("tracing", "prod", json!({}))];
        let mut found = json!({"webhooks": wanted(&managed, &json!({})).unwrap()});
        found["webhooks"][0]["timeoutSeconds"] = json!(1);
        let spec = json!({"managementState": "Unmanaged"});
        let unmanaged = [pipeline("tracing", "prod", spec)];
        assert_eq!(wanted(&unmanaged, &found), None);
        assert_eq!(wanted(&unmanaged, &json!({})), None);
    }

    #[test]
    fn the_webhook_knows_where_spans_go() {
        let known =
            |namespace: &str, spec: Value| target(&pipeline(namespace, "prod", spec), &release());
        let shared = known("tracing", json!({})).unwrap();
        assert_eq!(shared.endpoint, "http://prod-collector.tracing.svc:4317");
        assert!(!shared.only_own_namespace);
        assert!(known("shop", json!({})).unwrap().only_own_namespace);
        assert_eq!(known("tracing", json!({"enabled": false})), None);
    }
}
