//! What a sidecar is told: the wire format of its configuration, in its pod's environment and in the stream
//! from its collector, and what the webhook knows of its pod.
//!
//! The rules of [`agent`](crate::agent) hold here as well: a configuration names the capabilities that it
//! requires, and a sidecar that lacks one refuses it and keeps the last good one. Its collector knows from what
//! each sidecar says that it applied whether the rest is still to be done.

use serde::{Deserialize, Serialize};

use crate::agent::{AgentConfig, PipelineRef, capability};
use crate::resolved::{ProcessingConfig, Resolved, SamplingConfig};

/// The name of the container that is injected.
pub const CONTAINER: &str = "spanloom-sidecar";

/// The audience of the tokens that sidecars identify themselves with.
pub const AUDIENCE: &str = "spanloom.dev";

/// How long a configuration may be that stands in a pod's environment, in bytes. A longer one comes by the
/// stream.
pub const MAX_INLINE_BYTES: usize = 8 << 10;

/// All that a sidecar is told. A field that is added later has a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarConfig {
    /// The format's version, as in [`AgentConfig::version`].
    pub version: u32,
    /// The hash of the [`AgentConfig`] that it is a part of.
    pub hash: String,
    /// The capabilities that a sidecar must have to do all of it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// Whose configuration it is.
    pub pipeline: PipelineRef,
    /// False: exports succeed, and their spans are discarded and counted.
    pub enabled: bool,
    /// What is done to each span.
    #[serde(default)]
    pub processing: ProcessingConfig,
    /// Which traces are kept.
    #[serde(default)]
    pub sampling: SamplingConfig,
}

impl SidecarConfig {
    /// The sidecar's part of a collector's configuration.
    pub fn of(agent: &AgentConfig) -> Self {
        let mut resolved = Resolved {
            processing: agent.resolved.processing.clone(),
            sampling: agent.resolved.sampling,
            ..Resolved::default()
        };
        // Who may speak for others is the collector's to decide.
        resolved.processing.kubernetes.gateways.clear();
        let part = AgentConfig::new(agent.pipeline.clone(), agent.enabled, resolved);
        let known: Vec<String> = part.requires;
        // What a later operator requires of agents and this program does not know may be about spans.
        let unknown = agent.requires.iter().filter(|name| {
            let understood = capability::understood();
            !understood.contains(name)
        });
        Self {
            version: part.version,
            hash: agent.hash.clone(),
            requires: known.iter().chain(unknown).cloned().collect(),
            pipeline: part.pipeline,
            enabled: part.enabled,
            processing: part.resolved.processing,
            sampling: part.resolved.sampling,
        }
    }
}

/// What the webhook knows of a pod when it is created: as much as filters on `resource.k8s.*` may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodFacts {
    /// The labels that the configuration copies to the resource, and `pod-template-hash`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// The annotations that the configuration copies to the resource.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<(String, String)>,
    /// The owner that controls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// The names of its containers, without the sidecar.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
}

/// The object that controls a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolved::GatewayConfig;
    use spanloom_rules::RuleSet;

    fn agent() -> AgentConfig {
        let mut resolved = Resolved {
            sampling: SamplingConfig { ratio: 0.5 },
            ..Resolved::default()
        };
        resolved.processing.rules = RuleSet::everything();
        resolved.processing.kubernetes.labels = vec!["team".to_owned()];
        resolved.processing.kubernetes.gateways = vec![GatewayConfig::default()];
        AgentConfig {
            hash: "abc".to_owned(),
            ..AgentConfig::new(PipelineRef::default(), true, resolved)
        }
    }

    #[test]
    fn the_part_of_a_sidecar_requires_what_it_uses() {
        let part = SidecarConfig::of(&agent());
        assert_eq!((&*part.hash, part.enabled), ("abc", true));
        assert_eq!(part.sampling.ratio, 0.5);
        assert!(part.requires.contains(&"sampling.head".to_owned()));
        assert!(part.processing.kubernetes.gateways.is_empty());
        let gateways = "processing.kubernetes.gateways".to_owned();
        assert!(!part.requires.contains(&gateways), "{:?}", part.requires);
        assert_eq!(part.processing.kubernetes.labels, ["team"]);
    }

    #[test]
    fn what_nobody_here_knows_is_required_of_sidecars_too() {
        let mut agent = agent();
        agent.requires.push("processing.later".to_owned());
        let part = SidecarConfig::of(&agent);
        assert!(part.requires.contains(&"processing.later".to_owned()));
    }

    #[test]
    fn an_inlined_configuration_is_small_and_comes_back_as_it_was() {
        let part = SidecarConfig::of(&agent());
        let text = serde_json::to_string(&part).unwrap();
        assert!(text.len() < MAX_INLINE_BYTES, "{}", text.len());
        assert_eq!(serde_json::from_str::<SidecarConfig>(&text).unwrap(), part);
    }
}
