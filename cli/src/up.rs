//! `spanloom up`: all of Spanloom on this machine, under one command.
//!
//! The order of start is the order of need: the document, the ports, the data folder's lock, the
//! engine (a child process), its schema, the collector, the query service. Stopping goes the other
//! way round, so nothing is accepted that could not be stored.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use prometheus_client::registry::Registry;
use spanloom_collector::{Collector, CollectorConfig, LogConfig, StoreAddress};
use spanloom_crds::TracingPipeline;
use spanloom_engine::host::SLOTS;
use spanloom_engine::{Engine, EngineConfig};
use spanloom_program::{Signals, memory};
use spanloom_query::{
    Access, ClickHouseConfig, Limits, Metrics, QueryConfig, Server as QueryServer,
};

use crate::data_dir::{self, DataDir};
use crate::say::Say;

/// How long open requests and batches have to end after Ctrl-C.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// `spanloom up`'s flags.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// A file with a TracingPipeline; without it, the defaults apply
    #[arg(short = 'f', long = "file", value_name = "pipeline.yaml")]
    file: Option<PathBuf>,
    /// The data directory [default: $XDG_DATA_HOME/spanloom or ~/.local/share/spanloom]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address to receive OTLP over gRPC on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4317")]
    otlp_grpc: SocketAddr,
    /// The address to receive OTLP over HTTP on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4318")]
    otlp_http: SocketAddr,
    /// The address to serve the API, the metrics and the web UI on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3200")]
    http: SocketAddr,
    /// Browser origins that may send spans (CORS), comma-separated; * allows any
    #[arg(long, value_name = "ORIGINS", value_delimiter = ',')]
    cors_origins: Vec<String>,
}

/// Runs until told to stop, or until the engine dies.
///
/// # Errors
/// When something cannot be started, or ends by itself.
pub fn run(args: UpArgs) -> anyhow::Result<()> {
    spanloom_program::logs::init("warn");
    let say = Say::new();
    let document = read_document(&args, &say)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(up(args, document, say))
}

fn read_document(args: &UpArgs, say: &Say) -> anyhow::Result<TracingPipeline> {
    let Some(path) = &args.file else {
        return Ok(TracingPipeline::default());
    };
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let document =
        spanloom_crds::parse_document(&text).with_context(|| format!("{name} is not valid"))?;
    for note in spanloom_crds::laptop_notes(&document) {
        say.step(&format!("note: {note}"));
    }
    Ok(document)
}

async fn up(args: UpArgs, document: TracingPipeline, say: Say) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    tokio::select! {
        running = Running::start(&args, &document, &say) => {
            let mut running = running?;
            running.print_closing_lines();
            let ended = tokio::select! {
                _ = signals.next() => Ok(()),
                reason = running.store.died() => Err(reason),
            };
            say.step("draining");
            running.stop().await;
            say.step("stopped");
            ended
        }
        _ = signals.next() => bail!("stopped before startup was complete"),
    }
}

/// Where spans are stored: our own engine, or a ClickHouse that the document names.
enum Store {
    Embedded(Box<Engine>),
    External,
}

impl Store {
    /// Resolves when the engine has died, which only its own death or a kill from outside brings.
    async fn died(&mut self) -> anyhow::Error {
        match self {
            Self::Embedded(engine) => {
                let ended = match engine.wait().await {
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                };
                anyhow::anyhow!(
                    "the embedded ClickHouse exited unexpectedly ({ended}); all acknowledged spans \
                     are on disk: see its last log lines above, and start Spanloom again"
                )
            }
            Self::External => std::future::pending().await,
        }
    }
}

struct Running {
    /// Kept for its lock.
    _data_dir: DataDir,
    store: Store,
    collector: Collector,
    query: QueryServer,
}

