//! The webhook by which pods are injected: its configuration in the API server, which has one entry for each
//! pipeline, and what the webhook itself knows of a pipeline.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use spanloom_crds::{Injection, InjectionMode, LabelSelector, injection_is_valid};
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

/// What of a pipeline injection depends on. A mistake elsewhere in its spec does not keep its pods from being injected.
#[derive(Debug, Clone, PartialEq)]
pub struct Injecting {
    namespace: String,
    name: String,
    created: String,
    injection: Injection,
}

impl Injecting {
    /// A pipeline that is served and for which pods are injected, whether it is managed or not: its objects stay as
    /// they are, and no pod is one of them.
    pub fn read(object: &Value, release: &Release) -> Option<Self> {
        let text = |key: &str| {
            object["metadata"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let spec = &object["spec"];
        let injection = match &spec["injection"] {
            Value::Null => Injection::default(),
            given => Injection::deserialize(given).ok()?,
        };
        let namespace = text("namespace");
        let injects = injection.mode() != InjectionMode::None
            && spec["enabled"] != false
            && release.serves(&namespace).is_ok()
            && injection_is_valid(&injection);
        injects.then(|| Self {
            name: text("name"),
            created: text("creationTimestamp"),
            namespace,
            injection,
        })
    }

    /// What the webhook knows of it.
    pub fn target(&self, release: &Release) -> Target {
        let Self {
            namespace, name, ..
        } = self;
        Target {
            id: (namespace.clone(), name.clone()),
            created: self.created.clone(),
            only_own_namespace: self.only_own_namespace(release),
            excluded: excluded(release),
            namespaces: self.injection.namespaces(),
            pods: self.injection.pods(),
            endpoint: format!("http://{name}-collector.{namespace}.svc:4317"),
        }
    }

    /// A pipeline in a namespace that was given to a team must not reach into those of others.
    fn only_own_namespace(&self, release: &Release) -> bool {
        self.namespace != release.namespace
    }

    fn entry_name(&self) -> String {
        entry_name(&self.namespace, &self.name)
    }
}

/// Whether pods are injected for a pipeline.
pub fn injects(pipeline: &Pipeline) -> bool {
    pipeline.enabled() && pipeline.spec.injection.mode() != InjectionMode::None
}

/// Namespaces that are never injected.
fn excluded(release: &Release) -> Vec<String> {
    let system = SYSTEM_NAMESPACES.iter().copied();
    system
        .chain([release.namespace.as_str()])
        .map(str::to_owned)
        .collect()
}

/// The entries of the webhook configuration as they should be, when they are not so in what was found.
pub fn entries(
    pipelines: &[Injecting],
    release: &Release,
    ca_bundle: &str,
    found: &Value,
) -> Option<Value> {
    let live: &[Value] = found["webhooks"].as_array().map_or(&[], Vec::as_slice);
    let mut entries: Vec<_> = pipelines
        .iter()
        .map(|pipeline| entry(pipeline, release, ca_bundle))
        .collect();
    entries.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    let is_done = live.len() == entries.len()
        && entries.iter().all(|entry| {
            let same = |live: &&Value| live["name"] == entry["name"];
            live.iter()
                .find(same)
                .is_some_and(|live| is_as(live, entry))
        });
    (!is_done).then_some(Value::Array(entries))
}

/// Whether an entry is as it should be. What the API server adds does not matter, but for the selectors, where
/// anything that is too much leaves out pods.
fn is_as(live: &Value, entry: &Value) -> bool {
    let selectors = ["namespaceSelector", "objectSelector"];
    covers(live, entry) && selectors.iter().all(|key| live[key] == entry[key])
}

/// Whether the webhook configuration that was found has an entry for a pipeline.
pub fn has_entry(pipeline: &Pipeline, found: &Value) -> bool {
    let name = entry_name(&pipeline.namespace, &pipeline.name);
    let entries = found["webhooks"].as_array();
    entries.is_some_and(|entries| entries.iter().any(|entry| entry["name"] == name))
}

fn entry_name(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}.inject.spanloom.dev")
}

/// The path at which the webhook is asked for a pipeline.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/inject/{namespace}/{name}")
}

