//! A `TracingPipeline` as it comes from the API, read and checked. One that cannot be used says why,
//! and stands in nobody's way.

use serde_json::Value;
use spanloom_crds::agent::{AgentConfig, PipelineRef};
use spanloom_crds::resolved::{Resolved, Server};
use spanloom_crds::status::Status;
use spanloom_crds::{ManagementState, Metadata, Spec, TracingPipeline, resolve};

use crate::hash::hash_of;
use crate::render::RETRY;

/// A pipeline that can be worked on.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The value of the annotation by which a person asks for another try.
    pub retry: Option<String>,
    /// What is wanted.
    pub spec: Spec,
    /// What is wanted, with every default.
    pub resolved: Resolved,
}

/// Why a pipeline cannot be used: the condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

impl Pipeline {
    /// Reads and checks an object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(object: &Value) -> Result<Self, Unusable> {
        let metadata = &object["metadata"];
        let text = |key: &str| metadata[key].as_str().map(str::to_owned);
        let spec = object.get("spec").cloned();
        let spec: Spec = match spec {
            None => Spec::default(),
            Some(spec) => serde_json::from_value(spec).map_err(|error| Unusable {
                reason: "Unreadable",
                message: format!("spec: {error}; this version of the operator does not support it"),
            })?,
        };
        let document = TracingPipeline {
            metadata: Metadata {
                name: text("name"),
                namespace: text("namespace"),
                ..Metadata::default()
            },
            spec,
            ..TracingPipeline::default()
        };
        let resolved = resolve(&document).map_err(|errors| {
            let drops = "spec.processing.drop[";
            let all_filters = errors.0.iter().all(|error| error.path.starts_with(drops));
            Unusable {
                reason: if all_filters {
                    "InvalidFilter"
                } else {
                    "InvalidSpec"
                },
                message: errors.to_string().trim_end().replace('\n', "; "),
            }
        })?;
        Ok(Self {
            name: text("name").unwrap_or_default(),
            namespace: text("namespace").unwrap_or_default(),
            uid: text("uid").unwrap_or_default(),
            generation: metadata["generation"].as_i64().unwrap_or_default(),
            retry: metadata["annotations"][RETRY].as_str().map(str::to_owned),
            spec: document.spec,
            resolved,
        })
    }

    /// Whether spans are taken.
    pub fn enabled(&self) -> bool {
        self.spec.enabled.unwrap_or(true)
    }

    /// Whether the operator may write anything but the status.
    pub fn managed(&self) -> bool {
        self.spec.management_state.unwrap_or_default() == ManagementState::Managed
    }

    /// The name of an object of this pipeline.
    pub fn object(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.name)
    }

    /// Whether the operator runs the store.
    pub fn runs_store(&self) -> bool {
        matches!(self.resolved.storage.server, Server::Managed { .. })
    }

    /// What the agents are told.
    pub fn agent_config(&self) -> AgentConfig {
        let pipeline = PipelineRef {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            uid: self.uid.clone(),
        };
        let mut config = AgentConfig::new(pipeline, self.enabled(), self.resolved.clone());
        config.hash = hash_of(&config);
        config.generation = self.generation;
        config
    }
}

/// The status that the object has now; one that cannot be read counts as none and is written anew.
pub fn status_of(object: &Value) -> Status {
    object
        .get("status")
        .cloned()
        .and_then(|status| serde_json::from_value(status).ok())
        .unwrap_or_default()
}
