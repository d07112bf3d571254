//! What the operator tells an agent, and what the agent says back: the wire format of the
//! configuration object and of the agent's `/status`.
//!
//! The object is a ConfigMap `<pipeline>-collector` whose key [`CONFIG_KEY`] holds an
//! [`AgentConfig`] as JSON. Agents watch that object, so a change is live without a restart; one
//! they cannot use is refused, named in [`AgentStatus::config`], and the last good one stays.

use serde::{Deserialize, Serialize};

use crate::resolved::Resolved;

/// The key of the ConfigMap that holds the configuration.
pub const CONFIG_KEY: &str = "config.json";

/// The version of [`AgentConfig`] that this program writes and reads.
pub const CONFIG_VERSION: u32 = 1;

/// The resource attribute that marks a probe's spans; its value is the pipeline's UID. Such spans
/// are stored and can be read back by the probe, and are in no list, measure or edge.
pub const PROBE_ATTRIBUTE: &str = "spanloom.probe";

/// The `service.name` of a probe's spans.
pub const PROBE_SERVICE: &str = "spanloom-probe";

/// All that an agent is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// The format's version, [`CONFIG_VERSION`]; an agent refuses one it does not know.
    pub version: u32,
    /// Names this content: equal contents have equal hashes.
    pub hash: String,
    /// The pipeline's `metadata.generation` that it was made from.
    pub generation: i64,
    /// Whose configuration it is.
    pub pipeline: PipelineRef,
    /// False: agents answer success, discard and count.
    pub enabled: bool,
    /// What the document asks for, defaults filled in.
    pub resolved: Resolved,
}

/// The pipeline that a configuration belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRef {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
}

/// What an agent says of itself, as JSON at `/status` of its metrics port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The configuration in use, and the one that was refused.
    pub config: ConfigStatus,
    /// Spans received since the agent started, probes aside.
    pub spans_received: u64,
    /// Spans discarded because the pipeline is not enabled.
    pub spans_discarded: u64,
}

/// How far an agent has taken its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The hash of the configuration in use; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// The hash of the latest configuration that it could not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
