//! The `spanloom` program as a child process: started, awaited, asked, stopped.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// How often a condition is looked at while it is awaited.
const POLL: Duration = Duration::from_millis(50);

/// An engine that was killed is started again within this time.
const STORED_WITHIN: Duration = Duration::from_secs(120);

/// What `spanloom up` is told.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Where it keeps its data.
    pub data_dir: Option<PathBuf>,
    /// The three addresses it listens on.
    pub addresses: Addresses,
    /// Further arguments, as they are.
    pub arguments: Vec<String>,
    /// Let its progress through to this program's standard error as well as keeping it.
    pub show: bool,
}

/// Where `spanloom up` listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// The API, the metrics and the first page.
    pub http: SocketAddr,
}

impl Addresses {
    /// The ports a person expects.
    pub fn defaults() -> Self {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            otlp_grpc: at(4317),
            otlp_http: at(4318),
            http: at(3200),
        }
    }

    /// Three ports of the system's choice, which [`Spanloom::wait_ready`] learns: a port that was free a
    /// moment ago may be somebody's by now.
    pub fn any() -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            otlp_grpc: any,
            otlp_http: any,
            http: any,
        }
    }

    /// Takes the addresses from the lines that end the start of `spanloom up`.
    fn learn(&mut self, said: &str) {
        let address = |what: &str| {
            let line = said.lines().find_map(|line| line.trim().strip_prefix(what));
            let address = line?.trim().strip_prefix("http://")?.split('/').next()?;
            address.parse().ok()
        };
        for (what, known) in [
            ("OTLP gRPC", &mut self.otlp_grpc),
            ("OTLP HTTP", &mut self.otlp_http),
            ("query API", &mut self.http),
        ] {
            *known = address(what).unwrap_or(*known);
        }
    }

    fn are_known(&self) -> bool {
        [self.otlp_grpc, self.otlp_http, self.http]
            .iter()
            .all(|address| address.port() != 0)
    }
}

/// The `spanloom` binary under test: `SPANLOOM_BIN`, or the workspace's own, built now.
///
/// # Errors
/// When `SPANLOOM_BIN` names no file, or the build fails.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("SPANLOOM_BIN") {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "SPANLOOM_BIN names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    build("dev")
}

