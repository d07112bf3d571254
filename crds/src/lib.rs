//! The `TracingPipeline` document: what a person writes, and what each part makes of it.
//!
//! 1. [`parse_document`] reads YAML. It knows every field, so that a field that does
//!    not exist, or is not built yet, is an error with its path, line and column, never ignored.
//! 2. Values are checked, all of them, so that one run tells everything that is wrong.
//! 3. [`resolve`] gives plain configuration with every default filled in, which the
//!    collector and query start with.
//!
//! A field is declared once, in `document`: the shape check, the CustomResourceDefinition (`crd`, with
//! the feature `kube`) and the notes on a laptop are made from the schema of the types.
//!
//! Without the feature `document` there is only what the operator tells an agent, and what the agent
//! says back ([`agent`], [`sidecar`], [`resolved`]): for programs that read no document.
//!
//! [`TracingPipeline::default`] is the empty document.

pub mod agent;
#[cfg(feature = "kube")]
pub mod crd;
#[cfg(feature = "document")]
mod document;
#[cfg(feature = "document")]
mod errors;
#[cfg(feature = "document")]
mod laptop;
#[cfg(feature = "document")]
mod locate;
#[cfg(feature = "document")]
mod parse;
#[cfg(feature = "document")]
mod quantity;
#[cfg(feature = "document")]
mod resolve;
pub mod resolved;
#[cfg(feature = "document")]
mod rules;
#[cfg(feature = "document")]
mod schema;
#[cfg(feature = "document")]
mod shape;
pub mod sidecar;
#[cfg(feature = "document")]
pub mod status;
#[cfg(feature = "document")]
mod validate;
pub mod workload;

#[cfg(feature = "document")]
pub use document::{
    API_VERSION, Acknowledge, Affinity, Collector, CollectorLog, External, ExternalTls, Gateway,
    Grafana, Head, Images, Injection, InjectionMode, KIND, Kubernetes, LabelSelector,
    LabelSelectorOperator, LabelSelectorRequirement, Limits, Managed, ManagementState, Metadata,
    NodeAffinity, NodePolicy, NodeSelector, NodeSelectorOperator, NodeSelectorRequirement,
    NodeSelectorTerm, PodAffinity, PodAffinityTerm, PreferredSchedulingTerm, Processing, Query,
    QueryAuth, QueryTls, RedactRule, Resources, Retention, Sampling, Scheduling, SecretKey,
    SecretName, Spec, Storage, TRACE_LABEL, TaintEffect, Toleration, TolerationOperator,
    TopologySpreadConstraint, TracingPipeline, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
#[cfg(feature = "document")]
pub use errors::{DocumentError, DocumentErrors};
#[cfg(feature = "document")]
pub use laptop::laptop_notes;
#[cfg(feature = "document")]
pub use parse::{MAX_DOCUMENT_BYTES, parse_document};
#[cfg(feature = "document")]
pub use quantity::{Amount, Quantity};
#[cfg(feature = "document")]
pub use resolve::resolve;
#[cfg(feature = "document")]
pub use validate::injection_is_valid;
