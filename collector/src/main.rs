//! The collector's program: `run` receives and writes, `migrate` makes or renews the schema and ends.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use prometheus_client::registry::Registry;
#[cfg(feature = "control-runs")]
use spanloom_collector::control;
use spanloom_collector::sidecars::SidecarsConfig;
use spanloom_collector::{
    Cluster, Collector, CollectorConfig, LogConfig, StoreAddress, config, memory, threads,
};
use spanloom_crds::TracingPipeline;
use spanloom_crds::agent::AgentConfig;
use spanloom_program::memory::{COLLECTOR_DEFAULT, Collector as Shares, container_limit};
use spanloom_program::{Admin, Pages, Signals, causes, logs, termination_message};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Spanloom's collector: receives OTLP traces, processes them and writes them to ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "spanloom-collector", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive OTLP and write it to ClickHouse until stopped.
    Run(Box<RunArgs>),
    /// Migrate ClickHouse's schema to this version and exit.
    Migrate(MigrateArgs),
    /// Write the rows that ClickHouse rejected, and that the log keeps as dead letters, to ClickHouse again.
    ReplayDeadLetters(ReplayArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Where OTLP over gRPC is received.
    #[arg(long, env = "SPANLOOM_OTLP_GRPC", default_value = "[::]:4317")]
    otlp_grpc: SocketAddr,
    /// Where OTLP over HTTP is received.
    #[arg(long, env = "SPANLOOM_OTLP_HTTP", default_value = "[::]:4318")]
    otlp_http: SocketAddr,
    /// In a cluster: the ConfigMap with the configuration, namespace/name. It is watched, and its
    /// changes are live without a restart; the document is not read then.
    #[arg(long, env = "SPANLOOM_CONFIG_MAP")]
    config_map: Option<String>,
    /// In a cluster: the node that this collector runs on.
    #[arg(long, env = "SPANLOOM_NODE_NAME")]
    node_name: Option<String>,
    /// Where /metrics, /healthz, /readyz and /status are served.
    #[arg(long, env = "SPANLOOM_METRICS", default_value = "[::]:9464")]
    metrics: SocketAddr,
    /// Bytes of memory that the container may use; what the collector holds stays below it, and senders
    /// are told to retry before that [default: as its control group says, else 512 MiB]
    #[arg(long, env = "SPANLOOM_MEMORY_LIMIT_BYTES")]
    memory_limit_bytes: Option<u64>,
    /// Folder of the log on disk: requests are kept in it until they are stored, and are answered when it
    /// has them [default: none; they are answered when they are stored]
    #[arg(long, env = "SPANLOOM_LOG_FOLDER")]
    log_folder: Option<PathBuf>,
    /// Bytes that the log may have; beyond them senders are told to retry.
    #[arg(long, env = "SPANLOOM_LOG_BYTES", default_value_t = 2 << 30)]
    log_bytes: u64,
    /// In a cluster: where sidecars are received, over TLS [default: nowhere]
    #[arg(long, env = "SPANLOOM_SIDECARS", requires_all = ["sidecars_cert_file", "sidecars_key_file"])]
    sidecars: Option<SocketAddr>,
    /// The certificate chain for sidecars, in PEM, read again when it changes.
    #[arg(long, env = "SPANLOOM_SIDECARS_CERT_FILE")]
    sidecars_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "SPANLOOM_SIDECARS_KEY_FILE")]
    sidecars_key_file: Option<PathBuf>,
    /// The authorities that sidecars are to trust, in PEM; they are sent to them when they change.
    #[arg(long, env = "SPANLOOM_SIDECARS_CA_FILE")]
    sidecars_ca_file: Option<PathBuf>,
    /// Browser origins that may send spans (CORS), comma separated; * for any.
    #[arg(long, env = "SPANLOOM_CORS_ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
    /// For control runs of tests: protections that are left out.
    #[cfg(feature = "control-runs")]
    #[arg(long, env = "SPANLOOM_CONTROL_WITHOUT", value_delimiter = ',')]
    without: Vec<control::Protection>,
    /// Seconds after SIGTERM in which requests are still taken while /readyz says no: until nobody
    /// sends here any more.
    #[arg(long, env = "SPANLOOM_DRAIN_DELAY_SECONDS", default_value_t = 0)]
    drain_delay_seconds: u64,
    /// Seconds that open requests and batches have to end after that, at least one.
    #[arg(
        long,
        env = "SPANLOOM_DRAIN_SECONDS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..),
    )]
    drain_seconds: u64,
}

