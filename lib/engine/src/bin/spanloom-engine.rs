//! The embedded ClickHouse as a server of its own: the program of the image `spanloom-engine`, which
//! stands in for ClickHouse's own image where that is not to be had.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use spanloom_engine::serve::{self, ServeConfig};

/// ClickHouse as a library, behind ClickHouse's HTTP interface.
#[derive(Debug, Parser)]
#[command(name = "spanloom-engine", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve over TLS until SIGTERM.
    Serve(ServeArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Where to listen.
    #[arg(long, env = "SPANLOOM_ENGINE_LISTEN", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// The folder with tls.crt and tls.key, read again when they change.
    #[arg(
        long,
        env = "SPANLOOM_ENGINE_TLS_DIR",
        default_value = "/etc/clickhouse-server/tls"
    )]
    tls_dir: PathBuf,
    /// Where the data is; one server uses it at a time.
    #[arg(
        long,
        env = "SPANLOOM_ENGINE_DATA_DIR",
        default_value = "/var/lib/clickhouse"
    )]
    data_dir: PathBuf,
    /// libchdb.so; without it the one beside this program.
    #[arg(long, env = "SPANLOOM_CHDB_LIB")]
    library: Option<PathBuf>,
    /// A users.xml of ClickHouse: its users are let in, within their grants; without the file, the one of
    /// CLICKHOUSE_USER is.
    #[arg(
        long,
        env = "SPANLOOM_ENGINE_USERS_FILE",
        default_value = "/etc/clickhouse-server/users.d/spanloom.xml"
    )]
    users_file: PathBuf,
    /// The user that is let in without a users file; the password comes from CLICKHOUSE_PASSWORD, never from a flag.
    #[arg(long, env = "CLICKHOUSE_USER", default_value = "default")]
    user: String,
    /// A database that is made at the start if it is not there.
    #[arg(long, env = "CLICKHOUSE_DB")]
    database: Option<String>,
    /// Bytes of memory that the container may use, three quarters of which are for queries, inserts and
    /// merges [default: as its control group says]
    #[arg(long, env = "SPANLOOM_MEMORY_LIMIT_BYTES")]
    memory_limit_bytes: Option<u64>,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::INFO)
        .with_writer(std::io::stderr)
        .init();
    let Command::Serve(args) = Cli::parse().command;
    serve::run(ServeConfig {
        listen: args.listen,
        tls_dir: args.tls_dir,
        data_dir: args.data_dir,
        library: args.library,
        users_file: args.users_file,
        user: args.user,
        password: std::env::var("CLICKHOUSE_PASSWORD").unwrap_or_default(),
        database: args.database.filter(|name| !name.is_empty()),
        memory_limit_bytes: args.memory_limit_bytes,
    })
}
