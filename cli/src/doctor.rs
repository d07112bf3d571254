//! `spanloom doctor log`: what a collector's log on disk holds, and what is wrong with it. It changes nothing, and
//! a collector may have the log open. With `--replay`, dead letters are written to ClickHouse again, and leave the
//! file.

use std::fmt::Write;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use spanloom_collector::StoreAddress;
use spanloom_log::Report;

use crate::data_dir::DataDir;
use crate::say::Say;
use crate::up::start_engine;

/// What is looked at.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Explain a collector's log on disk, or replay its dead letters. The collector may be running.
    Log(LogArgs),
}

#[derive(Debug, clap::Args)]
struct LogArgs {
    /// The folder: what the collector was given as --log-folder.
    folder: PathBuf,
    /// Write the rows that ClickHouse rejected, and that are kept as dead letters, to ClickHouse again. Those that
    /// are stored leave the file of dead letters.
    #[arg(long)]
    replay: bool,
    /// ClickHouse's HTTP interface.
    #[arg(
        long,
        env = "SPANLOOM_CLICKHOUSE_URL",
        default_value = "http://127.0.0.1:8123"
    )]
    clickhouse_url: String,
    /// The database.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_DATABASE", default_value = "spanloom")]
    clickhouse_database: String,
    /// The user; the password comes from SPANLOOM_CLICKHOUSE_PASSWORD, never from a flag.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_USER", default_value = "default")]
    clickhouse_user: String,
    /// For an https URL: the PEM bundle of the authorities to trust; without it this machine's.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_CA_FILE")]
    clickhouse_ca_file: Option<PathBuf>,
    /// Write to the embedded ClickHouse of this data directory instead, which is started for it: `spanloom up` must
    /// not be running.
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// How many batches and dead letters are listed.
const LISTED: usize = 20;

/// Runs the command.
///
/// # Errors
/// When the folder cannot be read, or not all dead letters are replayed.
pub fn run(args: DoctorArgs) -> anyhow::Result<()> {
    let What::Log(args) = args.what;
    if args.replay {
        let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
        return runtime.block_on(replay(&args));
    }
    let report = spanloom_log::inspect(&args.folder)?;
    let below = args.folder.join("log");
    if report.segments.is_empty() && below.is_dir() {
        anyhow::bail!(
            "{} is not a log; {} may be the one",
            args.folder.display(),
            below.display()
        );
    }
    print(&explain(&report))
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}

async fn replay(args: &LogArgs) -> anyhow::Result<()> {
    let Some(path) = &args.data_dir else {
        return replay_to(args, &args.store()).await;
    };
    let data_dir = DataDir::open(path)?;
    let (engine, store) = start_engine(&data_dir, &Say::new()).await?;
    let done = replay_to(args, &store).await;
    engine
        .stop()
        .await
        .context("the embedded ClickHouse did not stop")?;
    done
}

async fn replay_to(args: &LogArgs, store: &StoreAddress) -> anyhow::Result<()> {
    let replayed = spanloom_collector::replay_letters(&args.folder, store).await?;
    print(&format!("{}\n", replayed.summary()))?;
    replayed.into_result().context("some dead letters stay")
}

impl LogArgs {
    fn store(&self) -> StoreAddress {
        StoreAddress {
            url: self.clickhouse_url.clone(),
            user: self.clickhouse_user.clone(),
            password: std::env::var("SPANLOOM_CLICKHOUSE_PASSWORD").unwrap_or_default(),
            credentials_dir: None,
            database: self.clickhouse_database.clone(),
            cluster: None,
            ca_file: self.clickhouse_ca_file.clone(),
        }
    }
}

fn explain(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_report(&mut text, report);
    text
}

