//! What each part starts with: plain data, every default filled in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::document::{Processing, Storage, TracingPipeline};
use crate::errors::{DocumentError, DocumentErrors};
use crate::quantity::seconds;
use crate::validate::{VALUE_CLASSES, validate};

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
    /// TraceQL spanset filters, as text; each parses.
    pub drop: Vec<String>,
    /// Keys whose values are hidden.
    pub redact_keys: Vec<KeyPattern>,
    /// Text that is hidden wherever it stands.
    pub redact_values: Vec<ValuePattern>,
    /// How large a span may be.
    pub limits: LimitsConfig,
}

/// What of a pod's metadata becomes resource attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesConfig {
    /// Keys of pod labels, each for the attribute `k8s.pod.label.<key>`.
    pub labels: Vec<String>,
    /// Keys of pod annotations, each for the attribute `k8s.pod.annotation.<key>`.
    pub annotations: Vec<String>,
}

/// An attribute's key, or many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyPattern {
    /// This very key.
    Exact(String),
    /// `*` in it stands for any text.
    Wildcard(String),
}

impl KeyPattern {
    /// The pattern as it is written in the document.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Wildcard(text) => text,
        }
    }
}

/// Text that is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValuePattern {
    /// One of [`VALUE_CLASSES`].
    Class(String),
    /// A regular expression that compiles and matches at least one character.
    Regex(String),
}

/// How large a span may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Attributes of a span, event, link, scope or resource.
    pub attributes_per_span: u32,
    /// Events of a span.
    pub events_per_span: u32,
    /// Links of a span.
    pub links_per_span: u32,
    /// Bytes of an attribute's value.
    pub attribute_value_bytes: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            attributes_per_span: 128,
            events_per_span: 128,
            links_per_span: 128,
            attribute_value_bytes: 8 << 10,
        }
    }
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
    let default = LimitsConfig::default();
    let limit = |count: Option<u64>, default| {
        count
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(default)
    };
    let limits = &processing.limits;
    let value_bytes = limits
        .attribute_value_bytes
        .as_ref()
        .and_then(|size| size.bytes());
    let keys = processing
        .redact
        .iter()
        .flat_map(|rule| rule.keys.iter().flatten());
    let values = processing
        .redact
        .iter()
        .filter_map(|rule| rule.values.clone());
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
        drop: processing.drop.clone(),
        redact_keys: keys
            .map(|key| match key.contains('*') {
                true => KeyPattern::Wildcard(key.clone()),
                false => KeyPattern::Exact(key.clone()),
            })
            .collect(),
        redact_values: values
            .map(|text| match VALUE_CLASSES.contains(&text.as_str()) {
                true => ValuePattern::Class(text),
                false => ValuePattern::Regex(text),
            })
            .collect(),
        limits: LimitsConfig {
            attributes_per_span: limit(limits.attributes_per_span, default.attributes_per_span),
            events_per_span: limit(limits.events_per_span, default.events_per_span),
            links_per_span: limit(limits.links_per_span, default.links_per_span),
            attribute_value_bytes: limit(value_bytes, default.attribute_value_bytes),
        },
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
