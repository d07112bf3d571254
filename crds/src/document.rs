//! The document as a person writes it. Field comments are written for that person.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// The `apiVersion` of the document.
pub const API_VERSION: &str = "spanloom.dev/v1alpha1";
/// The `kind` of the document.
pub const KIND: &str = "TracingPipeline";

/// How traces are received, protected, sampled and stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingPipeline {
    /// `spanloom.dev/v1alpha1`
    pub api_version: String,
    /// `TracingPipeline`
    pub kind: String,
    /// The object's name and place in a cluster.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is wanted.
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

/// The object's name and place in a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The pipeline's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The namespace it lives in; means nothing on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Kubernetes labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kubernetes annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What is wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// What is done to each span before it is measured, sampled and stored.
    #[serde(default)]
    pub processing: Processing,
    /// Which traces are kept.
    #[serde(default)]
    pub sampling: Sampling,
    /// Where traces are stored, and for how long.
    #[serde(default)]
    pub storage: Storage,
}

/// What is done to each span, in this order: resource, drop, redact, limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Processing {
    /// Resource attributes that every span gets; they replace what was sent under the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource: BTreeMap<String, String>,
    /// What is hidden: each rule has either `keys` or `values`, and `***` stands in the place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<RedactRule>,
    /// TraceQL spanset filters, such as `{ span.http.route = "/healthz" }`; a span that matches one
    /// is discarded and not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop: Vec<String>,
    /// How large a span may be; what is cut is counted on the span.
    #[serde(default)]
    pub limits: Limits,
}

/// One rule of what is hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactRule {
    /// Attribute keys of all scopes, exact or with `*` for any text; their values are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
    /// A class of text (`email`, `creditCard`, `ipv4`, `jwt`, `credentials`) or a regular
    /// expression; what matches is hidden in values, names and status messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<String>,
}

/// How large a span may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Attributes of a span, event, link, scope or resource; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes_per_span: Option<u64>,
    /// Events of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_span: Option<u64>,
    /// Links of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links_per_span: Option<u64>,
    /// Bytes of an attribute's value, such as `8Ki`, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute_value_bytes: Option<Quantity>,
}

/// Which traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sampling {
    /// Sampling by trace id, the same for all spans of a trace.
    #[serde(default)]
    pub head: Head,
}

/// Sampling by trace id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// The part of traces that is kept, from 0 to 1; 1 by default. Measures count all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Where traces are stored, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// A ClickHouse that Spanloom runs, on a laptop the embedded one; the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// A ClickHouse of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How long traces are kept.
    #[serde(default)]
    pub retention: Retention,
}

/// A ClickHouse that Spanloom runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Managed {
    /// The size of its volume, such as `50Gi`; means nothing on a laptop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
}

/// A ClickHouse of your own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Its HTTP interface, such as `https://clickhouse.example:8443`.
    pub url: String,
    /// The database for Spanloom's tables; `spanloom` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The Secret with the keys `username` and `password`; on a laptop the environment variables
    /// `SPANLOOM_CLICKHOUSE_USER` and `SPANLOOM_CLICKHOUSE_PASSWORD` stand for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret: Option<SecretName>,
    /// The ClickHouse cluster for replicated and distributed tables; without it there is one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// A Secret in the pipeline's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretName {
    /// Its name.
    pub name: String,
}

/// How long traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retention {
    /// How long traces are kept, such as `7d` (the default), `36h` or `1d12h`; at least `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot: Option<String>,
}
