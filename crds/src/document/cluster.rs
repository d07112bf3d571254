//! The pods that run in a cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scheduling::{
    Affinity, LabelSelector, Scheduling, Toleration, TopologySpreadConstraint, with_scheduling,
};
use super::{NAME, SIZE, SecretName};
use crate::quantity::{Amount, Quantity};
use crate::schema::{in_order, rule};

/// The most pods of the query service.
pub const MAX_REPLICAS: u32 = 100;
/// The most kinds of pods that may speak for others.
pub const MAX_GATEWAYS: usize = 16;
/// The longest path of a directory on the nodes.
pub const MAX_PATH: usize = 1024;
/// The most pod labels, and annotations, that are copied to each span.
pub const MAX_METADATA_KEYS: usize = 32;

with_scheduling! {
    /// The collectors, one on each node. With `spanloom up`, only `acknowledge` and `log.size` have an effect.
    pub struct Collector {
        /// Resource requests and limits of a collector. Default to 100m CPU and 512Mi memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-laptop" = ""))]
        pub resources: Option<Resources>,
        /// The maximum number of nodes with two collectors during a rollout: a number, or a
        /// percentage of all nodes. Nodes that are not Ready are not counted. With `log.hostPath`, the
        /// maximum number of nodes whose collector is being replaced. Defaults to `10%`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = "^(100|[1-9][0-9]?)%$", "minimum" = 1, "x-laptop" = ""))]
        pub max_surge: Option<Amount>,
        /// When an export is answered with success: `Stored`, when ClickHouse has its spans, or
        /// `Logged`, when they are in the collector's log on the node's disk. Defaults to `Logged`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-default" = "Logged"))]
        pub acknowledge: Option<Acknowledge>,
        /// The log on the node's disk, for `acknowledge: Logged`; with `spanloom up` it is in the data
        /// directory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub log: Option<CollectorLog>,
    }
}

/// When the sender of an export is told that it succeeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Acknowledge {
    /// When ClickHouse has its spans.
    Stored,
    /// When the collector's log on the node's disk has its spans.
    #[default]
    Logged,
}

/// How large a log may become where the pipeline does not say.
const LOG_BYTES: u64 = 2 << 30;

impl Collector {
    /// How large the log may become, in bytes; none where exports are answered when they are stored.
    pub fn log_bytes(&self) -> Option<u64> {
        match self.acknowledge.unwrap_or_default() {
            Acknowledge::Stored => None,
            Acknowledge::Logged => {
                let size = self.log.as_ref().and_then(|log| log.size.as_ref());
                Some(size.and_then(Quantity::bytes).unwrap_or(LOG_BYTES))
            }
        }
    }

    /// The directory on each node that holds the log; none where it is the pod's own, or there is none.
    pub fn log_host_path(&self) -> Option<&str> {
        self.log_bytes()?;
        self.log.as_ref()?.host_path.as_deref()
    }
}

/// A collector's log on the node's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct CollectorLog {
    /// How large the log may become; beyond that, senders are told to retry. Defaults to 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "2Gi"))]
    #[schemars(extend("pattern" = SIZE, "maxLength" = 24))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "quantity(string(self)).compareTo(quantity('256Mi')) >= 0",
        "must be at least 256Mi"
    )]))]
    pub size: Option<Quantity>,
    /// A directory on each node for the log, such as `/var/lib/spanloom`, so that the log outlives the
    /// pod. It must exist and be writable for the user 65532, and the namespace must allow hostPath
    /// volumes. Without it, the log is deleted with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = "^(/[-._A-Za-z0-9]+)+$", "maxLength" = MAX_PATH, "x-laptop" = ""))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "!self.matches('/[.][.]?(/|$)')",
        "must not have the parts . and .."
    )]))]
    pub host_path: Option<String>,
}

with_scheduling! {
    /// The query service. Has no effect with `spanloom up`.
    pub struct Query {
        /// The number of pods. Omit it if an autoscaler manages the number; otherwise it defaults
        /// to one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("minimum" = 1, "maximum" = MAX_REPLICAS))]
        pub replicas: Option<u32>,
        /// Authentication; without it, everyone who can reach the service can query it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub auth: Option<QueryAuth>,
        /// The server certificate; without it, plain HTTP is served.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tls: Option<QueryTls>,
        /// Resource requests and limits of a pod. Default to 100m CPU and 512Mi memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
    }
}

/// Who may query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct QueryAuth {
    /// The Secret whose values are bearer tokens, one per line. Each of them is valid.
    pub tokens_secret: SecretName,
}

/// The certificate that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct QueryTls {
    /// The Secret with the keys `tls.crt` and `tls.key`; changes are loaded without a restart.
    pub secret: SecretName,
}

/// The integration with Grafana. Has no effect with `spanloom up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["dashboards", "alerts"]))]
pub struct Grafana {
    /// Creates a data source for the query service: a labelled ConfigMap (a Secret if there is a
    /// token) for Grafana's sidecar, or a GrafanaDatasource with `instanceSelector`. Defaults to
    /// `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = true))]
    pub datasources: Option<bool>,
    /// The instances of the Grafana operator that a GrafanaDatasource is created for; without it,
    /// none is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_selector: Option<LabelSelector>,
}

/// Where images are pulled from. Has no effect with `spanloom up`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Images {
    /// The registry and path before `spanloom-<program>`, such as `registry.example/mirror`.
    /// Defaults to that of the Helm release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = 200, "pattern" = r"^[-._:/A-Za-z0-9]*[-._A-Za-z0-9]$"))]
    pub registry: Option<String>,
    /// Image pull secrets, in addition to those of the Helm release.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Vec<SecretName>,
}

/// Resource requests and limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || \
     quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
    "requests must not exceed limits"
)]))]
pub struct Resources {
    /// The resource requests, such as `{cpu: 100m, memory: 256Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Amount>,
    /// The resource limits.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Amount>,
}