impl Running {
    async fn start(args: &UpArgs, document: &TracingPipeline, say: &Say) -> anyhow::Result<Self> {
        refuse_busy_ports(args)?;
        let path = match &args.data_dir {
            Some(path) => path.clone(),
            None => data_dir::default_path()?,
        };
        let data_dir = DataDir::open(&path)?;
        let (store, address) = start_store(&data_dir, document, say).await?;
        let config = CollectorConfig {
            otlp_grpc: args.otlp_grpc,
            otlp_http: args.otlp_http,
            cors_origins: args.cors_origins.clone(),
            memory: memory::Collector::of(memory::COLLECTOR_DEFAULT),
            store: address.clone(),
            document: document.clone(),
            agent: spanloom_collector::config::host_name(),
            log: document
                .spec
                .collector
                .log_bytes()
                .map(|max_bytes| LogConfig {
                    folder: data_dir.log(),
                    max_bytes,
                }),
            sidecars: None,
        };
        say.step("updating the schema");
        spanloom_collector::migrate(&config.store, document, &pipeline_name(document, &store))
            .await?;

        let mut registry = Registry::default();
        let query_metrics = Metrics::register(&mut registry);
        let collector = Collector::start(config, &mut registry).await?;
        let query = QueryServer::start(
            QueryConfig {
                listen: args.http,
                clickhouse: ClickHouseConfig {
                    url: address.url,
                    user: address.user,
                    password: address.password,
                    credentials_dir: address.credentials_dir,
                    database: address.database,
                    ca_file: address.ca_file,
                },
                limits: Limits {
                    // Health checks need slots of the engine, too, however slow other queries are.
                    concurrent_queries: SLOTS as usize / 3 * 2,
                    ..Limits::default()
                },
                access: Access::default(),
            },
            query_metrics,
            Arc::new(registry),
            collector.health(),
        )
        .await?;
        Ok(Self {
            _data_dir: data_dir,
            store,
            collector,
            query,
        })
    }

    #[allow(clippy::print_stdout)] // the one result of this command
    fn print_closing_lines(&self) {
        let http = self.query.address();
        println!("Spanloom is up.");
        println!("  OTLP gRPC  http://{}", self.collector.grpc_address());
        println!("  OTLP HTTP  http://{}", self.collector.http_address());
        println!("  query API  http://{http}/api/v1/");
        println!("  web UI     http://{http}/ui/");
        println!("Press Ctrl-C to drain and stop; stored traces are kept.");
    }

    /// Receiving stops first, then asking, then the engine: nothing loses what it still needs.
    async fn stop(self) {
        if let Err(incomplete) = self.collector.shutdown(DRAIN_DEADLINE).await {
            tracing::warn!("{incomplete}");
        }
        self.query.shutdown(DRAIN_DEADLINE).await;
        if let Store::Embedded(engine) = self.store
            && let Err(error) = engine.stop().await
        {
            tracing::warn!(%error, "the embedded ClickHouse did not stop cleanly");
        }
    }
}

/// Whose tables these are. The laptop's own are its user's, whatever document is tried on them.
fn pipeline_name(document: &TracingPipeline, store: &Store) -> String {
    match store {
        Store::Embedded(_) => "laptop".to_owned(),
        Store::External => document
            .metadata
            .name
            .as_deref()
            .unwrap_or("default")
            .to_owned(),
    }
}

/// Said before anything heavy is started; whoever takes a port after that is met where we listen.
fn refuse_busy_ports(args: &UpArgs) -> anyhow::Result<()> {
    for (flag, address) in [
        ("--otlp-grpc", args.otlp_grpc),
        ("--otlp-http", args.otlp_http),
        ("--http", args.http),
    ] {
        TcpListener::bind(address).map_err(|error| {
            let text = match error.kind() {
                ErrorKind::AddrInUse => format!(
                    "cannot listen on {address}; another program may be using the port: stop it, or \
                     choose another address with {flag}"
                ),
                _ => format!("cannot listen on {address}; choose another address with {flag}"),
            };
            anyhow::Error::new(error).context(text)
        })?;
    }
    Ok(())
}

async fn start_store(
    data_dir: &DataDir,
    document: &TracingPipeline,
    say: &Say,
) -> anyhow::Result<(Store, StoreAddress)> {
    if let Some(address) = StoreAddress::external(document)? {
        say.step(&format!("using the ClickHouse at {}", address.url));
        return Ok((Store::External, address));
    }
    let (engine, address) = start_engine(data_dir, say).await?;
    Ok((Store::Embedded(Box::new(engine)), address))
}

/// Starts the embedded ClickHouse of a data directory.
pub(crate) async fn start_engine(
    data_dir: &DataDir,
    say: &Say,
) -> anyhow::Result<(Engine, StoreAddress)> {
    let library = spanloom_engine::fetch::library(|news| say.step(news)).await?;
    say.step(&format!(
        "starting the embedded ClickHouse on {}",
        data_dir.path().display()
    ));
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let engine = Engine::start(EngineConfig {
        data_dir: data_dir.engine(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        user: "spanloom".to_owned(),
        // Made anew at each start: other users of this machine can reach the port, but not this.
        password: format!("{:032x}", rand::random::<u128>()),
        memory_limit_bytes: memory::Engine::of(memory::ENGINE_DEFAULT).server,
        library,
        host_command: vec![program.into_os_string(), "engine-host".into()],
    })
    .await?;
    let address = StoreAddress {
        url: engine.url(),
        user: engine.user().to_owned(),
        password: engine.password().to_owned(),
        credentials_dir: None,
        database: "spanloom".to_owned(),
        cluster: None,
        ca_file: None,
    };
    Ok((engine, address))
}
