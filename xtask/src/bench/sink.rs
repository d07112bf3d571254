//! The embedded ClickHouse as the benchmarks use it: a child process with a folder of its own.

use anyhow::Context;
use spanloom_engine::{Engine, EngineConfig};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

use super::build;
use super::sql::Sql;

/// A running engine. It inherits this process's core, and stops with this value.
#[derive(Debug)]
pub struct Sink {
    runtime: Runtime,
    engine: Option<Engine>,
    /// How to talk to it.
    pub sql: Sql,
    /// Its process.
    pub pid: u32,
}

impl Sink {
    /// Builds the program that the engine runs in.
    pub fn host() -> anyhow::Result<PathBuf> {
        build::binary("spanloom-engine", "spanloom-engine-host", "fast")
    }

    /// Starts an engine on `folder`, fetching it first where it is not cached.
    pub fn start(host: &Path, folder: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let engine = runtime.block_on(async {
            let library = spanloom_engine::fetch::library(|step| eprintln!("{step}")).await?;
            let config = EngineConfig {
                data_dir: folder.to_owned(),
                listen: ([127, 0, 0, 1], 0).into(),
                user: "bench".to_owned(),
                password: "bench".to_owned(),
                memory_limit_bytes: 8 << 30,
                library,
                host_command: vec![host.into()],
            };
            Engine::start(config)
                .await
                .context("start the embedded ClickHouse")
        })?;
        let sql = Sql::new(engine.url(), "bench".to_owned(), "bench".to_owned());
        let pid = engine.pid();
        Ok(Self {
            runtime,
            engine: Some(engine),
            sql,
            pid,
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take()
            && let Err(error) = self.runtime.block_on(engine.stop())
        {
            eprintln!("stopping the embedded ClickHouse: {error}");
        }
    }
}
