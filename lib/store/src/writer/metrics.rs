//! The writer's metrics; names that the OpenTelemetry Collector has are the Collector's.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label.
pub type Label = [(&'static str, &'static str); 1];

/// Seconds of an insert.
const SECONDS: [f64; 12] = [
    0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// What the writer counts.
#[derive(Debug, Clone)]
pub struct WriterMetrics {
    /// Spans stored.
    pub sent_spans: Family<Label, Counter>,
    /// Spans not stored.
    pub send_failed_spans: Family<Label, Counter>,
    /// Batches on their way.
    pub in_flight: Family<Label, Gauge>,
    /// Seconds of each successful insert, by table.
    pub insert_seconds: Family<Label, Histogram, fn() -> Histogram>,
    /// Failed inserts by class.
    pub failures: Family<Label, Counter>,
    /// Inserts of parts of a batch, to find bad rows.
    pub bisect_inserts: Counter,
    /// Rows that ClickHouse rejected permanently, by table.
    pub refused_rows: Family<Label, Counter>,
    /// Batches that wait for someone to mend the schema or the credentials.
    pub held_batches: Gauge,
    /// Batches given up without knowing whether they were stored.
    pub uncertain_batches: Counter,
    /// Batches that were looked for before they were sent again.
    pub looked_up: Counter,
}

/// The label that the Collector's exporter metrics have.
pub(crate) const EXPORTER: Label = [("exporter", "clickhouse")];

impl Default for WriterMetrics {
    fn default() -> Self {
        Self {
            sent_spans: Family::default(),
            send_failed_spans: Family::default(),
            in_flight: Family::default(),
            insert_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            failures: Family::default(),
            bisect_inserts: Counter::default(),
            refused_rows: Family::default(),
            held_batches: Gauge::default(),
            uncertain_batches: Counter::default(),
            looked_up: Counter::default(),
        }
    }
}

impl WriterMetrics {
    /// Adds all of them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "otelcol_exporter_sent_spans",
            "Spans stored",
            self.sent_spans.clone(),
        );
        registry.register(
            "otelcol_exporter_send_failed_spans",
            "Spans of batches that were given up; with a log they are sent again",
            self.send_failed_spans.clone(),
        );
        registry.register(
            "otelcol_exporter_in_flight_requests",
            "Batches being sent to the store",
            self.in_flight.clone(),
        );
        registry.register(
            "spanloom_store_insert_seconds",
            "Duration of successful inserts, by table",
            self.insert_seconds.clone(),
        );
        registry.register(
            "spanloom_store_insert_failures",
            "Failed inserts, by what follows: retry (repeated), bad_rows (bisected) or fault \
             (held)",
            self.failures.clone(),
        );
        registry.register(
            "spanloom_store_bisect_inserts",
            "Inserts of parts of a batch, to find the rows that ClickHouse rejects",
            self.bisect_inserts.clone(),
        );
        registry.register(
            "spanloom_store_refused_rows",
            "Rows that ClickHouse rejected permanently, by table",
            self.refused_rows.clone(),
        );
        registry.register(
            "spanloom_store_held_batches",
            "Batches held until the schema or the credentials are fixed",
            self.held_batches.clone(),
        );
        registry.register(
            "spanloom_store_uncertain_batches",
            "Batches given up without knowing whether they were stored",
            self.uncertain_batches.clone(),
        );
        registry.register(
            "spanloom_store_looked_up_batches",
            "Batches sent long ago that were looked for before they were sent again",
            self.looked_up.clone(),
        );
    }
}