fn write_report(out: &mut String, report: &Report) -> std::fmt::Result {
    let bytes: u64 = report.segments.iter().map(|segment| segment.bytes).sum();
    writeln!(
        out,
        "{}: {} in {}, keys of {}",
        report.folder.display(),
        size(bytes),
        count(report.segments.len() as u64, "segment"),
        count(report.keys as u64, "request"),
    )?;
    for (kind, (records, bytes)) in &report.records {
        writeln!(out, "  {records:>9} {kind} ({})", size(*bytes))?;
    }
    let spans: u64 = report
        .requests
        .iter()
        .map(|request| u64::from(request.spans))
        .sum();
    match report.oldest_age_ms {
        None => writeln!(out, "undelivered: nothing")?,
        Some(age) => writeln!(
            out,
            "undelivered: {} with {}, the oldest received {} s ago",
            count(report.requests.len() as u64, "request"),
            count(spans, "span"),
            age / 1000,
        )?,
    }
    for batch in report.batches.iter().take(LISTED) {
        let state = match batch.sent_at_ms {
            None => "never sent",
            Some(_) => "sent, not confirmed",
        };
        let requests = count(batch.requests.len() as u64, "request");
        writeln!(out, "  batch {}: {requests}, {state}", batch.id)?;
    }
    more(out, report.batches.len(), "batches")?;
    match report.dead_letters.is_empty() {
        true => writeln!(out, "dead letters: none")?,
        false => writeln!(out, "dead letters: {}", size(report.dead_letter_bytes))?,
    }
    for letter in report.dead_letters.iter().take(LISTED) {
        let spans = count(u64::from(letter.rows), "span");
        writeln!(out, "  {spans}: {}", letter.reason.replace('\n', " "))?;
    }
    more(out, report.dead_letters.len(), "dead letters")?;
    match report.reserve_bytes {
        0 => writeln!(
            out,
            "reserve: none; while the disk is full, nothing can be delivered"
        )?,
        bytes => writeln!(out, "reserve: {}", size(bytes))?,
    }
    if report.findings.is_empty() {
        writeln!(out, "damage: none")?;
    }
    for finding in &report.findings {
        let what = match finding.problem.is_damage() {
            true => "damage",
            false => "note",
        };
        writeln!(out, "{what}: {finding}")?;
    }
    for (name, bytes) in &report.kept_aside {
        writeln!(out, "kept aside: {name} ({})", size(*bytes))?;
    }
    Ok(())
}

fn more(out: &mut String, all: usize, what: &str) -> std::fmt::Result {
    match all.saturating_sub(LISTED) {
        0 => Ok(()),
        left => writeln!(out, "  and {left} more {what}"),
    }
}

fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // all of this is a test

    use super::*;
    use bytes::Bytes;
    use spanloom_log::{BatchId, DeadLetter, Log, Options, Record, Request};

    #[test]
    fn a_log_is_explained_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(folder.path(), Options::default()).unwrap();
        let request = |spans| {
            Record::Request(Request {
                key: u128::from(spans),
                received_at_ms: 0,
                spans,
                answer: Bytes::new(),
                payload: Bytes::from_static(b"spans"),
            })
        };
        let first = log.append(request(2)).unwrap();
        log.append(request(3)).unwrap();
        let batch = BatchId(7);
        let (requests, tokens) = (vec![first], Vec::new());
        log.append(Record::Batch {
            id: batch,
            requests,
            tokens,
        })
        .unwrap();
        let letter = DeadLetter {
            batch,
            rows: 0..1,
            at_ms: 0,
            reason: "TOO_LARGE_STRING_SIZE:\nvalue".to_owned(),
            payload: Bytes::new(),
        };
        log.keep_dead_letter(&letter).unwrap();
        log.commit().unwrap();
        let explain = || explain(&spanloom_log::inspect(folder.path()).unwrap());
        let text = explain();
        for expected in [
            "in 1 segment, keys of 2 requests",
            "undelivered: 2 requests with 5 spans",
            "batch 00000000000000000000000000000007: 1 request, never sent",
            "1 span: TOO_LARGE_STRING_SIZE: value",
            "reserve: 1.0 MiB",
            "damage: none",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(explain(), text);
        drop(log);
        let segment = folder.path().join("00000001.seg");
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
        let text = explain();
        assert!(text.contains("\ndamage: "), "{text}");
        assert!(text.contains("00000001.seg"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let error = spanloom_log::inspect("/nowhere/log".as_ref()).unwrap_err();
        assert!(error.to_string().contains("/nowhere/log"), "{error}");
    }
}
