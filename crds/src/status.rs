//! What the operator says of a pipeline: the object's `status`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The types of conditions, in the order in which they are shown.
pub const CONDITIONS: [&str; 8] = [
    "Accepted",
    "StoreReady",
    "SchemaReady",
    "CollectorsReady",
    "QueryReady",
    "InjectionReady",
    "DataFlowing",
    "Ready",
];

/// The observed state of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation of the spec that this status refers to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The conditions of the pipeline: `Accepted`, `StoreReady`, `SchemaReady`, `CollectorsReady`,
    /// `QueryReady`, `InjectionReady`, `DataFlowing`, and `Ready`, which is true only after a probe span was sent to
    /// every collector and read back from the query service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The addresses for spans and queries inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// The number of collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collectors: Option<CollectorCount>,
    /// Spans received per second by all collectors, approximately: updated at most once a minute,
    /// if it changed by more than a quarter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans_per_second: Option<i64>,
    /// The pods that the pipeline selects, and what became of them: updated at most twice a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub injection: Option<InjectionCount>,
    /// How full the managed store's volume is, in percent, in steps of 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_used_percent: Option<u8>,
    /// The current or last rollout of collectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// One thing that is true, false or not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// The type of the condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A machine-readable reason.
    pub reason: String,
    /// A human-readable message: what is wrong, and how to fix it.
    #[serde(default)]
    pub message: String,
    /// When the status last changed, RFC 3339.
    pub last_transition_time: String,
    /// The generation of the spec that the condition refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// URLs inside the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoints {
    /// OTLP over gRPC: the collector of the sender's own node.
    pub otlp_grpc: String,
    /// OTLP over HTTP: the collector of the sender's own node.
    pub otlp_http: String,
    /// The query service.
    pub query: String,
}

/// The number of collectors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CollectorCount {
    /// Nodes that should have a collector.
    pub desired: i64,
    /// Nodes that have a ready collector.
    pub ready: i64,
    /// Both, as `ready/desired`.
    pub summary: String,
}

/// The number of pods that are injected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct InjectionCount {
    /// Pods that the pipeline selects.
    pub matched: i64,
    /// Pods that were injected.
    pub injected: i64,
    /// Pods that were created before the pipeline selected them, or while the webhook did not answer; they
    /// have to be created anew.
    pub outdated: i64,
    /// Pods that were not injected, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped: BTreeMap<String, i64>,
    /// Injected and selected pods, as `injected/matched`.
    pub summary: String,
}

/// How a rollout of collectors went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Identifies what is rolled out: a hash of the collectors' pod template and configuration.
    pub hash: String,
    /// The generation of the spec that it belongs to.
    pub generation: i64,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// `Progressing`, `Complete`, `Failed` or `RolledBack`.
    pub state: String,
    /// Why it failed; while it is retried, why it failed the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The highest number of Ready nodes that it was rolled out to.
    #[serde(skip_serializing_if = "is_zero")]
    pub done: i64,
    /// When it last reached another Ready node, RFC 3339; empty while no Ready node is waiting for
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<String>,
    /// The number of failed attempts.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: i64,
    /// When it is retried at the latest, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// The value of the annotation `spanloom.dev/retry` when it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
