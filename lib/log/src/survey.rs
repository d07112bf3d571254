//! Reads a log's folder without changing it, and makes the index of what is undelivered.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, DiskFile};
use crate::finding::{Finding, Problem};
use crate::format::{HeaderState, SEGMENT_HEADER, Salt, SegmentHeader, VERSION};
use crate::index::{Index, Now, Place};
use crate::names::{Name, segment_path};
use crate::positions::Positions;
use crate::record::{Decoded, Record};
use crate::scan::{BadBytes, BadState, Frame, read_up_to, scan};

/// A segment whose records are read.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The number in its name.
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// The highest position in it.
    pub(crate) last: u64,
    /// Records of unknown kinds, which are copied before it goes.
    pub(crate) unknown: Vec<UnknownFrame>,
    /// It can go when this position, of what was copied from it, is durable.
    pub(crate) goes_after: Option<u64>,
    /// It was made of the reserve, and its file is longer than its records.
    pub(crate) early: Option<EarlySegment>,
}

/// What it takes to go on with a segment that was made of the reserve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EarlySegment {
    pub(crate) salt: Salt,
    /// Where its records end.
    pub(crate) end: u64,
}

/// A record of a kind that a later version writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnknownFrame {
    pub(crate) kind: u8,
    pub(crate) position: u64,
    pub(crate) place: Place,
}

/// What has to be done to a file.
#[derive(Debug)]
pub(crate) enum Repair {
    /// Keep bytes aside; they stay where they are.
    KeepAside { finding: usize, bytes: BadBytes },
    /// Keep what is behind `end` aside, unless it is zeros, and cut it.
    Cut { finding: usize, bytes: BadBytes },
    /// Overwrite what is behind the end with zeros: the file keeps its length.
    Wipe { finding: usize, bytes: BadBytes },
    /// Keep the whole file aside, away from its place.
    SetAside { finding: usize },
    /// Nothing in it is worth keeping.
    Remove { finding: usize },
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<Segment>,
    pub(crate) index: Index,
    pub(crate) findings: Vec<Finding>,
    pub(crate) repairs: Vec<Repair>,
    pub(crate) log_id: Option<u128>,
    pub(crate) highest_number: u64,
    /// The highest position that may be in use.
    pub(crate) highest_position: u64,
    /// The highest position of a record that was read, and that was written in its order.
    pub(crate) highest_in_order: u64,
    /// Headers of the segments, as they are in the files.
    pub(crate) headers: Vec<SegmentHeader>,
    /// Bytes of segments that are left alone.
    pub(crate) left_alone_bytes: u64,
    /// Records by kind, with their bytes.
    pub(crate) kinds: BTreeMap<u8, (u64, u64)>,
}

struct Candidate {
    number: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    length: u64,
    salts: Vec<Salt>,
    header: Option<SegmentHeader>,
}

impl Candidate {
    fn order(&self) -> u64 {
        self.header.map_or(self.number, |header| header.number)
    }
}

/// Reads the folder.
pub(crate) fn survey(disk: &dyn Disk, folder: &Path, now: Now) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let mut names = disk.list(folder)?;
    names.sort();
    let mut candidates = Vec::new();
    for name in names {
        match Name::parse(&name) {
            Name::Own => {}
            Name::Foreign => {
                survey.found(&folder.join(name), Problem::ForeignFile);
            }
            Name::Segment(number) => {
                survey.highest_number = survey.highest_number.max(number);
                let path = segment_path(folder, number);
                candidates.extend(survey.open_segment(disk, number, path));
            }
        }
    }
    survey.choose_log(&mut candidates);
    survey.drop_copies(&mut candidates);
    let mut positions = Positions::default();
    for candidate in candidates {
        survey.read_segment(candidate, &mut positions, now);
    }
    survey.index.sort_keys();
    survey.highest_in_order = positions.highest_in_order();
    survey.highest_position = survey.highest_position.max(positions.highest());
    for (from, records) in positions.missing() {
        survey.found(folder, Problem::Missing { from, records });
    }
    Ok(survey)
}

