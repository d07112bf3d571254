//! The metrics of the query service.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A request's labels: the route's pattern, never the path, so that their number is bounded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The route's pattern, or `other`.
    pub route: String,
    /// The status of the answer.
    pub status: u16,
}

/// A ClickHouse query's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// What the query is for.
    pub query: &'static str,
    /// `ok`, or the class of its error.
    pub outcome: &'static str,
}

/// What the query service counts; clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
    clickhouse_seconds: Family<QueryLabels, Histogram, fn() -> Histogram>,
    clickhouse_in_flight: Gauge,
    refused: Counter,
    unauthorized: Counter,
    tokens: Gauge,
}

/// From 1 ms to 32 s, in steps of two.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            clickhouse_seconds: Family::new_with_constructor(seconds),
            clickhouse_in_flight: Gauge::default(),
            refused: Counter::default(),
            unauthorized: Counter::default(),
            tokens: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("spanloom_query");
        registry.register(
            "requests",
            "HTTP requests, by route and status",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Duration of HTTP requests",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register_with_unit(
            "clickhouse_duration",
            "Duration of ClickHouse queries, until the last row was read",
            Unit::Seconds,
            metrics.clickhouse_seconds.clone(),
        );
        registry.register(
            "clickhouse_in_flight",
            "ClickHouse queries running now",
            metrics.clickhouse_in_flight.clone(),
        );
        registry.register(
            "overload_refusals",
            "Requests rejected because too many queries, or too much trace data, were in flight",
            metrics.refused.clone(),
        );
        registry.register(
            "unauthorized",
            "Requests rejected because they had no valid token",
            metrics.unauthorized.clone(),
        );
        registry.register(
            "tokens",
            "Number of valid tokens; 0 if no token is required",
            metrics.tokens.clone(),
        );
        metrics
    }

    /// Counts one answered request.
    pub fn answered(&self, labels: &RequestLabels, took: Duration) {
        self.requests.get_or_create(labels).inc();
        self.request_seconds
            .get_or_create(labels)
            .observe(took.as_secs_f64());
    }

    /// Counts one finished ClickHouse query.
    pub fn queried(&self, labels: &QueryLabels, took: Duration) {
        self.clickhouse_seconds
            .get_or_create(labels)
            .observe(took.as_secs_f64());
    }

    /// Counts a query as running until the guard is dropped.
    pub fn running(&self) -> Running {
        self.clickhouse_in_flight.inc();
        Running(self.clickhouse_in_flight.clone())
    }

    /// Counts one refusal for overload.
    pub fn refuse(&self) {
        self.refused.inc();
    }

    /// Counts one request without a valid token.
    pub fn unauthorized(&self) {
        self.unauthorized.inc();
    }

    /// Says how many tokens are valid.
    pub fn tokens(&self, count: usize) {
        self.tokens.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// A ClickHouse query that runs.
#[derive(Debug)]
pub struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}
