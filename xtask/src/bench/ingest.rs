//! `bench ingest`: spans that the sink confirms for each CPU second of the collector.
//!
//! The collector under test has core 0 to itself; generator and sink share core 1. The sink is the embedded
//! ClickHouse with Null tables: it parses every block and drops it, the same for all. Wall-clock throughput
//! depends on who waits for whom on two cores, so it is not the figure: each run counts all CPU time of the
//! collector's process from an idle start until everything sent is confirmed, and divides. A sink that is
//! too slow then costs time, not CPU; that the figure stays the same at half the load is checked and shown.

use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::load::body::Compression;
use super::load::{Load, Pace};
use super::peers::{Collector, Peer};
use super::proc::{self, COLLECTOR_CORE, OTHERS_CORE};
use super::report;
use super::sink::Sink;
use super::sql::Sql;

/// The flags of `bench ingest`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON array and nothing else
    #[arg(long)]
    json: bool,
    /// One short run of each, to see that everything works
    #[arg(long)]
    quick: bool,
    /// Collectors to compare
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "spanloom,spanloom-redacting,otelcol,rotel"
    )]
    peers: Vec<Peer>,
    /// Encoded sizes of a span in bytes
    #[arg(long, value_delimiter = ',', default_value = "500,1024,10240")]
    payload: Vec<usize>,
    /// Compressions of the requests
    #[arg(long, value_delimiter = ',', default_value = "none,gzip,zstd")]
    compression: Vec<Compression>,
    /// Runs of each combination, in turns; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of load in a run
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Requests under way at once
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
    /// Seed of the spans
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Distinct bodies prepared for each payload and compression.
const POOL: usize = 64;
const WARM_UP: Duration = Duration::from_secs(2);
/// Runs of one combination may differ by so much before a line says so.
const NOISE: f64 = 0.15;

/// One line of the result.
#[derive(Debug, Serialize)]
pub struct Row {
    peer: Peer,
    payload_bytes: usize,
    compression: Compression,
    spans_per_core_second: f64,
    cpu_ms_per_10k_spans: f64,
    rss_mib: f64,
}

/// What one run gave.
#[derive(Debug, Clone, Copy)]
struct Measured {
    spans: u64,
    collector_cpu: f64,
    sink_cpu: f64,
    load_cpu: f64,
    seconds: f64,
    rss_mib: f64,
}

impl Measured {
    fn spans_per_core_second(&self) -> f64 {
        self.spans as f64 / self.collector_cpu.max(0.01)
    }
}

/// A payload and a compression.
type Case = (usize, Compression);

/// Everything a run needs.
#[derive(Debug)]
pub struct Bench {
    sink: Sink,
    folder: tempfile::TempDir,
    programs: BTreeMap<Peer, PathBuf>,
    in_flight: usize,
}

impl Bench {
    /// Gets the programs and starts the sink; this process moves to core 1.
    pub fn start(peers: &[Peer], in_flight: usize) -> anyhow::Result<Self> {
        let programs = peers
            .iter()
            .map(|&peer| Ok((peer, peer.program()?)))
            .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
        let folder = tempfile::tempdir()?;
        // Before the engine starts, so that it inherits the core; builds above may use both.
        let build = Sink::host()?;
        proc::pin_self(OTHERS_CORE)?;
        let sink = Sink::start(&build, &folder.path().join("engine"))?;
        Ok(Self {
            sink,
            folder,
            programs,
            in_flight,
        })
    }

    /// Where the collectors have their files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An empty database with the peer's tables, and the peer running.
    pub fn collector(&self, peer: Peer) -> anyhow::Result<(Collector, Sql)> {
        let program = self
            .programs
            .get(&peer)
            .context("a peer that was not asked for")?;
        let sql = &self.sink.sql;
        sql.run("DROP DATABASE IF EXISTS bench")?;
        sql.run("CREATE DATABASE bench")?;
        let database = sql.within("bench");
        peer.create_tables(program, &database)?;
        Ok((
            peer.start(program, &database, self.folder.path())?,
            database,
        ))
    }

    fn measure(&self, peer: Peer, load: &Load, time: Duration) -> anyhow::Result<Measured> {
        let (mut collector, sql) = self.collector(peer)?;
        let pace = Pace::Closed {
            in_flight: self.in_flight,
        };
        self.load(&mut collector, &sql, load, pace, WARM_UP.min(time))?;
        self.load(&mut collector, &sql, load, pace, time)
            .map_err(|error| error.context(format!("{}: {}", peer.name(), collector.last_words())))
    }

