//! What each part starts with: plain data, every default filled in.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use spanloom_rules::RuleSet;

use crate::document::{Processing, Storage, TracingPipeline};
use crate::errors::{DocumentError, DocumentErrors};
use crate::quantity::seconds;
use crate::rules::rule_set;
use crate::validate::validate;

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

/// What the document asks for, defaults filled in.
///
/// # Errors
/// What is wrong with it; a document of [`crate::parse_document`] is right.
pub fn resolve(document: &TracingPipeline) -> Result<Resolved, DocumentErrors> {
    let problems = validate(document);
    if !problems.is_empty() {
        let errors = problems
            .into_iter()
            .map(|p| DocumentError::from_problem(p, None));
        return Err(DocumentErrors(errors.collect()));
    }
    let spec = &document.spec;
    let default = SamplingConfig::default();
    Ok(Resolved {
        processing: processing(&spec.processing),
        sampling: SamplingConfig {
            ratio: spec.sampling.head.ratio.unwrap_or(default.ratio),
        },
        storage: storage(&spec.storage),
    })
}

fn processing(processing: &Processing) -> ProcessingConfig {
    ProcessingConfig {
        resource: processing
            .resource
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect(),
        kubernetes: KubernetesConfig {
            labels: processing.kubernetes.labels.clone(),
            annotations: processing.kubernetes.annotations.clone(),
        },
        rules: rule_set(processing),
    }
}

fn storage(storage: &Storage) -> StorageConfig {
    let default = StorageConfig::default();
    let hot = storage.retention.hot.as_deref().and_then(seconds);
    let server = match &storage.external {
        Some(external) => Server::External {
            url: external.url.trim_end_matches('/').to_owned(),
            database: external
                .database
                .clone()
                .unwrap_or_else(|| "spanloom".to_owned()),
            credentials_secret: external.credentials_secret.as_ref().map(|s| s.name.clone()),
            cluster: external.cluster.clone(),
        },
        None => {
            let size = storage
                .managed
                .as_ref()
                .and_then(|managed| managed.size.as_ref());
            Server::Managed {
                size_bytes: size.and_then(|size| size.bytes()),
            }
        }
    };
    StorageConfig {
        server,
        retention: hot.map_or(default.retention, Duration::from_secs),
    }
}
