//! The operator: makes what a `TracingPipeline` asks for, and says what is true of it.
//!
//! A pass over one pipeline (`reconcile`) goes one way: read the object and check it (`pipeline`),
//! ask what there is (`cluster`, `observe`), compute what there should be (`render`) and whether the
//! agents' rollout goes well (`rollout`), write the difference (`apply`), send a span all the way
//! (`probe`), and write the status if it changed (`conditions`). The steps that decide are pure
//! functions; those that ask and write are thin.
//!
//! At rest it writes nothing but its lease (`lease`).

pub mod apply;
pub mod certificates;
pub mod cluster;
pub mod conditions;
pub mod controller;
pub mod hash;
pub mod keep;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod pipeline;
pub mod probe;
pub mod rate;
pub mod reconcile;
pub mod render;
pub mod retry;
pub mod rollout;
pub mod settings;
