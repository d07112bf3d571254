//! The document as a person writes it. Each field is declared once, here: its comment is written for
//! that person and stands in the schema, and its attributes say all else that is known of it.
//!
//! * `extend("maxItems" = …)` and the like go to the schema as they are;
//! * `"x-default"` is what the API server fills in, where [`resolve`](crate::resolve) does the same;
//! * `"x-laptop"` marks what means nothing to `spanloom up`, and says what to use instead;
//! * `"x-later"`, on a struct, names fields that are part of the design and not built yet.
//!
//! The check of a document's shape, the CustomResourceDefinition and the notes on a laptop are made
//! from these types (see `schema`).

mod cluster;
mod injection;
mod processing;
mod scheduling;
mod storage;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cluster::{
    Acknowledge, Collector, CollectorLog, Grafana, Images, MAX_GATEWAYS, MAX_METADATA_KEYS,
    MAX_PATH, MAX_REPLICAS, Query, QueryAuth, QueryTls, Resources,
};
pub use injection::{Injection, InjectionMode, TRACE_LABEL};
pub use processing::{Gateway, Head, Kubernetes, Limits, Processing, RedactRule, Sampling};
pub use scheduling::{
    Affinity, LabelSelector, LabelSelectorOperator, LabelSelectorRequirement, NodeAffinity,
    NodePolicy, NodeSelector, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm,
    PodAffinity, PodAffinityTerm, PreferredSchedulingTerm, Scheduling, TaintEffect, Toleration,
    TolerationOperator, TopologySpreadConstraint, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
pub use storage::{External, ExternalTls, Managed, Retention, SecretKey, SecretName, Storage};
pub(crate) use storage::{MAX_RETENTION_SECONDS, MIN_RETENTION_SECONDS};

use crate::schema::in_order;

/// The `apiVersion` of the document.
pub const API_VERSION: &str = "spanloom.dev/v1alpha1";
/// The `kind` of the document.
pub const KIND: &str = "TracingPipeline";

/// Sizes, such as `8Ki`.
const SIZE: &str = r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
/// Names of namespaces.
const NAMESPACE: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Names of Kubernetes objects.
const NAME: &str = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$";

/// A TracingPipeline configures how traces are received, processed, sampled and stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["status"]))]
pub struct TracingPipeline {
    /// `spanloom.dev/v1alpha1`
    pub api_version: String,
    /// `TracingPipeline`
    pub kind: String,
    /// The object's metadata.
    #[serde(default)]
    pub metadata: Metadata,
    /// The desired state of the pipeline.
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

/// The object's metadata.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Metadata {
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pipeline's namespace. Has no effect with `spanloom up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-laptop" = ""))]
    pub namespace: Option<String>,
    /// Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The desired state of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["sidecar"]))]
pub struct Spec {
    /// Which pods are traced without a change to them.
    #[serde(default)]
    #[schemars(extend("x-default" = {}, "x-laptop" = ""))]
    pub injection: Injection,
    /// How spans are processed before they are measured, sampled and stored.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub processing: Processing,
    /// Which traces are kept.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub sampling: Sampling,
    /// Where traces are stored, and for how long.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub storage: Storage,
    /// Set to `false` to switch tracing off: export requests succeed, their spans are discarded and
    /// counted, and stored traces stay readable. Defaults to `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = true))]
    pub enabled: Option<bool>,
    /// With `Unmanaged`, the operator updates only the status and leaves all other objects as they
    /// are. Defaults to `Managed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "Managed", "x-laptop" = ""))]
    pub management_state: Option<ManagementState>,
    /// The collectors, which receive spans, one on each node.
    #[serde(default)]
    pub collector: Collector,
    /// The query service.
    #[serde(default)]
    #[schemars(extend("x-laptop" = ""))]
    pub query: Query,
    /// The integration with Grafana.
    #[serde(default)]
    #[schemars(extend("x-default" = {}, "x-laptop" = ""))]
    pub grafana: Grafana,
    /// Where the images of this pipeline's pods come from.
    #[serde(default)]
    #[schemars(extend("x-laptop" = ""))]
    pub images: Images,
}

/// Whether the operator acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ManagementState {
    /// The operator creates and updates all objects as specified.
    #[default]
    Managed,
    /// The operator updates only the status.
    Unmanaged,
}
