//! `bench acknowledge`: how long a sender waits for the answer to an export.
//!
//! With a log an export is answered when it is on disk, so what the same disk needs for a sync is measured: appends
//! of about a group's size, each followed by fdatasync, in the folder that has the log. Once before each run, when
//! the machine has nothing else to do, and now and then during the run, when everything shares its cores.

use anyhow::Context;
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ingest::Bench;
use super::load::body::Compression;
use super::load::{Load, Outcome, Pace};
use super::peers::Peer;
use super::report;

/// The flags of `bench acknowledge`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// Collectors to compare
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "spanloom,spanloom-logged"
    )]
    peers: Vec<Peer>,
    /// Encoded size of a span in bytes
    #[arg(long, default_value_t = 1024)]
    payload: usize,
    /// Spans in a request
    #[arg(long, default_value_t = 100)]
    request_spans: usize,
    /// Spans a second of the loaded runs; the others have one sender, which waits for each answer
    #[arg(long, default_value_t = 20_000.0)]
    spans_per_second: f64,
    /// Runs of each, in turns; the medians count
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of a run
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Seed of the spans
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
struct Row {
    what: String,
    load: &'static str,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    answers: usize,
    not_acknowledged_spans: u64,
}

impl Row {
    fn new(what: String, load: &'static str, times: &[f64], not_acknowledged: u64) -> Self {
        let of = |q| (report::quantile(times, q) * 100.0).round() / 100.0;
        Self {
            what,
            load,
            p50_ms: of(0.5),
            p99_ms: of(0.99),
            max_ms: of(1.0),
            answers: times.len(),
            not_acknowledged_spans: not_acknowledged,
        }
    }
}

/// Appends of this many bytes are synced.
const SYNC_BYTES: usize = 64 * 1024;
const SYNCS: usize = 500;

/// Between two syncs during a run: too seldom to slow it down.
const REST: Duration = Duration::from_millis(25);

/// Milliseconds of each sync of a file in this folder, for as long as `goes_on` says, with this rest in between.
fn syncs(
    folder: &Path,
    rest: Duration,
    goes_on: impl Fn(usize) -> bool,
) -> anyhow::Result<Vec<f64>> {
    let path = folder.join("sync");
    let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    let bytes = vec![0x5a; SYNC_BYTES];
    let mut times = Vec::new();
    while goes_on(times.len()) {
        file.write_all(&bytes)?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(rest);
    }
    std::fs::remove_file(&path)?;
    Ok(times)
}

/// Does something, with syncs meanwhile.
fn with_syncs<T>(
    folder: &Path,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Vec<f64>)> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| syncs(folder, REST, |_| !is_over.load(Ordering::Relaxed)));
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        let times = beside.join();
        let times = times.map_err(|_| anyhow::anyhow!("the syncs panicked"))??;
        Ok((done?, times))
    })
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let bench = Bench::start(&args.peers, 64)?;
    let load = Load::of(
        args.seed,
        64,
        args.request_spans,
        args.payload,
        Compression::None,
    )?;
    let time = Duration::from_secs(args.seconds);
    let paces = [
        ("one sender", Pace::Closed { in_flight: 1 }),
        (
            "loaded",
            Pace::Open {
                spans_per_second: args.spans_per_second,
                in_flight: 512,
            },
        ),
    ];
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        let idle = syncs(bench.folder(), Duration::ZERO, |done| done < SYNCS)?;
        runs.push(Row::new("fdatasync".to_owned(), "nothing", &idle, 0));
        for &peer in &args.peers {
            let (mut collector, _) = bench.collector(peer)?;
            load.run(collector.otlp, Pace::Closed { in_flight: 4 }, WARM_UP)?;
            for (name, pace) in paces {
                let run = || load.run(collector.otlp, pace, time);
                let (outcome, meanwhile) = with_syncs(bench.folder(), run)?;
                let Outcome {
                    acked_after_ms,
                    retryable,
                    refused,
                    lost,
                    not_sent,
                    ..
                } = outcome;
                let not = retryable + refused + lost + not_sent;
                let disk = format!("fdatasync beside {}", peer.name());
                runs.push(Row::new(disk, name, &meanwhile, 0));
                runs.push(Row::new(peer.name().to_owned(), name, &acked_after_ms, not));
            }
            collector.running.check("the collector")?;
        }
    }
    let rows = medians(&runs);
    if args.json {
        return super::print_json(&rows);
    }
    super::print(&report::table(&cells(&rows)));
    Ok(())
}

const WARM_UP: Duration = Duration::from_secs(2);

/// One row for each kind, in the order of the first run.
fn medians(runs: &[Row]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        let is_same = |row: &Row| row.what == run.what && row.load == run.load;
        if rows.iter().any(is_same) {
            continue;
        }
        let same: Vec<_> = runs.iter().filter(|row| is_same(row)).collect();
        let median = |of: fn(&Row) -> f64| {
            report::median(&same.iter().map(|row| of(row)).collect::<Vec<_>>())
        };
        rows.push(Row {
            p50_ms: median(|row| row.p50_ms),
            p99_ms: median(|row| row.p99_ms),
            max_ms: median(|row| row.max_ms),
            answers: same.iter().map(|row| row.answers).sum(),
            not_acknowledged_spans: same.iter().map(|row| row.not_acknowledged_spans).sum(),
            ..run.clone()
        });
    }
    rows
}

fn cells(rows: &[Row]) -> Vec<Vec<String>> {
    let head = [
        "",
        "load",
        "p50 ms",
        "p99 ms",
        "max ms",
        "answers",
        "not acked",
    ];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        vec![
            row.what.clone(),
            row.load.to_owned(),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.max_ms),
            row.answers.to_string(),
            row.not_acknowledged_spans.to_string(),
        ]
    }));
    cells
}
