//! The collectors: a DaemonSet behind a Service that stays on the sender's node.

use serde_json::{Value, json};
use spanloom_crds::Amount;

use super::scheduling::schedule;
use super::users::User;
use super::{Desired, Known, REVISION, Stage, common};
use crate::hash::hash_of;
use crate::pipeline::Pipeline;
use crate::release::Release;

/// For how long a collector goes on taking spans after it was told to end: until every node's proxy has
/// taken it out of its rules.
const DRAIN_DELAY_SECONDS: u32 = 5;
/// For how long it then may store what it has.
const DRAIN_SECONDS: u32 = 25;
/// More than both, so that it is never killed while it drains.
const GRACE_SECONDS: u32 = 45;

/// The same with a log on disk: it takes spans while ClickHouse is away, and a pod that is deleted takes its
/// log with it. The pod ends as soon as it has drained.
const LOGGED_DRAIN_SECONDS: u32 = 600 - DRAIN_DELAY_SECONDS - 15;
const LOGGED_GRACE_SECONDS: u32 = 600;

/// The same with a log in a directory of the node: the next pod there delivers what is left, and cannot start
/// before this one has ended.
const KEPT_DRAIN_SECONDS: u32 = 10;
const KEPT_GRACE_SECONDS: u32 = DRAIN_DELAY_SECONDS + KEPT_DRAIN_SECONDS + 15;

/// What lies beside the log: dead letters, damaged bytes, the segment that is being written, and the file system's
/// own.
const BESIDE_LOG_BYTES: u64 = 128 << 20;
const LOG_FOLDER: &str = "/var/lib/spanloom/log";
/// The volume with the log.
pub(crate) const LOG_VOLUME: &str = "log";

/// The memory limit, where the document gives none.
const MEMORY_BYTES: u128 = 512 << 20;

pub(super) fn service(pipeline: &Pipeline) -> Vec<Desired> {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP", "appProtocol": if port == 4317 { "kubernetes.io/h2c" } else { "http" }});
    vec![Desired::new(
        Stage::Base,
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": common::metadata(pipeline, "collector", "collector"),
            "spec": {
                "type": "ClusterIP",
                "internalTrafficPolicy": "Local",
                "ipFamilyPolicy": "PreferDualStack",
                "selector": common::component_labels(pipeline, "collector"),
                "ports": [port("otlp-grpc", 4317), port("otlp-http", 4318)],
            },
        }),
    )]
}

/// How many nodes may have two collectors at once during a rollout, where the spec gives no number.
const MAX_SURGE: &str = "10%";

/// How many nodes may have two collectors at once during a rollout, as the spec says.
pub fn wanted_surge(pipeline: &Pipeline) -> Value {
    match &pipeline.spec.collector.max_surge {
        Some(Amount::Number(number)) => json!(number),
        Some(Amount::Text(text)) => json!(text),
        None => json!(MAX_SURGE),
    }
}

pub(super) fn daemon_set(pipeline: &Pipeline, release: &Release, known: &Known) -> Desired {
    let now = known.max_surge.clone();
    let at_once = now.unwrap_or_else(|| wanted_surge(pipeline));
    let rolling_update = match pipeline.spec.collector.log_host_path() {
        // One process at a time has a log: the old one must have ended before the new one can begin.
        Some(_) => json!({"maxSurge": 0, "maxUnavailable": at_once}),
        None => json!({"maxSurge": at_once, "maxUnavailable": 0}),
    };
    let pod = pod(pipeline, release);
    let scheduling = pipeline.spec.collector.scheduling();
    let mut template = common::template(pipeline, known, "collector", scheduling, pod);
    let revision = hash_of(&template);
    template["metadata"]["annotations"][REVISION] = json!(revision);
    Desired::new(
        Stage::Agents,
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": common::metadata(pipeline, "collector", "collector"),
            "spec": {
                "selector": {"matchLabels": common::component_labels(pipeline, "collector")},
                "updateStrategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": rolling_update,
                },
                "template": template,
            },
        }),
    )
}

fn pod(pipeline: &Pipeline, release: &Release) -> Value {
    let mut store = common::store_access(pipeline, User::Collector);
    if let Some(volume) = log_volume(pipeline) {
        store.volumes.push(volume);
        store
            .mounts
            .push(json!({"name": LOG_VOLUME, "mountPath": LOG_FOLDER}));
    }
    let collector = &pipeline.spec.collector;
    let grace = match (collector.log_bytes(), collector.log_host_path()) {
        (Some(_), None) => LOGGED_GRACE_SECONDS,
        (Some(_), Some(_)) => KEPT_GRACE_SECONDS,
        (None, _) => GRACE_SECONDS,
    };
    let mut pod = json!({
        "serviceAccountName": pipeline.object("collector"),
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": common::pod_security(None),
        "containers": [container(pipeline, release, store.env, store.mounts)],
        "volumes": store.volumes,
    });
    common::pull_with_secrets(&mut pod, pipeline, release);
    schedule(&mut pod, release, pipeline.spec.collector.scheduling());
    pod
}