    /// Sends for `time`, waits until the sink has it all, and takes the differences.
    fn load(
        &self,
        collector: &mut Collector,
        sql: &Sql,
        load: &Load,
        pace: Pace,
        time: Duration,
    ) -> anyhow::Result<Measured> {
        let pid = collector.running.pid();
        let cpu = || -> anyhow::Result<[f64; 3]> {
            Ok([
                proc::cpu_time(pid)?.as_secs_f64(),
                proc::cpu_time(self.sink.pid)?.as_secs_f64(),
                proc::cpu_time(std::process::id())?.as_secs_f64(),
            ])
        };
        let before = cpu()?;
        let confirmed_before = confirmed(sql)?;
        let started = Instant::now();
        let outcome = load.run(collector.otlp, pace, time)?;
        let spans = drained(sql, confirmed_before, outcome.acked)?;
        let after = cpu()?;
        collector.running.check("the collector")?;
        let [collector_cpu, sink_cpu, load_cpu] =
            [0, 1, 2].map(|i: usize| after.get(i).unwrap_or(&0.0) - before.get(i).unwrap_or(&0.0));
        if spans == 0 {
            bail!("the sink confirmed no span");
        }
        if spans != outcome.acked {
            eprintln!(
                "  note: {} spans acknowledged, {spans} confirmed",
                outcome.acked
            );
        }
        Ok(Measured {
            spans,
            collector_cpu,
            sink_cpu,
            load_cpu,
            seconds: started.elapsed().as_secs_f64(),
            rss_mib: proc::memory_mib(pid, "VmHWM")?,
        })
    }
}

fn confirmed(sql: &Sql) -> anyhow::Result<u64> {
    sql.number("SELECT sum(spans) FROM confirmed FORMAT TSV")
}

/// Waits until all acknowledged spans are confirmed, or none came for ten seconds: peers acknowledge
/// before they store, and some of theirs may never come.
fn drained(sql: &Sql, before: u64, acked: u64) -> anyhow::Result<u64> {
    let mut last = (confirmed(sql)?, Instant::now());
    while last.0 - before < acked && last.1.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(50));
        let now = confirmed(sql)?;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    Ok(last.0 - before)
}

