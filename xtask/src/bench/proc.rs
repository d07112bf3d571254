//! Processes under measurement: where they run, what CPU and memory they took.

use anyhow::{Context, bail};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The core that the collector under test has to itself.
pub const COLLECTOR_CORE: usize = 0;
/// The core of everything else: the load generator and the sink.
pub const OTHERS_CORE: usize = 1;

/// `program` started on one core; add arguments as to any command. `taskset` replaces itself with the
/// program, so the child's id is the program's own.
pub fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(core.to_string()).arg(program);
    command
}

/// Moves this process, and what it starts from now on, to one core.
pub fn pin_self(core: usize) -> anyhow::Result<()> {
    let status = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", &core.to_string()])
        .arg(std::process::id().to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .context("run taskset (package util-linux), which pins processes to cores")?;
    if !status.success() {
        bail!("taskset could not pin this process to core {core}; the benchmark needs two cores");
    }
    Ok(())
}

/// CPU time of all threads of a process since its start.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_cpu_time(&stat).with_context(|| format!("{path}: not understood: {stat}"))
}

fn parse_cpu_time(stat: &str) -> Option<Duration> {
    // The name, in brackets, may hold spaces: fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // Linux shows ticks of 1/100 s on every architecture we build for.
    Some(Duration::from_millis((user + system) * 10))
}

/// A figure of `/proc/PID/status` in MiB: `VmRSS` is now, `VmHWM` the highest so far.
pub fn memory_mib(pid: u32, field: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    parse_memory(&status, field).with_context(|| format!("{path}: no {field}"))
}

/// Forgets the highest memory of a process so far: `VmHWM` counts from now.
pub fn reset_peak(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").with_context(|| format!("write {path}"))
}

fn parse_memory(status: &str, field: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// A child that is stopped when it goes out of scope.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Takes over a child.
    pub fn new(child: Child) -> Self {
        Self(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Fails if it has ended.
    pub fn check(&mut self, what: &str) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{what} ended by itself: {status}"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A terminate signal first, so that what is measured ends as it does in life.
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        if wait(Duration::from_secs(5), || {
            matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
        }) {
            return;
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks every 20 ms until `done` or the time is over; says which.
pub fn wait(at_most: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + at_most;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_odd_names() {
        let check = |stat: &str, expected: Option<u64>| {
            assert_eq!(
                parse_cpu_time(stat),
                expected.map(Duration::from_millis),
                "{stat}"
            );
        };
        check(
            "7 (a) R 1 1 1 0 -1 4 0 0 0 0 12 30 0 0 20 0 1 0 5",
            Some(420),
        );
        check(
            "7 (a ) b (c) R 1 1 1 0 -1 4 0 0 0 0 1 2 0 0 20 0 1 0 5",
            Some(30),
        );
        check("7 (a) R 1", None);
        check("", None);
    }

    #[test]
    fn status_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(parse_memory(status, "VmRSS"), Some(1.0));
        assert_eq!(parse_memory(status, "VmHWM"), Some(2.0));
        assert_eq!(parse_memory(status, "VmSwap"), None);
    }
}