/// Where the log is kept, where there is one.
fn log_volume(pipeline: &Pipeline) -> Option<Value> {
    let bytes = pipeline.spec.collector.log_bytes()?;
    Some(match pipeline.spec.collector.log_host_path() {
        // Not made by the kubelet, which would make it so that only root can write to it.
        Some(path) => json!({"name": LOG_VOLUME, "hostPath": {"path": path, "type": "Directory"}}),
        None => {
            let limit = (bytes + BESIDE_LOG_BYTES).to_string();
            json!({"name": LOG_VOLUME, "emptyDir": {"sizeLimit": limit}})
        }
    })
}

/// The log's folder in the volume, and how long a pod that is told to end may drain it.
fn log(pipeline: &Pipeline) -> (String, u32) {
    match pipeline.spec.collector.log_host_path() {
        // The directory may be shared: by pipelines, and by nodes where it is on a network file system.
        Some(_) => {
            let Pipeline {
                namespace, name, ..
            } = pipeline;
            let folder = format!("{LOG_FOLDER}/{namespace}/{name}/$(SPANLOOM_NODE_NAME)");
            (folder, KEPT_DRAIN_SECONDS)
        }
        // A folder of our own in the volume, which is the kubelet's.
        None => (format!("{LOG_FOLDER}/v1"), LOGGED_DRAIN_SECONDS),
    }
}

fn container(
    pipeline: &Pipeline,
    release: &Release,
    store_env: Vec<Value>,
    mounts: Vec<Value>,
) -> Value {
    let name = pipeline.object("collector");
    let mut env = vec![
        common::env(
            "SPANLOOM_CONFIG_MAP",
            format!("{}/{name}", pipeline.namespace),
        ),
        common::env_field("SPANLOOM_NODE_NAME", "spec.nodeName"),
        common::env("SPANLOOM_MEMORY_LIMIT_BYTES", memory(pipeline)),
        common::env(
            "SPANLOOM_DRAIN_DELAY_SECONDS",
            DRAIN_DELAY_SECONDS.to_string(),
        ),
    ];
    match pipeline.spec.collector.log_bytes() {
        None => env.push(common::env(
            "SPANLOOM_DRAIN_SECONDS",
            DRAIN_SECONDS.to_string(),
        )),
        Some(bytes) => {
            let (folder, drain_seconds) = log(pipeline);
            env.extend([
                common::env("SPANLOOM_DRAIN_SECONDS", drain_seconds.to_string()),
                common::env("SPANLOOM_LOG_FOLDER", folder),
                common::env("SPANLOOM_LOG_BYTES", bytes.to_string()),
            ]);
        }
    }
    env.extend(store_env);
    json!({
        "name": "collector",
        "image": common::image(pipeline, release, "collector"),
        "imagePullPolicy": release.image_pull_policy,
        "args": ["run"],
        "env": env,
        "ports": [
            {"name": "otlp-grpc", "containerPort": 4317, "protocol": "TCP"},
            {"name": "otlp-http", "containerPort": 4318, "protocol": "TCP"},
            {"name": "metrics", "containerPort": 9464, "protocol": "TCP"},
        ],
        "startupProbe": common::admin_probe("/healthz", 1, 60),
        "readinessProbe": common::admin_probe("/readyz", 2, 2),
        "livenessProbe": common::admin_probe("/healthz", 10, 6),
        "resources": resources(pipeline),
        "securityContext": common::container_security(),
        "volumeMounts": mounts,
    })
}

/// Requests and limits, with the log's room on the node's disk where the document does not name it. A directory
/// of the node is not counted as the pod's.
fn resources(pipeline: &Pipeline) -> Value {
    let mut resources = common::resources(
        pipeline.spec.collector.resources.as_ref(),
        json!({"cpu": "100m", "memory": "256Mi"}),
        json!({"memory": "512Mi"}),
    );
    if let Some(bytes) = pipeline.spec.collector.log_bytes()
        && pipeline.spec.collector.log_host_path().is_none()
        && resources["requests"]["ephemeral-storage"].is_null()
        && resources["limits"]["ephemeral-storage"].is_null()
    {
        let bytes = bytes + BESIDE_LOG_BYTES;
        resources["requests"]["ephemeral-storage"] = json!(bytes.to_string());
    }
    resources
}

/// The container's limit, from which the collector's own bounds follow.
fn memory(pipeline: &Pipeline) -> String {
    let resources = pipeline.spec.collector.resources.as_ref();
    let limit = resources
        .and_then(|resources| resources.limits.get("memory"))
        .and_then(|memory| memory.milli())
        .map_or(MEMORY_BYTES, |milli| milli / 1_000);
    limit.to_string()
}
