//! A collector that runs: the pipeline's server with the store's writer behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use spanloom_crds::TracingPipeline;
use spanloom_pipeline::Server;
use spanloom_pipeline::server::ShutdownIncomplete;
use spanloom_store::block::{BlockPool, SpanBlock};
use spanloom_store::connection::Connection;
use spanloom_store::migrate::{MigrateOptions, Report};
use spanloom_store::writer::{Writer, WriterConfig};

use crate::admin::NotReady;
use crate::batch::StoreBatch;
use crate::config::{self, CollectorConfig, ConfigError, StoreAddress};
use crate::export::StoreExport;

/// Why a collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pipeline does not start.
    #[error(transparent)]
    Pipeline(#[from] spanloom_pipeline::StartError),
    /// It started without an address, though it was told one; a bug of ours.
    #[error("the pipeline does not listen")]
    NoAddress,
}

/// A collector that runs.
pub struct Collector {
    server: Server,
    grpc: SocketAddr,
    http: SocketAddr,
    draining: Arc<AtomicBool>,
}

impl Collector {
    /// Starts receiving. ClickHouse need not be there yet: until it is, senders are told to retry.
    ///
    /// # Errors
    /// When the document is wrong, or an address cannot be listened on.
    pub async fn start(
        config: CollectorConfig,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let writer = Arc::new(Writer::new(WriterConfig::new(
            connection(&config.store),
            config.store.database.clone(),
        )));
        writer.register(registry);
        let pool = BlockPool::new(config.blocks());
        pool.register(registry);
        let make_batch = move || StoreBatch(SpanBlock::new(&pool));
        let server = Server::start(
            config.pipeline()?,
            make_batch,
            StoreExport(writer),
            registry,
        )?;
        let grpc = server.grpc_address().ok_or(StartError::NoAddress)?;
        let http = server.http_address().ok_or(StartError::NoAddress)?;
        Ok(Self {
            server,
            grpc,
            http,
            draining: Arc::default(),
        })
    }

    /// Where OTLP over gRPC is received.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Where OTLP over HTTP is received.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Says why the collector is not ready, for `/readyz`. A ClickHouse that is away does not count:
    /// senders would only find no collector at all, and the answer to them is "retry" anyway.
    pub fn not_ready(&self) -> Arc<NotReady> {
        let draining = Arc::clone(&self.draining);
        Arc::new(move || {
            draining
                .load(Ordering::Relaxed)
                .then(|| "draining".to_owned())
        })
    }

    /// Stops receiving, stores what was received, and gives up what is not stored by `deadline`.
    ///
    /// # Errors
    /// When something was given up; its senders were told to retry.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ShutdownIncomplete> {
        self.draining.store(true, Ordering::Relaxed);
        self.server.shutdown(deadline).await
    }
}

/// Why the schema could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// ClickHouse is away or refuses.
    #[error(transparent)]
    Store(#[from] spanloom_store::migrate::MigrateError),
}

/// How long migrations wait for a ClickHouse that is still starting.
const PATIENCE: Duration = Duration::from_secs(60);

/// Brings ClickHouse's schema to this version, for the pipeline of this name. Safe to run again, and
/// by two at once.
///
/// # Errors
/// When the document is wrong, ClickHouse cannot be reached, or the database is another pipeline's.
pub async fn migrate(
    store: &StoreAddress,
    document: &TracingPipeline,
    pipeline: &str,
) -> Result<Report, MigrateError> {
    let options = config::schema(store, document)?;
    let migrate = MigrateOptions {
        pipeline: pipeline.to_owned(),
        patience: PATIENCE,
    };
    Ok(spanloom_store::migrate::run(&connection(store), &options, &migrate).await?)
}

fn connection(store: &StoreAddress) -> Connection {
    Connection {
        url: store.url.clone(),
        user: store.user.clone(),
        password: store.password.clone(),
    }
}