#[derive(Debug, Args)]
struct MigrateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// In a cluster: the configuration as the operator writes it (JSON); the document is not read
    /// then.
    #[arg(long, env = "SPANLOOM_CONFIG_FILE")]
    config_file: Option<PathBuf>,
}

/// The default address of ClickHouse.
const DEFAULT_URL: &str = "http://127.0.0.1:8123";

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The log's folder. Its collector may be running.
    #[arg(long, env = "SPANLOOM_LOG_FOLDER")]
    log_folder: PathBuf,
    /// In a cluster: the ConfigMap with the configuration. What it says of ClickHouse is not read here.
    #[arg(long, env = "SPANLOOM_CONFIG_MAP", hide = true)]
    config_map: Option<String>,
}

#[derive(Debug, Args)]
struct StoreArgs {
    /// The TracingPipeline document; without it the defaults hold.
    #[arg(short = 'f', long = "file", env = "SPANLOOM_PIPELINE")]
    file: Option<PathBuf>,
    /// ClickHouse's HTTP interface [default: as the configuration in the cluster or the document says, else
    /// http://127.0.0.1:8123]
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_URL")]
    clickhouse_url: Option<String>,
    /// The database, made by `migrate`.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_DATABASE", default_value = "spanloom")]
    clickhouse_database: String,
    /// The user; the password comes from SPANLOOM_CLICKHOUSE_PASSWORD, never from a flag.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_USER", default_value = "default")]
    clickhouse_user: String,
    /// A folder with the files `username` and `password`, read again when they change; they count before the
    /// user and password given otherwise.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR")]
    clickhouse_credentials_dir: Option<PathBuf>,
    /// For an https URL: the PEM bundle of the authorities to trust, read again when it changes;
    /// without it this machine's.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_CA_FILE")]
    clickhouse_ca_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    memory::keep_freed_for_a_while();
    let cli = Cli::parse();
    logs::init("info");
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(threads::work_in_batches)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the runtime");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run(*args).await,
            Command::Migrate(args) => migrate(args).await,
            Command::ReplayDeadLetters(args) => replay(args).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = causes(error.as_ref());
            tracing::error!(error, "the collector failed");
            termination_message(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    let drain_deadline = Duration::from_secs(args.drain_seconds);
    let drain_delay = Duration::from_secs(args.drain_delay_seconds);
    let metrics_address = args.metrics;
    let mut registry = Registry::default();
    let cluster = match &args.config_map {
        Some(object) => Some(Cluster::infer(object, args.node_name.clone()).await?),
        None => None,
    };
    #[cfg(feature = "control-runs")]
    let without = args.without.clone();
    #[cfg(feature = "control-runs")]
    let collector = {
        tracing::warn!(?without, "control run: spans will be lost or duplicated");
        Collector::start_without(&without, cluster, args.config()?, &mut registry).await?
    };
    #[cfg(not(feature = "control-runs"))]
    let collector = match cluster {
        Some(cluster) => Collector::start_in(cluster, args.config()?, &mut registry).await?,
        None => Collector::start(args.config()?, &mut registry).await?,
    };
    let (health, status) = (collector.health(), collector.status());
    let pages = Pages::new(Arc::new(registry), health).json("/status", move || {
        serde_json::to_string(&status())
            .map_err(|error| format!("cannot encode the status: {error}"))
    });
    let admin = Admin::start(metrics_address, pages)
        .await
        .with_context(|| format!("cannot serve metrics on {metrics_address} (--metrics)"))?;
    tracing::info!(
        otlp_grpc = %collector.grpc_address(),
        otlp_http = %collector.http_address(),
        metrics = %admin.address(),
        "receiving"
    );
    signals.next().await;
    #[cfg(feature = "control-runs")]
    if without.contains(&control::Protection::Draining) {
        return Ok(());
    }
    if !drain_delay.is_zero() {
        tracing::info!(seconds = drain_delay.as_secs(), "leaving");
        collector.leave();
        tokio::select! {
            () = tokio::time::sleep(drain_delay) => {}
            // Whoever asks a second time does not want to wait.
            _ = signals.next() => {}
        }
    }
    tracing::info!(seconds = drain_deadline.as_secs(), "draining");
    // The admin port stays until the end, so that the drain can be watched.
    let drained = collector.shutdown(drain_deadline).await;
    admin.shutdown().await;
    drained.context("some spans were not stored before the drain timeout")
}

async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.config_file {
        let config = agent_config(path)?;
        spanloom_collector::migrate_agent(&args.store.address(DEFAULT_URL), &config).await?;
        return Ok(());
    }
    let (store, document) = args.store.store()?;
    let pipeline = document.metadata.name.as_deref().unwrap_or("default");
    spanloom_collector::migrate(&store, &document, pipeline).await?;
    Ok(())
}

