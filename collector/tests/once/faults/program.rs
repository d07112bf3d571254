//! The collector's program.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::Ground;
use super::clock::Clock;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanloom-collector");

/// How the program is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// How large its log may be.
    pub log_bytes: u64,
    /// What it is told that its container may use.
    pub memory_bytes: u64,
    /// Protections to leave out, in a control run.
    pub without: Option<&'static str>,
    /// A clock of its own.
    pub clock: Option<Arc<Clock>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_bytes: 1 << 30,
            memory_bytes: 512 << 20,
            without: None,
            clock: None,
        }
    }
}

/// How long it may take to store what its log has when it is told to end: much may wait after an overload, and
/// the machine may be busy with something else.
const DRAIN_SECONDS: &str = "1200";

/// The program. It is killed when dropped.
pub struct Program {
    child: Child,
    pub http: SocketAddr,
    /// What it says after it has started.
    rest: Option<JoinHandle<()>>,
}

impl Program {
    pub fn start(ground: &Ground, folder: &Path, options: &Options) -> Self {
        let any = "127.0.0.1:0";
        let mut command = Command::new(PROGRAM);
        command
            .env("SPANLOOM_CLICKHOUSE_PASSWORD", &ground.store.password)
            .args(["run", "--otlp-grpc", any, "--otlp-http", any])
            .args(["--metrics", any, "--drain-seconds", DRAIN_SECONDS])
            .args(["--clickhouse-url", &ground.store.url])
            .args(["--clickhouse-user", &ground.store.user])
            .args(["--clickhouse-database", &ground.store.database])
            .args(["--log-bytes", &options.log_bytes.to_string()])
            .args(["--memory-limit-bytes", &options.memory_bytes.to_string()])
            .arg("--log-folder")
            .arg(folder);
        if let Some(without) = options.without {
            command.args(["--without", without]);
        }
        if let Some(clock) = &options.clock {
            command.envs(clock.environment());
        }
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.ok()?;
            let said: serde_json::Value = serde_json::from_str(&line).ok()?;
            let address = said["otlp_http"]
                .as_str()
                .and_then(|text| text.parse().ok());
            if address.is_none() {
                eprintln!("{line}");
            }
            address
        });
        let rest = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                eprintln!("{line}");
            }
        });
        Self {
            http: address.expect("it says where it listens"),
            child,
            rest: Some(rest),
        }
    }

    fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }

    /// Kills it; returns the most memory that it had, in bytes.
    pub fn kill(mut self) -> u64 {
        let peak = peak_bytes(self.child.id());
        self.signal("-KILL");
        self.ended();
        peak
    }

    /// Has it store what it was sent, and end; returns the most memory that it had, in bytes.
    ///
    /// # Panics
    /// When it did not store everything.
    pub fn stop(mut self) -> u64 {
        self.signal("-TERM");
        let mut peak = 0;
        while self.child.try_wait().unwrap().is_none() {
            peak = peak.max(peak_bytes(self.child.id()));
            // There is nothing to wait on that tells of memory and of the end.
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.ended().success(), "not all was stored");
        peak
    }

    /// Waits for its end.
    fn ended(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(rest) = self.rest.take() {
            rest.join().unwrap();
        }
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.ended();
    }
}

/// Sends a signal to a process of ours.
pub fn signal_to(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill {signal} {pid}");
}

/// The most memory that a process has had, in bytes; nothing where it has ended.
pub fn peak_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