/// Builds the `spanloom` binary with a cargo profile and says where it is.
///
/// # Errors
/// When the build fails.
pub fn build(profile: &str) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--locked",
            "--package",
            "spanloom",
            "--bin",
            "spanloom",
        ])
        .args([
            "--profile",
            profile,
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(crate::workspace())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "building spanloom failed ({})",
        output.status
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .context("cargo built spanloom but did not say where")
}

/// A running `spanloom up`. Dropping it kills it; [`Spanloom::interrupt`] lets it drain.
#[derive(Debug)]
pub struct Spanloom {
    child: Child,
    addresses: Addresses,
    stdout: Lines,
    stderr: Lines,
    agent: ureq::Agent,
}

impl Spanloom {
    /// Starts `binary up` without waiting for it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(binary: &Path, options: &UpOptions) -> anyhow::Result<Self> {
        let addresses = options.addresses;
        let mut command = Command::new(binary);
        command.arg("up");
        command.args(["--otlp-grpc", &addresses.otlp_grpc.to_string()]);
        command.args(["--otlp-http", &addresses.otlp_http.to_string()]);
        command.args(["--http", &addresses.http.to_string()]);
        if let Some(data_dir) = &options.data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        command.args(&options.arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Its own process group: a Ctrl-C on the terminal reaches it once, through its parent.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let stdout = Lines::collect(child.stdout.take(), false);
        let stderr = Lines::collect(child.stderr.take(), options.show);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            // A proxy cannot reach this machine's own addresses.
            .proxy(None)
            .http_status_as_error(false);
        Ok(Self {
            child,
            addresses,
            stdout,
            stderr,
            agent: config.build().into(),
        })
    }

    /// Waits until `/readyz` answers 200, calling `meanwhile` between the looks.
    ///
    /// # Errors
    /// When the program ends, the time is over, or `meanwhile` fails.
    pub fn wait_ready(
        &mut self,
        limit: Option<Duration>,
        mut meanwhile: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            meanwhile()?;
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "spanloom up ended with {status} before it was ready:\n{}",
                    self.stderr()
                );
            }
            if !self.addresses.are_known() {
                self.addresses.learn(&self.stdout.text());
            }
            if self.addresses.are_known() && matches!(self.get("/readyz"), Ok((200, _))) {
                return Ok(());
            }
            if limit.is_some_and(|limit| begun.elapsed() > limit) {
                bail!(
                    "spanloom up was not ready after {limit:?}:\n{}",
                    self.stderr()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// Where it listens; known once it is ready where the system chose the ports.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// `http://ADDRESS` of the API.
    pub fn url(&self) -> String {
        format!("http://{}", self.addresses.http)
    }

    /// Waits until what was acknowledged is stored: until then it is only in the log.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn stored(&self) -> anyhow::Result<()> {
        await_condition("the log is stored", STORED_WITHIN, || {
            let Ok((200, metrics)) = self.answer("/metrics") else {
                return false;
            };
            let waiting = metrics
                .lines()
                .find_map(|line| line.strip_prefix("spanloom_log_undelivered_requests "));
            // Without a log it is stored already.
            waiting.is_none_or(|requests| requests == "0")
        })
    }

    /// The status and body of a GET on the API's port. What was acknowledged before is found.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn get(&self, path: &str) -> anyhow::Result<(u16, String)> {
        if path.starts_with("/api/") {
            self.stored()?;
        }
        self.answer(path)
    }

    fn answer(&self, path: &str) -> anyhow::Result<(u16, String)> {
        let mut response = self.agent.get(format!("{}{path}", self.url())).call()?;
        let status = response.status().as_u16();
        // A 100,000-span trace is larger than the client's default limit.
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()?;
        Ok((status, body))
    }

    /// The JSON of a GET that must succeed.
    ///
    /// # Errors
    /// When the status is not 200 or the body is no JSON.
    pub fn get_json(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "GET {path} answered {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("GET {path} answered no JSON: {body}"))
    }

    /// Sends a signal; one that comes too late is no error.
    pub fn signal(&self, signal: i32) {
        signal_process(self.child.id(), signal);
    }

    /// Interrupts it (as Ctrl-C does) and waits until it has drained and ended.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn interrupt(mut self, limit: Duration) -> anyhow::Result<(ExitStatus, String)> {
        self.signal(libc::SIGINT);
        let status = self.wait(limit)?;
        Ok((status, self.stderr()))
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the process cannot be asked for.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end and for the rest of its output.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.stdout.finish();
                self.stderr.finish();
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!("spanloom up still runs after {limit:?}:\n{}", self.stderr());
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Spanloom {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `signal` to a process.
pub fn signal_process(pid: u32, signal: i32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    // SAFETY: kill takes two integers and touches no memory of ours.
    #[allow(unsafe_code)]
    unsafe {
        libc::kill(pid, signal);
    }
}

/// The processes whose parent is `pid`, with their command names, from `/proc`.
pub fn children_of(pid: u32) -> Vec<(u32, String)> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let child: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // "pid (name) state ppid …", and the name may hold anything.
            let (head, tail) = stat.rsplit_once(')')?;
            let parent: u32 = tail.split_whitespace().nth(1)?.parse().ok()?;
            let name = head.split_once('(')?.1.to_owned();
            (parent == pid).then_some((child, name))
        })
        .collect()
}

/// Whether a process with this id runs (a zombie does not).
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, tail)| tail.split_whitespace().next());
        state.is_some_and(|state| state != "Z")
    })
}

/// Waits until `condition` holds.
///
/// # Errors
/// When it does not within `limit`; the error names `what`.
pub fn await_condition(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !condition() {
        ensure!(begun.elapsed() <= limit, "{what}: not within {limit:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Lines that a thread reads from a child's pipe, so that the child never blocks on a full one.
#[derive(Debug)]
struct Lines {
    text: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Lines {
    fn collect(pipe: Option<impl Read + Send + 'static>, show: bool) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&text);
        let reader = pipe.map(|pipe| {
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
                    let news = String::from_utf8_lossy(&line);
                    if show {
                        eprint!("{news}");
                    }
                    written
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&news);
                    line.clear();
                }
            })
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits a moment for the end of the pipe: the child has ended, but a child of its own may hold
    /// a copy.
    fn finish(&self) {
        let begun = Instant::now();
        let open = || {
            self.reader
                .as_ref()
                .is_some_and(|reader| !reader.is_finished())
        };
        while open() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_learnt_from_what_it_says() {
        let mut addresses = Addresses::any();
        addresses.learn("Spanloom is up.\n  OTLP gRPC  http://127.0.0.1:1\n");
        assert!(!addresses.are_known());
        addresses
            .learn("  OTLP HTTP  http://127.0.0.1:2\n  query API  http://127.0.0.1:3/api/v1/\n");
        assert!(addresses.are_known());
        let ports = [addresses.otlp_grpc, addresses.otlp_http, addresses.http].map(|a| a.port());
        assert_eq!(ports, [1, 2, 3]);
    }
}
