//! The webhook's metrics, all of them.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use spanloom_inject::PipelineId;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    namespace: String,
    pipeline: String,
    reason: &'static str,
}

/// Every metric of the webhook. Clones share the numbers.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    admissions: Family<Labels, Counter>,
    seconds: Histogram,
    watch_errors: Counter,
}

impl Metrics {
    /// Makes the metrics and puts them into `registry`.
    pub fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            admissions: Family::default(),
            seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 14)),
            watch_errors: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("spanloom_webhook");
        registry.register(
            "admissions",
            "Pods that the API server asked about, by pipeline and reason; without dry runs",
            inner.admissions.clone(),
        );
        registry.register_with_unit(
            "admission",
            "Duration of an answer, from the request's last byte",
            Unit::Seconds,
            inner.seconds.clone(),
        );
        registry.register(
            "watch_errors",
            "Failed watches of pipelines and namespaces, which are retried",
            inner.watch_errors.clone(),
        );
        Self(Arc::new(inner))
    }

    /// A pod was answered. `pipeline` is one that is known: what comes from outside is no label.
    pub fn admitted(&self, pipeline: Option<&PipelineId>, reason: &'static str) {
        let (namespace, pipeline) = pipeline.cloned().unwrap_or_default();
        let labels = Labels {
            namespace,
            pipeline,
            reason,
        };
        self.0.admissions.get_or_create(&labels).inc();
    }

    /// An answer took so long.
    pub fn took(&self, time: Duration) {
        self.0.seconds.observe(time.as_secs_f64());
    }

    /// A watch failed.
    pub fn watch_failed(&self) {
        self.0.watch_errors.inc();
    }
}
