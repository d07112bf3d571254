//! The pods that run in a cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scheduling::{
    Affinity, LabelSelector, Scheduling, Toleration, TopologySpreadConstraint, with_scheduling,
};
use super::{NAME, SecretName};
use crate::quantity::Amount;
use crate::schema::{in_order, rule};

/// The most pods of the query service.
pub const MAX_REPLICAS: u32 = 100;
/// The most kinds of pods that may speak for others.
pub const MAX_GATEWAYS: usize = 16;
/// The most pod labels, and annotations, that are copied to each span.
pub const MAX_METADATA_KEYS: usize = 32;

with_scheduling! {
    /// The collectors, one on each node. All of it means nothing on a laptop.
    pub struct Collector {
        /// What a collector requests and its limits; 100m CPU and 512Mi memory by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
        /// How many nodes may have two collectors at once during a rollout: a number, or a
        /// percentage of all nodes; `10%` by default. Nodes that are not Ready come on top.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = "^(100|[1-9][0-9]?)%$", "minimum" = 1))]
        pub max_surge: Option<Amount>,
    }
}

with_scheduling! {
    /// The service that answers queries. All of it means nothing on a laptop.
    pub struct Query {
        /// How many pods; leave it out when an autoscaler owns the number. Without both there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("minimum" = 1, "maximum" = MAX_REPLICAS))]
        pub replicas: Option<u32>,
        /// Who may query; everyone that reaches it without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub auth: Option<QueryAuth>,
        /// The certificate it serves; plain HTTP without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub tls: Option<QueryTls>,
        /// What a pod requests and its limits; 100m CPU and 512Mi memory by default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub resources: Option<Resources>,
    }
}

/// Who may query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct QueryAuth {
    /// The Secret whose values are bearer tokens, one a line; any of them is accepted.
    pub tokens_secret: SecretName,
}

/// The certificate that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct QueryTls {
    /// The Secret with the keys `tls.crt` and `tls.key`; a renewed one is taken without a restart.
    pub secret: SecretName,
}

/// What Grafana is given. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["dashboards", "alerts"]))]
pub struct Grafana {
    /// Data sources for the query service: a labelled ConfigMap (a Secret when there is a token)
    /// for the loader beside Grafana, or a GrafanaDatasource with `instanceSelector`; `false` by
    /// default, as long as the query service does not have the whole API of a Tempo data source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = false))]
    pub datasources: Option<bool>,
    /// Which instances of the Grafana operator get a GrafanaDatasource; there is none without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_selector: Option<LabelSelector>,
}

/// Where images come from. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Images {
    /// The registry and path before `spanloom-<program>`, such as `registry.example/mirror`; the
    /// release's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = 200, "pattern" = r"^[-._:/A-Za-z0-9]*[-._A-Za-z0-9]$"))]
    pub registry: Option<String>,
    /// Secrets with the registry's credentials, beside the release's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pull_secrets: Vec<SecretName>,
}

/// What a container asks for and may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || \
     quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)",
    "requests must not exceed limits"
)]))]
pub struct Resources {
    /// What is set aside for it, such as `{cpu: 100m, memory: 256Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Amount>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Amount>,
}
