//! Disk space reserved for the log: a file that has its full length from the start.
//!
//! On a full disk it is made the next segment, for the records that settle requests: what is stored can be said,
//! and its segments go. They are what the next reserve is made of, so the room never passes through the hands
//! of others.
//!
//! The first records are written to the file and synced before it is renamed. A reserve that has something in
//! it was thus never part of the log.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk, DiskFile, write_zeros};
use crate::format::{HeaderState, SEGMENT_HEADER, SegmentHeader};
use crate::names::RESERVE;
use crate::scan::read_up_to;
use crate::writer::remove;

/// The reserve of a log that is open.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    folder: PathBuf,
    /// How large it is; 0 if the log has none.
    bytes: u64,
    is_there: bool,
}

impl Reserve {
    pub(crate) fn new(folder: &Path, bytes: u64) -> Self {
        Self {
            path: folder.join(RESERVE),
            folder: folder.to_owned(),
            bytes,
            is_there: false,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn is_there(&self) -> bool {
        self.is_there
    }

    /// It should be there, and is not.
    pub(crate) fn is_missing(&self) -> bool {
        self.bytes > 0 && !self.is_there
    }

    /// It is a segment now, or was removed.
    pub(crate) fn is_gone(&mut self) {
        self.is_there = false;
    }

    /// Takes what an earlier process left; `is_segment` says whether a segment has this header. What is left of
    /// one that could not be taken is removed.
    pub(crate) fn adopt(
        &mut self,
        disk: &dyn Disk,
        is_segment: impl Fn(&SegmentHeader) -> bool,
    ) -> io::Result<()> {
        let mut file = match disk.open(&self.path, Access::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut header = vec![0; SEGMENT_HEADER];
        let read = read_up_to(&*file, &mut header, 0)?;
        header.truncate(read);
        let is_other_name = match SegmentHeader::decode(&header) {
            HeaderState::Good(header, _) => is_segment(&header),
            HeaderState::Damaged(_) | HeaderState::Short => false,
        };
        if is_other_name || self.bytes == 0 {
            drop(file);
            return remove(disk, &self.path).and_then(|()| disk.sync_folder(&self.folder));
        }
        let emptied = self.empty(&mut *file);
        self.is_there_if(disk, emptied)
    }

    /// Makes it.
    pub(crate) fn make(&mut self, disk: &dyn Disk) -> io::Result<()> {
        // One that could not be removed.
        remove(disk, &self.path)?;
        let made = disk
            .create(&self.path)
            .and_then(|mut file| self.empty(&mut *file))
            .and_then(|()| disk.sync_folder(&self.folder));
        self.is_there_if(disk, made)
    }

    /// Makes it of a segment that is not needed any more, whose name is gone for good then. After an error it may
    /// be there, or not.
    pub(crate) fn recycle(&mut self, disk: &dyn Disk, segment: &Path) -> io::Result<()> {
        disk.rename(segment, &self.path)?;
        // Its name must be gone before its records are: else it would be a damaged segment after a crash.
        disk.sync_folder(&self.folder)?;
        let emptied = disk
            .open(&self.path, Access::Write)
            .and_then(|mut file| self.empty(&mut *file));
        // Another one is made when it can be.
        let _ = self.is_there_if(disk, emptied);
        Ok(())
    }

    /// Makes a file the reserve: as long as it has to be, zeros, and all of its room taken.
    fn empty(&self, file: &mut dyn DiskFile) -> io::Result<()> {
        let written = file.length()?.min(self.bytes);
        write_zeros(file, 0, written)?;
        if file.length()? > self.bytes {
            file.truncate(self.bytes)?;
        }
        file.allocate(self.bytes)?;
        file.sync()
    }

    fn is_there_if(&mut self, disk: &dyn Disk, made: io::Result<()>) -> io::Result<()> {
        self.is_there = made.is_ok();
        if made.is_err() {
            // Half of it is in the way of others, and of no use.
            let _ = remove(disk, &self.path);
        }
        made
    }
}