async fn replay(args: ReplayArgs) -> anyhow::Result<()> {
    let store = match args.config_map {
        // The address of an external ClickHouse is in the collector's configuration, and may change.
        Some(_) => args.store.address(""),
        None => args.store.store()?.0,
    };
    anyhow::ensure!(
        !store.url.is_empty(),
        "the address of ClickHouse is not known here; give it as --clickhouse-url"
    );
    let replayed = spanloom_collector::replay_letters(&args.log_folder, &store).await?;
    tracing::info!("{}", replayed.summary());
    replayed.into_result().context("some dead letters stay")
}

fn agent_config(path: &Path) -> anyhow::Result<AgentConfig> {
    let name = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {name}"))?;
    spanloom_collector::read_agent_config(&text)
        .with_context(|| format!("cannot use the configuration {name}"))
}

impl RunArgs {
    fn sidecars(&self) -> Option<SidecarsConfig> {
        Some(SidecarsConfig {
            address: self.sidecars?,
            certificate_file: self.sidecars_cert_file.clone()?,
            key_file: self.sidecars_key_file.clone()?,
            ca_file: self.sidecars_ca_file.clone(),
        })
    }

    fn config(self) -> anyhow::Result<CollectorConfig> {
        let sidecars = self.sidecars();
        let (store, document) = match self.config_map {
            Some(_) => (self.store.address(""), TracingPipeline::default()),
            None => self.store.store()?,
        };
        let limit = self.memory_limit_bytes.or_else(container_limit);
        let limit = limit.unwrap_or(COLLECTOR_DEFAULT);
        Ok(CollectorConfig {
            otlp_grpc: self.otlp_grpc,
            otlp_http: self.otlp_http,
            cors_origins: self.cors_origins,
            memory: Shares::of(limit),
            store,
            document,
            agent: config::host_name(),
            log: self.log_folder.map(|folder| LogConfig {
                folder,
                max_bytes: self.log_bytes,
            }),
            sidecars,
        })
    }
}

impl StoreArgs {
    /// Where to write and by which document. A ClickHouse that the document names counts before the
    /// flags.
    fn store(self) -> anyhow::Result<(StoreAddress, TracingPipeline)> {
        let document = match &self.file {
            None => TracingPipeline::default(),
            Some(path) => {
                let name = path.display();
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
                spanloom_crds::parse_document(&text)
                    .with_context(|| format!("{name} is not valid"))?
            }
        };
        let store = match StoreAddress::external(&document)? {
            Some(external) => external,
            None => self.address(DEFAULT_URL),
        };
        Ok((store, document))
    }

    /// Where the flags say, or else at this URL.
    fn address(&self, url: &str) -> StoreAddress {
        let given = self.clickhouse_url.as_deref();
        StoreAddress {
            url: given.unwrap_or(url).to_owned(),
            user: self.clickhouse_user.clone(),
            password: std::env::var("SPANLOOM_CLICKHOUSE_PASSWORD").unwrap_or_default(),
            credentials_dir: self.clickhouse_credentials_dir.clone(),
            database: self.clickhouse_database.clone(),
            cluster: None,
            ca_file: self.clickhouse_ca_file.clone(),
        }
    }
}
