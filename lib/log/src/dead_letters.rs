//! The file of dead letters: rows that the store refused for good, with the reason. It has the format of a
//! segment, with the number 0.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{DeadLetterError, WriteError};
use crate::format::{
    FRAME_HEADER, Fields, HeaderState, SEGMENT_HEADER, Salt, SegmentHeader, VERSION, seal_frame,
};
use crate::names::DEAD_LETTERS;
use crate::record::{BatchId, kind, put_bytes, put_range, take_batch, take_range, take_text};
use crate::scan::{Scan, read_up_to, scan};

/// Rows that the store refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The batch they were in.
    pub batch: BatchId,
    /// Which of its rows.
    pub rows: Range<u32>,
    /// When they were refused, in milliseconds since 1970.
    pub at_ms: u64,
    /// Why, in the store's words.
    pub reason: String,
    /// What they were made from.
    pub payload: Bytes,
}

impl DeadLetter {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.batch.0.to_le_bytes());
        put_range(out, &self.rows);
        out.extend_from_slice(&self.at_ms.to_le_bytes());
        put_bytes(out, self.reason.as_bytes());
        out.extend_from_slice(&self.payload);
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        Some(Self {
            batch: take_batch(&mut fields)?,
            rows: take_range(&mut fields)?,
            at_ms: fields.u64()?,
            reason: take_text(&mut fields)?,
            payload: Bytes::copy_from_slice(fields.0),
        })
    }
}

/// Calls `on_letter` with each dead letter of a log, the oldest first. Returns how many bytes the file has.
pub(crate) fn read(
    disk: &dyn Disk,
    folder: &Path,
    on_letter: &mut dyn FnMut(DeadLetter),
) -> io::Result<u64> {
    match disk.open(&folder.join(DEAD_LETTERS), Access::Read) {
        Ok(file) => {
            let length = file.length()?;
            read_file(&*file, length, on_letter)?;
            Ok(length)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// `None` for a file whose header is not one of ours.
fn read_file(
    file: &dyn DiskFile,
    length: u64,
    on_letter: &mut dyn FnMut(DeadLetter),
) -> io::Result<Option<(Salt, Scan)>> {
    let mut header = vec![0; SEGMENT_HEADER];
    let read = read_up_to(file, &mut header, 0)?;
    header.truncate(read);
    let (salts, salt) = match SegmentHeader::decode(&header) {
        HeaderState::Good(header, salt) if header.version <= VERSION => (vec![salt], Some(salt)),
        HeaderState::Damaged(salts) => (salts.to_vec(), None),
        HeaderState::Good(..) | HeaderState::Short => return Ok(None),
    };
    let scanned = scan(file, length, &salts, &mut |frame| {
        if frame.kind == kind::DEAD_LETTER {
            DeadLetter::decode(frame.payload)
                .into_iter()
                .for_each(&mut *on_letter);
        }
    });
    Ok(salt.map(|salt| (salt, scanned)))
}

/// The file, to be written to.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    max_bytes: u64,
    log_id: u128,
    open: Option<Open>,
    /// What is in it: a batch that is sent again after a crash is refused again.
    known: HashSet<(BatchId, u32, u32)>,
}

#[derive(Debug)]
struct Open {
    file: Box<dyn DiskFile>,
    salt: Salt,
    /// Where the next letter goes: behind the last one that is durable.
    end: u64,
    letters: u64,
}

impl DeadLetters {
    /// Reads what is there. A file that cannot be read on is left as it is until it is cleared, and counts
    /// as full.
    pub(crate) fn new(disk: &dyn Disk, folder: &Path, log_id: u128, max_bytes: u64) -> Self {
        let path = folder.join(DEAD_LETTERS);
        let mut known = HashSet::new();
        let open = disk.open(&path, Access::Write).and_then(|file| {
            let length = file.length()?;
            let read = read_file(&*file, length, &mut |letter| {
                known.insert((letter.batch, letter.rows.start, letter.rows.end));
            })?;
            Ok(read.map(|(salt, scanned)| Open {
                file,
                salt,
                end: scanned.end,
                letters: scanned.frames,
            }))
        });
        Self {
            path,
            max_bytes,
            log_id,
            open: open.ok().flatten(),
            known,
        }
    }

    /// Writes a letter, and returns when it is durable.
    pub(crate) fn write(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        letter: &DeadLetter,
    ) -> Result<(), DeadLetterError> {
        let name = (letter.batch, letter.rows.start, letter.rows.end);
        if self.known.contains(&name) {
            return Ok(());
        }
        let mut frame = vec![0; FRAME_HEADER];
        letter.encode(&mut frame);
        let bytes = frame.len() as u64;
        let end = self
            .open
            .as_ref()
            .map_or(SEGMENT_HEADER as u64, |open| open.end);
        if end.saturating_add(bytes) > self.max_bytes {
            return Err(DeadLetterError::Full {
                path: self.path.clone(),
                bytes,
                max_bytes: self.max_bytes,
            });
        }
        let path = &self.path;
        let failed = |action, source| WriteError {
            action,
            path: path.clone(),
            source,
        };
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let made = make(disk, folder, path, self.log_id, letter.at_ms);
                self.open
                    .insert(made.map_err(|error| failed("make", error))?)
            }
        };
        let position = open.letters + 1;
        seal_frame(
            &mut frame,
            &[],
            open.salt,
            open.end,
            kind::DEAD_LETTER,
            position,
        );
        // After a failure the next letter goes to the same place.
        open.file
            .write_at(&frame, open.end)
            .and_then(|()| open.file.sync())
            .map_err(|error| failed("write", error))?;
        open.end += bytes;
        open.letters = position;
        self.known.insert(name);
        Ok(())
    }

    /// Removes the file.
    pub(crate) fn clear(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), WriteError> {
        let removed = match disk.remove(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        removed
            .and_then(|()| disk.sync_folder(folder))
            .map_err(|source| WriteError {
                action: "remove",
                path: self.path.clone(),
                source,
            })?;
        self.open = None;
        self.known.clear();
        Ok(())
    }
}

fn make(
    disk: &dyn Disk,
    folder: &Path,
    path: &Path,
    log_id: u128,
    created_ms: u64,
) -> io::Result<Open> {
    let is_short = |file: Box<dyn DiskFile>| {
        let length = file.length();
        length.is_ok_and(|length| length < SEGMENT_HEADER as u64)
    };
    if disk.open(path, Access::Read).is_ok_and(is_short) {
        // A crash left half a header.
        disk.remove(path)?;
    }
    let mut file = disk.create(path)?;
    let (header, salt) = SegmentHeader {
        version: VERSION,
        number: 0,
        log_id,
        created_ms,
        first: 1,
        previous: 0,
        is_early: false,
        allocated: 0,
    }
    .encode();
    let written = file
        .write_at(&header, 0)
        .and_then(|()| file.sync())
        .and_then(|()| disk.sync_folder(folder));
    if let Err(error) = written {
        // Half a header would be in the way of the next try.
        let _ = disk.remove(path);
        return Err(error);
    }
    Ok(Open {
        file,
        salt,
        end: SEGMENT_HEADER as u64,
        letters: 0,
    })
}
