//! The managed ClickHouse, and the Job that brings a store's schema to this version.

use serde_json::{Value, json};
use spanloom_crds::Amount;
use spanloom_crds::agent::CONFIG_KEY;

use super::scheduling::schedule;
use super::users::{self, USERS_KEY, User};
use super::{Desired, Known, Stage, common};
use crate::hash::hash_of;
use crate::pipeline::Pipeline;
use crate::release::Release;

/// The user of ClickHouse's official image.
const CLICKHOUSE_USER: u32 = 101;

/// A new volume's size, where the spec gives none.
const DEFAULT_SIZE: &str = "50Gi";

/// The server's configuration beside the image's own: TLS, and no port without it; of the system's own logs,
/// which fill a volume that nobody looks at, only the two that show what the server did for us.
const SERVER_CONFIG: &str = r#"<clickhouse>
  <listen_host>::</listen_host>
  <listen_host>0.0.0.0</listen_host>
  <listen_try>1</listen_try>
  <https_port>8443</https_port>
  <http_port remove="1"/>
  <tcp_port remove="1"/>
  <mysql_port remove="1"/>
  <postgresql_port remove="1"/>
  <interserver_http_port remove="1"/>
  <openSSL>
    <server>
      <certificateFile>/etc/clickhouse-server/tls/tls.crt</certificateFile>
      <privateKeyFile>/etc/clickhouse-server/tls/tls.key</privateKeyFile>
      <verificationMode>none</verificationMode>
      <disableProtocols>sslv2,sslv3,tlsv1,tlsv1_1</disableProtocols>
    </server>
  </openSSL>
  <query_log>
    <database>system</database>
    <table>query_log</table>
    <ttl>event_date + INTERVAL 3 DAY DELETE</ttl>
  </query_log>
  <part_log>
    <database>system</database>
    <table>part_log</table>
    <ttl>event_date + INTERVAL 3 DAY DELETE</ttl>
  </part_log>
  <aggregated_zookeeper_log remove="1"/>
  <asynchronous_insert_log remove="1"/>
  <asynchronous_metric_log remove="1"/>
  <azure_queue_log remove="1"/>
  <background_schedule_pool_log remove="1"/>
  <backup_log remove="1"/>
  <blob_storage_log remove="1"/>
  <crash_log remove="1"/>
  <dead_letter_queue remove="1"/>
  <delta_lake_metadata_log remove="1"/>
  <error_log remove="1"/>
  <filesystem_cache_log remove="1"/>
  <filesystem_read_prefetches_log remove="1"/>
  <histogram_metric_log remove="1"/>
  <iceberg_metadata_log remove="1"/>
  <latency_log remove="1"/>
  <metric_log remove="1"/>
  <opentelemetry_span_log remove="1"/>
  <processors_profile_log remove="1"/>
  <query_metric_log remove="1"/>
  <query_thread_log remove="1"/>
  <query_views_log remove="1"/>
  <s3queue_log remove="1"/>
  <session_log remove="1"/>
  <text_log remove="1"/>
  <trace_log remove="1"/>
  <transactions_info_log remove="1"/>
  <transposed_metric_log remove="1"/>
  <zookeeper_connection_log remove="1"/>
  <zookeeper_log remove="1"/>
  <logger>
    <console>1</console>
    <level>information</level>
    <log remove="1"/>
    <errorlog remove="1"/>
  </logger>
</clickhouse>
"#;

pub(super) fn store(pipeline: &Pipeline, release: &Release, known: &Known) -> Vec<Desired> {
    let users = users::secret(&known.store_password);
    let users: Vec<_> = users
        .iter()
        .map(|(key, text)| (*key, text.as_str()))
        .collect();
    let metadata = |suffix: &str| common::metadata(pipeline, suffix, "clickhouse");
    let base = [
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("ca"),
            "data": {"ca.crt": known.ca_bundle},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("clickhouse"),
            "data": {"spanloom.xml": SERVER_CONFIG},
        }),
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata("clickhouse"),
            "type": "Opaque",
            "data": common::secret_data(&users),
        }),
        tls_secret(pipeline, known),
        common::service_account(pipeline, "clickhouse"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata("clickhouse"),
            "spec": {
                "type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack",
                "selector": common::component_labels(pipeline, "clickhouse"),
                "ports": [{
                    "name": "https", "port": 8443, "targetPort": "https", "protocol": "TCP",
                    "appProtocol": "https",
                }],
            },
        }),
    ];
    let mut objects: Vec<_> = base
        .into_iter()
        .map(|object| Desired::new(Stage::Base, object))
        .collect();
    objects.push(stateful_set(pipeline, release, known));
    objects
}

fn tls_secret(pipeline: &Pipeline, known: &Known) -> Value {
    let mut metadata = common::metadata(pipeline, "clickhouse-tls", "clickhouse");
    metadata["annotations"] = known.store_leaf.annotations();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": metadata,
        "type": "kubernetes.io/tls",
        "data": common::secret_data(&[
            ("tls.crt", &known.store_leaf.certificate),
            ("tls.key", &known.store_leaf.key),
            ("ca.crt", &known.ca_bundle),
        ]),
    })
}

/// The size that the spec asks of the volume. Without one, a volume that exists keeps its size.
pub fn wanted_size(pipeline: &Pipeline) -> Option<String> {
    let managed = pipeline.spec.storage.managed.as_ref();
    match managed.and_then(|managed| managed.size.as_ref())? {
        spanloom_crds::Quantity::Bytes(bytes) => Some(bytes.to_string()),
        spanloom_crds::Quantity::Text(text) => Some(text.clone()),
    }
}

