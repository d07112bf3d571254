//! What all objects have in common.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use spanloom_crds::resolved::Server;
use spanloom_crds::{API_VERSION, KIND, Resources, Scheduling};

use super::Known;
use super::users::{DATABASE, User};
use crate::hash::hash_of;
use crate::pipeline::Pipeline;
use crate::release::Release;

/// The field manager, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "spanloom-operator";
/// The label by which our objects are found.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that names an object's pipeline.
pub const LABEL_PIPELINE: &str = "spanloom.dev/pipeline";

/// The annotation of a pod template that names the managed store's password.
pub(crate) const CREDENTIALS: &str = "spanloom.dev/credentials";

/// The user of our own images.
const USER: u32 = 65_532;

/// Where the trusted certificate authorities are mounted.
const CA_FOLDER: &str = "/etc/spanloom/ca";

/// The labels by which a component's pods are selected. They can never change.
pub fn component_labels(pipeline: &Pipeline, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "spanloom",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": pipeline.name,
    })
}

/// All labels of a component's objects.
pub fn labels(pipeline: &Pipeline, component: &str) -> Value {
    let mut labels = component_labels(pipeline, component);
    labels[LABEL_MANAGED_BY] = json!(MANAGER);
    labels[LABEL_PIPELINE] = json!(pipeline.name);
    labels
}

/// The label selector of all objects of a pipeline.
pub fn owned_selector(pipeline: &str) -> String {
    format!("{LABEL_MANAGED_BY}={MANAGER},{LABEL_PIPELINE}={pipeline}")
}

/// The template of a component's pods. It names the managed store's password without telling it, so that
/// all who use it are renewed together when it is another one.
pub(super) fn template(
    pipeline: &Pipeline,
    known: &Known,
    component: &str,
    scheduling: Scheduling<'_>,
    spec: Value,
) -> Value {
    let mut metadata = json!({"labels": {}});
    for (key, value) in scheduling.pod_labels {
        metadata["labels"][key] = json!(value);
    }
    for (key, value) in scheduling.pod_annotations {
        metadata["annotations"][key] = json!(value);
    }
    // Ours come last: what a Service or we ourselves select by cannot be replaced.
    merge(&mut metadata["labels"], labels(pipeline, component));
    if pipeline.runs_store() {
        metadata["annotations"][CREDENTIALS] = json!(hash_of(&known.store_password));
    }
    json!({"metadata": metadata, "spec": spec})
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// The metadata of the object `<pipeline>-<suffix>`.
pub(super) fn metadata(pipeline: &Pipeline, suffix: &str, component: &str) -> Value {
    json!({
        "name": pipeline.object(suffix),
        "namespace": pipeline.namespace,
        "labels": labels(pipeline, component),
        "ownerReferences": [{
            "apiVersion": API_VERSION, "kind": KIND, "name": pipeline.name, "uid": pipeline.uid,
            "controller": true, "blockOwnerDeletion": false,
        }],
    })
}

/// A service account that is told nothing.
pub(super) fn service_account(pipeline: &Pipeline, component: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": metadata(pipeline, component, component),
        "automountServiceAccountToken": false,
    })
}

