//! The sidecar's own metrics, beside the pipeline's.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Connections to a collector that were not made.
    pub connection_failures: Counter,
    /// Spans that a collector that is not this node's has taken.
    pub fallback_spans: Counter,
    /// Attempts that ended without an answer, or with one that asks to try again.
    pub retries: Counter,
    /// Messages sent to a collector though another one may have them.
    pub possible_duplicates: Counter,
    /// Spans that the collector does not take.
    pub rejected_spans: Counter,
    /// Bytes that are not forwarded yet.
    pub buffered: Arc<Gauge<i64>>,
}

impl Metrics {
    /// Registers all.
    pub fn register(&self, registry: &mut Registry) {
        let mut count = |name: &str, help: &str, counter: &Counter<u64, AtomicU64>| {
            registry.register(format!("spanloom_sidecar_{name}"), help, counter.clone());
        };
        count(
            "connection_failures",
            "Connections to a collector that could not be made",
            &self.connection_failures,
        );
        count(
            "fallback_spans",
            "Spans taken by another collector because that of this node did not answer",
            &self.fallback_spans,
        );
        count(
            "forward_retries",
            "Attempts to forward that are repeated",
            &self.retries,
        );
        count(
            "possible_duplicates",
            "Messages sent to a collector though another one may have taken them",
            &self.possible_duplicates,
        );
        count(
            "rejected_spans",
            "Spans that the collector did not take",
            &self.rejected_spans,
        );
        registry.register(
            "spanloom_sidecar_buffered_bytes",
            "Compressed bytes that are not forwarded yet",
            (*self.buffered).clone(),
        );
    }
}
