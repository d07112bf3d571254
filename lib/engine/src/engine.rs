//! The parent's side: starts the child process, knows where it listens, starts it again when it dies, and
//! stops it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::host::{FAILED, HostConfig, LISTENING};

/// How to start an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where its data is; made if missing. One engine uses it at a time.
    pub data_dir: PathBuf,
    /// Where its HTTP front listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The user it lets in.
    pub user: String,
    /// That user's password.
    pub password: String,
    /// The most memory its queries may take together.
    pub memory_limit_bytes: u64,
    /// `libchdb.so`, from [`crate::fetch::library`].
    pub library: PathBuf,
    /// The program that calls [`crate::host::run`], and its first arguments.
    pub host_command: Vec<OsString>,
}

/// What can go wrong with an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// `host_command` is empty.
    #[error("no command to start the engine's process with")]
    NoCommand,
    /// The child could not be started.
    #[error("cannot start the engine's process ({program}): {source}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The child said why it does not serve.
    #[error("the embedded ClickHouse did not start: {0}")]
    Start(String),
    /// The child said nothing in time.
    #[error("the embedded ClickHouse did not start within {0:?}")]
    Slow(Duration),
    /// The child could not be talked to.
    #[error("the embedded ClickHouse's process: {0}")]
    Io(#[from] std::io::Error),
    /// The child did not end by itself and was killed. What it had acknowledged is on disk.
    #[error("the embedded ClickHouse did not stop within {0:?} and was killed")]
    Killed(Duration),
}

/// A large data folder takes its time to open.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(30);
/// How often one that dies is started again before it is given up.
const RESTARTS: u32 = 5;
/// The pause before the first of these; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// One that ran for so long may die as often again.
const STEADY: Duration = Duration::from_secs(600);

/// A running engine: a child process. Dropping it without [`Engine::stop`] closes the child's
/// standard input, on which it stops by itself.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    stdin: Option<ChildStdin>,
    address: SocketAddr,
    pid: u32,
    /// How it is started again, at the same address.
    config: EngineConfig,
    temporary: bool,
    started: Instant,
    restarts: u32,
}

impl Engine {
    /// Starts the child and waits until it serves.
    pub async fn start(config: EngineConfig) -> Result<Engine, EngineError> {
        Engine::start_with(config, false).await
    }

    /// A `temporary` one's data folder goes when the child ends.
    pub(crate) async fn start_with(
        config: EngineConfig,
        temporary: bool,
    ) -> Result<Engine, EngineError> {
        let (program, arguments) = config
            .host_command
            .split_first()
            .ok_or(EngineError::NoCommand)?;
        let mut child = Command::new(program)
            .args(arguments)
            // The engine's time zone is that of its environment.
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C in a terminal must not reach it before the parent has
            // drained.
            .process_group(0)
            .spawn()
            .map_err(|source| EngineError::Spawn {
                program: program.to_string_lossy().into_owned(),
                source,
            })?;
        let ready = tokio::time::timeout(START, ready(&mut child, &config, temporary)).await;
        let (stdin, address) = match ready {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => {
                end(&mut child).await;
                return Err(error);
            }
            Err(_) => {
                end(&mut child).await;
                return Err(EngineError::Slow(START));
            }
        };
        let pid = child.id().unwrap_or(0);
        Ok(Engine {
            child,
            stdin: Some(stdin),
            address,
            pid,
            config: EngineConfig {
                listen: address,
                ..config
            },
            temporary,
            started: Instant::now(),
            restarts: 0,
        })
    }

    /// Where its front listens, `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The user it lets in.
    pub fn user(&self) -> &str {
        &self.config.user
    }

    /// That user's password.
    pub fn password(&self) -> &str {
        &self.config.password
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the child to end, which it does by itself only when something is wrong.
    pub async fn died(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Keeps the engine alive: a child that dies is started again at the same address, a few times and
    /// with growing pauses, in which its clients are refused. Ends when it is given up.
    ///
    /// # Errors
    /// When the child cannot be waited for.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        loop {
            let status = self.child.wait().await?;
            if self.started.elapsed() >= STEADY {
                self.restarts = 0;
            }
            tracing::error!("the embedded ClickHouse's process exited with {status}");
            if !self.restart().await {
                return Ok(status);
            }
        }
    }

    /// Starts the child again; says whether it runs.
    async fn restart(&mut self) -> bool {
        while self.restarts < RESTARTS && !self.temporary {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.restarts);
            self.restarts += 1;
            tokio::time::sleep(pause).await;
            match Engine::start_with(self.config.clone(), false).await {
                Ok(fresh) => {
                    tracing::info!("the embedded ClickHouse was restarted");
                    *self = Engine {
                        restarts: self.restarts,
                        ..fresh
                    };
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, "the embedded ClickHouse could not be restarted")
                }
            }
        }
        false
    }

    /// Stops it: queries are ended, what was acknowledged stays.
    pub async fn stop(mut self) -> Result<(), EngineError> {
        drop(self.stdin.take());
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    tracing::warn!("the embedded ClickHouse's process exited with {status}");
                }
                Ok(())
            }
            Err(_) => {
                self.child.kill().await?;
                Err(EngineError::Killed(STOP))
            }
        }
    }
}

async fn end(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::warn!("the engine's process could not be killed: {error}");
    }
}

/// Tells the child what to do and waits for its one line.
async fn ready(
    child: &mut Child,
    config: &EngineConfig,
    temporary: bool,
) -> Result<(ChildStdin, SocketAddr), EngineError> {
    let gone = || EngineError::Start("its process has no pipes".to_owned());
    let mut stdin = child.stdin.take().ok_or_else(gone)?;
    let stdout = child.stdout.take().ok_or_else(gone)?;
    let host = HostConfig {
        data_dir: config.data_dir.clone(),
        listen: config.listen,
        user: config.user.clone(),
        password: config.password.clone(),
        memory_limit_bytes: config.memory_limit_bytes,
        library: config.library.clone(),
        temporary,
    };
    let mut line = serde_json::to_vec(&host).map_err(|e| EngineError::Start(e.to_string()))?;
    line.push(b'\n');
    // A child that has already ended is better explained by what it said than by a broken pipe.
    if let Err(error) = stdin.write_all(&line).await {
        tracing::debug!("the engine's process did not read its configuration: {error}");
    }
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(address) = line.strip_prefix(LISTENING) {
            let address = address
                .trim()
                .parse()
                .map_err(|_| EngineError::Start(line.clone()))?;
            return Ok((stdin, address));
        }
        if let Some(reason) = line.strip_prefix(FAILED) {
            return Err(EngineError::Start(reason.to_owned()));
        }
        tracing::debug!("output of the engine's process: {line}");
    }
    let status = child.wait().await?;
    Err(EngineError::Start(format!(
        "its process exited with {status} before it was ready"
    )))
}
