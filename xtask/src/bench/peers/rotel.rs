//! rotel, as its Python wheel ships it.

use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use super::super::sql::Sql;
use super::elf;

const VERSION: &str = "0.0.1a10";

/// Fetches the wheel once and takes the program out of it.
pub fn program() -> anyhow::Result<PathBuf> {
    let folder = spanloom_e2e::cache_dir()?.join("rotel").join(VERSION);
    crate::cache::cached(&folder, "rotel", |work| {
        super::run(
            Command::new("python3")
                .args(["-m", "pip", "download", "--no-deps", "--dest"])
                .arg(work)
                .arg(format!("rotel=={VERSION}")),
        )
        .context("Python with pip is needed to fetch rotel")?;
        let wheel = std::fs::read_dir(work)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|e| e == "whl"))
            .context("pip said it fetched rotel's wheel, but there is none")?;
        super::run(
            Command::new("python3")
                .args(["-m", "zipfile", "-e"])
                .arg(&wheel)
                .arg(work),
        )?;
        let mut program = std::fs::read(work.join("rotel/rotel-agent"))?;
        elf::lower_glibc(&mut program).context("patch rotel's program")?;
        std::fs::remove_dir_all(work.join("rotel"))?;
        let path = work.join("rotel");
        std::fs::write(&path, program)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        Ok(())
    })
}

/// Its defaults (batches of 8,192 spans or 200 ms, LZ4), with synchronous inserts like the others.
pub fn arguments(command: &mut Command, otlp: SocketAddr, sink: &Sql) -> anyhow::Result<()> {
    let unused = super::free_address()?;
    if unused == otlp {
        bail!("one port was given out twice: {otlp}");
    }
    command
        .arg("start")
        .args(["--otlp-grpc-endpoint", &otlp.to_string()])
        .args(["--otlp-http-endpoint", &unused.to_string()])
        .args(["--otlp-grpc-max-recv-msg-size-mib", "64"])
        .args(["--exporter", "clickhouse"])
        .args(["--clickhouse-exporter-endpoint", &sink.url])
        .args(["--clickhouse-exporter-database", &sink.database])
        .args(["--clickhouse-exporter-async-insert", "false"])
        .args(["--clickhouse-exporter-user", &sink.user])
        .env("ROTEL_CLICKHOUSE_EXPORTER_PASSWORD", &sink.password);
    Ok(())
}
