//! The operator: makes what a `TracingPipeline` asks for, and says what is true of it.
//!
//! What is decided, is decided in `spanloom-plan`, which knows no Kubernetes client. Here is what asks
//! and tells:
//!
//! 1. The `controller` asks for a pass over a pipeline when it, an object of its or a pod changes
//!    (`watches`, `shelf`), when a probe ends (`probing`), and after a while.
//! 2. A pass (`reconcile`) takes what the watches have told, reads what may only be read by name
//!    (`keep`), asks the collectors (`probe`), has the plan made, carries out its steps (`act`), and
//!    writes the status and tells of it (`tell`).
//! 3. Every call goes through `cluster`: bounded in time, and written only while this process is the
//!    leader (`lease`, `leadership`).
//!
//! At rest it writes nothing but its Lease.
//!
//! The [`webhook`] is another mode of the same program, with rights of its own: it injects pods when they are created.
//! `injection` keeps its certificate and configuration.

pub mod act;
pub mod census;
pub mod certificates;
pub mod cluster;
pub mod context;
pub mod controller;
pub mod injection;
pub mod keep;
pub mod kinds;
pub mod leadership;
pub mod lease;
pub mod listed;
pub mod metrics;
pub mod probe;
pub mod probing;
pub mod reconcile;
pub mod retry;
pub mod settings;
pub mod shelf;
pub mod tell;
pub mod watches;
pub mod webhook;
