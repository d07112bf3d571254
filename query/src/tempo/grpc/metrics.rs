//! `MetricsQueryRange` and `MetricsQueryInstant`.

use std::sync::Arc;

use spanloom_traceql::Series;

use super::messages::{
    self, Exemplar, InstantSeries, QueryInstantRequest, QueryInstantResponse, QueryRangeRequest,
    QueryRangeResponse, Sample, SearchMetrics, TimeSeries, key_values,
};
use super::packets::{ITEMS_BYTES_MAX, Packets, item_bytes};
use super::queue::{Ended, Queue, Stop};
use super::search::JOBS;
use super::{Method, given};
use crate::app::App;
use crate::tempo::metrics::{ask, why_partial};
use crate::tempo::wire::PartialStatus;
use crate::traceql::metrics::Answer;

/// A series is cut into parts of so many samples of 22 bytes at most: a client puts them together again.
const SAMPLES_MAX: usize = 20_000;

/// An instant answer is one message, since a client keeps the last one only: less than the 4 MiB that it takes.
const INSTANT_BYTES_MAX: usize = 3 << 20;

/// Why series are left out.
const TOO_LARGE: &str = "some series are too large for a message";

/// Series with a sample for each step.
pub struct Range;

/// Series with one sample.
pub struct Instant;

impl Method for Range {
    type Asked = QueryRangeRequest;
    type Answer = QueryRangeResponse;

    async fn run(
        app: Arc<App>,
        asked: QueryRangeRequest,
        queue: Queue<QueryRangeResponse>,
    ) -> Result<Ended, Stop> {
        const ROUTE: &str = "/tempopb.StreamingQuerier/MetricsQueryRange";
        let answer = ask(&app, ROUTE, &given::range(asked)?, false).await?;
        let packets = Packets::of(answer.finished.series.iter().flat_map(parts));
        let said = Said::of(&answer, packets.left_out);
        for (series, done) in packets.with_progress(JOBS) {
            let message = QueryRangeResponse {
                series,
                metrics: Some(said.metrics(done)),
                status: said.status().into(),
                message: said.message(),
            };
            queue.send(message).await?;
        }
        Ok(said.end())
    }
}

impl Method for Instant {
    type Asked = QueryInstantRequest;
    type Answer = QueryInstantResponse;

    async fn run(
        app: Arc<App>,
        asked: QueryInstantRequest,
        queue: Queue<QueryInstantResponse>,
    ) -> Result<Ended, Stop> {
        const ROUTE: &str = "/tempopb.StreamingQuerier/MetricsQueryInstant";
        let answer = ask(&app, ROUTE, &given::instant(asked)?, true).await?;
        let (mut series, mut bytes, mut left_out) = (Vec::new(), 0, false);
        for finished in &answer.finished.series {
            let one = instant(finished);
            bytes += item_bytes(&one);
            if bytes > INSTANT_BYTES_MAX {
                left_out = true;
                break;
            }
            series.push(one);
        }
        let said = Said::of(&answer, left_out);
        let message = QueryInstantResponse {
            series,
            metrics: Some(said.metrics(JOBS)),
            status: said.status().into(),
            message: said.message(),
        };
        queue.send(message).await?;
        Ok(said.end())
    }
}

/// What each message says of the whole answer.
struct Said {
    partial: Option<String>,
    /// Whether not all spans were counted, or not all series fit.
    is_cut: bool,
    inspected_spans: u64,
}

impl Said {
    fn of(answer: &Answer, left_out: bool) -> Self {
        Self {
            partial: why_partial(answer).or_else(|| left_out.then(|| TOO_LARGE.to_owned())),
            is_cut: answer.cut.is_some() || left_out,
            inspected_spans: answer.inspected_spans,
        }
    }

    /// How far it is after `done` jobs; the last one is never done where something was cut.
    fn metrics(&self, done: u32) -> SearchMetrics {
        SearchMetrics {
            inspected_traces: 0,
            completed_jobs: done.min(JOBS - u32::from(self.is_cut)),
            total_jobs: JOBS,
            inspected_spans: self.inspected_spans,
        }
    }

    fn status(&self) -> PartialStatus {
        match self.partial {
            Some(_) => PartialStatus::Partial,
            None => PartialStatus::Complete,
        }
    }

    fn message(&self) -> String {
        self.partial.clone().unwrap_or_default()
    }

    fn end(self) -> Ended {
        Ended {
            partial: self.partial,
        }
    }
}

/// A series in parts that fit into a message, unless its labels alone do not.
fn parts(series: &Series) -> Vec<TimeSeries> {
    let samples = series.samples.iter().filter(|(_, value)| !value.is_nan());
    let samples = samples.map(|(timestamp_ms, value)| Sample {
        value: *value,
        timestamp_ms: *timestamp_ms,
    });
    let samples: Vec<_> = samples.collect();
    let labels = key_values(&series.labels);
    let of = |samples: &[Sample], exemplars| TimeSeries {
        labels: labels.clone(),
        samples: samples.to_vec(),
        exemplars,
    };
    let mut chunks = samples.chunks(SAMPLES_MAX);
    let first = chunks.next().unwrap_or_default();
    let mut whole = of(first, series.exemplars.iter().map(exemplar).collect());
    while item_bytes(&whole) > ITEMS_BYTES_MAX && !whole.exemplars.is_empty() {
        // Samples count for more than their examples.
        whole.exemplars.truncate(whole.exemplars.len() / 2);
    }
    let rest = chunks.map(|samples| of(samples, Vec::new()));
    std::iter::once(whole).chain(rest).collect()
}

fn exemplar(exemplar: &spanloom_traceql::Exemplar) -> Exemplar {
    messages::Exemplar {
        labels: key_values(&exemplar.labels),
        value: exemplar.value,
        timestamp_ms: exemplar.timestamp_ms,
    }
}

fn instant(series: &Series) -> InstantSeries {
    InstantSeries {
        labels: key_values(&series.labels),
        value: series.samples.first().map_or(f64::NAN, |(_, value)| *value),
    }
}
