//! What all objects have in common.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use spanloom_crds::resolved::Server;
use spanloom_crds::{API_VERSION, KIND, Resources, Scheduling};
pub use spanloom_inject::{LABEL_MANAGED_BY, MANAGER};

use super::Known;
use super::users::{DATABASE, User};
use crate::hash::hash_of;
use crate::pipeline::Pipeline;
use crate::release::Release;

/// The label that names an object's pipeline.
pub const LABEL_PIPELINE: &str = "spanloom.dev/pipeline";

/// The annotation of a pod template that names the managed store's password.
const CREDENTIALS: &str = "spanloom.dev/credentials";

/// The user of our own images.
const USER: u32 = 65_532;

/// Where the trusted certificate authorities are mounted.
const CA_FOLDER: &str = "/etc/spanloom/ca";
const CA_VOLUME: &str = "ca";
/// Where the store's credentials are mounted.
const CREDENTIALS_FOLDER: &str = "/etc/spanloom/clickhouse";
pub(crate) const CREDENTIALS_VOLUME: &str = "clickhouse";

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

/// The components whose pods are made anew when the managed store has another password: the server, and the Job.
/// The others read it again.
const READ_PASSWORD_ONCE: [&str; 2] = ["clickhouse", "migrate"];

/// The template of a component's pods. Where they read the managed store's password only once, it names it
/// without telling it.
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
    if pipeline.runs_store() && READ_PASSWORD_ONCE.contains(&component) {
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
#[derive(Default)]
pub(super) struct StoreAccess {
    /// Environment variables.
    pub env: Vec<Value>,
    /// Volumes of the pod.
    pub volumes: Vec<Value>,
    /// Where the container has them.
    pub mounts: Vec<Value>,
}

/// How a pod of this pipeline reaches its store; a managed one as this user.
///
/// Pods that run for long have the credentials as files, which the kubelet renews, and collectors take the address
/// of an external store from their configuration: neither needs new pods.
pub(super) fn store_access(pipeline: &Pipeline, user: User) -> StoreAccess {
    let mut access = StoreAccess::default();
    let (credentials, authorities) = match &pipeline.resolved.storage.server {
        Server::Managed { .. } => {
            let managed = pipeline.object("clickhouse");
            let url = format!("https://{managed}.{}.svc:8443", pipeline.namespace);
            access.address(Some(url), DATABASE);
            let authorities = json!({"configMap": {"name": pipeline.object("ca")}});
            (Some((managed, user.keys())), Some(authorities))
        }
        Server::External {
            url,
            database,
            credentials_secret,
            ..
        } => {
            let url = (user != User::Collector).then(|| url.clone());
            access.address(url, database);
            let external = pipeline.spec.storage.external.as_ref();
            let authorities = external
                .and_then(|external| external.tls.as_ref())
                .and_then(|tls| tls.ca_secret.as_ref());
            let authorities = authorities.map(|secret| {
                let key = secret.key.as_deref().unwrap_or("ca.crt");
                json!({"secret": {
                    "secretName": secret.name,
                    "items": [{"key": key, "path": "ca.crt"}],
                }})
            });
            let credentials = credentials_secret.clone();
            let credentials = credentials.map(|secret| (secret, ("username", "password")));
            (credentials, authorities)
        }
    };
    if let Some((secret, keys)) = credentials {
        match user {
            // A Job reads them once.
            User::Migrate => access.log_in_by_variables(&secret, keys),
            User::Collector | User::Query => access.log_in_by_files(&secret, keys),
        }
    }
    if let Some(source) = authorities {
        access.trust(source);
    }
    access
}

impl StoreAccess {
    fn address(&mut self, url: Option<String>, database: &str) {
        let url = url.map(|url| env("SPANLOOM_CLICKHOUSE_URL", url));
        self.env.extend(url);
        self.env.push(env("SPANLOOM_CLICKHOUSE_DATABASE", database));
    }

    fn log_in_by_variables(&mut self, secret: &str, (user, password): (&str, &str)) {
        self.env.extend([
            env_secret("SPANLOOM_CLICKHOUSE_USER", secret, user),
            env_secret("SPANLOOM_CLICKHOUSE_PASSWORD", secret, password),
        ]);
    }

    fn log_in_by_files(&mut self, secret: &str, (user, password): (&str, &str)) {
        let item = |key: &str, path: &str| json!({"key": key, "path": path});
        let source = json!({"secret": {
            "secretName": secret,
            "defaultMode": 0o440,
            "items": [item(user, "username"), item(password, "password")],
        }});
        self.env.push(env(
            "SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR",
            CREDENTIALS_FOLDER,
        ));
        self.mount(CREDENTIALS_VOLUME, CREDENTIALS_FOLDER, source);
    }

    fn trust(&mut self, source: Value) {
        let file = format!("{CA_FOLDER}/ca.crt");
        self.env.push(env("SPANLOOM_CLICKHOUSE_CA_FILE", file));
        self.mount(CA_VOLUME, CA_FOLDER, source);
    }

    fn mount(&mut self, name: &str, folder: &str, mut source: Value) {
        source["name"] = json!(name);
        self.volumes.push(source);
        self.mounts
            .push(json!({"name": name, "mountPath": folder, "readOnly": true}));
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
