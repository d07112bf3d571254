//! A collector that runs: the pipeline's server with the store's writer behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::registry::Registry;
use spanloom_crds::agent::{AgentConfig, AgentStatus, Impairment, Undelivered, capability};
use spanloom_crds::{DocumentErrors, TracingPipeline, resolved};
use spanloom_pipeline::config::Acknowledge;
use spanloom_pipeline::durable::OpenError;
use spanloom_pipeline::server::{Control, ShutdownIncomplete};
use spanloom_pipeline::{Config as PipelineConfig, Server};
use spanloom_program::Health;
use spanloom_store::access::{Access, AccessError, NotKnown};
use spanloom_store::block::{BlockPool, BlockPoolOptions, SpanBlock};
use spanloom_store::migrate::{MigrateOptions, Report, system_logs};
use spanloom_store::schema::SchemaOptions;
use spanloom_store::trouble::{Trouble, TroubleKind};
use spanloom_store::writer::{Writer, WriterConfig};
use spanloom_tls::TlsError;

use crate::batch::StoreBatch;
use crate::cluster::{Cluster, Watches, Watching};
use crate::config::{self, CollectorConfig, StoreAddress};
#[cfg(feature = "control-runs")]
use crate::control::{self, Protection};
use crate::export::StoreExport;
use crate::level;
use crate::sidecars::SidecarsConfig;