impl Survey {
    fn found(&mut self, path: &Path, problem: Problem) -> usize {
        self.findings.push(Finding {
            path: path.to_owned(),
            problem,
            kept_in: None,
            is_new: true,
        });
        self.findings.len() - 1
    }

    /// Reads a segment's header. `None` if its records are not to be read.
    fn open_segment(&mut self, disk: &dyn Disk, number: u64, path: PathBuf) -> Option<Candidate> {
        let opened = disk.open(&path, Access::Read).and_then(|file| {
            let length = file.length()?;
            let mut header = vec![0; SEGMENT_HEADER];
            let read = read_up_to(&*file, &mut header, 0)?;
            header.truncate(read);
            Ok((file, length, header))
        });
        let (file, length, header) = match opened {
            Ok(opened) => opened,
            // Its process deleted it a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                let problem = Problem::Unreadable {
                    offset: 0,
                    bytes: 0,
                    error: error.to_string(),
                };
                // It may be readable next time, so it stays where it is.
                self.found(&path, problem);
                return None;
            }
        };
        let mut candidate = Candidate {
            number,
            path,
            file,
            length,
            salts: Vec::new(),
            header: None,
        };
        match SegmentHeader::decode(&header) {
            HeaderState::Good(header, _) if header.version > VERSION => {
                let version = header.version;
                self.found(&candidate.path, Problem::LaterVersion { version });
                self.leave_alone(&header, length);
                return None;
            }
            HeaderState::Good(header, salt) => {
                candidate.salts.push(salt);
                candidate.header = Some(header);
            }
            HeaderState::Damaged(salts) => candidate.salts.extend(salts),
            HeaderState::Short => {
                let (problem, is_empty) = if length == 0 {
                    (Problem::Empty, true)
                } else {
                    (Problem::TornEnd { bytes: length }, false)
                };
                let finding = self.found(&candidate.path, problem);
                self.repairs.push(if is_empty {
                    Repair::Remove { finding }
                } else {
                    Repair::SetAside { finding }
                });
                return None;
            }
        }
        Some(candidate)
    }

    /// Numbers and positions of a segment that is not read must not be used again.
    fn leave_alone(&mut self, header: &SegmentHeader, length: u64) {
        self.left_alone_bytes += length;
        self.highest_number = self.highest_number.max(header.number);
        // A frame has a byte at least.
        let last = header.first.saturating_add(length);
        self.highest_position = self.highest_position.max(last);
    }

    /// Decides whose log this is: that of most segments, or of the newest one.
    fn choose_log(&mut self, candidates: &mut Vec<Candidate>) {
        let mut logs: BTreeMap<u128, (usize, u64)> = BTreeMap::new();
        for header in candidates.iter().filter_map(|candidate| candidate.header) {
            let log = logs.entry(header.log_id).or_default();
            log.0 += 1;
            log.1 = log.1.max(header.number);
        }
        self.log_id = logs
            .into_iter()
            .max_by_key(|(_, weight)| *weight)
            .map(|(id, _)| id);
        candidates.retain(|candidate| {
            let id = candidate.header.map(|header| header.log_id);
            let is_ours = id.is_none() || id == self.log_id;
            if !is_ours {
                self.found(&candidate.path, Problem::OtherLog);
                self.left_alone_bytes += candidate.length;
            }
            is_ours
        });
    }

    /// Of files with the same number the one with the right name is read.
    fn drop_copies(&mut self, candidates: &mut Vec<Candidate>) {
        candidates.sort_by_key(|candidate| {
            let order = candidate.order();
            (order, order != candidate.number, candidate.number)
        });
        let mut previous = None;
        candidates.retain(|candidate| {
            let Some(header) = candidate.header else {
                return true;
            };
            let number = header.number;
            let is_copy = previous.replace(number) == Some(number);
            if is_copy {
                let finding = self.found(&candidate.path, Problem::Copy { number });
                self.repairs.push(Repair::SetAside { finding });
            } else if number != candidate.number {
                self.found(&candidate.path, Problem::OtherName { number });
            }
            !is_copy
        });
    }

    fn read_segment(&mut self, candidate: Candidate, positions: &mut Positions, now: Now) {
        if let Some(header) = candidate.header {
            positions.segment(header.first, header.previous, header.is_early);
            self.headers.push(header);
            self.highest_number = self.highest_number.max(header.number);
            self.highest_position = self.highest_position.max(header.previous);
        }
        let mut segment = Segment {
            number: candidate.number,
            path: candidate.path,
            bytes: candidate.length,
            last: 0,
            unknown: Vec::new(),
            goes_after: None,
            early: None,
        };
        let is_early = candidate.header.is_some_and(|header| header.is_early);
        let scanned = scan(
            &*candidate.file,
            candidate.length,
            &candidate.salts,
            &mut |frame| self.replay(&mut segment, &frame, positions, is_early, now),
        );
        if candidate.header.is_none() {
            if scanned.frames == 0 {
                let bytes = candidate.length;
                let finding = self.found(&segment.path, Problem::Unusable { bytes });
                self.repairs.push(Repair::SetAside { finding });
                return;
            }
            self.found(&segment.path, Problem::BadHeader);
        }
        let is_allocated = candidate.header.is_some_and(|header| header.allocated > 0);
        if let (true, [salt]) = (is_allocated, &*candidate.salts) {
            let (salt, end) = (*salt, scanned.end);
            segment.early = Some(EarlySegment { salt, end });
        }
        for bytes in scanned.bad {
            let is_end = bytes.start >= scanned.end;
            if is_end && is_allocated && bytes.state == BadState::Zeros {
                // Room for more.
                continue;
            }
            let finding = self.found(&segment.path, problem(&bytes, is_end));
            self.repairs
                .push(match is_end && bytes.state != BadState::Unreadable {
                    true if is_allocated => Repair::Wipe { finding, bytes },
                    true => {
                        segment.bytes = bytes.start;
                        Repair::Cut { finding, bytes }
                    }
                    false => Repair::KeepAside { finding, bytes },
                });
        }
        if !segment.unknown.is_empty() {
            let records = segment.unknown.len() as u64;
            self.found(&segment.path, Problem::UnknownKinds { records });
        }
        self.segments.push(segment);
    }

    fn replay(
        &mut self,
        segment: &mut Segment,
        frame: &Frame<'_>,
        positions: &mut Positions,
        is_early: bool,
        now: Now,
    ) {
        segment.last = segment.last.max(frame.position);
        // After a failed write the same records are in the next segment again.
        if !positions.insert(frame.position, is_early) {
            return;
        }
        let place = Place {
            segment: segment.number,
            offset: frame.offset,
            frame_bytes: frame.end() - frame.offset,
        };
        let count = self.kinds.entry(frame.kind).or_default();
        *count = (count.0 + 1, count.1 + place.frame_bytes);
        match Record::decode(frame.kind, frame.payload) {
            Decoded::Record(record) => {
                self.index.appended(frame.position, &record);
                self.index.durable(frame.position, &record, place, now);
            }
            Decoded::UnknownKind => segment.unknown.push(UnknownFrame {
                kind: frame.kind,
                position: frame.position,
                place,
            }),
            Decoded::Malformed => {
                let (kind, position) = (frame.kind, frame.position);
                self.found(&segment.path, Problem::Malformed { kind, position });
            }
        }
    }
}

fn problem(bad: &BadBytes, is_end: bool) -> Problem {
    let (offset, bytes) = (bad.start, bad.end - bad.start);
    match bad.state {
        BadState::Unreadable => Problem::Unreadable {
            offset,
            bytes,
            error: "input/output error".to_owned(),
        },
        BadState::Zeros if is_end => Problem::ZeroEnd { bytes },
        BadState::Wrong if is_end => Problem::TornEnd { bytes },
        BadState::Zeros | BadState::Wrong => Problem::BadBytes { offset, bytes },
    }
}
