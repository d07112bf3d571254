//! The file of dead letters: rows that the store refused for good, with the reason. It has the format of a
//! segment, with the number 0.
//!
//! It is the only file of a log that another process may change while the log is open: letters that were replayed
//! are taken out. So each change is made under a lock of its own, and by a new file that takes the place of the
//! old one. The log looks whether the file is still its own before it writes to it.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use crate::aside::Aside;
use crate::disk::{Access, Disk, DiskFile, Lock, LockGuard, RealDisk};
use crate::error::{DeadLetterError, ReadError, WriteError};
use crate::format::{
    FRAME_HEADER, Fields, HeaderState, SEGMENT_HEADER, Salt, SegmentHeader, VERSION, seal_frame,
};
use crate::names::{DEAD_LETTERS, DEAD_LETTERS_LOCK, DEAD_LETTERS_NEW};
use crate::record::{BatchId, kind, put_bytes, put_range, take_batch, take_range, take_text};
use crate::scan::{Scan, read_up_to, scan};
use crate::writer::{remove, write_error};

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

/// What a letter is known by: its batch, and which of its rows.
type Name = (BatchId, u32, u32);

impl DeadLetter {
    fn name(&self) -> Name {
        (self.batch, self.rows.start, self.rows.end)
    }

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
    let content = Content::read(disk, &folder.join(DEAD_LETTERS), Access::Read, on_letter)?;
    Ok(content.map_or(0, |content| content.length))
}

/// A file that was read.
struct Content {
    file: Box<dyn DiskFile>,
    length: u64,
    /// `None` for a header that is not one of ours, or is damaged.
    header: Option<(SegmentHeader, Salt)>,
    scanned: Scan,
}

impl Content {
    /// `None` if there is no file.
    fn read(
        disk: &dyn Disk,
        path: &Path,
        access: Access,
        on_letter: &mut dyn FnMut(DeadLetter),
    ) -> io::Result<Option<Self>> {
        let file = match disk.open(path, access) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = file.length()?;
        let (salts, header) = match read_header(&*file)? {
            HeaderState::Good(header, salt) if header.version <= VERSION => {
                (vec![salt], Some((header, salt)))
            }
            HeaderState::Damaged(salts) => (salts.to_vec(), None),
            HeaderState::Good(..) | HeaderState::Short => (Vec::new(), None),
        };
        let scanned = match salts.is_empty() {
            true => Scan::default(),
            false => scan(&*file, length, &salts, &mut |frame| {
                if frame.kind == kind::DEAD_LETTER {
                    DeadLetter::decode(frame.payload)
                        .into_iter()
                        .for_each(&mut *on_letter);
                }
            }),
        };
        Ok(Some(Self {
            file,
            length,
            header,
            scanned,
        }))
    }

    fn check_version(&self, path: &Path) -> Result<(), DeadLetterError> {
        let header = read_header(&*self.file).map_err(|error| write_error("read", path, error))?;
        match header {
            HeaderState::Good(SegmentHeader { version, .. }, _) if version > VERSION => {
                let path = path.to_owned();
                Err(DeadLetterError::LaterVersion { path, version })
            }
            _ => Ok(()),
        }
    }
}

/// Puts a file with these letters in the place of one that was read. What could not be read of it is kept aside.
fn put<'l>(
    disk: &dyn Disk,
    folder: &Path,
    old: &Content,
    letters: impl Iterator<Item = &'l DeadLetter>,
) -> io::Result<()> {
    let path = folder.join(DEAD_LETTERS);
    let mut aside = Aside::new(disk, folder, DAMAGED_BYTES);
    for bytes in &old.scanned.bad {
        aside.copy(&path, bytes.start, bytes.end)?;
    }
    aside.sync()?;
    let mut letters = letters.peekable();
    let Some(first) = letters.peek() else {
        remove(disk, &path)?;
        return disk.sync_folder(folder);
    };
    let new = folder.join(DEAD_LETTERS_NEW);
    // A crash may have left it.
    remove(disk, &new)?;
    let header = match old.header {
        Some((header, _)) => SegmentHeader {
            previous: header.previous.saturating_add(1),
            ..header
        },
        None => header(0, first.at_ms, 1),
    };
    let written = begin(disk, &new, header).and_then(|mut open| {
        for letter in letters {
            let mut frame = vec![0; FRAME_HEADER];
            letter.encode(&mut frame);
            open.append(frame)?;
        }
        open.file.sync()?;
        disk.rename(&new, &path)
    });
    if let Err(error) = written {
        let _ = remove(disk, &new);
        return Err(error);
    }
    disk.sync_folder(folder)
}

