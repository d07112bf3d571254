//! What the tests share: a log on a simulated disk, and ways to change its files.
#![allow(dead_code)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use spanloom_log::disk::simulated::{Faults, SimulatedClock, SimulatedDisk};
use spanloom_log::disk::{Access, Disk};
use spanloom_log::{
    BatchId, Committer, Log, OpenError, Options, Position, Problem, Record, Recovered, Request,
};

/// When the clocks of tests begin.
pub const START_MS: u64 = 1_795_000_000_000;
/// Bytes of a segment's header.
pub const HEADER: usize = 80;
/// Bytes of a frame's header.
pub const FRAME: usize = 32;

/// A disk, a clock, and how a log on them is opened.
pub struct Rig {
    pub disk: SimulatedDisk,
    pub clock: SimulatedClock,
    pub options: Options,
}

impl Default for Rig {
    fn default() -> Self {
        Self {
            disk: SimulatedDisk::default(),
            clock: SimulatedClock::at(START_MS),
            options: Options {
                committer: Committer::Caller,
                // Tests of the reserve set it.
                reserve_bytes: 0,
                ..Options::default()
            },
        }
    }
}

pub fn folder() -> &'static Path {
    Path::new("/log")
}

pub fn segment(number: u64) -> PathBuf {
    folder().join(format!("{number:08}.seg"))
}

impl Rig {
    /// With segments of this size, so that a few records fill one.
    pub fn with_segments(bytes: u64) -> Self {
        let mut rig = Self::default();
        rig.options.segment_bytes = bytes;
        rig
    }

    pub fn try_open(&self) -> Result<(Log, Recovered), OpenError> {
        let clock = Arc::new(self.clock.clone());
        let disk = Arc::new(self.disk.clone());
        Log::open_on(disk, clock, folder(), self.options.clone())
    }

    pub fn open(&self) -> (Log, Recovered) {
        self.try_open().unwrap()
    }

    /// A log with these requests, each committed alone, and closed.
    pub fn write(&self, keys: std::ops::Range<u128>) -> Vec<Position> {
        let (log, _) = self.open();
        let positions = keys.map(|key| append_durable(&log, request(key))).collect();
        log.close().unwrap();
        positions
    }

    pub fn fail(&self, faults: Faults) {
        self.disk.set_faults(faults);
    }

    pub fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let file = self.disk.open(path, Access::Read).unwrap();
        let mut bytes = vec![0; file.length().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        bytes
    }

    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let _ = self.disk.remove(path);
        let mut file = self.disk.create(path).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
        self.disk.sync_folder(path.parent().unwrap()).unwrap();
    }

    pub fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes_of(path);
        change(&mut bytes);
        self.put(path, &bytes);
    }

    pub fn names(&self) -> Vec<String> {
        self.disk.list(folder()).unwrap()
    }
}

/// A request whose payload follows from its key.
pub fn request(key: u128) -> Record {
    Record::Request(Request {
        key,
        received_at_ms: START_MS,
        spans: 2,
        answer: format!("answer {key}").into_bytes().into(),
        payload: payload(key).into(),
    })
}

pub fn payload(key: u128) -> Vec<u8> {
    format!("payload of {key} ").into_bytes().repeat(5)
}

/// Bytes of the frame of such a request.
pub fn frame_of(key: u128) -> usize {
    FRAME + 32 + format!("answer {key}").len() + payload(key).len()
}

pub fn append_durable(log: &Log, record: Record) -> Position {
    let position = log.append(record).unwrap();
    log.commit().unwrap();
    assert!(log.durable() >= position);
    position
}

pub fn batch(id: u128, requests: &[Position]) -> Record {
    Record::Batch {
        id: BatchId(id),
        requests: requests.to_vec(),
        tokens: vec![format!("{id}:spans"), format!("{id}:tags")],
    }
}

pub fn stored(id: u128) -> Record {
    Record::Stored { batch: BatchId(id) }
}

pub fn sent(id: u128) -> Record {
    Record::Sent {
        batch: BatchId(id),
        at_ms: START_MS + 5,
    }
}

/// Requests, a batch of them, and its end: all durable.
pub fn deliver(log: &Log, id: u128, requests: &[Position]) {
    log.append(batch(id, requests)).unwrap();
    append_durable(log, stored(id));
}

pub fn keys(recovered: &Recovered) -> Vec<u128> {
    recovered
        .requests
        .iter()
        .map(|request| request.key)
        .collect()
}

/// The requests can be read, and are what was appended.
pub fn check_payloads(log: &Log, recovered: &Recovered) {
    for request in &recovered.requests {
        let read = log.read(request.position).unwrap();
        assert_eq!(read.key, request.key);
        assert_eq!(read.payload, payload(request.key));
    }
}

pub fn problems(recovered: &Recovered) -> Vec<Problem> {
    let findings = recovered.findings.iter();
    findings.map(|finding| finding.problem.clone()).collect()
}
