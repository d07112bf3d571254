//! Explains a log's folder to people, without changing it and without its lock.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::aside;
use crate::dead_letters;
use crate::disk::{Access, Clock, Disk, RealClock, RealDisk};
use crate::error::InspectError;
use crate::finding::Finding;
use crate::index::Now;
use crate::names::RESERVE;
use crate::record::kind;
use crate::recovered::{RecoveredBatch, RecoveredRequest, batches, requests};
use crate::survey::survey;

/// What a log's folder holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The folder.
    pub folder: PathBuf,
    /// Its segments, the oldest first.
    pub segments: Vec<SegmentReport>,
    /// How many records of each kind there are, and their bytes.
    pub records: BTreeMap<&'static str, (u64, u64)>,
    /// Requests that are not stored, in order.
    pub requests: Vec<RecoveredRequest>,
    /// Batches that are not stored.
    pub batches: Vec<RecoveredBatch>,
    /// Keys that are kept.
    pub keys: usize,
    /// How long ago the oldest request that is not stored was received, in milliseconds.
    pub oldest_age_ms: Option<u64>,
    /// Rows that were refused for good.
    pub dead_letters: Vec<DeadLetterReport>,
    /// Bytes of their file.
    pub dead_letter_bytes: u64,
    /// Damaged bytes that were kept aside: names and sizes.
    pub kept_aside: Vec<(String, u64)>,
    /// Bytes of the reserve, which lets the log be delivered while its disk is full. 0 if there is none.
    pub reserve_bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// A dead letter, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterReport {
    /// How many rows.
    pub rows: u32,
    /// When they were refused, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, in the store's words.
    pub reason: String,
    /// Bytes of what they were made from.
    pub payload_bytes: u64,
}

/// Reads a log, also while its process is running.
///
/// # Errors
/// When the folder cannot be read.
pub fn inspect(folder: &Path) -> Result<Report, InspectError> {
    inspect_on(&RealDisk, &RealClock::default(), folder)
}

/// Reads a log on another disk.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_on(
    disk: &dyn Disk,
    clock: &dyn Clock,
    folder: &Path,
) -> Result<Report, InspectError> {
    let failed = |source| InspectError {
        folder: folder.to_owned(),
        source,
    };
    let now = Now {
        unix_ms: clock.unix_ms(),
        monotonic: clock.monotonic(),
    };
    let survey = survey(disk, folder, now).map_err(failed)?;
    let mut dead_letters = Vec::new();
    let dead_letter_bytes = dead_letters::read(disk, folder, &mut |letter| {
        dead_letters.push(DeadLetterReport {
            rows: letter.rows.end.saturating_sub(letter.rows.start),
            at_ms: letter.at_ms,
            reason: letter.reason,
            payload_bytes: letter.payload.len() as u64,
        });
    })
    .map_err(failed)?;
    let requests = requests(&survey.index);
    let oldest = requests.first();
    let mut records: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (number, (count, bytes)) in &survey.kinds {
        let sum = records.entry(kind::name(*number)).or_default();
        *sum = (sum.0 + count, sum.1 + bytes);
    }
    let segments = survey.segments.iter().map(|segment| SegmentReport {
        path: segment.path.clone(),
        bytes: segment.bytes,
    });
    Ok(Report {
        folder: folder.to_owned(),
        segments: segments.collect(),
        records,
        oldest_age_ms: oldest.map(|oldest| now.unix_ms.saturating_sub(oldest.received_at_ms)),
        requests,
        batches: batches(&survey.index),
        keys: survey.index.keys.len(),
        dead_letters,
        dead_letter_bytes,
        kept_aside: aside::kept(disk, folder),
        reserve_bytes: disk
            .open(&folder.join(RESERVE), Access::Read)
            .and_then(|file| file.length())
            .unwrap_or(0),
        findings: survey.findings,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        writeln!(f, "log {}", self.folder.display())?;
        writeln!(
            f,
            "segments: {}, {bytes} bytes; each is deleted once all of its requests are stored",
            self.segments.len()
        )?;
        for (name, (count, bytes)) in &self.records {
            writeln!(f, "  {name}: {count} records, {bytes} bytes")?;
        }
        self.write_undelivered(f)?;
        self.write_batches(f)?;
        writeln!(
            f,
            "keys: {}; they recognise requests that are sent again",
            self.keys
        )?;
        self.write_dead_letters(f)?;
        match self.reserve_bytes {
            0 => writeln!(f, "reserve: none; on a full disk nothing can be delivered")?,
            bytes => writeln!(f, "reserve: {bytes} bytes, for a disk that is full")?,
        }
        let kept: u64 = self.kept_aside.iter().map(|(_, bytes)| bytes).sum();
        writeln!(
            f,
            "damaged bytes kept aside: {kept} in {} files",
            self.kept_aside.len()
        )?;
        if self.findings.is_empty() {
            return writeln!(f, "findings: none");
        }
        writeln!(f, "findings: {}", self.findings.len())?;
        for finding in &self.findings {
            writeln!(f, "  {finding}")?;
        }
        Ok(())
    }
}

impl Report {
    fn write_undelivered(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self
            .requests
            .iter()
            .map(|request| request.payload_bytes)
            .sum();
        let spans: u64 = self
            .requests
            .iter()
            .map(|request| u64::from(request.spans))
            .sum();
        write!(
            f,
            "not stored yet: {} requests, {spans} spans, {bytes} bytes",
            self.requests.len()
        )?;
        match self.oldest_age_ms {
            Some(age) => writeln!(f, "; the oldest was received {} s ago", age / 1000),
            None => writeln!(f),
        }
    }

    fn write_batches(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "batches not stored yet: {}", self.batches.len())?;
        for batch in &self.batches {
            let state = match batch.sent_at_ms {
                Some(_) => "was sent and not confirmed; it is sent again under the same tokens",
                None => "was never sent",
            };
            writeln!(
                f,
                "  {}: {} requests, {} pieces; {state}",
                batch.id,
                batch.requests.len(),
                batch.pieces.len().max(1)
            )?;
        }
        Ok(())
    }

    fn write_dead_letters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "dead letters: {}, {} bytes; the store refused their rows for good",
            self.dead_letters.len(),
            self.dead_letter_bytes
        )?;
        for letter in &self.dead_letters {
            writeln!(f, "  {} rows: {}", letter.rows, letter.reason)?;
        }
        Ok(())
    }
}