fn read_header(file: &dyn DiskFile) -> io::Result<HeaderState> {
    let mut header = vec![0; SEGMENT_HEADER];
    let read = read_up_to(file, &mut header, 0)?;
    header.truncate(read);
    Ok(SegmentHeader::decode(&header))
}

/// Nobody else changes the file while this is held.
fn take_lock(disk: &dyn Disk, folder: &Path) -> Result<Box<dyn LockGuard>, DeadLetterError> {
    let path = folder.join(DEAD_LETTERS_LOCK);
    let owner = format!("pid {}\n", process::id());
    match disk.lock(&path, &owner) {
        Ok(Lock::Taken(guard)) => Ok(guard),
        Ok(Lock::Held(owner)) => Err(DeadLetterError::InUse {
            path: folder.join(DEAD_LETTERS),
            owner: owner.trim().to_owned(),
        }),
        Err(source) => Err(write_error("lock", &path, source).into()),
    }
}

/// The file, to be written to by the log that it belongs to.
#[derive(Debug)]
pub(crate) struct DeadLetters {
    path: PathBuf,
    max_bytes: u64,
    log_id: u128,
    open: Option<Open>,
    /// What is in it: a batch that is sent again after a crash is refused again.
    known: HashSet<Name>,
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
    /// Reads what is there.
    pub(crate) fn new(disk: &dyn Disk, folder: &Path, log_id: u128, max_bytes: u64) -> Self {
        let mut letters = Self {
            path: folder.join(DEAD_LETTERS),
            max_bytes,
            log_id,
            open: None,
            known: HashSet::new(),
        };
        // It is read again before it is written to.
        let _ = letters.load(disk);
        letters
    }

    /// Reads the file. One whose header cannot be read is not opened.
    fn load(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.open = None;
        self.known.clear();
        let known = &mut self.known;
        let content = Content::read(disk, &self.path, Access::Write, &mut |letter| {
            known.insert(letter.name());
        })?;
        if let Some(content) = content
            && let Some((_, salt)) = content.header
        {
            self.open = Some(Open {
                file: content.file,
                salt,
                end: content.scanned.end,
                letters: content.scanned.frames,
            });
        }
        Ok(())
    }

    /// Whether the file is the one that is open: another process may have put a new one in its place.
    fn is_current(&self, disk: &dyn Disk) -> io::Result<bool> {
        let file = match disk.open(&self.path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.open.is_none());
            }
            Err(error) => return Err(error),
        };
        let salt = match read_header(&*file)? {
            HeaderState::Good(_, salt) => Some(salt),
            HeaderState::Damaged(_) | HeaderState::Short => None,
        };
        Ok(salt.is_some() && salt == self.open.as_ref().map(|open| open.salt))
    }

    /// Puts a file in the place of one whose header is damaged, with the letters that can be read; returns how many.
    fn mend(&mut self, disk: &dyn Disk, folder: &Path) -> Result<Option<usize>, DeadLetterError> {
        let path = self.path.clone();
        let mut letters = Vec::new();
        let content = Content::read(disk, &path, Access::Read, &mut |letter| {
            letters.push(letter)
        })
        .map_err(|error| write_error("read", &path, error))?;
        // Half a header is what a crash leaves: there were no letters yet.
        let Some(content) = content.filter(|content| content.length >= SEGMENT_HEADER as u64)
        else {
            return Ok(None);
        };
        content.check_version(&path)?;
        put(disk, folder, &content, letters.iter())
            .and_then(|()| self.load(disk))
            .map_err(|error| write_error("write", &path, error))?;
        Ok(Some(letters.len()))
    }

    /// Writes a letter, and returns when it is durable. Before that it mends the file, if that is damaged: then
    /// it returns how many letters are left.
    pub(crate) fn write(
        &mut self,
        disk: &dyn Disk,
        folder: &Path,
        letter: &DeadLetter,
    ) -> Result<Option<usize>, DeadLetterError> {
        let _lock = take_lock(disk, folder)?;
        let path = self.path.clone();
        let is_current = self.is_current(disk);
        if !is_current.map_err(|error| write_error("read", &path, error))? {
            self.load(disk)
                .map_err(|error| write_error("read", &path, error))?;
        }
        let mended = match self.open {
            Some(_) => None,
            None => self.mend(disk, folder)?,
        };
        if self.known.contains(&letter.name()) {
            return Ok(mended);
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
                path,
                bytes,
                max_bytes: self.max_bytes,
            });
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let made = make(disk, folder, &path, self.log_id, letter.at_ms);
                self.open
                    .insert(made.map_err(|error| write_error("make", &path, error))?)
            }
        };
        let before = (open.end, open.letters);
        if let Err(error) = open.append(frame).and_then(|()| open.file.sync()) {
            // The next letter goes to the same place.
            (open.end, open.letters) = before;
            return Err(write_error("write", &path, error).into());
        }
        self.known.insert(letter.name());
        Ok(mended)
    }

    /// Removes the file.
    pub(crate) fn clear(&mut self, disk: &dyn Disk, folder: &Path) -> Result<(), WriteError> {
        remove(disk, &self.path)
            .and_then(|()| disk.sync_folder(folder))
            .map_err(|source| write_error("remove", &self.path, source))?;
        self.open = None;
        self.known.clear();
        Ok(())
    }
}

