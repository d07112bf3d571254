#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! The log on the machine's own disk, with its own thread.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use spanloom_log::disk::RealClock;
use spanloom_log::disk::simulated::{Faults, SimulatedDisk};
use spanloom_log::{BatchId, Event, Log, Observer, OpenError, Options, Record, Request, inspect};

const PATIENCE: Duration = Duration::from_secs(60);
/// Set for the process that holds the lock of this folder.
const FOLDER: &str = "SPANLOOM_LOG_TEST_FOLDER";

fn request(key: u128) -> Record {
    Record::Request(Request {
        key,
        received_at_ms: 1,
        spans: 1,
        answer: [][..].into(),
        payload: vec![key as u8; 1000].into(),
    })
}

fn open(folder: &Path) -> Log {
    Log::open(folder, Options::default()).unwrap().0
}

#[test]
fn appended_committed_killed_and_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("deep/log");
    let log = open(&folder);
    let positions: Vec<_> = (0..100)
        .map(|key| log.append(request(key)).unwrap())
        .collect();
    log.wait_durable(positions[99], PATIENCE).unwrap();
    assert_eq!(log.read(positions[7]).unwrap().payload[0], 7);
    log.append(Record::Batch {
        id: BatchId(1),
        requests: positions[..50].to_vec(),
        tokens: Vec::new(),
    })
    .unwrap();
    log.append(Record::Stored { batch: BatchId(1) }).unwrap();
    let id = log.id();
    // Dropped, it commits.
    drop(log);
    let (log, recovered) = Log::open(&folder, Options::default()).unwrap();
    assert_eq!(log.id(), id);
    let found: Vec<_> = recovered
        .requests
        .iter()
        .map(|request| request.position)
        .collect();
    assert_eq!(found, positions[50..]);
    assert!(recovered.findings.is_empty());
    let report = inspect(&folder).unwrap();
    assert_eq!(report.requests, recovered.requests);
    log.close().unwrap();
}

#[test]
fn files_are_for_their_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("log");
    let log = open(&folder);
    let position = log.append(request(1)).unwrap();
    log.wait_durable(position, PATIENCE).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("00000001.seg")), 0o600);
    assert_eq!(mode(&folder.join("lock")), 0o600);
}

#[test]
fn many_threads_share_commits_and_the_observer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, events) = mpsc::channel();
    let options = Options {
        observer: Some(Observer::new(move |event| {
            let _ = sender.send(event);
        })),
        ..Options::default()
    };
    let (log, _) = Log::open(folder.path(), options).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8_u128 {
            let log = &log;
            scope.spawn(move || {
                for key in 0..25 {
                    let position = log.append(request(thread * 100 + key)).unwrap();
                    log.wait_durable(position, PATIENCE).unwrap();
                }
            });
        }
    });
    let last = log.durable();
    log.close().unwrap();
    let events: Vec<_> = events.iter().collect();
    assert_eq!(events.last(), Some(&Event::Durable(last)));
    let (_, recovered) = Log::open(folder.path(), Options::default()).unwrap();
    assert_eq!(recovered.requests.len(), 200);
}

#[test]
fn a_log_that_is_closed_is_told_to_those_who_wait() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let position = log.append(request(1)).unwrap();
    log.close().unwrap();
    let (_, recovered) = Log::open(folder.path(), Options::default()).unwrap();
    assert_eq!(recovered.requests[0].position, position);
}

/// Holds the lock until its input ends, when it runs as the other process.
#[test]
fn the_other_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let _log = open(Path::new(&folder));
    println!("the lock is held");
    std::io::stdout().flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
}

/// I16.
#[test]
fn two_processes() {
    let folder = tempfile::tempdir().unwrap();
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_other_process", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open, so that the other process can write until it ends.
    let mut output = BufReader::new(other.stdout.take().unwrap()).lines();
    let held = output
        .by_ref()
        .any(|line| line.unwrap().contains("the lock is held"));
    assert!(held);
    let error = Log::open(folder.path(), Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let pid = format!("pid {}", other.id());
    assert!(error.to_string().contains(&pid), "{error}");
    drop(other.stdin.take());
    other.wait().unwrap();
    open(folder.path());
}

#[test]
fn the_room_is_that_of_the_limit_or_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let limit = log.status().max_bytes;
    let free = log.free_bytes();
    assert!(free > 0 && free <= limit, "{free} of {limit}");
    drop(log);
    let disk = SimulatedDisk::default();
    disk.set_faults(Faults {
        capacity_bytes: Some(5_000),
        ..Faults::default()
    });
    let clock = Arc::new(RealClock::default());
    let on = Arc::new(disk);
    let options = Options::default();
    let (log, _) = Log::open_on(on, clock, Path::new("/log"), options).unwrap();
    assert_eq!(log.free_bytes(), 5_000);
}
