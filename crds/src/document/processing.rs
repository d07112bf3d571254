//! What is done to spans, and which traces are kept.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spanloom_rules::{MAX_COUNT, MAX_FILTER_CHARS, MAX_FILTERS, MAX_KEY_CHARS, MAX_VALUE_CHARS};

use super::{MAX_GATEWAYS, MAX_METADATA_KEYS, NAMESPACE, SIZE};
use crate::quantity::Quantity;
use crate::schema::{in_order, rule};

/// How spans are processed, in this order: resource, kubernetes, drop, redact, limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Processing {
    /// Resource attributes to set on every span; they replace attributes with the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub resource: BTreeMap<String, String>,
    /// Pod labels and annotations to add as resource attributes, in addition to the pod's names and
    /// UID.
    #[serde(default)]
    #[schemars(extend("x-laptop" = ""))]
    pub kubernetes: Kubernetes,
    /// What is redacted: each rule has either `keys` or `values`. Matches are replaced with `***`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "atomic"))]
    pub redact: Vec<RedactRule>,
    /// TraceQL spanset filters, such as `{ span.http.route = "/healthz" }`; a span that matches one
    /// is discarded and not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_FILTERS, "x-kubernetes-list-type" = "atomic"))]
    #[schemars(inner(length(min = 1, max = MAX_FILTER_CHARS)))]
    pub drop: Vec<String>,
    /// Limits on the size of a span; what is truncated is counted on the span.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub limits: Limits,
}

/// Which metadata of a pod becomes resource attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Kubernetes {
    /// Keys of pod labels, such as `app.kubernetes.io/version`; each becomes the attribute
    /// `k8s.pod.label.<key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_METADATA_KEYS, "x-kubernetes-list-type" = "set"))]
    #[schemars(inner(length(min = 1, max = 317)))]
    pub labels: Vec<String>,
    /// Keys of pod annotations; each becomes the attribute `k8s.pod.annotation.<key>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_METADATA_KEYS, "x-kubernetes-list-type" = "set"))]
    #[schemars(inner(length(min = 1, max = 317)))]
    pub annotations: Vec<String>,
    /// Pods that forward spans of other pods, such as an OpenTelemetry Collector used as a gateway.
    /// Their `k8s.*` attributes are kept; those of all other senders are replaced with attributes
    /// of the sending pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_GATEWAYS, "x-kubernetes-list-type" = "atomic"))]
    pub gateways: Vec<Gateway>,
}

/// Pods that may speak for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Gateway {
    /// Their namespace.
    #[schemars(extend("pattern" = NAMESPACE, "minLength" = 1, "maxLength" = 63))]
    pub namespace: String,
    /// Labels of the pods; without it, all pods of the namespace match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub pod_labels: BTreeMap<String, String>,
}

/// A redaction rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.keys) != has(self.values)",
    "needs either keys or values, one rule each"
)]))]
pub struct RedactRule {
    /// Keys of attributes whose values are redacted, exact or with `*` as a wildcard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 64, "x-kubernetes-list-type" = "set"))]
    #[schemars(inner(length(min = 1, max = MAX_KEY_CHARS)))]
    pub keys: Option<Vec<String>>,
    /// Redaction classes, such as `email`, or regular expressions; matches in values, names and
    /// status messages are redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = MAX_VALUE_CHARS))]
    pub values: Option<String>,
}

/// Limits on the size of a span.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Limits {
    /// Maximum number of attributes of a span, event, link, scope or resource. Defaults to 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub attributes_per_span: Option<u64>,
    /// Maximum number of events of a span. Defaults to 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub events_per_span: Option<u64>,
    /// Maximum number of links of a span. Defaults to 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub links_per_span: Option<u64>,
    /// Maximum size of an attribute's value in bytes. Defaults to `8Ki`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "8Ki", "pattern" = SIZE, "maxLength" = 24))]
    pub attribute_value_bytes: Option<Quantity>,
}

/// Which traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["tail"]))]
pub struct Sampling {
    /// Head sampling: by trace ID, with the same decision for all spans of a trace.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub head: Head,
}

/// Head sampling by trace ID.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Head {
    /// The ratio of traces to keep, from 0 to 1. Defaults to 1. RED metrics include traces that are
    /// not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1, "x-default" = 1))]
    pub ratio: Option<f64>,
}
