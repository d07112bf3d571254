//! The `TracingPipeline` document: what a person writes, and what each part makes of it.
//!
//! 1. [`parse_document`] reads YAML. It knows every field, so that a field that does
//!    not exist, or is not built yet, is an error with its path, line and column, never ignored.
//! 2. Values are checked, all of them, so that one run tells everything that is wrong.
//! 3. [`resolved::resolve`] gives plain configuration with every default filled in, which the
//!    collector and query start with.
//!
//! With the feature `kube` there is `crd`, the CustomResourceDefinition made of the same types.
//!
//! [`TracingPipeline::default`] is the empty document.

pub mod agent;
#[cfg(feature = "kube")]
pub mod crd;
mod document;
mod errors;
mod laptop;
mod locate;
mod parse;
mod quantity;
pub mod resolved;
mod rules;
mod shape;
pub mod status;
mod validate;

pub use document::{
    API_VERSION, Collector, External, ExternalTls, Grafana, Head, Images, KIND, Kubernetes, Limits,
    Managed, ManagementState, Metadata, Processing, Query, QueryAuth, QueryTls, RedactRule,
    Resources, Retention, Sampling, SecretKey, SecretName, Spec, Storage, TaintEffect, Toleration,
    TolerationOperator, TracingPipeline,
};
pub use errors::{DocumentError, DocumentErrors};
pub use laptop::laptop_notes;
pub use parse::{MAX_DOCUMENT_BYTES, parse_document};
pub use quantity::{Amount, Quantity};
pub use resolved::resolve;
