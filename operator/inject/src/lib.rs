//! What the webhook does to a pod. Nothing here asks anybody: a pod and what is known of the cluster go in,
//! and a reason and a patch come out, so every decision is tested without a cluster.
//!
//! 1. [`decide()`] finds the pipeline that a pod is of ([`target`]), and what speaks against injecting it
//!    ([`pod`], [`others`]).
//! 2. `containers` are those that an app runs in; each gets the variables of `environment`, or none and a
//!    reason of its own.
//! 3. The changes are a [`patch`] that only adds.
//!
//! What became of the pods that there are is counted from their annotations ([`census`]).
//!
//! Every [`Outcome`] has one [`Reason`]. Deciding again about a pod that was patched changes nothing more, but
//! for containers that were added in between.

pub mod census;
mod containers;
pub mod decide;
mod environment;
pub mod others;
pub mod patch;
pub mod pod;
pub mod reason;
pub mod target;

pub use decide::{Outcome, decide};
pub use patch::Operation;
pub use reason::Reason;
pub use target::{Namespace, PipelineId, Target};

/// The annotation by which a pod or a namespace asks for injection (`true`) or against it (`false`). With `true` on
/// a pod, containers with `envFrom` are injected, too.
pub const INJECT: &str = "spanloom.dev/inject";
/// The annotation that names a pod's containers to inject, separated by commas.
pub const CONTAINER_NAMES: &str = "spanloom.dev/container-names";
/// The annotation with the outcome, a [`Reason`].
pub const OUTCOME: &str = "spanloom.dev/injection";
/// The annotation that names the pipeline of the outcome, `namespace/name`.
pub const PIPELINE: &str = "spanloom.dev/injected-by";
/// The annotation with the containers that got nothing, each with its reason: `name=Reason`, separated by commas.
pub const SKIPPED_CONTAINERS: &str = "spanloom.dev/skipped-containers";

/// The label by which our objects are found; such pods are never injected.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value, and the operator's field manager.
pub const MANAGER: &str = "spanloom-operator";
