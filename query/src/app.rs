//! What all requests share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use spanloom_program::Health;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::db::Db;
use crate::metrics::Metrics;

/// What all requests share.
pub struct App {
    /// The way to ClickHouse.
    pub db: Db,
    /// Bounds on what requests may take.
    pub limits: Limits,
    /// The service's own metrics.
    pub metrics: Metrics,
    /// What `/metrics` shows; in `spanloom up`, the collector's as well.
    pub registry: Arc<Registry>,
    /// What `/readyz` asks besides ClickHouse.
    pub health: Health,
    trace_memory: Arc<Semaphore>,
}

/// What a permit of the memory for traces stands for.
const MEMORY_UNIT_BYTES: usize = 1024;

impl App {
    /// Puts together what requests share.
    pub fn new(
        db: Db,
        limits: Limits,
        metrics: Metrics,
        registry: Arc<Registry>,
        health: Health,
    ) -> Self {
        let units = (limits.trace_bytes_in_flight / MEMORY_UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        let trace_memory = Arc::new(Semaphore::new(units));
        Self {
            db,
            limits,
            metrics,
            registry,
            health,
            trace_memory,
        }
    }
}

/// What a request holds of the memory for traces, until it is dropped.
#[derive(Debug, Default)]
pub struct Share {
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Share {
    /// Takes more until it is `bytes`, if there is as much left. Nobody waits: two half-read traces that wait for
    /// each other would wait for good.
    pub fn grow_to(&mut self, app: &App, bytes: usize) -> bool {
        /// What is taken at a time.
        const STEP_BYTES: usize = 1 << 20;
        while self.bytes < bytes {
            let units = u32::try_from(STEP_BYTES / MEMORY_UNIT_BYTES).unwrap_or(u32::MAX);
            match app.trace_memory.clone().try_acquire_many_owned(units) {
                Ok(permit) => self.permits.push(permit),
                Err(_) => {
                    app.metrics.refuse();
                    return false;
                }
            }
            self.bytes += STEP_BYTES;
        }
        true
    }
}
