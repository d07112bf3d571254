//! What the operator decides. Nothing here asks or tells anybody: the state of the cluster goes in,
//! and what is to be written and said comes out, so every decision is tested without a cluster.
//!
//! 1. A release ([`release`]) has pipelines: which of them are served, and the one binding that they
//!    share.
//! 2. Each pipeline ([`pipeline`]) is read and checked, and rendered to objects ([`render`]).
//! 3. [`plan()`] compares them with what was observed ([`observe`], [`nodes`]), judges the rollout of
//!    collectors ([`rollout`]), and gives the steps to take ([`steps`]).
//! 4. What was seen and done becomes the status ([`conditions`]).
//!
//! Beside them are the webhook by which pods are injected ([`webhook`]), the rules of the Lease
//! ([`lease`]), and of how soon what failed is tried again ([`retry`]).

pub mod conditions;
pub mod difference;
pub mod hash;
pub mod leaf;
pub mod lease;
pub mod nodes;
pub mod observe;
pub mod owned;
pub mod pipeline;
pub mod plan;
pub mod probe;
pub mod rate;
pub mod release;
pub mod render;
pub mod retry;
pub mod rollout;
pub mod steps;
pub mod told;
pub mod webhook;

pub use owned::{Key, Owned, is_owned_by};
pub use pipeline::{Pipeline, Unusable};
pub use plan::{Observed, Plan, plan};
pub use release::Release;
pub use steps::Step;
