//! What is done to spans, and which traces are kept.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spanloom_rules::{MAX_COUNT, MAX_FILTER_CHARS, MAX_FILTERS, MAX_KEY_CHARS, MAX_VALUE_CHARS};

use super::{MAX_GATEWAYS, MAX_METADATA_KEYS, NAMESPACE, SIZE};
use crate::quantity::Quantity;
use crate::schema::{in_order, rule};

/// What is done to each span, in this order: resource, kubernetes, drop, redact, limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Processing {
    /// Resource attributes that every span gets; they replace what was sent under the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub resource: BTreeMap<String, String>,
    /// What of a pod's own metadata becomes resource attributes, beside its names and uid.
    #[serde(default)]
    #[schemars(extend("x-laptop" = ""))]
    pub kubernetes: Kubernetes,
    /// What is hidden: each rule has either `keys` or `values`, and `***` stands in the place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "atomic"))]
    pub redact: Vec<RedactRule>,
    /// TraceQL spanset filters, such as `{ span.http.route = "/healthz" }`; a span that matches one
    /// is discarded and not measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MAX_FILTERS, "x-kubernetes-list-type" = "atomic"))]
    #[schemars(inner(length(min = 1, max = MAX_FILTER_CHARS)))]
    pub drop: Vec<String>,
    /// How large a span may be; what is cut is counted on the span.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub limits: Limits,
}

/// What of a pod's own metadata becomes resource attributes.
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
    /// Pods that may speak for others, such as a gateway that passes spans on: what they say under
    /// `k8s.` is believed. Of everybody else it is replaced by what is known of the sending pod.
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
    /// Labels that they have; all pods of the namespace without it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub pod_labels: BTreeMap<String, String>,
}

/// One rule of what is hidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "has(self.keys) != has(self.values)",
    "needs either keys or values, one rule each"
)]))]
pub struct RedactRule {
    /// Attribute keys of all scopes, exact or with `*` for any text; their values are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minItems" = 1, "maxItems" = 64, "x-kubernetes-list-type" = "set"))]
    #[schemars(inner(length(min = 1, max = MAX_KEY_CHARS)))]
    pub keys: Option<Vec<String>>,
    /// A class of text, such as `email`, or a regular expression; what matches is hidden in values,
    /// names and status messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = MAX_VALUE_CHARS))]
    pub values: Option<String>,
}

/// How large a span may be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Limits {
    /// Attributes of a span, event, link, scope or resource; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub attributes_per_span: Option<u64>,
    /// Events of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub events_per_span: Option<u64>,
    /// Links of a span; 128 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = MAX_COUNT, "x-default" = 128))]
    pub links_per_span: Option<u64>,
    /// Bytes of an attribute's value, such as `8Ki`, which is the default.
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
    /// Sampling by trace id, the same for all spans of a trace.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub head: Head,
}

/// Sampling by trace id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct Head {
    /// The part of traces that is kept, from 0 to 1; 1 by default. Measures count all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0, "maximum" = 1, "x-default" = 1))]
    pub ratio: Option<f64>,
}
