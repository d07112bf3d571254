//! What each part starts with: plain data, every default filled in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use spanloom_rules::RuleSet;

/// Everything that a document asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// What is done to each span.
    pub processing: ProcessingConfig,
    /// Which traces are kept.
    pub sampling: SamplingConfig,
    /// Where they are stored.
    pub storage: StorageConfig,
}

/// What is done to each span, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessingConfig {
    /// Resource attributes that every span gets, in the order of their keys.
    pub resource: Vec<(String, String)>,
    /// What of a pod's metadata becomes resource attributes.
    #[serde(default)]
    pub kubernetes: KubernetesConfig,
    /// What is discarded, hidden and cut.
    #[serde(flatten)]
    pub rules: RuleSet,
}

/// What of a pod's metadata becomes resource attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesConfig {
    /// Keys of pod labels, each for the attribute `k8s.pod.label.<key>`.
    pub labels: Vec<String>,
    /// Keys of pod annotations, each for the attribute `k8s.pod.annotation.<key>`.
    pub annotations: Vec<String>,
    /// Pods that may speak for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<GatewayConfig>,
}

/// Pods that may speak for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayConfig {
    /// Their namespace.
    pub namespace: String,
    /// Labels that they have, each with its value.
    pub pod_labels: Vec<(String, String)>,
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplingConfig {
    /// The part of traces that is kept, from 0 to 1.
    pub ratio: f64,
}

impl Default for SamplingConfig {
    fn default() -> Self {
        Self { ratio: 1.0 }
    }
}

/// Where traces are stored, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageConfig {
    /// Whose ClickHouse.
    pub server: Server,
    /// How long traces are kept.
    pub retention: Duration,
}

impl Default for StorageConfig {
    fn default() -> Self {
        let server = Server::Managed { size_bytes: None };
        Self {
            server,
            retention: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Whose ClickHouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Server {
    /// One that Spanloom runs; on a laptop the embedded one.
    Managed {
        /// The size of its volume in a cluster.
        size_bytes: Option<u64>,
    },
    /// The user's own.
    External {
        /// Its HTTP interface.
        url: String,
        /// The database for our tables.
        database: String,
        /// The Secret with user and password, in a cluster.
        credentials_secret: Option<String>,
        /// The cluster for replicated and distributed tables.
        cluster: Option<String>,
    },
}
