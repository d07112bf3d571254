//! The engine as a server that others reach over TLS, without a parent process: what the image
//! `spanloom-engine` runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spanloom_tls::{HTTP1, ServerTls};

use crate::ffi;
use crate::host::{self, Guard, HostConfig, HostError};

/// What a server is told.
#[derive(Clone)]
pub struct ServeConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder with `tls.crt` and `tls.key`.
    pub tls_dir: PathBuf,
    /// Where the data is; made if missing.
    pub data_dir: PathBuf,
    /// `libchdb.so`; none: the one beside the program.
    pub library: Option<PathBuf>,
    /// The user that is let in.
    pub user: String,
    /// That user's password; must not be empty.
    pub password: String,
    /// A database that is made at the start if it is not there.
    pub database: Option<String>,
    /// What queries may use together; none: three quarters of what this process may.
    pub memory_limit_bytes: Option<u64>,
}

/// The name of the library beside the program.
const LIBRARY: &str = "libchdb.so";

/// What queries may use where nothing limits this process.
const DEFAULT_MEMORY: u64 = 2 << 30;

/// Serves until SIGTERM or SIGINT. It ends the process itself, without running the library's
/// destructors, so nothing after it runs.
pub fn run(config: ServeConfig) -> ExitCode {
    host::exit_on_panic();
    match serve(config) {
        Ok(()) => ffi::exit_now(0),
        Err(error) => {
            tracing::error!(%error, "the engine stops");
            ffi::exit_now(1)
        }
    }
}

fn serve(config: ServeConfig) -> Result<(), HostError> {
    if config.password.is_empty() {
        return Err(HostError::NoPassword);
    }
    let tls = ServerTls::open(&config.tls_dir, &[HTTP1])?;
    let library = match config.library {
        Some(path) => path,
        None => beside_program()?,
    };
    let statements = config.database.iter().map(|name| {
        let name = name.replace('\\', "\\\\").replace('`', "\\`");
        format!("CREATE DATABASE IF NOT EXISTS `{name}`")
    });
    let statements = statements.collect();
    let host = HostConfig {
        data_dir: config.data_dir,
        listen: config.listen,
        user: config.user,
        password: config.password,
        memory_limit_bytes: config.memory_limit_bytes.unwrap_or_else(memory_limit),
        library,
        temporary: false,
    };
    let listening = |address: SocketAddr| tracing::info!(%address, "listening");
    host::serve_engine(&host, Guard::Tls(tls), statements, listening)
}

fn beside_program() -> Result<PathBuf, HostError> {
    let failed = |source| HostError::Io {
        path: PathBuf::from("/proc/self/exe"),
        source,
    };
    let program = std::env::current_exe().map_err(failed)?;
    let library = program.parent().unwrap_or(Path::new("/")).join(LIBRARY);
    if library.is_file() {
        Ok(library)
    } else {
        Err(HostError::NoLibrary(library))
    }
}

/// Three quarters of what the control group allows; the rest is for what the engine does not count.
fn memory_limit() -> u64 {
    std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .map_or(DEFAULT_MEMORY, |limit| limit / 4 * 3)
}
