//! The OpenTelemetry Collector, built by its official builder from `xtask/otelcol-builder.yaml`.

use anyhow::Context;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::sql::Sql;

/// The builder's version and how often the manifest changed since.
const VERSION: &str = "0.161.0";
const BUILD: &str = "0.161.0-b1";
const MANIFEST: &str = include_str!("../../../otelcol-builder.yaml");

/// Builds it once, in about two minutes; later runs find it in the cache.
pub fn program() -> anyhow::Result<PathBuf> {
    let folder = spanloom_e2e::cache_dir()?.join("otelcol").join(BUILD);
    crate::cache::cached(&folder, "otelcol", |work| {
        eprintln!("building the OpenTelemetry Collector {VERSION} (two minutes, once)");
        // The builder takes the output folder from its manifest only.
        let out = work.join("source");
        let manifest = work.join("builder.yaml");
        let with_output = MANIFEST.replacen(
            "dist:",
            &format!("dist:\n  output_path: {}", out.display()),
            1,
        );
        std::fs::write(&manifest, with_output)?;
        let builder = format!("go.opentelemetry.io/collector/cmd/builder@v{VERSION}");
        super::run(
            Command::new("go")
                .args(["run", &builder, "--config"])
                .arg(&manifest)
                .env("CGO_ENABLED", "0"),
        )
        .context("Go is needed to build the OpenTelemetry Collector")?;
        std::fs::rename(out.join("otelcol"), work.join("otelcol"))?;
        std::fs::remove_dir_all(&out)?;
        Ok(())
    })
}

/// Its configuration: batches as the exporter's documentation advises (5,000 rows and more), blocking
/// where its queue is full rather than dropping, LZ4 to ClickHouse (its default).
pub fn arguments(
    command: &mut Command,
    otlp: SocketAddr,
    sink: &Sql,
    folder: &Path,
) -> anyhow::Result<()> {
    let config = serde_json::json!({
        "receivers": {"otlp": {"protocols": {"grpc": {
            "endpoint": otlp.to_string(), "max_recv_msg_size_mib": 64,
        }}}},
        "processors": {"batch": {"send_batch_size": 10_000, "timeout": "200ms"}},
        "exporters": {"clickhouse": {
            "endpoint": sink.url,
            "username": sink.user,
            "password": sink.password,
            "database": sink.database,
            "create_schema": false,
            "async_insert": false,
            "timeout": "30s",
            "sending_queue": {"queue_size": 16, "num_consumers": 4, "block_on_overflow": true},
        }},
        "service": {
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
            "pipelines": {"traces": {
                "receivers": ["otlp"], "processors": ["batch"], "exporters": ["clickhouse"],
            }},
        },
    });
    // JSON is YAML.
    let path = folder.join("otelcol.yaml");
    std::fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
    command.arg("--config").arg(path);
    Ok(())
}
