//! An engine of a scenario's own, which can be killed and started again on the same data folder.

use spanloom_engine::{Engine, EngineConfig, testing};
use tempfile::TempDir;

use super::program::{peak_bytes, signal_to};

/// A running engine.
pub struct Store {
    engine: Engine,
    config: EngineConfig,
    /// The most memory of those that were killed, in bytes.
    peak: u64,
    _data: TempDir,
}

impl Store {
    pub async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let config = testing::config(data.path()).await;
        let engine = Engine::start(config.clone()).await.unwrap();
        let listen = engine.url().trim_start_matches("http://").parse().unwrap();
        Self {
            engine,
            config: EngineConfig { listen, ..config },
            peak: 0,
            _data: data,
        }
    }

    pub fn url(&self) -> String {
        self.engine.url()
    }

    pub fn user(&self) -> &str {
        self.engine.user()
    }

    pub fn password(&self) -> &str {
        self.engine.password()
    }

    /// What its queries and inserts may use, in bytes.
    pub fn limit(&self) -> u64 {
        self.config.memory_limit_bytes
    }

    /// Kills it and starts it again, at the same address.
    pub async fn kill(&mut self) {
        self.peak = self.peak();
        signal_to(self.engine.pid(), "-KILL");
        self.engine.died().await.unwrap();
        self.engine = Engine::start(self.config.clone()).await.unwrap();
    }

    /// The most memory that it has had, in bytes.
    pub fn peak(&self) -> u64 {
        self.peak.max(peak_bytes(self.engine.pid()))
    }

    /// Ends it before its data folder goes.
    pub async fn stop(self) {
        self.engine.stop().await.unwrap();
    }
}