/// What the standard `restricted` asks of a pod.
pub(super) fn pod_security(user: Option<u32>) -> Value {
    let user = user.unwrap_or(USER);
    json!({
        "runAsNonRoot": true, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What the standard `restricted` asks of a container, and a file system that cannot be written.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false, "privileged": false, "readOnlyRootFilesystem": true,
        "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Lets a pod pull its images with the Secrets that the release and the pipeline name.
pub(super) fn pull_with_secrets(pod: &mut Value, pipeline: &Pipeline, release: &Release) {
    let secrets = pull_secrets(pipeline, release);
    if !secrets.is_empty() {
        pod["imagePullSecrets"] = Value::Array(secrets);
    }
}

/// The Secrets with registries' credentials: the release's and the pipeline's, each once.
fn pull_secrets(pipeline: &Pipeline, release: &Release) -> Vec<Value> {
    let own = pipeline.spec.images.pull_secrets.iter().map(|s| &s.name);
    let mut names: Vec<&String> = Vec::new();
    for name in release.image_pull_secrets.iter().chain(own) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| json!({"name": name}))
        .collect()
}

/// The image of a program of ours.
pub(super) fn image(pipeline: &Pipeline, release: &Release, program: &str) -> String {
    release.image(program, pipeline.spec.images.registry.as_deref())
}

/// Resources as a container has them: what the document says, and the default for what it does not.
pub(super) fn resources(given: Option<&Resources>, requests: Value, limits: Value) -> Value {
    let Some(given) = given else {
        return json!({"requests": requests, "limits": limits});
    };
    let amounts = |amounts: &std::collections::BTreeMap<String, spanloom_crds::Amount>| {
        let pairs = amounts
            .iter()
            .map(|(name, amount)| (name.clone(), Value::String(amount.text())));
        Value::Object(pairs.collect::<Map<_, _>>())
    };
    let mut resources = json!({});
    if !given.requests.is_empty() {
        resources["requests"] = amounts(&given.requests);
    }
    if !given.limits.is_empty() {
        resources["limits"] = amounts(&given.limits);
    }
    resources
}

/// An environment variable.
pub(super) fn env(name: &str, value: impl Into<String>) -> Value {
    json!({"name": name, "value": value.into()})
}

/// An environment variable from the pod's own fields.
pub(super) fn env_field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

fn env_secret(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

/// How a pod reaches the store.
pub(super) struct StoreAccess {
    /// Environment variables.
    pub env: Vec<Value>,
    /// Volumes of the pod.
    pub volumes: Vec<Value>,
    /// Where the container has them.
    pub mounts: Vec<Value>,
}

/// How a pod of this pipeline reaches its store; a managed one as this user.
pub(super) fn store_access(pipeline: &Pipeline, user: User) -> StoreAccess {
    let managed = pipeline.object("clickhouse");
    let mut env_of = Vec::new();
    let (credentials, ca) = match &pipeline.resolved.storage.server {
        Server::Managed { .. } => {
            let url = format!("https://{managed}.{}.svc:8443", pipeline.namespace);
            env_of.push(env("SPANLOOM_CLICKHOUSE_URL", url));
            env_of.push(env("SPANLOOM_CLICKHOUSE_DATABASE", DATABASE));
            let source = json!({"name": "ca", "configMap": {"name": pipeline.object("ca")}});
            (Some((managed, user.keys())), Some(source))
        }
        Server::External {
            url,
            database,
            credentials_secret,
            ..
        } => {
            env_of.push(env("SPANLOOM_CLICKHOUSE_URL", url));
            env_of.push(env("SPANLOOM_CLICKHOUSE_DATABASE", database));
            let external = pipeline.spec.storage.external.as_ref();
            let secret = external
                .and_then(|external| external.tls.as_ref())
                .and_then(|tls| tls.ca_secret.as_ref());
            let source = secret.map(|secret| {
                let key = secret.key.as_deref().unwrap_or("ca.crt");
                json!({"name": "ca", "secret": {
                    "secretName": secret.name,
                    "items": [{"key": key, "path": "ca.crt"}],
                }})
            });
            let credentials = credentials_secret.clone();
            (
                credentials.map(|secret| (secret, ("username", "password"))),
                source,
            )
        }
    };
    if let Some((secret, (name, password))) = credentials {
        env_of.push(env_secret("SPANLOOM_CLICKHOUSE_USER", &secret, name));
        env_of.push(env_secret(
            "SPANLOOM_CLICKHOUSE_PASSWORD",
            &secret,
            password,
        ));
    }
    let mut mounts = Vec::new();
    if ca.is_some() {
        env_of.push(env(
            "SPANLOOM_CLICKHOUSE_CA_FILE",
            format!("{CA_FOLDER}/ca.crt"),
        ));
        mounts.push(json!({"name": "ca", "mountPath": CA_FOLDER, "readOnly": true}));
    }
    StoreAccess {
        env: env_of,
        volumes: ca.into_iter().collect(),
        mounts,
    }
}

/// A probe of the admin port.
pub(super) fn admin_probe(path: &str, period_seconds: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": path, "port": "metrics"},
        "periodSeconds": period_seconds, "timeoutSeconds": 3, "failureThreshold": failures,
    })
}

/// A Secret's `data`. Not `stringData`: that is never read back, so it could not be compared.
pub(super) fn secret_data(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::String(STANDARD.encode(value))));
    Value::Object(pairs.collect::<Map<_, _>>())
}