/// Runs the benchmark.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let (runs, seconds) = if args.quick {
        (1, 3)
    } else {
        (args.runs.max(1), args.seconds.max(1))
    };
    let time = Duration::from_secs(seconds);
    let bench = Bench::start(&args.peers, args.in_flight)?;
    let mut results: BTreeMap<(usize, u8, Peer), Vec<Measured>> = BTreeMap::new();
    for &payload in &args.payload {
        for &compression in &args.compression {
            let load = Load::new(args.seed, POOL, payload, compression)?;
            for run in 0..runs {
                for &peer in args.peers.iter().filter(|peer| peer.takes(compression)) {
                    let measured = bench.measure(peer, &load, time)?;
                    progress(peer, (payload, compression), run, &measured);
                    results
                        .entry((payload, compression as u8, peer))
                        .or_default()
                        .push(measured);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for &peer in &args.peers {
        for &payload in &args.payload {
            for &compression in &args.compression {
                if let Some(measured) = results.get(&(payload, compression as u8, peer)) {
                    rows.push(row(peer, (payload, compression), measured));
                }
            }
        }
    }
    half_load(&bench, args, &rows, time)?;
    let idle = idle(&bench, &args.peers)?;
    if args.json {
        super::print_json(&rows)?;
    } else {
        super::print(&human(&rows, idle));
    }
    Ok(())
}

fn progress(peer: Peer, (payload, compression): Case, run: usize, m: &Measured) {
    eprintln!(
        "{:>18} {payload:>5} B {:<8} run {}: {:>9.0} spans/core-s; {:.0} spans/s; busy: collector {:.0} %, \
         sink {:.0} %, generator {:.0} %",
        peer.name(),
        compression.name(),
        run + 1,
        m.spans_per_core_second(),
        m.spans as f64 / m.seconds,
        100.0 * m.collector_cpu / m.seconds,
        100.0 * m.sink_cpu / m.seconds,
        100.0 * m.load_cpu / m.seconds,
    );
}

fn row(peer: Peer, (payload_bytes, compression): Case, runs: &[Measured]) -> Row {
    let of = |f: fn(&Measured) -> f64| runs.iter().map(f).collect::<Vec<_>>();
    let rates = of(Measured::spans_per_core_second);
    let rate = report::median(&rates);
    let spread = (report::quantile(&rates, 1.0) - report::quantile(&rates, 0.0)) / rate.max(1.0);
    if spread > NOISE {
        eprintln!(
            "note: {} {payload_bytes} {}: runs differ by {:.0} %; was the machine quiet?",
            peer.name(),
            compression.name(),
            100.0 * spread
        );
    }
    Row {
        peer,
        payload_bytes,
        compression,
        spans_per_core_second: rate.round(),
        cpu_ms_per_10k_spans: (1e9 / rate.max(1.0)).round() / 100.0,
        rss_mib: (report::median(&of(|m| m.rss_mib)) * 10.0).round() / 10.0,
    }
}

/// Shows that the sink is not the limit: with half the spans a second, a span costs the collector the same.
fn half_load(bench: &Bench, args: &Args, rows: &[Row], time: Duration) -> anyhow::Result<()> {
    let (Some(&payload), Some(&compression)) = (args.payload.first(), args.compression.first())
    else {
        return Ok(());
    };
    let load = Load::new(args.seed, POOL, payload, compression)?;
    for &peer in &args.peers {
        let full = rows.iter().find(|row| {
            row.peer == peer && row.payload_bytes == payload && row.compression == compression
        });
        let Some(full) = full else { continue };
        let (mut collector, sql) = bench.collector(peer)?;
        let closed = Pace::Closed {
            in_flight: bench.in_flight,
        };
        let warm = bench.load(&mut collector, &sql, &load, closed, WARM_UP)?;
        let spans_per_second = 0.5 * warm.spans as f64 / warm.seconds;
        let pace = Pace::Open {
            spans_per_second,
            in_flight: 4 * bench.in_flight,
        };
        let half = bench.load(&mut collector, &sql, &load, pace, time)?;
        eprintln!(
            "{:>18} at half load ({spans_per_second:.0} spans/s, sink busy {:.0} %): {:.2} ms of CPU for 10k \
             spans, {:.2} at full load",
            peer.name(),
            100.0 * half.sink_cpu / half.seconds,
            1e7 / half.spans_per_core_second(),
            full.cpu_ms_per_10k_spans,
        );
    }
    Ok(())
}

/// Memory of our collector with nothing to do.
fn idle(bench: &Bench, peers: &[Peer]) -> anyhow::Result<Option<f64>> {
    if !peers.contains(&Peer::Spanloom) {
        return Ok(None);
    }
    let (mut collector, _) = bench.collector(Peer::Spanloom)?;
    std::thread::sleep(Duration::from_secs(5));
    collector.running.check("the collector")?;
    let rss = proc::memory_mib(collector.running.pid(), "VmRSS")?;
    eprintln!("spanloom idle: {rss:.1} MiB (core {COLLECTOR_CORE})");
    Ok(Some(rss))
}

fn human(rows: &[Row], idle: Option<f64>) -> String {
    let rate = |peer: Peer, of: &Row| {
        rows.iter()
            .find(|row| {
                row.peer == peer
                    && row.payload_bytes == of.payload_bytes
                    && row.compression == of.compression
            })
            .map(|row| row.spans_per_core_second)
    };
    let mut cells = vec![
        [
            "peer",
            "payload",
            "compression",
            "spans/core-s",
            "CPU ms/10k",
            "peak RSS MiB",
            "ours is",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in rows {
        let ratio = match rate(Peer::Spanloom, row) {
            Some(ours) if row.peer != Peer::Spanloom => {
                format!("{:.2}x", ours / row.spans_per_core_second.max(1.0))
            }
            _ => String::new(),
        };
        cells.push(vec![
            row.peer.name().to_owned(),
            row.payload_bytes.to_string(),
            row.compression.name().to_owned(),
            format!("{:.0}", row.spans_per_core_second),
            format!("{:.2}", row.cpu_ms_per_10k_spans),
            format!("{:.1}", row.rss_mib),
            ratio,
        ]);
    }
    let mut text = report::table(&cells);
    if let Some(idle) = idle {
        text.push_str(&format!(
            "\nidle memory of spanloom's collector alone: {idle:.1} MiB\n"
        ));
    }
    text
}
