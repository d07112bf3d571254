//! The pods that run in a cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NAME, SecretName};
use crate::quantity::Amount;
use crate::schema::{in_order, rule};

/// The most pods of the query service.
pub const MAX_REPLICAS: u32 = 100;
/// The most pod labels, and annotations, that are copied to each span.
pub const MAX_METADATA_KEYS: usize = 32;

/// The agents, one on each node. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Collector {
    /// What an agent asks for and may use; 100m CPU and 512Mi memory by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Taints that agents tolerate, so that those nodes have one too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes that have an agent; all nodes without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-map-type" = "atomic"))]
    pub node_selector: BTreeMap<String, String>,
    /// The PriorityClass of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = NAME, "minLength" = 1, "maxLength" = 253))]
    pub priority_class_name: Option<String>,
}

/// The service that answers questions about traces. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Query {
    /// How many pods; leave it out when an autoscaler owns the number. Without both there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_REPLICAS))]
    pub replicas: Option<u32>,
    /// Who may ask; everyone that reaches it without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<QueryAuth>,
    /// The certificate it serves; plain HTTP without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<QueryTls>,
    /// What a pod asks for and may use; 100m CPU and 512Mi memory by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// Who may ask.
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
    /// for the loader beside Grafana, or a GrafanaDatasource where the Grafana operator is
    /// installed; `true` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = true))]
    pub datasources: Option<bool>,
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

/// A taint that a pod tolerates, with the fields that pods have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
        "value means nothing with Exists"
    ),
    rule(
        "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
        "key is needed with Equal"
    ),
]))]
pub struct Toleration {
    /// The taint's key; all keys without it, with the operator `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 317))]
    pub key: Option<String>,
    /// `Exists` or `Equal`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// The taint's value, with the operator `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxLength" = 63))]
    pub value: Option<String>,
    /// The taint's effect; all effects without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a `NoExecute` taint is tolerated; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<u32>,
}

/// How a toleration's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This very value.
    Equal,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// New ones are not placed.
    NoSchedule,
    /// New ones are placed elsewhere if there is room.
    PreferNoSchedule,
    /// They are sent away.
    NoExecute,
}
