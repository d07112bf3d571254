//! Our collector, built from this workspace.

use anyhow::Context;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::build;
use super::super::sql::Sql;

/// A release build of `spanloom-collector`.
pub fn program() -> anyhow::Result<PathBuf> {
    build::binary("spanloom-collector", "spanloom-collector", "release")
}

/// Its own migrations, then every table that takes rows exchanged for one with the Null engine.
///
/// RED, half-edges, trace index and catalogue are all still written; the sink drops them as it drops the
/// peers' rows.
pub fn create_tables(program: &Path, sink: &Sql) -> anyhow::Result<()> {
    let mut migrate = Command::new(program);
    migrate.arg("migrate");
    store_arguments(&mut migrate, sink);
    super::run(&mut migrate)?;
    // Refreshable views would go on working beside the measurement.
    let views = sink.run(
        "SELECT name FROM system.tables WHERE database = currentDatabase() \
         AND engine = 'MaterializedView' FORMAT TSV",
    )?;
    for view in views.text.lines() {
        sink.run(&format!("DROP VIEW {view}"))?;
    }
    let tables = sink.run(
        "SELECT name FROM system.tables WHERE database = currentDatabase() \
         AND engine LIKE '%MergeTree' AND name != 'schema_migrations' FORMAT TSV",
    )?;
    for table in tables.text.lines() {
        let columns = columns(sink, table)?;
        sink.run(&format!("DROP TABLE {table}"))?;
        sink.run(&format!("CREATE TABLE {table} ({columns}) ENGINE = Null"))
            .with_context(|| format!("exchange {table} for a Null table"))?;
    }
    Ok(())
}

fn columns(sink: &Sql, table: &str) -> anyhow::Result<String> {
    let rows = sink.run(&format!(
        "SELECT concat('`', name, '` ', type, if(default_kind = '', '', \
         concat(' ', default_kind, ' ', default_expression))) FROM system.columns \
         WHERE database = currentDatabase() AND table = '{table}' ORDER BY position FORMAT TSVRaw"
    ))?;
    Ok(rows.text.trim_end().replace('\n', ", "))
}

/// `spanloom-collector run`.
pub fn arguments(command: &mut Command, otlp: SocketAddr, sink: &Sql) -> anyhow::Result<()> {
    command.arg("run").args(["--otlp-grpc", &otlp.to_string()]);
    for flag in ["--otlp-http", "--metrics"] {
        command.args([flag, &super::free_address()?.to_string()]);
    }
    store_arguments(command, sink);
    Ok(())
}

/// Three classes are redacted.
const REDACTING: &str = "apiVersion: spanloom.dev/v1alpha1
kind: TracingPipeline
metadata: {name: bench}
spec:
  processing:
    redact: [{values: email}, {values: creditCard}, {values: ipv4}]
";

/// Has it redact.
pub fn redact(command: &mut Command, folder: &Path) -> anyhow::Result<()> {
    let document = folder.join("redacting.yaml");
    std::fs::write(&document, REDACTING)
        .with_context(|| format!("write {}", document.display()))?;
    command.arg("--file").arg(document);
    Ok(())
}

/// Gives it a log, which is empty.
pub fn log(command: &mut Command, folder: &Path) -> anyhow::Result<()> {
    let folder = folder.join("log");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    command.arg("--log-folder").arg(folder);
    Ok(())
}

fn store_arguments(command: &mut Command, sink: &Sql) {
    command
        .args(["--clickhouse-url", &sink.url])
        .args(["--clickhouse-database", &sink.database])
        .args(["--clickhouse-user", &sink.user])
        .env("SPANLOOM_CLICKHOUSE_PASSWORD", &sink.password);
}
