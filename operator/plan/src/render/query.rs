//! The query service.

use serde_json::{Value, json};

use super::scheduling::schedule;
use super::users::User;
use super::{Desired, Known, Stage, common};
use crate::pipeline::Pipeline;
use crate::release::Release;

const TLS_FOLDER: &str = "/etc/spanloom/tls";
const TOKENS_FOLDER: &str = "/etc/spanloom/tokens";

pub(super) fn query(pipeline: &Pipeline, release: &Release, known: &Known) -> Vec<Desired> {
    let metadata = || common::metadata(pipeline, "query", "query");
    let selector = common::component_labels(pipeline, "query");
    let protocol = if pipeline.spec.query.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let scheduling = pipeline.spec.query.scheduling();
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(),
        "spec": {
            "selector": {"matchLabels": selector},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": common::template(pipeline, known, "query", scheduling, pod(pipeline, release)),
        },
    });
    // Without a number of ours an autoscaler's stays.
    if let Some(replicas) = pipeline.spec.query.replicas {
        deployment["spec"]["replicas"] = json!(replicas);
    }
    vec![
        Desired::new(
            Stage::Base,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": metadata(),
                "spec": {
                    "type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack",
                    "selector": selector,
                    "ports": [{
                        "name": protocol, "port": 3200, "targetPort": "api", "protocol": "TCP",
                        "appProtocol": protocol,
                    }],
                },
            }),
        ),
        Desired::new(Stage::Query, deployment),
        Desired::new(
            Stage::Query,
            json!({
                "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata(),
                "spec": {
                    "maxUnavailable": 1,
                    "unhealthyPodEvictionPolicy": "AlwaysAllow",
                    "selector": {"matchLabels": selector},
                },
            }),
        ),
    ]
}

fn pod(pipeline: &Pipeline, release: &Release) -> Value {
    let query = &pipeline.spec.query;
    let mut store = common::store_access(pipeline, User::Query);
    let mut env = vec![
        common::env("SPANLOOM_QUERY_LISTEN", "[::]:3200"),
        common::env("SPANLOOM_QUERY_ADMIN_LISTEN", "[::]:9464"),
    ];
    env.append(&mut store.env);
    let mut secret_folder = |name: &str, variable: &str, folder: &str, secret: &str| {
        env.push(common::env(variable, folder));
        store
            .volumes
            .push(json!({"name": name, "secret": {"secretName": secret}}));
        store
            .mounts
            .push(json!({"name": name, "mountPath": folder, "readOnly": true}));
    };
    if let Some(tls) = &query.tls {
        secret_folder(
            "tls",
            "SPANLOOM_QUERY_TLS_DIR",
            TLS_FOLDER,
            &tls.secret.name,
        );
    }
    if let Some(auth) = &query.auth {
        let secret = &auth.tokens_secret.name;
        secret_folder("tokens", "SPANLOOM_QUERY_TOKENS_DIR", TOKENS_FOLDER, secret);
    }
    let mut pod = json!({
        "serviceAccountName": pipeline.object("query"),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 45,
        "securityContext": common::pod_security(None),
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": common::component_labels(pipeline, "query")},
        }],
        "containers": [{
            "name": "query",
            "image": common::image(pipeline, release, "query"),
            "imagePullPolicy": release.image_pull_policy,
            "env": env,
            "ports": [
                {"name": "api", "containerPort": 3200, "protocol": "TCP"},
                {"name": "metrics", "containerPort": 9464, "protocol": "TCP"},
            ],
            "startupProbe": common::admin_probe("/healthz", 1, 60),
            "readinessProbe": common::admin_probe("/readyz", 2, 2),
            "livenessProbe": common::admin_probe("/healthz", 10, 6),
            "resources": common::resources(
                query.resources.as_ref(),
                json!({"cpu": "100m", "memory": "256Mi"}),
                json!({"memory": "512Mi"}),
            ),
            "securityContext": common::container_security(),
            "volumeMounts": store.mounts,
        }],
        "volumes": store.volumes,
    });
    common::pull_with_secrets(&mut pod, pipeline, release);
    schedule(&mut pod, release, query.scheduling());
    pod
}
