//! The kinds of objects that the operator works with, and how each is reached.

use kube::api::ApiResource;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    plural: &'static str,
}

const fn kind(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind {
        group,
        version,
        kind,
        plural,
    }
}

/// Secrets: never listed or watched, only read by name.
pub const SECRET: Kind = kind("", "v1", "Secret", "secrets");
/// The Grafana operator's data source, read by name; not every API serves it.
pub const GRAFANA_DATASOURCE: Kind = kind(
    "grafana.integreatly.org",
    "v1beta1",
    "GrafanaDatasource",
    "grafanadatasources",
);
/// Claims of volumes: read by name, never deleted.
pub const VOLUME_CLAIM: Kind = kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims");
/// Pods: only watched.
pub const POD: Kind = kind("", "v1", "Pod", "pods");
/// Events: listed by the object that they are about.
pub const EVENT: Kind = kind("", "v1", "Event", "events");
/// Nodes: only watched, and of each only whether it is Ready.
pub const NODE: Kind = kind("", "v1", "Node", "nodes");
/// Cluster role bindings: one of them.
pub const CLUSTER_ROLE_BINDING: Kind = kind(
    "rbac.authorization.k8s.io",
    "v1",
    "ClusterRoleBinding",
    "clusterrolebindings",
);
/// Configurations of webhooks: one of them.
pub const WEBHOOK_CONFIGURATION: Kind = kind(
    "admissionregistration.k8s.io",
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
/// Deployments: those of pipelines, and the webhook's, read by name.
pub const DEPLOYMENT: Kind = kind("apps", "v1", "Deployment", "deployments");
/// Definitions of custom resources: one of them.
pub const CUSTOM_RESOURCE: Kind = kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
/// Our own kind.
pub const PIPELINE: Kind = kind(
    "spanloom.dev",
    "v1alpha1",
    "TracingPipeline",
    "tracingpipelines",
);

/// The kinds that are watched by label and pruned.
pub const WATCHED: [Kind; 11] = [
    kind("", "v1", "ConfigMap", "configmaps"),
    kind("", "v1", "Service", "services"),
    kind("", "v1", "ServiceAccount", "serviceaccounts"),
    kind("apps", "v1", "DaemonSet", "daemonsets"),
    DEPLOYMENT,
    kind("apps", "v1", "StatefulSet", "statefulsets"),
    kind("batch", "v1", "Job", "jobs"),
    kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
    ),
    kind(
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
    ),
    kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    kind(
        "rbac.authorization.k8s.io",
        "v1",
        "RoleBinding",
        "rolebindings",
    ),
];

impl Kind {
    /// What the client needs to make URLs.
    pub fn resource(&self) -> ApiResource {
        let api_version = match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        };
        ApiResource {
            group: self.group.to_owned(),
            version: self.version.to_owned(),
            api_version,
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// Whether charts of earlier releases give no right to it: where it is refused, there is none.
    pub fn is_optional(&self) -> bool {
        self.kind == "NetworkPolicy"
    }

    /// The kind of an object that the operator writes.
    pub fn named(name: &str) -> Option<Self> {
        WATCHED
            .into_iter()
            .chain([SECRET, GRAFANA_DATASOURCE])
            .find(|kind| kind.kind == name)
    }
}
