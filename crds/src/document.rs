//! The document as a person writes it. Field comments are written for that person.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::{Amount, Quantity};

/// The `apiVersion` of the document.
pub const API_VERSION: &str = "spanloom.dev/v1alpha1";
/// The `kind` of the document.
pub const KIND: &str = "TracingPipeline";

/// How traces are received, protected, sampled and stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingPipeline {
    /// `spanloom.dev/v1alpha1`
    pub api_version: String,
    /// `TracingPipeline`
    pub kind: String,
    /// The object's name and place in a cluster.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default)]
    pub spec: Spec,
}

impl Default for TracingPipeline {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: Metadata::default(),
            spec: Spec::default(),
        }
    }
}

/// The object's name and place in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The namespace it lives in; means nothing on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// `false` switches tracing off: senders are answered with success and their spans discarded
    /// and counted, and what is stored stays readable; `true` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// `Unmanaged` makes the operator leave everything as it is but the status; `Managed` by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management_state: Option<ManagementState>,
    /// What is done to each span before it is measured, sampled and stored.
    #[serde(default)]
    pub processing: Processing,
    /// Which traces are kept.
    #[serde(default)]
    pub sampling: Sampling,
    /// Where traces are stored, and for how long.
    #[serde(default)]
    pub storage: Storage,
    /// The agents, one on each node, that receive spans.
    #[serde(default)]
    pub collector: Collector,
    /// The service that answers questions about traces.
    #[serde(default)]
    pub query: Query,
    /// What Grafana is given.
    #[serde(default)]
    pub grafana: Grafana,
    /// Where the images of this pipeline's pods come from.
    #[serde(default)]
    pub images: Images,
}

/// What is done to each span, in this order: resource, kubernetes, drop, redact, limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Processing {
    /// Resource attributes that every span gets; they replace what was sent under the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
    /// What of a pod's own metadata becomes resource attributes, beside its names and uid.
    #[serde(default)]
    pub kubernetes: Kubernetes,
    /// What is hidden: each rule has either `keys` or `values`, and `***` stands in the place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<RedactRule>,
    /// TraceQL spanset filters, such as `{ span.http.route = "/healthz" }`; a span that matches one
    /// is discarded and not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// How large a span may be; what is cut is counted on the span.
    #[serde(default)]
    pub limits: Limits,
}

/// What of a pod's own metadata becomes resource attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// Keys of pod labels, such as `app.kubernetes.io/version`; each becomes the attribute
    /// `k8s.pod.label.<key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Keys of pod annotations; each becomes the attribute `k8s.pod.annotation.<key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

/// One rule of what is hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactRule {
    /// Attribute keys of all scopes, exact or with `*` for any text; their values are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// A class of text, such as `email`, or a regular expression; what matches is hidden in values,
    /// names and status messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
}

/// How large a span may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Attributes of a span, event, link, scope or resource; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes_per_span: Option<u64>,
    /// Events of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_span: Option<u64>,
    /// Links of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links_per_span: Option<u64>,
    /// Bytes of an attribute's value, such as `8Ki`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_value_bytes: Option<Quantity>,
}

/// Which traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sampling {
    /// Sampling by trace id, the same for all spans of a trace.
    #[serde(default)]
    pub head: Head,
}

/// Sampling by trace id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// The part of traces that is kept, from 0 to 1; 1 by default. Measures count all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Where traces are stored, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// A ClickHouse that Spanloom runs, on a laptop the embedded one; the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// A ClickHouse of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How long traces are kept.
    #[serde(default)]
    pub retention: Retention,
}

/// A ClickHouse that Spanloom runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Managed {
    /// The size of its volume, such as `50Gi`, which is the default; it can grow, not shrink. Means
    /// nothing on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// The StorageClass of its volume; the cluster's default one without it. It cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<String>,
    /// What its container asks for and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// A ClickHouse of your own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Its HTTP interface, such as `https://clickhouse.example:8443`.
    pub url: String,
    /// The database for Spanloom's tables; `spanloom` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The Secret with the keys `username` and `password`; on a laptop the environment variables
    /// `SPANLOOM_CLICKHOUSE_USER` and `SPANLOOM_CLICKHOUSE_PASSWORD` stand for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretName>,
    /// The ClickHouse cluster for replicated and distributed tables; without it there is one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// How its certificate is checked; only the certificate authorities of the Mozilla list are
    /// trusted without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
}

/// How a server's certificate is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalTls {
    /// The Secret with the certificate authorities (PEM) that are trusted; on a laptop the
    /// environment variable `SPANLOOM_CLICKHOUSE_CA_FILE` stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretKey>,
}

/// A key of a Secret in the pipeline's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The key in it; `ca.crt` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// A Secret in the pipeline's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretName {
    /// Its name.
    pub name: String,
}

/// How long traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// How long traces are kept, such as `7d` (the default), `36h` or `1d12h`; at least `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot: Option<String>,
}

/// Whether the operator acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum ManagementState {
    /// The operator makes everything as the document asks.
    #[default]
    Managed,
    /// The operator leaves everything as it is, but for the status.
    Unmanaged,
}

/// The agents, one on each node. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collector {
    /// What an agent asks for and may use; 100m CPU and 512Mi memory by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Taints that agents tolerate, so that those nodes have one too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Labels of the nodes that have an agent; all nodes without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// The PriorityClass of agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The service that answers questions about traces. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Query {
    /// How many pods; leave it out when an autoscaler owns the number. Without both there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryAuth {
    /// The Secret whose values are bearer tokens, one a line; any of them is accepted.
    pub tokens_secret: SecretName,
}

/// The certificate that is served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryTls {
    /// The Secret with the keys `tls.crt` and `tls.key`; a renewed one is taken without a restart.
    pub secret: SecretName,
}

/// What Grafana is given. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grafana {
    /// Data sources for the query service: a labelled ConfigMap (a Secret when there is a token)
    /// for the loader beside Grafana, or a GrafanaDatasource where the Grafana operator is
    /// installed; `true` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datasources: Option<bool>,
}

/// Where images come from. All of it means nothing on a laptop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// The registry and path before `spanloom-<program>`, such as `registry.example/mirror`; the
    /// release's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// Secrets with the registry's credentials, beside the release's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<SecretName>,
}

/// What a container asks for and may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for it, such as `{cpu: 100m, memory: 256Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Amount>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Amount>,
}

/// A taint that a pod tolerates, with the fields that pods have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Toleration {
    /// The taint's key; all keys without it, with the operator `Exists`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `Exists` or `Equal`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// The taint's value, with the operator `Equal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint's effect; all effects without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a `NoExecute` taint is tolerated; for ever without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<u32>,
}

/// How a toleration's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum TolerationOperator {
    /// Any value.
    Exists,
    /// This very value.
    Equal,
}

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "kube", derive(schemars::JsonSchema))]
pub enum TaintEffect {
    /// New ones are not placed.
    NoSchedule,
    /// New ones are placed elsewhere if there is room.
    PreferNoSchedule,
    /// They are sent away.
    NoExecute,
}
