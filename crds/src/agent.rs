//! What the operator tells an agent, and what the agent says back: the wire format of the
//! configuration object and of the agent's `/status`.
//!
//! The object is a ConfigMap `<pipeline>-collector` whose key [`CONFIG_KEY`] holds an
//! [`AgentConfig`] as JSON. Agents watch that object, so a change is live without a restart; one
//! they cannot use is refused, named in [`AgentStatus::config`], and the last good one stays.
//!
//! Operator and agents may be of different versions while an upgrade runs. A configuration names the
//! [`capability`] of each field and rule that it uses, and an agent refuses one whose capabilities
//! it does not all understand, rather than leave out what it does not know. A configuration that
//! asks for nothing beyond the first version's capabilities is written as version 1, so that agents
//! which know no capabilities take it; they refuse every other.

pub mod capability;

use serde::{Deserialize, Serialize};

use crate::resolved::Resolved;

/// The key of the ConfigMap that holds the configuration.
pub const CONFIG_KEY: &str = "config.json";

/// The key of the ConfigMap with the number of collectors that write to the same ClickHouse, rounded up by
/// [`about`]. It is beside the configuration, not in it: nodes come and go, and nothing is rolled out for that.
pub const COLLECTORS_KEY: &str = "collectors";

/// A number of collectors, rounded up to 10, 20, 40 and so on, so that the ConfigMap is not written for each node.
pub fn about(collectors: u32) -> u32 {
    let mut rounded = 10;
    while rounded < collectors && rounded < u32::MAX / 2 {
        rounded *= 2;
    }
    rounded
}

/// The version of an [`AgentConfig`] that agents without capabilities understand.
pub const FIRST_VERSION: u32 = 1;

/// The version of an [`AgentConfig`] that needs an agent with capabilities. All later additions are
/// capabilities: another version is only for a change that moves what is there.
pub const CONFIG_VERSION: u32 = 2;

/// The resource attribute that marks a probe's spans; its value is the pipeline's UID. Such spans
/// are stored and can be read back by the probe, and are in no list, measure or edge.
pub const PROBE_ATTRIBUTE: &str = "spanloom.probe";

/// The `service.name` of a probe's spans.
pub const PROBE_SERVICE: &str = "spanloom-probe";

/// All that an agent is told. A field that is added later has a default, so that what an earlier
/// operator wrote can be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// The format's version, [`FIRST_VERSION`] or [`CONFIG_VERSION`]; an agent refuses one it does
    /// not know.
    pub version: u32,
    /// Names this content: equal contents have equal hashes.
    pub hash: String,
    /// The pipeline's `metadata.generation` that it was made from.
    pub generation: i64,
    /// The capabilities that an agent must have to do all of it; an agent refuses one that asks for
    /// others.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Whose configuration it is.
    pub pipeline: PipelineRef,
    /// False: agents answer success, discard and count.
    pub enabled: bool,
    /// What the document asks for, defaults filled in.
    pub resolved: Resolved,
}

impl AgentConfig {
    /// A configuration without hash and generation, for all agents that can do what it asks for.
    pub fn new(pipeline: PipelineRef, enabled: bool, resolved: Resolved) -> Self {
        let requires = capability::required(enabled, &resolved);
        let is_first = |name: &String| capability::FIRST.contains(&name.as_str());
        Self {
            version: match requires.iter().all(is_first) {
                true => FIRST_VERSION,
                false => CONFIG_VERSION,
            },
            hash: String::new(),
            generation: 0,
            requires,
            pipeline,
            enabled,
            resolved,
        }
    }

    /// The capabilities that its content uses, whatever it says it requires: operators without
    /// capabilities say nothing.
    pub fn uses(&self) -> Vec<String> {
        capability::required(self.enabled, &self.resolved)
    }
}

/// What every version of a configuration says, to be read before the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConfigHead {
    /// The format's version; 0 where it says none.
    pub version: u64,
    /// Names the content.
    pub hash: String,
    /// The capabilities that an agent must have.
    pub requires: Vec<String>,
}

/// Why an agent cannot use a configuration that another version of this program wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Its format is another.
    #[error(
        "configuration version {0} is not supported, only {FIRST_VERSION} to {CONFIG_VERSION}; \
         upgrade the collectors and the operator together"
    )]
    Version(u64),
    /// It asks for what this program cannot do.
    #[error(
        "it requires {}, which this collector does not support; upgrade the collectors",
        .0.join(", ")
    )]
    Capabilities(Vec<String>),
}

impl ConfigHead {
    /// Whether this program can do all that the configuration asks for.
    ///
    /// # Errors
    /// What it does not understand.
    pub fn check(&self) -> Result<(), NotUnderstood> {
        let known = [FIRST_VERSION, CONFIG_VERSION].map(u64::from);
        if !known.contains(&self.version) {
            return Err(NotUnderstood::Version(self.version));
        }
        let understood = capability::understood();
        let is_new = |name: &&String| !understood.contains(name);
        let new: Vec<_> = self.requires.iter().filter(is_new).cloned().collect();
        if new.is_empty() {
            Ok(())
        } else {
            Err(NotUnderstood::Capabilities(new))
        }
    }
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
    /// The capabilities that the agent has; none of an agent that knows no capabilities.
    #[serde(default)]
    pub understands: Vec<String>,
    /// Spans received since the agent started, probes aside.
    pub spans_received: u64,
    /// Spans discarded because the pipeline is not enabled.
    pub spans_discarded: u64,
    /// How full the store's volume is, in percent; none where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_used_percent: Option<u8>,
    /// What keeps the agent from storing spans now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impairment: Option<Impairment>,
    /// What its log holds that is not stored; none of an agent without a log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undelivered: Option<Undelivered>,
}

/// What keeps an agent from storing spans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Impairment {
    /// The disk of the store is full.
    #[serde(default)]
    pub store_full: bool,
    /// In words.
    pub message: String,
}

/// Requests in an agent's log that are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Undelivered {
    /// How many.
    pub requests: u64,
    /// The age of the oldest, in seconds.
    pub oldest_seconds: u64,
}

/// How far an agent has taken its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The hash of the configuration in use; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// The pipeline's generation that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// The capabilities that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uses: Vec<String>,
    /// The hash of the latest configuration that it could not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_collectors_is_rounded_up() {
        let check = |collectors, expected| assert_eq!(about(collectors), expected);
        check(0, 10);
        check(10, 10);
        check(11, 20);
        check(100, 160);
        assert!(about(u32::MAX) > u32::MAX / 4);
    }
}
