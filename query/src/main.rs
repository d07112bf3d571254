//! `spanloom-query`: the query service alone, beside a ClickHouse that is already there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use prometheus_client::registry::Registry;
use spanloom_program::{Asked, Health, Signals, causes, logs, memory, termination_message};
use spanloom_query::{Access, ClickHouseConfig, Limits, Metrics, QueryConfig, Server};

/// How long open requests have to end; the platform kills after 30 s as a rule.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Serves queries for the traces in ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "spanloom-query", version)]
struct Args {
    /// The address to serve the API and the web UI on.
    #[arg(
        long,
        env = "SPANLOOM_QUERY_LISTEN",
        value_name = "ADDR",
        default_value = "[::]:3200"
    )]
    listen: SocketAddr,
    /// The address to serve /metrics, /healthz, /readyz and /probe on, without TLS and
    /// authentication [default: not served separately]
    #[arg(long, env = "SPANLOOM_QUERY_ADMIN_LISTEN", value_name = "ADDR")]
    admin_listen: Option<SocketAddr>,
    /// A directory of files with bearer tokens, one per line, reloaded when they change; with it,
    /// every request needs a token [default: no token is required]
    #[arg(long, env = "SPANLOOM_QUERY_TOKENS_DIR", value_name = "DIR")]
    tokens_dir: Option<PathBuf>,
    /// A directory with tls.crt and tls.key, reloaded when they change; with it, the API is served
    /// over HTTPS only [default: plain HTTP]
    #[arg(long, env = "SPANLOOM_QUERY_TLS_DIR", value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// How long requests are still accepted after SIGTERM, in seconds, so that clients can learn
    /// that this process is shutting down.
    #[arg(long, env = "SPANLOOM_QUERY_DRAIN_DELAY_SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=600))]
    drain_delay_seconds: u64,
    /// ClickHouse's HTTP interface.
    #[arg(
        long,
        env = "SPANLOOM_CLICKHOUSE_URL",
        default_value = "http://127.0.0.1:8123"
    )]
    clickhouse_url: String,
    /// ClickHouse's user.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_USER", default_value = "default")]
    clickhouse_user: String,
    /// The user's password; prefer the environment variable, which other users of the machine
    /// cannot see.
    #[arg(
        long,
        env = "SPANLOOM_CLICKHOUSE_PASSWORD",
        default_value = "",
        hide_env_values = true
    )]
    clickhouse_password: String,
    /// A directory with the files username and password, reloaded when they change, instead of the user and
    /// the password [default: none]
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR", value_name = "DIR")]
    clickhouse_credentials_dir: Option<PathBuf>,
    /// The database with Spanloom's tables.
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_DATABASE", default_value = "spanloom")]
    clickhouse_database: String,
    /// For an https URL, a PEM bundle of the CA certificates to trust, reloaded when it changes
    /// [default: those of this machine]
    #[arg(long, env = "SPANLOOM_CLICKHOUSE_CA_FILE", value_name = "FILE")]
    clickhouse_ca_file: Option<PathBuf>,
    /// The timeout for all ClickHouse queries of a request together, in seconds.
    #[arg(long, env = "SPANLOOM_QUERY_TIMEOUT_SECONDS", default_value_t = 30)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3600))]
    query_timeout_seconds: u64,
    /// How long a TraceQL query may take before it is logged with what it read, in seconds.
    #[arg(long, env = "SPANLOOM_SLOW_QUERY_SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=3600))]
    slow_query_seconds: u64,
    /// The memory limit of the container in bytes, which bounds concurrent queries and how much data
    /// is returned at once [default: the limit of the control group, or else 2 GiB]
    #[arg(long, env = "SPANLOOM_MEMORY_LIMIT_BYTES")]
    memory_limit_bytes: Option<u64>,
}

impl Args {
    fn config(self) -> QueryConfig {
        let limit = self.memory_limit_bytes.or_else(memory::container_limit);
        let limit = limit.unwrap_or(memory::QUERY_DEFAULT);
        let query_timeout = Duration::from_secs(self.query_timeout_seconds);
        QueryConfig {
            listen: self.listen,
            clickhouse: ClickHouseConfig {
                url: self.clickhouse_url,
                user: self.clickhouse_user,
                password: self.clickhouse_password,
                credentials_dir: self.clickhouse_credentials_dir,
                database: self.clickhouse_database,
                ca_file: self.clickhouse_ca_file,
            },
            limits: Limits {
                query_timeout,
                slow_query: Duration::from_secs(self.slow_query_seconds),
                ..Limits::within(memory::Query::of(limit))
            },
            access: Access {
                tokens_dir: self.tokens_dir,
                tls_dir: self.tls_dir,
                admin: self.admin_listen,
            },
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    logs::init("info");
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = causes(error.as_ref());
            tracing::error!(error, "spanloom-query failed");
            termination_message(&error);
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(args: Args) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("cannot watch for SIGTERM and SIGINT")?;
    let drain_delay = Duration::from_secs(args.drain_delay_seconds);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let server = Server::start(
        args.config(),
        metrics,
        Arc::new(registry),
        Health::new(|| None),
    )
    .await?;
    tracing::info!(address = %server.address(), admin = ?server.admin_address(), "serving");
    let asked = signals.next().await;
    tracing::info!("draining");
    if asked == Asked::Terminate {
        // Kubernetes says SIGTERM and takes the pod out of its Service at the same time: until all
        // nodes know, requests still come. A second signal is in a hurry.
        server.drain();
        tokio::select! {
            () = tokio::time::sleep(drain_delay) => {}
            _ = signals.next() => {}
        }
    }
    server.shutdown(DRAIN_DEADLINE).await;
    Ok(())
}
