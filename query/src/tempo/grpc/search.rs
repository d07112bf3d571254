//! `Search`: traces as soon as they are final.
//!
//! Grafana keeps the first that it sees of a trace. A search knows of some traces early that no other comes before
//! them and that they stay as they are; they are sent while it goes on, and the others at its end.

use std::sync::Arc;

use super::messages::{
    FoundSpan, FoundTrace, SearchMetrics, SearchRequest, SearchResponse, ServiceStats, SpanSet,
    key_values,
};
use super::packets::{ITEMS_BYTES_MAX, Packets, item_bytes};
use super::queue::{Ended, Queue, Stop};
use super::{Method, given};
use crate::app::App;
use crate::ids::hex;
use crate::tempo::query;
use crate::tempo::search::Wanted;
use crate::traceql::search::{self, Answer, Asked, search_telling};
use crate::traceql::watch::watched;

/// Progress is in percent.
pub const JOBS: u32 = 100;

/// Before the end there is always something left to do.
const JOBS_BEFORE_END: u32 = JOBS - 1;

/// Why traces have fewer spans than wanted, or are left out.
const TOO_LARGE: &str = "a trace is too large for a message";

/// Searches.
pub struct Search;

impl Method for Search {
    type Asked = SearchRequest;
    type Answer = SearchResponse;

    async fn run(
        app: Arc<App>,
        asked: SearchRequest,
        queue: Queue<SearchResponse>,
    ) -> Result<Ended, Stop> {
        let wanted = Wanted::read(&given::search(asked)?)?;
        let asked = wanted.asked();
        let mut told = Told {
            with_names: query::reads_name(&wanted.query),
            sent: 0,
            percent: 0,
            is_cut: false,
        };
        let tell = |answer: &Answer, frontier_ns| told.tell(&queue, &asked, answer, frontier_ns);
        let work = search_telling(&app, &asked, app.db.deadline(), tell);
        let request = wanted.request("/tempopb.StreamingQuerier/Search");
        let (answer, _) = watched(&app, request, Answer::inspected, work).await?;
        told.end(&queue, answer).await
    }
}

/// What was told of a search.
struct Told {
    with_names: bool,
    /// How many of the traces, which are the first ones for good.
    sent: usize,
    percent: u32,
    /// Whether a trace had to be cut.
    is_cut: bool,
}

impl Told {
    /// Sends what is new and final, as much as fits into a message. Where the client has not taken the messages
    /// before, it goes with a later one: the search does not wait.
    fn tell(
        &mut self,
        queue: &Queue<SearchResponse>,
        asked: &Asked<'_>,
        answer: &Answer,
        frontier_ns: i64,
    ) {
        let final_ones = answer.final_ones(frontier_ns);
        let percent = percent(asked, final_ones.len(), frontier_ns).max(self.percent);
        let fresh = final_ones.get(self.sent..).unwrap_or_default();
        if fresh.is_empty() && percent == self.percent {
            return;
        }
        let Some(room) = queue.room() else {
            return;
        };
        let (mut traces, mut bytes) = (Vec::new(), 0);
        for found in fresh {
            let trace = self.fitting(found);
            let size = trace.as_ref().map_or(0, item_bytes);
            if bytes + size > ITEMS_BYTES_MAX {
                break;
            }
            bytes += size;
            self.sent += 1;
            traces.extend(trace);
        }
        self.percent = percent;
        room.fill(SearchResponse {
            traces,
            metrics: Some(metrics(answer, percent)),
        });
    }

    /// Sends what is left, and that it is all.
    async fn end(mut self, queue: &Queue<SearchResponse>, answer: Answer) -> Result<Ended, Stop> {
        let rest = answer.traces.get(self.sent..).unwrap_or_default();
        let rest = rest.iter().filter_map(|found| self.fitting(found));
        let rest: Vec<_> = rest.collect();
        let too_large = self.is_cut.then(|| TOO_LARGE.to_owned());
        let partial = answer.cut.clone().or(too_large);
        let mut parts = Packets::of(rest).parts.into_iter().peekable();
        while let Some(traces) = parts.next() {
            let percent = match (parts.peek(), &partial) {
                (None, None) => JOBS,
                _ => self.percent,
            };
            let message = SearchResponse {
                traces,
                metrics: Some(metrics(&answer, percent)),
            };
            queue.send(message).await?;
        }
        Ok(Ended { partial })
    }

    /// A trace that fits into a message: with fewer spans where it has too many, or none where that is not enough.
    fn fitting(&mut self, found: &search::FoundTrace) -> Option<FoundTrace> {
        let mut trace = trace(found, self.with_names);
        while item_bytes(&trace) > ITEMS_BYTES_MAX {
            self.is_cut = true;
            let longest = trace.span_sets.iter_mut().max_by_key(|set| set.spans.len());
            let spans = longest.map(|set| &mut set.spans);
            let spans = spans.filter(|spans| !spans.is_empty())?;
            spans.truncate(spans.len() / 2);
        }
        Some(trace)
    }
}

/// How far a search is: as much of the window as it has read, or of the traces as it has.
fn percent(asked: &Asked<'_>, found: usize, frontier_ns: i64) -> u32 {
    let share = |part: u128, whole: u128| match whole {
        0 => 0,
        whole => u32::try_from(part * u128::from(JOBS) / whole).unwrap_or(JOBS),
    };
    let span =
        |from_ns: i64| u128::from(asked.end_ns.saturating_sub(from_ns).max(0).unsigned_abs());
    let of_window = share(span(frontier_ns), span(asked.start_ns));
    let of_traces = share(found as u128, asked.limit as u128);
    of_window.max(of_traces).min(JOBS_BEFORE_END)
}

fn metrics(answer: &Answer, completed_jobs: u32) -> SearchMetrics {
    SearchMetrics {
        inspected_traces: u32::try_from(answer.inspected_traces).unwrap_or(u32::MAX),
        completed_jobs,
        total_jobs: JOBS,
        inspected_spans: answer.inspected_spans,
    }
}

fn trace(found: &search::FoundTrace, with_names: bool) -> FoundTrace {
    let number = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let duration_ns = found.end_ns.saturating_sub(found.start_ns);
    let services = found.services.iter();
    let service_stats = services.map(|(service, (spans, errors))| {
        let stats = ServiceStats {
            span_count: number(*spans),
            error_count: number(*errors),
        };
        (service.clone(), stats)
    });
    let sets = found.spansets.iter();
    let span_sets = sets.map(|set| SpanSet {
        spans: set
            .spans
            .iter()
            .map(|found| span(found, with_names))
            .collect(),
        matched: number(set.matched as u64),
        attributes: key_values(&set.attributes),
    });
    FoundTrace {
        trace_id: hex(&found.trace_id),
        root_service_name: found.root_service.clone(),
        root_trace_name: found.root_name.clone(),
        start_time_unix_nano: time(found.start_ns),
        duration_ms: number(time(duration_ns) / 1_000_000),
        span_sets: span_sets.collect(),
        service_stats: service_stats.collect(),
    }
}

fn span(found: &search::FoundSpan, with_name: bool) -> FoundSpan {
    let name = match with_name {
        true => found.name.clone(),
        false => String::new(),
    };
    FoundSpan {
        span_id: hex(&found.span_id),
        name,
        start_time_unix_nano: time(found.start_ns),
        duration_nanos: found.duration_ns,
        attributes: key_values(&found.attributes),
    }
}

/// A time, which is never before 1970.
fn time(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}
