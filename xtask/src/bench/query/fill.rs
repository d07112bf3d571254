//! The database of `bench query`: made once, kept in the cache as long as nothing it depends on changes.

use anyhow::Context;
use spanloom_store::migrate;
use spanloom_store::schema::SchemaOptions;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::super::build;
use super::super::peers;
use super::super::schema::{source, spans_columns};
use super::super::sink::Sink;
use super::super::sql::Sql;

/// Where the tables are.
pub const DATABASE: &str = "bench";
/// Retention removes spans after a week, so a database is made anew before.
const TOO_OLD: Duration = Duration::from_secs(5 * 24 * 3600);
const ROLLUPS: &str = include_str!("rollups.sql");

/// A running engine with the spans in it.
#[derive(Debug)]
pub struct Filled {
    /// The engine.
    pub sink: Sink,
    /// Spans in it.
    pub spans: u64,
    /// The first one's time, Unix seconds.
    pub start: u64,
    /// The id of a trace of [`LARGE_TRACE`] spans, in the hour before.
    pub large_trace: String,
}

/// Spans of the large trace.
const LARGE_TRACE: u64 = 100_000;
/// Its id.
const LARGE_TRACE_ID: &str = "000102030405060708090a0b0c0d0e0f";

/// Starts the engine on the cached database, after making it where needed.
pub fn open(spans: u64, hours: u64, refill: bool) -> anyhow::Result<Filled> {
    let host = Sink::host()?;
    let folder = spanloom_e2e::cache_dir()?
        .join("bench-query")
        .join(key(spans, hours));
    let stamp = folder.join("start");
    if !refill && let Some(start) = usable(&stamp)? {
        return Ok(Filled {
            sink: Sink::start(&host, &folder.join("engine"))?,
            spans,
            start,
            large_trace: LARGE_TRACE_ID.to_owned(),
        });
    }
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let sink = Sink::start(&host, &folder.join("engine"))?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let start = (now - hours * 3600) / 3600 * 3600;
    fill(&sink.sql, spans, hours, start)?;
    // Last, so that a database half made is not taken for a whole one.
    std::fs::write(&stamp, start.to_string())?;
    Ok(Filled {
        sink,
        spans,
        start,
        large_trace: LARGE_TRACE_ID.to_owned(),
    })
}

/// The start of the spans in a database that is whole and young enough.
fn usable(stamp: &Path) -> anyhow::Result<Option<u64>> {
    let Ok(text) = std::fs::read_to_string(stamp) else {
        return Ok(None);
    };
    let start: u64 = text
        .trim()
        .parse()
        .with_context(|| format!("{}", stamp.display()))?;
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
    Ok(from
        .elapsed()
        .is_ok_and(|age| age < TOO_OLD)
        .then_some(start))
}

/// A name for everything that the content depends on.
fn key(spans: u64, hours: u64) -> String {
    let mut hasher = DefaultHasher::new();
    migrate::statements(&SchemaOptions::default()).hash(&mut hasher);
    (spans, hours, source::TEXT, ROLLUPS).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn fill(sql: &Sql, spans: u64, hours: u64, start: u64) -> anyhow::Result<()> {
    let collector = build::binary("spanloom-collector", "spanloom-collector", "release")?;
    peers::run(
        Command::new(collector)
            .arg("migrate")
            .args(["--clickhouse-url", &sql.url])
            .args(["--clickhouse-database", DATABASE])
            .args(["--clickhouse-user", &sql.user])
            .env("SPANLOOM_CLICKHOUSE_PASSWORD", &sql.password),
    )?;
    let sql = sql.within(DATABASE);
    let first_ns = start * 1_000_000_000;
    let start = sql.run(&format!(
        "SELECT toString(fromUnixTimestamp({start}), 'UTC') FORMAT TSV"
    ))?;
    let from = source::Source {
        spans,
        hours: hours as f64,
        start: start.text.trim().to_owned(),
    };
    from.fill(&sql)?;
    eprintln!("filling the tables");
    let (columns, sources): (Vec<String>, Vec<String>) = spans_columns().into_iter().unzip();
    let insert = format!(
        "INSERT INTO spans ({}) SELECT {} FROM source",
        columns.join(", "),
        sources.join(", ")
    );
    sql.run(&insert)?;
    let day_ns = hours * 3_600_000_000_000;
    let large_until_ns = first_ns + day_ns / (spans / LARGE_TRACE).max(1);
    let rollups = source::statement(ROLLUPS)
        .replace("{{columns}}", &columns.join(", "))
        .replace("{{sources}}", &sources.join(", "))
        .replace("{{large}}", LARGE_TRACE_ID)
        .replace("{{large_until_ns}}", &large_until_ns.to_string());
    for statement in rollups.split(';').filter(|s| !s.trim().is_empty()) {
        sql.run(statement)?;
    }
    sql.run("DROP TABLE source")?;
    for table in ["spans", "trace_index", "red", "red_hours", "tags"] {
        sql.run(&format!("OPTIMIZE TABLE {table} FINAL"))?;
    }
    Ok(())
}