/// Why a collector does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] DocumentErrors),
    /// The pipeline does not start.
    #[error(transparent)]
    Pipeline(#[from] spanloom_pipeline::StartError),
    /// The log cannot be opened.
    #[error("cannot open the log: {0}")]
    Log(#[from] OpenError),
    /// The credentials, or the authorities that ClickHouse's certificate is checked against, cannot be read.
    #[error("cannot connect to ClickHouse: {0}")]
    Access(#[from] AccessError),
    /// The certificate for sidecars cannot be read.
    #[error("cannot listen for sidecars: {0}")]
    Sidecars(#[from] TlsError),
    /// Sidecars are to be received where there is no API server to ask about them.
    #[error(
        "sidecars are received in a cluster only; set SPANLOOM_CONFIG_MAP, or do not set SPANLOOM_SIDECARS"
    )]
    NoCluster,
    /// It started without an address, though it was told one; a bug of ours.
    #[error("the pipeline is not listening")]
    NoAddress,
}

/// What a collector is made of.
struct Parts {
    pipeline: PipelineConfig,
    store: Access,
    writer: WriterConfig,
    blocks: BlockPoolOptions,
    sidecars: Option<SidecarsConfig>,
}

/// How long a collector in a cluster waits for the log of its node: an earlier pod that was deleted by force, or
/// evicted, may still be ending.
const LOG_PATIENCE: Duration = Duration::from_secs(30);

impl Parts {
    async fn of(config: &CollectorConfig, patience: Duration) -> Result<Self, StartError> {
        let store = config.store.access()?;
        let mut pipeline = config.pipeline()?;
        if let Some(log) = &config.log {
            let opened = log.open_when_free(config.log_memory(), patience).await?;
            pipeline.acknowledge = Acknowledge::Logged(opened);
        }
        Ok(Self {
            pipeline,
            writer: WriterConfig::new(store.clone(), config.store.database.clone()),
            store,
            blocks: config.blocks(),
            sidecars: config.sidecars.clone(),
        })
    }
}

/// A collector that runs.
pub struct Collector {
    server: Server,
    grpc: SocketAddr,
    http: SocketAddr,
    sidecars: Option<SocketAddr>,
    draining: Arc<AtomicBool>,
    watching: Option<Watching>,
    level: level::Watch,
    trouble: Trouble,
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
        Self::assemble(Parts::of(&config, Duration::ZERO).await?, None, registry)
    }

    /// Starts a collector that follows its configuration object. It listens at once, but tells
    /// senders to retry until the first configuration is in force; of `config` the document does
    /// not count.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub async fn start_in(
        cluster: Cluster,
        config: CollectorConfig,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        Self::assemble(
            Parts::of(&config, LOG_PATIENCE).await?,
            Some(cluster),
            registry,
        )
    }

    /// Starts either of them without some protections, for a control run.
    ///
    /// # Errors
    /// As the others.
    #[cfg(feature = "control-runs")]
    pub async fn start_without(
        protections: &[Protection],
        cluster: Option<Cluster>,
        config: CollectorConfig,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let mut parts = Parts::of(&config, LOG_PATIENCE).await?;
        control::leave_out(protections, &mut parts.pipeline, &mut parts.writer);
        Self::assemble(parts, cluster, registry)
    }

    fn assemble(
        parts: Parts,
        cluster: Option<Cluster>,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let Parts {
            mut pipeline,
            store,
            mut writer,
            blocks,
            sidecars,
        } = parts;
        if matches!(pipeline.acknowledge, Acknowledge::Stored) {
            // A batch that is given up answers its senders, and SDKs try only a few times, a second apart. The
            // log answers them before, and takes what is given up.
            writer.give_up_after = pipeline.connections.answer_timeout;
        }
        let watches = match cluster {
            None if sidecars.is_some() => return Err(StartError::NoCluster),
            None => None,
            Some(cluster) => {
                pipeline.hold = true;
                pipeline.accounts.node.clone_from(&cluster.node);
                let mut watches = Watches::new(cluster, registry);
                for listener in &mut pipeline.listeners {
                    listener.identify = Some(watches.identify());
                }
                if let Some(sidecars) = sidecars {
                    let listener = watches.receive(sidecars, registry)?;
                    pipeline.listeners.push(listener);
                }
                Some(watches)
            }
        };
        let writer = Writer::new(writer);
        let trouble = writer.trouble();
        writer.register(registry);
        let pool = BlockPool::new(blocks);
        pool.register(registry);
        let make_batch = move || StoreBatch(SpanBlock::new(&pool));
        let server = Server::start(pipeline, make_batch, StoreExport(writer), registry)?;
        // In the order of `CollectorConfig::pipeline`.
        let &[grpc, http, ref others @ ..] = server.addresses() else {
            return Err(StartError::NoAddress);
        };
        let sidecars = others.first().copied();
        let access = store.clone();
        let level = level::Watch::start(store, registry);
        let watching = watches.map(|watches| watches.start(server.control(), access, registry));
        Ok(Self {
            server,
            grpc,
            http,
            sidecars,
            draining: Arc::default(),
            watching,
            level,
            trouble,
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

    /// Where sidecars are received, if they are.
    pub fn sidecar_address(&self) -> Option<SocketAddr> {
        self.sidecars
    }

    /// How the collector is, for `/readyz`. A ClickHouse that is away or full is only mentioned: senders would
    /// find no collector at all, and the answer to them is "retry" anyway.
    pub fn health(&self) -> Health {
        let draining = Arc::clone(&self.draining);
        let watched = self.watching.as_ref().map(Watching::state);
        let control = self.server.control();
        let of = self.server.control();
        Health::new(move || {
            if draining.load(Ordering::Relaxed) {
                return Some("draining".to_owned());
            }
            if let Some(part) = control.broken() {
                return Some(format!("{part} exited unexpectedly; this is a bug"));
            }
            watched.as_ref().and_then(|state| state.not_ready())
        })
        .impaired_by(move || of.impairment())
    }

    /// How the collector is, for `/status`.
    pub fn status(&self) -> impl Fn() -> AgentStatus + Send + Sync + use<> {
        let control: Control = self.server.control();
        let watched = self.watching.as_ref().map(Watching::state);
        let understands = capability::understood();
        let level = self.level.level.clone();
        let trouble = self.trouble.clone();
        move || AgentStatus {
            config: watched
                .as_ref()
                .map(|state| state.config())
                .unwrap_or_default(),
            understands: understands.clone(),
            spans_received: control.spans_received(),
            spans_discarded: control.spans_discarded(),
            store_used_percent: level.used_percent(),
            impairment: control.impairment().map(|message| Impairment {
                store_full: trouble.now() == Some(TroubleKind::DiskFull),
                message,
            }),
            undelivered: control.undelivered().map(|(requests, oldest)| Undelivered {
                requests: requests as u64,
                oldest_seconds: oldest.as_secs(),
            }),
        }
    }

    /// Says that it is not ready any more and asks clients to go elsewhere, but serves them all the
    /// same: for the time until the cluster has noticed. [`Collector::shutdown`] comes next.
    pub fn leave(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.server.leave();
    }

    /// Stops receiving, stores what was received, and gives up what is not stored by `deadline`.
    ///
    /// # Errors
    /// When something was given up; its senders were told to retry.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ShutdownIncomplete> {
        self.draining.store(true, Ordering::Relaxed);
        let control = self.server.control();
        let shutdown = self.server.shutdown(deadline);
        let drained = match self.watching {
            None => shutdown.await,
            Some(watching) => {
                tokio::pin!(shutdown);
                let drained = tokio::select! {
                    drained = &mut shutdown => drained,
                    () = watching.pipeline_is_deleted() => {
                        // Its store goes too: nothing is left to wait for.
                        tracing::warn!("the pipeline is deleted; what is not stored is given up");
                        control.give_up();
                        shutdown.await
                    }
                };
                watching.stop().await;
                drained
            }
        };
        self.level.stop().await;
        drained
    }
}

/// Why the schema could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] DocumentErrors),
    /// The credentials, or the authorities that ClickHouse's certificate is checked against, cannot be read.
    #[error("cannot connect to ClickHouse: {0}")]
    Access(#[from] AccessError),
    /// Nobody said where ClickHouse is.
    #[error(transparent)]
    NotKnown(#[from] NotKnown),
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
    migrate_to(store, &options, pipeline.to_owned()).await
}

/// The same for a pipeline in a cluster, whose name is `namespace/name`.
///
/// # Errors
/// When ClickHouse cannot be reached, or the database is another pipeline's.
pub async fn migrate_agent(
    store: &StoreAddress,
    config: &AgentConfig,
) -> Result<Report, MigrateError> {
    let pipeline = format!("{}/{}", config.pipeline.namespace, config.pipeline.name);
    let report = migrate_to(store, &config::agent_schema(store, config), pipeline).await?;
    if matches!(
        config.resolved.storage.server,
        resolved::Server::Managed { .. }
    ) {
        drop_old_logs(store).await?;
    }
    Ok(report)
}

/// Drops what a managed server has left of its own logs. What it refuses stays: nothing of ours needs it.
async fn drop_old_logs(store: &StoreAddress) -> Result<(), MigrateError> {
    match system_logs::drop_left(&store.access()?.connection()?).await {
        Ok(dropped) if dropped.is_empty() => {}
        Ok(dropped) => tracing::info!(dropped = dropped.join(", "), "dropped old system logs"),
        Err(error) => tracing::warn!(%error, "cannot drop old system logs"),
    }
    Ok(())
}

async fn migrate_to(
    store: &StoreAddress,
    options: &SchemaOptions,
    pipeline: String,
) -> Result<Report, MigrateError> {
    let migrate = MigrateOptions {
        pipeline,
        patience: PATIENCE,
    };
    let connection = store.access()?.connection()?;
    Ok(spanloom_store::migrate::run(&connection, options, &migrate).await?)
}
