//! The child process: opens the data folder, serves the front, and ends without running the
//! library's destructors.
//!
//! Its configuration comes as one line of JSON on standard input, which then stays open: when it
//! ends, the parent is gone and so is the child. It says on standard output, in one line, where it
//! listens, or what is wrong.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use spanloom_tls::{ServerTls, TlsError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::ffi::{self, Chdb, FfiError};
use crate::front::{self, Budget, Front, Runner, Sessions, Users};

/// What the parent tells the child.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct HostConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) memory_limit_bytes: u64,
    pub(crate) library: PathBuf,
    /// The data folder goes with the process: for tests.
    pub(crate) temporary: bool,
}

/// What the child says when it serves; the address follows.
pub(crate) const LISTENING: &str = "spanloom-engine listening ";
/// What the child says when it cannot; the reason follows.
pub(crate) const FAILED: &str = "spanloom-engine failed ";

/// Queries that run at once.
pub const SLOTS: u32 = 12;
/// No query runs for longer, whatever it asks for.
const MAX_EXECUTION: Duration = Duration::from_secs(3600);
/// The largest body, decompressed or not.
const MAX_BODY: u64 = 1 << 30;
/// What all bodies under way may take.
const MAX_BODIES: u64 = 3 << 30;

/// Why the child does not serve.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("cannot read the configuration from standard input: {0}")]
    Config(String),
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("another spanloom is using {path}{by}; stop it, or choose another data directory")]
    Locked { path: PathBuf, by: String },
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error(
        "set CLICKHOUSE_PASSWORD, or give a users file: an engine that others can reach needs a password"
    )]
    NoPassword,
    #[error("{}: {reason}", path.display())]
    Users { path: PathBuf, reason: String },
    #[error("{} does not exist; set SPANLOOM_CHDB_LIB to the path of libchdb.so", .0.display())]
    NoLibrary(PathBuf),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{statement}: {error}")]
    Statement { statement: String, error: String },
    #[error(transparent)]
    Engine(#[from] FfiError),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

/// The child's `main`. It takes no arguments; what it needs comes on standard input. It ends the
/// process itself, so nothing after it runs, unless there were arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    if let Some(argument) = arguments.into_iter().next() {
        say(&format!("{FAILED}unexpected argument {argument:?}"));
        return ExitCode::FAILURE;
    }
    exit_on_panic();
    match host() {
        Ok(()) => ffi::exit_now(0),
        Err(error) => {
            say(&format!("{FAILED}{}", error.to_string().replace('\n', " ")));
            ffi::exit_now(1)
        }
    }
}

/// Unwinding into the end of the process would run the library's destructors.
pub(crate) fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("spanloom engine: {panic}");
        ffi::exit_now(101);
    }));
}

/// One line to the parent. If it is gone there is nobody to tell.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn host() -> Result<(), HostError> {
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| HostError::Config(e.to_string()))?;
    let config: HostConfig =
        serde_json::from_str(&line).map_err(|e| HostError::Config(e.to_string()))?;
    let listening = |address| say(&format!("{LISTENING}{address}"));
    serve_engine(&config, Guard::Parent, Vec::new(), listening)
}

/// What keeps strangers out, beside the password.
pub(crate) enum Guard {
    /// It listens on loopback, and its life is that of the parent at the other end of standard
    /// input.
    Parent,
    /// Connections are TLS, and these may use them.
    Tls(ServerTls, Users),
}

/// Opens the data folder, runs `statements`, says where it listens, and serves until it is told to
/// stop.
pub(crate) fn serve_engine(
    config: &HostConfig,
    guard: Guard,
    statements: Vec<String>,
    listening: impl Fn(SocketAddr),
) -> Result<(), HostError> {
    let _lock = lock(&config.data_dir)?;
    let chdb = Chdb::load(&config.library)?;
    let mut path = OsString::from("--path=");
    path.push(config.data_dir.join("clickhouse"));
    let mut first = vec![path.clone()];
    // Dropped tables leave the disk at once and not after eight minutes.
    first.push("--database_atomic_delay_before_drop_table_sec=0".into());
    first.push(format!("--max_server_memory_usage={}", config.memory_limit_bytes).into());
    let (anchor, said) =
        ffi::with_captured_stderr(|| chdb.connect(&first)).map_err(|source| HostError::Io {
            path: config.data_dir.clone(),
            source,
        })?;
    // Not dropped before the end: the last connection to close shuts the engine down.
    let mut anchor = anchor.map_err(|error| explain(error, &said))?;
    for statement in statements {
        if let Err(error) = anchor.query(statement.as_bytes(), "Null", &[]) {
            return Err(HostError::Statement { statement, error });
        }
    }

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .build()
        .map_err(HostError::Runtime)?;
    let outcome = runtime.block_on(serve(config, guard, chdb, vec![path], listening));
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(anchor);
    if config.temporary
        && let Err(error) = std::fs::remove_dir_all(&config.data_dir)
    {
        eprintln!("spanloom engine: {}: {error}", config.data_dir.display());
    }
    outcome
}

async fn serve(
    config: &HostConfig,
    guard: Guard,
    chdb: &'static Chdb,
    arguments: Vec<OsString>,
    listening: impl Fn(SocketAddr),
) -> Result<(), HostError> {
    let failed = |source| HostError::Listen {
        address: config.listen,
        source,
    };
    let (tls, users, parent) = match guard {
        Guard::Tls(tls, users) => (Some(tls), users, false),
        Guard::Parent => {
            let users = Users::one(config.user.clone(), &config.password);
            (None, users, true)
        }
    };
    let listener = spanloom_tls::listen(config.listen)
        .and_then(tokio::net::TcpListener::from_std)
        .map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let front = Arc::new(Front {
        runner: Arc::new(Runner::new(chdb, arguments, SLOTS, MAX_EXECUTION)),
        users,
        budget: Budget::new(MAX_BODY, MAX_BODIES),
        sessions: Arc::new(Sessions::default()),
        allow_files: false,
    });
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(HostError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(HostError::Runtime)?;
    if parent {
        stop_with_parent(stop.clone());
    }
    listening(address);
    let signals = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = front::serve(front, listener, tls, stop.clone()) => {}
        () = signals => {}
    }
    Ok(())
}

/// Cancels `stop` when standard input ends.
fn stop_with_parent(stop: CancellationToken) {
    // A thread of its own: reading standard input cannot be cancelled.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0_u8; 256];
        while matches!(stdin.read(&mut buffer), Ok(n) if n > 0) {}
        stop.cancel();
    });
}

/// Takes the data folder for this process; the lock ends with it.
fn lock(data_dir: &Path) -> Result<File, HostError> {
    let path = data_dir.join("engine.lock");
    let failed = |source| HostError::Io {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(data_dir).map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.take(32).read_to_string(&mut pid);
            let pid = pid.trim();
            let by = if pid.is_empty() {
                String::new()
            } else {
                format!(" (process {pid})")
            };
            return Err(HostError::Locked {
                path: data_dir.to_owned(),
                by,
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(pid.as_bytes()))
        .map_err(failed)?;
    Ok(file)
}

/// The engine says on standard error why it did not open the folder.
fn explain(error: FfiError, said: &str) -> HostError {
    let said = said.trim();
    match error {
        FfiError::Connect(_) if !said.is_empty() => {
            let line = said
                .lines()
                .find(|line| line.contains("Code:"))
                .unwrap_or(said);
            HostError::Engine(FfiError::Connect(line.to_owned()))
        }
        other => HostError::Engine(other),
    }
}
