//! The engine as a server that others reach over TLS, without a parent process: what the image
//! `spanloom-engine` runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use spanloom_program::memory;
use spanloom_tls::{HTTP1, ServerTls};

use crate::ffi;
use crate::front::Users;
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
    /// A `users.xml` of ClickHouse. Where it is, its users are let in, within their grants, and no other.
    pub users_file: PathBuf,
    /// The user that is let in without such a file.
    pub user: String,
    /// That user's password; must not be empty.
    pub password: String,
    /// A database that is made at the start if it is not there.
    pub database: Option<String>,
    /// The limit of the container; none: as the control group says.
    pub memory_limit_bytes: Option<u64>,
}

/// The name of the library beside the program.
const LIBRARY: &str = "libchdb.so";

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
    let users = users(&config)?;
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
        memory_limit_bytes: memory(config.memory_limit_bytes),
        library,
        temporary: false,
    };
    let listening = |address: SocketAddr| tracing::info!(%address, "listening");
    host::serve_engine(&host, Guard::Tls(tls, users), statements, listening)
}

fn users(config: &ServeConfig) -> Result<Users, HostError> {
    let path = &config.users_file;
    match std::fs::read_to_string(path) {
        Ok(text) => Users::of_xml(&text).map_err(|reason| HostError::Users {
            path: path.clone(),
            reason,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if config.password.is_empty() {
                return Err(HostError::NoPassword);
            }
            Ok(Users::one(config.user.clone(), &config.password))
        }
        Err(source) => Err(HostError::Io {
            path: path.clone(),
            source,
        }),
    }
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

/// What the engine may use of a container's limit.
fn memory(limit: Option<u64>) -> u64 {
    let limit = limit.or_else(memory::container_limit);
    memory::Engine::of(limit.unwrap_or(memory::ENGINE_DEFAULT)).server
}
