//! The collector: the pipeline with the store's writer behind it.
//!
//! The pipeline and the store do not know each other. What joins them is here, and little else:
//!
//! 1. [`config`] makes the pipeline's and the store's settings of the `TracingPipeline` document.
//! 2. `batch` lets a block of ClickHouse columns be the batch that pipeline workers fill.
//! 3. `export` lets the store's writer be the place where frozen batches go.
//! 4. In a cluster, [`cluster`] watches the configuration object and the node's pods.
//! 5. [`Collector`] starts and stops them; [`migrate`] makes the schema, before the first collector
//!    writes.
//!
//! `main.rs` is the program for a node; `spanloom up` runs a [`Collector`] in its own process.

pub mod batch;
pub mod cluster;
mod collector;
pub mod config;
#[cfg(feature = "control-runs")]
pub mod control;
pub mod export;
mod level;
pub mod memory;
pub mod pace;
mod replay;
pub mod sidecars;
pub mod threads;

pub use cluster::{Cluster, ClusterError};
pub use collector::{Collector, MigrateError, StartError, migrate, migrate_agent};
pub use config::{CollectorConfig, LogConfig, StoreAddress, Unreadable, read_agent_config};
pub use replay::{ReplayError, ReplayLettersError, ReplayedLetters, replay_letters};
