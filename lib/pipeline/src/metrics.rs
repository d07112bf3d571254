//! What the pipeline counts. Names are the OpenTelemetry Collector's where it has one; counters get
//! `_total` when they are encoded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::receive::{Origin, Transport};
use crate::tally::{Change, Rejection, Tally};

/// Label names and values.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// The pipeline's counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    accepted_spans: Family<Labels<2>, Counter>,
    refused_spans: Family<Labels<3>, Counter>,
    requests: Family<Labels<3>, Counter>,
    refused_requests: Family<Labels<2>, Counter>,
    changes: Family<Labels<1>, Counter>,
    discarded_spans: Family<Labels<1>, Counter>,
    unsupported: Family<Labels<2>, Counter>,
    lost_spans: Family<Labels<1>, Counter>,
    peers: Family<Labels<1>, Counter>,
    /// Spans received, those of probes aside; for those who ask for one number.
    pub(crate) received: AtomicU64,
    /// Spans discarded because the pipeline is not enabled.
    pub(crate) disabled: AtomicU64,
    pub(crate) repeats: Counter,
    pub(crate) repeats_evicted: Counter,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) bind_failures: Counter,
    pub(crate) left_out: Counter,
    pub(crate) connections_closed: Counter,
    pub(crate) batches: Counter,
    pub(crate) batch_rows: Counter,
    pub(crate) worker_panics: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "otelcol_receiver_accepted_spans",
            "Spans stored, or discarded by a rule of the pipeline",
            self.accepted_spans.clone(),
        );
        registry.register(
            "otelcol_receiver_refused_spans",
            "Spans that were refused, by reason",
            self.refused_spans.clone(),
        );
        registry.register(
            "otelcol_receiver_requests",
            "Export requests by outcome",
            self.requests.clone(),
        );
        let mut ours = |name: &str, help: &str, metric: &Counter| {
            registry.register(format!("spanloom_{name}"), help, metric.clone());
        };
        ours(
            "receiver_repeats",
            "Requests recognised as repeats",
            &self.repeats,
        );
        ours(
            "receiver_repeats_evicted",
            "Requests forgotten early because there were too many",
            &self.repeats_evicted,
        );
        ours(
            "receiver_connections_refused",
            "Connections closed immediately because too many are open",
            &self.connections_refused,
        );
        ours(
            "receiver_bind_failures",
            "Failures to listen on an address that is tried again",
            &self.bind_failures,
        );
        ours(
            "forwarded_measures_left_out",
            "Spans, half-edges and rows of accounts in the measures of sidecars that were not taken: too old, too \
             far in the future, or more than memory allows",
            &self.left_out,
        );
        ours(
            "receiver_connections_closed",
            "Idle connections closed to make room for other addresses",
            &self.connections_closed,
        );
        ours("batches", "Batches handed to the exporter", &self.batches);
        ours(
            "batch_rows",
            "Spans in batches handed to the exporter",
            &self.batch_rows,
        );
        ours(
            "worker_panics",
            "Requests that caused a worker to panic",
            &self.worker_panics,
        );
        registry.register(
            "spanloom_receiver_refused_requests",
            "Export requests refused before their spans were read, by reason",
            self.refused_requests.clone(),
        );
        registry.register(
            "spanloom_receiver_unsupported_requests",
            "Requests for signals other than traces",
            self.unsupported.clone(),
        );
        registry.register(
            "spanloom_processing_changes",
            "Repairs, truncations and redactions of spans that were kept, by reason",
            self.changes.clone(),
        );
        registry.register(
            "spanloom_processing_discarded_spans",
            "Spans discarded by a rule of the pipeline",
            self.discarded_spans.clone(),
        );
        registry.register(
            "spanloom_lost_spans",
            "Spans that were acknowledged but could not be stored, by reason",
            self.lost_spans.clone(),
        );
        registry.register(
            "spanloom_enrichment_requests",
            "Export requests by how their sender was identified: as a pod, or not (unidentified)",
            self.peers.clone(),
        );
        registry.register(
            "spanloom_receiver_connections",
            "Open connections",
            self.connections.clone(),
        );
    }

    /// A request whose spans are stored.
    pub(crate) fn stored(&self, origin: Origin, tally: &Tally) {
        let received = tally.all().saturating_sub(tally.probes);
        self.received.fetch_add(received, Ordering::Relaxed);
        self.disabled.fetch_add(tally.disabled, Ordering::Relaxed);
        let accepted = self.accepted_spans.get_or_create(&origin.labels());
        if tally.accepted() > 0 {
            accepted.inc_by(tally.accepted());
        }
        drop(accepted);
        for &why in Rejection::ALL {
            let n = tally.rejected_for(why);
            if n > 0 {
                self.refused_spans(origin, why.label(), n);
            }
        }
        for &what in Change::ALL {
            let n = tally.changed(what);
            if n > 0 {
                self.changes
                    .get_or_create(&[("reason", what.label())])
                    .inc_by(n);
            }
        }
        for (rule, n) in [
            ("disabled", tally.disabled),
            ("drop", tally.dropped),
            ("head_sampling", tally.sampled_out),
        ] {
            if n > 0 {
                self.discarded_spans
                    .get_or_create(&[("rule", rule)])
                    .inc_by(n);
            }
        }
    }

    /// A request of so many spans that are not stored, though they were read, and its sender is told.
    pub(crate) fn unavailable(&self, origin: Origin, spans: u64) {
        if spans > 0 {
            self.refused_spans(origin, "unavailable", spans);
        }
    }

    /// Spans whose sender was told that they are safe are not stored.
    pub(crate) fn lost(&self, reason: &'static str, spans: u64) {
        self.lost_spans
            .get_or_create(&[("reason", reason)])
            .inc_by(spans);
    }

    #[cfg(test)]
    pub(crate) fn all_lost(&self) -> u64 {
        let reasons = ["refused", "unavailable"].map(|reason| ("reason", reason));
        let count = |label| self.lost_spans.get_or_create(&[label]).get();
        reasons.into_iter().map(count).sum()
    }

    fn refused_spans(&self, origin: Origin, why: &'static str, n: u64) {
        let [receiver, transport] = origin.labels();
        let labels = [receiver, transport, ("reason", why)];
        self.refused_spans.get_or_create(&labels).inc_by(n);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, origin: Origin, outcome: &'static str) {
        let [receiver, transport] = origin.labels();
        let labels = [receiver, transport, ("outcome", outcome)];
        self.requests.get_or_create(&labels).inc();
    }

    /// A request was refused before its spans were looked at.
    pub(crate) fn refused(&self, transport: Transport, reason: &'static str) {
        let labels = [("transport", transport.label()), ("reason", reason)];
        self.refused_requests.get_or_create(&labels).inc();
    }

    /// Whether the sender of a request is known.
    pub(crate) fn peer(&self, known: bool) {
        let sender = if known { "pod" } else { "unidentified" };
        self.peers.get_or_create(&[("sender", sender)]).inc();
    }

    /// A request carried another signal.
    pub(crate) fn unsupported_signal(&self, transport: Transport, signal: &'static str) {
        let labels = [("transport", transport.label()), ("signal", signal)];
        self.unsupported.get_or_create(&labels).inc();
    }
}

/// Numbers that are read when they are asked for.
#[derive(Default)]
pub(crate) struct Levels(Vec<Level>);

struct Level {
    name: String,
    help: &'static str,
    read: Box<dyn Fn() -> Option<usize> + Send + Sync>,
}

impl Levels {
    /// Adds a number; `read` says `None` when there is nothing to read any more.
    pub(crate) fn with(
        mut self,
        name: &str,
        help: &'static str,
        read: impl Fn() -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Level {
            name: format!("spanloom_{name}"),
            help,
            read: Box::new(read),
        });
        self
    }
}

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Levels")
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for level in &self.0 {
            let Some(value) = (level.read)() else {
                continue;
            };
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let kind = MetricType::Gauge;
            let metric = encoder.encode_descriptor(&level.name, level.help, None, kind)?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