fn entry(pipeline: &Injecting, release: &Release, ca_bundle: &str) -> Value {
    let injection = &pipeline.injection;
    let mut namespaces = selector(&injection.namespaces());
    let system = excluded(release).into_iter().map(Value::from).collect();
    require(&mut namespaces, NAMESPACE_NAME, "NotIn", system);
    if pipeline.only_own_namespace(release) {
        let own = vec![json!(pipeline.namespace)];
        require(&mut namespaces, NAMESPACE_NAME, "In", own);
    }
    let mut pods = selector(&injection.pods());
    require(&mut pods, LABEL_MANAGED_BY, "NotIn", vec![json!(MANAGER)]);
    json!({
        "name": pipeline.entry_name(),
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
            namespaces: vec!["tracing".to_owned(), "shop".to_owned()],
            ..Release::default()
        }
    }

    fn object(namespace: &str, name: &str, spec: Value) -> Value {
        let metadata = json!({
            "name": name, "namespace": namespace, "uid": name,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        });
        json!({"metadata": metadata, "spec": spec})
    }

    fn wanted(objects: &[Value], found: &Value) -> Option<Vec<Value>> {
        let read = objects
            .iter()
            .filter_map(|object| Injecting::read(object, &release()));
        let entries = entries(&read.collect::<Vec<_>>(), &release(), "CA", found)?;
        Some(entries.as_array().unwrap().clone())
    }

    fn names(entries: &[Value]) -> Vec<&str> {
        let names = entries.iter().map(|entry| entry["name"].as_str());
        names.map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn each_pipeline_that_injects_has_an_entry() {
        let all = [
            object("tracing", "prod", json!({})),
            object(
                "shop",
                "own",
                json!({"injection": {"podSelector": {"matchLabels": {"a": "b"}}}}),
            ),
            object("tracing", "none", json!({"injection": {"mode": "None"}})),
            object("tracing", "off", json!({"enabled": false})),
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
        let all = [object("tracing", "prod", json!({}))];
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
        // Whatever else others have put there.
        changed = found.clone();
        let foreign = json!({"name": "foreign.example.com"});
        changed["webhooks"].as_array_mut().unwrap().push(foreign);
        assert_eq!(wanted(&all, &changed), Some(entries.clone()));
        let one = [Injecting::read(&all[0], &release()).unwrap()];
        assert!(super::entries(&one, &release(), "another", &found).is_some());
    }

    /// Its pods are injected whatever else is wrong with a pipeline, but not by selectors that are none.
    #[test]
    fn injection_depends_on_nothing_else_in_the_spec() {
        let reads = |spec: Value| Injecting::read(&object("tracing", "prod", spec), &release());
        let good = reads(json!({}));
        assert!(good.is_some());
        assert_eq!(
            reads(json!({"processing": {"drop": ["{ nonsense"]}, "later": 1})),
            good
        );
        assert_eq!(reads(json!({"managementState": "Unmanaged"})), good);
        for injection in [
            json!({"mode": "Later"}),
            json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            json!({"podSelector": {"matchLabels": {"a": "x".repeat(5_000)}}}),
            json!({"mode": "None"}),
        ] {
            assert_eq!(reads(json!({"injection": injection})), None, "{injection}");
        }
        assert_eq!(reads(json!({"enabled": false})), None);
        let elsewhere = object("elsewhere", "prod", json!({}));
        assert_eq!(Injecting::read(&elsewhere, &release()), None);
    }

    #[test]
    fn the_webhook_knows_where_spans_go() {
        let known = |namespace: &str| {
            let read = Injecting::read(&object(namespace, "prod", json!({})), &release());
            read.unwrap().target(&release())
        };
        let shared = known("tracing");
        assert_eq!(shared.endpoint, "http://prod-collector.tracing.svc:4317");
        assert!(!shared.only_own_namespace);
        assert_eq!(
            shared.excluded,
            ["kube-system", "kube-node-lease", "tracing"]
        );
        assert!(known("shop").only_own_namespace);
    }
}
