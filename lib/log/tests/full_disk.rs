#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)] // tests may stop
//! A real disk that becomes full and stays so: everything that was durable is delivered.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use spanloom_log::{AppendError, BatchId, Log, Options, Position, Record, Request};

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmpfs. It is gone when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, bytes: u64) -> Result<Self, String> {
        fs::create_dir_all(folder).unwrap();
        let size = format!("size={bytes},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .map_err(|error| error.to_string())?;
        match mounted.status.success() {
            true => Ok(Self(folder.to_owned())),
            false => Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()),
        }
    }

    /// Another program takes whatever is free.
    fn fill(&self) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.0.join("ballast"))
            .unwrap();
        loop {
            match file.write(&[7; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn request(key: u128) -> Record {
    Record::Request(Request {
        key,
        received_at_ms: 1,
        spans: 1,
        answer: [][..].into(),
        payload: vec![key as u8; 20_000].into(),
    })
}

fn options() -> Options {
    Options {
        segment_bytes: MIB,
        max_bytes: 64 * MIB,
        reserve_bytes: 256 * 1024,
        ..Options::default()
    }
}

/// Appends until the disk takes no more; returns what was durable.
fn append_until_full(log: &Log) -> Vec<Position> {
    let mut durable = Vec::new();
    for key in 0.. {
        let position = match log.append(request(key)) {
            Ok(position) => position,
            Err(AppendError::Full(_)) => break,
            Err(error) => panic!("{error}"),
        };
        let start = Instant::now();
        while log
            .wait_durable(position, Duration::from_millis(20))
            .is_err()
        {
            assert!(start.elapsed() < PATIENCE);
            if log.status().is_disk_full {
                return durable;
            }
        }
        durable.push(position);
    }
    durable
}

#[test]
fn everything_is_delivered_while_the_disk_stays_full() {
    let temporary = tempfile::tempdir().unwrap();
    let disk = match Disk::mount(&temporary.path().join("disk"), 8 * MIB) {
        Ok(disk) => disk,
        Err(reason) => {
            // Not in the captured output: who runs this must see it.
            let message = format!("SKIPPED: full_disk needs to mount a tmpfs: {reason}\n");
            let _ = std::io::stderr().write_all(message.as_bytes());
            return;
        }
    };
    let folder = disk.0.join("log");
    let (log, _) = Log::open(&folder, options()).unwrap();
    let positions = append_until_full(&log);
    disk.fill();
    assert!(positions.len() > 300, "{}", positions.len());
    assert!(log.status().is_disk_full);
    // Killed, and started again on the full disk.
    let half = positions.len() / 2;
    deliver(&log, &disk, 1, &positions[..half]);
    drop(log);
    let (log, recovered) = Log::open(&folder, options()).unwrap();
    assert_eq!(recovered.lost_records(), 0);
    let left = recovered.requests.iter().map(|request| request.position);
    let left: Vec<_> = left
        .filter(|position| positions.contains(position))
        .collect();
    assert_eq!(left, positions[half..]);
    deliver(&log, &disk, 1000, &left);
    drop(log);
    let (_, recovered) = Log::open(&folder, options()).unwrap();
    let left = recovered.requests.iter().map(|request| request.position);
    assert_eq!(
        left.filter(|position| positions.contains(position)).count(),
        0
    );
    assert_eq!(recovered.lost_records(), 0);
}

/// Each batch is named, sent and stored, as a collector does it; what becomes free is taken by others.
fn deliver(log: &Log, disk: &Disk, first_id: u128, positions: &[Position]) {
    for (id, part) in (first_id..).zip(positions.chunks(10)) {
        let id = BatchId(id);
        disk.fill();
        log.append(Record::Batch {
            id,
            requests: part.to_vec(),
            tokens: Vec::new(),
        })
        .unwrap();
        let is_sent = log
            .append(Record::Sent {
                batch: id,
                at_ms: 2,
            })
            .unwrap();
        log.wait_durable(is_sent, PATIENCE).unwrap();
        disk.fill();
        let is_stored = log.append(Record::Stored { batch: id }).unwrap();
        log.wait_durable(is_stored, PATIENCE).unwrap();
    }
}
