//! The collectors that are compared: where their programs come from and how each is started.

mod elf;
mod otelcol;
mod rotel;
mod spanloom;

use anyhow::{Context, bail};
use serde::Serialize;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::load::body::Compression;
use super::proc::{self, Running};
use super::sql::Sql;

/// A collector under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// Ours.
    Spanloom,
    /// Ours, with three classes of text that it redacts.
    SpanloomRedacting,
    /// Ours, with a log on disk.
    SpanloomLogged,
    /// The OpenTelemetry Collector with its ClickHouse exporter.
    Otelcol,
    /// rotel, from its wheel.
    Rotel,
}

impl Peer {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spanloom => "spanloom",
            Self::SpanloomRedacting => "spanloom-redacting",
            Self::SpanloomLogged => "spanloom-logged",
            Self::Otelcol => "otelcol",
            Self::Rotel => "rotel",
        }
    }

    /// Whether it reads bodies compressed so.
    pub fn takes(self, compression: Compression) -> bool {
        !(self == Self::Rotel && compression == Compression::Zstd)
    }

    /// Its program, fetched or built where it is not there yet.
    pub fn program(self) -> anyhow::Result<PathBuf> {
        match self {
            Self::Spanloom | Self::SpanloomRedacting | Self::SpanloomLogged => spanloom::program(),
            Self::Otelcol => otelcol::program(),
            Self::Rotel => rotel::program(),
        }
        .with_context(|| format!("get the program of {}", self.name()))
    }

    /// Makes the tables it writes to, with the Null engine, in the sink's (empty) database.
    pub fn create_tables(self, program: &Path, sink: &Sql) -> anyhow::Result<()> {
        match self {
            Self::Spanloom | Self::SpanloomRedacting | Self::SpanloomLogged => {
                spanloom::create_tables(program, sink)?;
            }
            Self::Otelcol | Self::Rotel => {
                sink.run(include_str!("otel_traces.sql"))?;
            }
        }
        let table = match self {
            Self::Spanloom | Self::SpanloomRedacting | Self::SpanloomLogged => "spans",
            Self::Otelcol | Self::Rotel => "otel_traces",
        };
        // The sink's own count of what it was given: a row for each block inserted.
        sink.run("CREATE TABLE confirmed (spans UInt64) ENGINE = Memory")?;
        sink.run(&format!(
            "CREATE MATERIALIZED VIEW confirm TO confirmed AS SELECT count() AS spans FROM {table}"
        ))?;
        Ok(())
    }

    /// Starts it on its core and waits until it listens.
    pub fn start(self, program: &Path, sink: &Sql, folder: &Path) -> anyhow::Result<Collector> {
        let otlp = free_address()?;
        let mut command = proc::pinned(proc::COLLECTOR_CORE, program);
        match self {
            Self::Spanloom => spanloom::arguments(&mut command, otlp, sink)?,
            Self::SpanloomRedacting => {
                spanloom::arguments(&mut command, otlp, sink)?;
                spanloom::redact(&mut command, folder)?;
            }
            Self::SpanloomLogged => {
                spanloom::arguments(&mut command, otlp, sink)?;
                spanloom::log(&mut command, folder)?;
            }
            Self::Otelcol => otelcol::arguments(&mut command, otlp, sink, folder)?,
            Self::Rotel => rotel::arguments(&mut command, otlp, sink)?,
        }
        let log = folder.join(format!("{}.log", self.name()));
        let file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("start {}", self.name()))?;
        let mut collector = Collector {
            running: Running::new(child),
            otlp,
            log,
        };
        let mut failure = None;
        let up = proc::wait(Duration::from_secs(20), || {
            failure = collector.running.check(self.name()).err();
            failure.is_some() || TcpStream::connect(otlp).is_ok()
        });
        match failure {
            Some(error) => Err(error.context(collector.last_words())),
            None if up => Ok(collector),
            None => bail!(
                "{} did not listen within 20 s\n{}",
                self.name(),
                collector.last_words()
            ),
        }
    }
}

/// A started collector.
#[derive(Debug)]
pub struct Collector {
    /// Its process.
    pub running: Running,
    /// Where it takes OTLP/gRPC.
    pub otlp: SocketAddr,
    log: PathBuf,
}

impl Collector {
    /// The end of what it logged, for error messages.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(15);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

/// A local address that was free a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Runs a command to its end; its output goes to standard error, since standard output may be JSON.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