/// A size in bytes.
pub fn size_bytes(size: &str) -> Option<u128> {
    Amount::Text(size.to_owned())
        .milli()
        .map(|milli| milli / 1_000)
}

fn stateful_set(pipeline: &Pipeline, release: &Release, known: &Known) -> Desired {
    let managed = pipeline.spec.storage.managed.clone().unwrap_or_default();
    let size = known.volume_size.clone();
    let size = size
        .or_else(|| wanted_size(pipeline))
        .unwrap_or_else(|| DEFAULT_SIZE.to_owned());
    let mut claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "labels": common::component_labels(pipeline, "clickhouse")},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
        },
    });
    if let Some(class) = &managed.storage_class_name {
        claim["spec"]["storageClassName"] = json!(class);
    }
    let scheduling = managed.scheduling();
    let mut pod = pod(pipeline, release);
    schedule(&mut pod, release, scheduling);
    Desired::new(
        Stage::Store,
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": common::metadata(pipeline, "clickhouse", "clickhouse"),
            "spec": {
                "replicas": 1,
                "serviceName": pipeline.object("clickhouse"),
                "podManagementPolicy": "Parallel",
                // The claim outlives the set, whatever happens to it.
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
                "selector": {"matchLabels": common::component_labels(pipeline, "clickhouse")},
                "template": common::template(pipeline, known, "clickhouse", scheduling, pod),
                "volumeClaimTemplates": [claim],
            },
        }),
    )
}

fn pod(pipeline: &Pipeline, release: &Release) -> Value {
    let managed = pipeline.spec.storage.managed.as_ref();
    let secret = pipeline.object("clickhouse");
    let ping = |period: u32, failures: u32| {
        json!({
            "httpGet": {"path": "/ping", "port": "https", "scheme": "HTTPS"},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    let empty = |name: &str| json!({"name": name, "emptyDir": {"sizeLimit": "1Gi"}});
    let mut pod = json!({
        "serviceAccountName": pipeline.object("clickhouse"),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 120,
        "securityContext": common::pod_security(Some(CLICKHOUSE_USER)),
        "containers": [{
            "name": "clickhouse",
            "image": release.clickhouse_image,
            "imagePullPolicy": release.image_pull_policy,
            // All users are in the file.
            "env": [common::env("CLICKHOUSE_SKIP_USER_SETUP", "1")],
            "ports": [{"name": "https", "containerPort": 8443, "protocol": "TCP"}],
            "startupProbe": ping(2, 150),
            "readinessProbe": ping(5, 3),
            "livenessProbe": ping(15, 8),
            "resources": common::resources(
                managed.and_then(|managed| managed.resources.as_ref()),
                json!({"cpu": "250m", "memory": "1Gi"}),
                json!({"memory": "4Gi"}),
            ),
            "securityContext": common::container_security(),
            "volumeMounts": [
                {"name": "data", "mountPath": "/var/lib/clickhouse"},
                {"name": "config", "mountPath": "/etc/clickhouse-server/config.d", "readOnly": true},
                {"name": "tls", "mountPath": "/etc/clickhouse-server/tls", "readOnly": true},
                {"name": "users", "mountPath": "/etc/clickhouse-server/users.d", "readOnly": true},
                {"name": "logs", "mountPath": "/var/log/clickhouse-server"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }],
        "volumes": [
            {"name": "config", "configMap": {"name": pipeline.object("clickhouse")}},
            {"name": "tls", "secret": {"secretName": pipeline.object("clickhouse-tls"), "defaultMode": 0o440}},
            {"name": "users", "secret": {
                "secretName": secret, "defaultMode": 0o440,
                "items": [{"key": USERS_KEY, "path": "spanloom.xml"}],
            }},
            empty("logs"), empty("tmp"),
        ],
    });
    common::pull_with_secrets(&mut pod, pipeline, release);
    pod
}

/// The Job that brings the schema to this version. Its name has the hash of all that matters to it,
/// so another schema is another Job.
pub(super) fn migrate(pipeline: &Pipeline, release: &Release, known: &Known) -> Desired {
    let mut store = common::store_access(pipeline, User::Migrate);
    store.volumes.push(json!({
        "name": "config", "configMap": {"name": pipeline.object("collector")},
    }));
    store.mounts.push(json!({
        "name": "config", "mountPath": "/etc/spanloom/config", "readOnly": true,
    }));
    let mut pod = json!({
        "serviceAccountName": pipeline.object("migrate"),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "restartPolicy": "OnFailure",
        "securityContext": common::pod_security(None),
        "containers": [{
            "name": "migrate",
            "image": common::image(pipeline, release, "collector"),
            "imagePullPolicy": release.image_pull_policy,
            "args": ["migrate", "--config-file", format!("/etc/spanloom/config/{CONFIG_KEY}")],
            "env": store.env,
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "resources": {
                "requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"},
            },
            "securityContext": common::container_security(),
            "volumeMounts": store.mounts,
        }],
        "volumes": store.volumes,
    });
    common::pull_with_secrets(&mut pod, pipeline, release);
    // It runs where the query service may.
    let mut scheduling = pipeline.spec.query.scheduling();
    scheduling.topology_spread_constraints = None;
    schedule(&mut pod, release, scheduling);
    // A Job's template cannot be changed, so all of it is in the name.
    let template = common::template(pipeline, known, "migrate", scheduling, pod);
    let hash = hash_of(&json!({"template": template, "storage": pipeline.resolved.storage}));
    let short: String = hash.chars().take(8).collect();
    Desired::new(
        Stage::Schema,
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": common::metadata(pipeline, &format!("migrate-{short}"), "migrate"),
            "spec": {
                "backoffLimit": 100,
                "activeDeadlineSeconds": release.migration_deadline.as_secs(),
                "template": template,
            },
        }),
    )
}