impl Open {
    /// Appends a letter; it is durable once the file is synced.
    fn append(&mut self, mut frame: Vec<u8>) -> io::Result<()> {
        let position = self.letters + 1;
        seal_frame(
            &mut frame,
            &[],
            self.salt,
            self.end,
            kind::DEAD_LETTER,
            position,
        );
        self.file.write_at(&frame, self.end)?;
        self.end += frame.len() as u64;
        self.letters = position;
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
    let made = begin(disk, path, header(log_id, created_ms, 0));
    made.and_then(|open| disk.sync_folder(folder).map(|()| open))
        .inspect_err(|error| {
            // Half a header would be in the way of the next try.
            if error.kind() != io::ErrorKind::AlreadyExists {
                let _ = disk.remove(path);
            }
        })
}

/// `generation` makes a file that takes another's place differ from it.
fn header(log_id: u128, created_ms: u64, generation: u64) -> SegmentHeader {
    SegmentHeader {
        version: VERSION,
        number: 0,
        log_id,
        created_ms,
        first: 1,
        previous: generation,
        is_early: false,
        allocated: 0,
    }
}

fn begin(disk: &dyn Disk, path: &Path, header: SegmentHeader) -> io::Result<Open> {
    let mut file = disk.create(path)?;
    let (header, salt) = header.encode();
    file.write_at(&header, 0)?;
    file.sync()?;
    Ok(Open {
        file,
        salt,
        end: SEGMENT_HEADER as u64,
        letters: 0,
    })
}

/// So often a lock is tried that the log holds for as long as it writes a letter.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// What may be kept of bytes that are damaged.
const DAMAGED_BYTES: u64 = 16 * 1024 * 1024;

/// The dead letters of a log that another process may have open.
#[derive(Debug, Clone)]
pub struct DeadLetterFile {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
}

impl DeadLetterFile {
    /// Those of the log in a folder.
    pub fn of(folder: &Path) -> Self {
        Self::on(Arc::new(RealDisk), folder)
    }

    /// Those of a log on another disk.
    pub fn on(disk: Arc<dyn Disk>, folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { disk, folder }
    }

    /// All of them, the oldest first. They are as many bytes as the file, whose limit is in
    /// [`Options`](crate::Options).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&self) -> Result<Vec<DeadLetter>, ReadError> {
        let mut letters = Vec::new();
        // A folder that is not there has no letters, but is not a log either.
        self.disk
            .list(&self.folder)
            .and_then(|_| {
                read(&*self.disk, &self.folder, &mut |letter| {
                    letters.push(letter);
                })
            })
            .map_err(|source| ReadError::Io {
                path: self.folder.join(DEAD_LETTERS),
                source,
            })?;
        Ok(letters)
    }

    /// Takes letters out of the file, and puts others at its end. It is all done when it returns, or nothing is.
    /// What the log has added meanwhile stays.
    ///
    /// # Errors
    /// When the disk fails, a later version wrote the file, or another process holds its lock for long.
    pub fn replace(
        &self,
        gone: &[DeadLetter],
        added: &[DeadLetter],
    ) -> Result<(), DeadLetterError> {
        let (disk, path) = (&*self.disk, self.folder.join(DEAD_LETTERS));
        let _lock = self.wait_for_lock()?;
        let gone: HashSet<Name> = gone.iter().map(DeadLetter::name).collect();
        let mut left = Vec::new();
        let content = Content::read(disk, &path, Access::Read, &mut |letter| {
            if !gone.contains(&letter.name()) {
                left.push(letter);
            }
        });
        let content = content.map_err(|error| write_error("read", &path, error))?;
        let Some(content) = content else {
            return Ok(());
        };
        content.check_version(&path)?;
        put(disk, &self.folder, &content, left.iter().chain(added))
            .map_err(|error| write_error("write", &path, error).into())
    }

    fn wait_for_lock(&self) -> Result<Box<dyn LockGuard>, DeadLetterError> {
        let mut tries = 1;
        loop {
            match take_lock(&*self.disk, &self.folder) {
                Err(DeadLetterError::InUse { .. }) if tries < LOCK_TRIES => {
                    thread::sleep(LOCK_PAUSE)
                }
                taken => return taken,
            }
            tries += 1;
        }
    }
}
