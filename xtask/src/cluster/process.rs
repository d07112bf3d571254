//! The cluster's processes: started in the background, remembered in a file, stopped by id.
//!
//! A process is known by its id *and* its start time, so that a number which the kernel has given
//! to another process since is never signalled.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::layout::Layout;

/// How long a killed process may take to be gone: it may be writing to a slow disk.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How much of a log is shown when its process fails.
const TAIL_BYTES: u64 = 4_000;

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is: `etcd`, `node1-kubelet`.
    pub name: String,
    /// Its id.
    pub pid: u32,
    /// When it began, in the kernel's ticks since boot.
    pub began: u64,
}

impl Process {
    /// A process that runs now; none if there is no such one.
    pub fn running(name: &str, pid: u32) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            pid,
            began: began(pid)?,
        })
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        began(self.pid) == Some(self.began)
    }

    /// Sends a signal, if it is still there.
    fn signal(&self, signal: &str) {
        if self.is_alive() {
            // It may end in between: then there is nothing to signal.
            let _ = Command::new("kill")
                .args([signal, &self.pid.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }

    /// Stops it where it is, until it [goes on](Self::thaw).
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.signal("-KILL");
    }

    /// Ends it at once, and waits until it is gone. Nothing of the cluster's is kept, so there is
    /// nothing to put in order first (the API server takes 15 s for it).
    ///
    /// # Errors
    /// When it stays.
    pub fn end(&self) -> anyhow::Result<()> {
        self.kill();
        if self.ended_within(STOP_LIMIT) {
            return Ok(());
        }
        bail!("{} (pid {}) cannot be ended", self.name, self.pid)
    }

    fn ended_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }
}

/// When a running process began; none for one that is gone or only waits to be buried.
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so what follows the last one counts.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // Field 22 of the line; the state was field 3.
    fields.nth(18)?.parse().ok()
}

/// What runs, as it was written down.
pub fn recorded(layout: &Layout) -> Vec<Process> {
    std::fs::read(layout.processes())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default()
}

fn record(layout: &Layout, process: &Process) -> anyhow::Result<()> {
    let mut all = recorded(layout);
    all.push(process.clone());
    let path = layout.processes();
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, serde_json::to_vec_pretty(&all)?)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Starts a program in the background, its output in its log.
///
/// # Errors
/// When it cannot be started or written down.
pub fn start(layout: &Layout, name: &str, command: &mut Command) -> anyhow::Result<Process> {
    let path = layout.log(name);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A Ctrl-C is for `up`, not for the cluster.
        .process_group(0)
        .current_dir(layout.state())
        .spawn()
        .with_context(|| format!("cannot start {name} ({:?})", command.get_program()))?;
    let process = Process::running(name, child.id())
        .with_context(|| format!("{name} ended at once; {}", tail(&path, name)))?;
    record(layout, &process)?;
    // Buried when it ends while this program still runs.
    let mut child = child;
    std::thread::spawn(move || {
        let _ = child.wait();
    });
    Ok(process)
}

/// The end of a log, under a heading.
pub fn tail(path: &Path, name: &str) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => format!("the end of {name}'s log ({}):\n{text}", path.display()),
        Err(error) => format!("{name} has no log: {error}"),
    }
}

/// Waits until `ready` says so. While waiting, a process of the cluster that has ended is the reason.
///
/// # Errors
/// After `limit`, or when a process ended; the error has the logs' ends.
pub fn wait_until(
    layout: &Layout,
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Result<(), String>,
) -> anyhow::Result<()> {
    let until = Instant::now() + limit;
    loop {
        let Err(reason) = ready() else { return Ok(()) };
        if let Some(ended) = recorded(layout).iter().find(|process| !process.is_alive()) {
            bail!(
                "{} ended while {what} was awaited; {}",
                ended.name,
                tail(&layout.log(&ended.name), &ended.name)
            );
        }
        if Instant::now() > until {
            let logs: Vec<_> = recorded(layout)
                .iter()
                .map(|process| tail(&layout.log(&process.name), &process.name))
                .collect();
            bail!(
                "{what} did not come within {} s: {reason}\n{}",
                limit.as_secs(),
                logs.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let process = Process {
            name: "sleep".to_owned(),
            pid,
            began: began(pid).unwrap(),
        };
        assert!(process.is_alive());
        let other = Process {
            began: process.began + 1,
            ..process.clone()
        };
        assert!(!other.is_alive(), "another process of the same number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }
}
