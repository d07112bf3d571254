//! `bench overload`: five times the peak for two minutes, between two measurements of the peak.
//!
//! What must hold: memory stays under the collector's limit, the spans acknowledged each second stay near
//! the peak, and every refusal is one that clients may retry.

use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::ingest::Bench;
use super::load::body::Compression;
use super::load::{Load, Pace};
use super::peers::Peer;
use super::proc;
use super::report;

/// The flags of `bench overload`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// The collector
    #[arg(long, default_value = "spanloom")]
    peer: Peer,
    /// Encoded size of a span in bytes
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Compression of the requests
    #[arg(long, default_value = "gzip")]
    compression: Compression,
    /// Times the peak
    #[arg(long, default_value_t = 5.0)]
    times: f64,
    /// Seconds of overload
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Requests under way at once, at most
    #[arg(long, default_value_t = 2000)]
    in_flight: usize,
    /// Spans in a request, if not as an SDK sends them
    #[arg(long)]
    request_spans: Option<usize>,
    /// Requests under way at once while the peak is measured
    #[arg(long, default_value_t = 64)]
    peak_in_flight: usize,
    /// Seed of the spans
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    peer: Peer,
    payload_bytes: usize,
    compression: Compression,
    /// The mean of those before and after: machines change their speed in two minutes.
    peak_spans_per_second: f64,
    peak_before: f64,
    peak_after: f64,
    offered_spans_per_second: f64,
    goodput_spans_per_second: f64,
    goodput_share: f64,
    refused_retryable_spans: u64,
    refused_for_good_spans: u64,
    lost_spans: u64,
    reconnects: u64,
    not_sent_spans: u64,
    max_rss_mib: f64,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let bench = Bench::start(&[args.peer], 64)?;
    let load = match args.request_spans {
        // Fewer different ones: each may have several megabytes.
        Some(spans) => Load::of(args.seed, 16, spans, args.payload, args.compression)?,
        None => Load::new(args.seed, 64, args.payload, args.compression)?,
    };
    let (mut collector, _) = bench.collector(args.peer)?;
    let closed = Pace::Closed {
        in_flight: args.peak_in_flight,
    };
    let peak = |otlp| -> anyhow::Result<f64> {
        load.run(otlp, closed, Duration::from_secs(3))?;
        let outcome = load.run(otlp, closed, Duration::from_secs(10))?;
        Ok(outcome.acked as f64 / outcome.seconds)
    };
    let peak_before = peak(collector.otlp)?;
    let offered = args.times * peak_before;
    eprintln!(
        "peak {peak_before:.0} spans/s; now {offered:.0} for {} s",
        args.seconds
    );

    let pid = collector.running.pid();
    let over = AtomicBool::new(false);
    let (outcome, max_rss) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0.0_f64;
            while !over.load(Ordering::Relaxed) {
                most = most.max(proc::memory_mib(pid, "VmRSS").unwrap_or(0.0));
                std::thread::sleep(Duration::from_millis(200));
            }
            most
        });
        let pace = Pace::Open {
            spans_per_second: offered,
            in_flight: args.in_flight,
        };
        let outcome = load.run(collector.otlp, pace, Duration::from_secs(args.seconds));
        over.store(true, Ordering::Relaxed);
        (outcome, watch.join().unwrap_or(0.0))
    });
    let outcome = outcome?;
    collector.running.check("the collector")?;
    let goodput = outcome.acked as f64 / outcome.seconds;
    let peak_after = peak(collector.otlp)?;
    let peak = (peak_before + peak_after) / 2.0;
    let row = Row {
        peer: args.peer,
        payload_bytes: args.payload,
        compression: args.compression,
        peak_spans_per_second: peak.round(),
        peak_before: peak_before.round(),
        peak_after: peak_after.round(),
        offered_spans_per_second: offered.round(),
        goodput_spans_per_second: goodput.round(),
        goodput_share: (goodput / peak.max(1.0) * 1000.0).round() / 1000.0,
        refused_retryable_spans: outcome.retryable,
        refused_for_good_spans: outcome.refused,
        lost_spans: outcome.lost,
        reconnects: outcome.reconnects,
        not_sent_spans: outcome.not_sent,
        max_rss_mib: max_rss.round(),
    };
    if args.json {
        return super::print_json(&[row]);
    }
    let value = serde_json::to_value(&row)?;
    let cells: Vec<Vec<String>> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| vec![name.replace('_', " "), value.to_string()])
        .collect();
    super::print(&report::table(&cells));
    Ok(())
}
