//! What the operator says of a pipeline: the object's `status`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The types of conditions, in the order in which they are shown.
pub const CONDITIONS: [&str; 7] = [
    "Accepted",
    "StoreReady",
    "SchemaReady",
    "CollectorsReady",
    "QueryReady",
    "DataFlowing",
    "Ready",
];

/// What the operator last saw of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation of the spec that all of this is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is true of the pipeline: `Accepted`, `StoreReady`, `SchemaReady`, `CollectorsReady`,
    /// `QueryReady`, `DataFlowing`, and `Ready`, which is true only after a probe span went through
    /// every collector and came back from the query service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Where to send spans and queries, from inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// How many collectors there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collectors: Option<CollectorCount>,
    /// Spans received each second by all collectors. A coarse figure: renewed at most once a minute,
    /// when it changed by more than a quarter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans_per_second: Option<i64>,
    /// How full the managed store's volume is, in percent, in steps of 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store_used_percent: Option<u8>,
    /// The rollout of collectors that is under way, or was the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// One thing that is true, false or not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence, and what to do.
    #[serde(default)]
    pub message: String,
    /// When the status last changed, RFC 3339.
    pub last_transition_time: String,
    /// The generation of the spec that it is about.
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

/// How many collectors there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CollectorCount {
    /// Nodes that should have one.
    pub desired: i64,
    /// Nodes that have one that is ready.
    pub ready: i64,
    /// Both, as `ready/desired`.
    pub summary: String,
}

/// How a rollout of collectors went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Names what is rolled out: the collectors' pod template and configuration.
    pub hash: String,
    /// The generation of the spec that asked for it.
    pub generation: i64,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// `Progressing`, `Complete`, `Failed` or `RolledBack`.
    pub state: String,
    /// Why it failed; while it is tried again, why it failed the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Ready nodes that had it, at the most.
    #[serde(skip_serializing_if = "is_zero")]
    pub done: i64,
    /// When another Ready node last had it, RFC 3339; none while no Ready node waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed_at: Option<String>,
    /// How often it has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: i64,
    /// When it is tried again at the latest, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// The value of the annotation `spanloom.dev/retry` when it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}
