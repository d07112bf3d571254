//! The operator's metrics, all of them.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPipeline {
    namespace: String,
    pipeline: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    kind: String,
    verb: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Class {
    class: String,
}

/// Every metric of the operator. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    passes: Family<OfPipeline, Counter>,
    ready: Family<OfPipeline, Gauge>,
    seconds: Histogram,
    errors: Family<Class, Counter>,
    writes: Family<Write, Counter>,
    rollbacks: Family<OfPipeline, Counter>,
    leader: Gauge,
}

impl Metrics {
    /// Makes the metrics and puts them into `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            passes: Family::default(),
            ready: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.005, 2.5, 10)),
            errors: Family::default(),
            writes: Family::default(),
            rollbacks: Family::default(),
            leader: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("spanloom_operator");
        registry.register(
            "reconciles",
            "Reconciliations of a pipeline",
            inner.passes.clone(),
        );
        registry.register(
            "pipeline_ready",
            "1 when the pipeline's condition Ready is true",
            inner.ready.clone(),
        );
        registry.register_with_unit(
            "reconcile",
            "Duration of a reconciliation",
            Unit::Seconds,
            inner.seconds.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciliations, by class",
            inner.errors.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server, except those of the Lease, by kind and verb",
            inner.writes.clone(),
        );
        registry.register(
            "rollbacks",
            "Rollouts that were rolled back to the last good configuration",
            inner.rollbacks.clone(),
        );
        registry.register(
            "leader",
            "1 while this pod holds the Lease",
            inner.leader.clone(),
        );
        Self(Arc::new(inner))
    }

    /// A pass over a pipeline took this long.
    pub fn passed(&self, namespace: &str, pipeline: &str, seconds: f64) {
        let of = of(namespace, pipeline);
        self.0.passes.get_or_create(&of).inc();
        self.0.seconds.observe(seconds);
    }

    /// Whether a pipeline is ready.
    pub fn ready(&self, namespace: &str, pipeline: &str, ready: bool) {
        let of = of(namespace, pipeline);
        self.0.ready.get_or_create(&of).set(i64::from(ready));
    }

    /// A pipeline is gone.
    pub fn forget(&self, namespace: &str, pipeline: &str) {
        let of = of(namespace, pipeline);
        self.0.passes.remove(&of);
        self.0.ready.remove(&of);
        self.0.rollbacks.remove(&of);
    }

    /// A pass failed.
    pub fn failed(&self, class: &str) {
        let class = class.to_owned();
        self.0.errors.get_or_create(&Class { class }).inc();
    }

    /// Something was written.
    pub fn wrote(&self, kind: &str, verb: &str) {
        let write = Write {
            kind: kind.to_owned(),
            verb: verb.to_owned(),
        };
        self.0.writes.get_or_create(&write).inc();
    }

    /// A rollout returned to the last good configuration.
    pub fn rolled_back(&self, namespace: &str, pipeline: &str) {
        self.0
            .rollbacks
            .get_or_create(&of(namespace, pipeline))
            .inc();
    }

    /// Whether this pod holds the lease.
    pub fn leads(&self, leads: bool) {
        self.0.leader.set(i64::from(leads));
    }
}

fn of(namespace: &str, pipeline: &str) -> OfPipeline {
    OfPipeline {
        namespace: namespace.to_owned(),
        pipeline: pipeline.to_owned(),
    }
}
