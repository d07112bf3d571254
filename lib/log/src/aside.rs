//! The folder of damaged bytes, which is bounded: what has no room is counted and not kept.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Access, Disk};
use crate::names::DAMAGED;
use crate::scan::Chunks;

const COPY_BYTES: usize = 256 * 1024;

#[derive(Debug)]
pub(crate) struct Aside<'a> {
    disk: &'a dyn Disk,
    folder: PathBuf,
    used_bytes: u64,
    max_bytes: u64,
}

/// What became of bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    Now(PathBuf),
    /// An earlier start kept them.
    Before(PathBuf),
    NoRoom,
}

impl<'a> Aside<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, log: &Path, max_bytes: u64) -> Self {
        let folder = log.join(DAMAGED);
        let used_bytes = files(disk, &folder).map(|(_, bytes)| bytes).sum();
        Self {
            disk,
            folder,
            used_bytes,
            max_bytes,
        }
    }

    /// Copies bytes of a file.
    pub(crate) fn copy(&mut self, from: &Path, start: u64, end: u64) -> io::Result<Kept> {
        let name = file_name(from);
        let path = self.folder.join(format!("{name}-{start}-{end}"));
        if self.disk.open(&path, Access::Read).is_ok() {
            return Ok(Kept::Before(path));
        }
        let bytes = end - start;
        if self.used_bytes.saturating_add(bytes) > self.max_bytes {
            return Ok(Kept::NoRoom);
        }
        self.disk.create_folder(&self.folder)?;
        let source = self.disk.open(from, Access::Read)?;
        let mut copy = self.disk.create(&path)?;
        let mut chunks = Chunks::new(&*source, end);
        let mut at = start;
        while at < end {
            let bytes = chunks.get(at, COPY_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            copy.write_at(bytes, at - start)?;
            at += bytes.len() as u64;
        }
        copy.sync()?;
        self.used_bytes += bytes;
        Ok(Kept::Now(path))
    }

    /// Moves a file here, or removes it if there is no room.
    pub(crate) fn take(&mut self, from: &Path, bytes: u64) -> io::Result<Kept> {
        if self.used_bytes.saturating_add(bytes) > self.max_bytes {
            self.disk.remove(from)?;
            return Ok(Kept::NoRoom);
        }
        self.disk.create_folder(&self.folder)?;
        let name = file_name(from);
        let taken = self.disk.list(&self.folder).unwrap_or_default();
        // A number that was set aside before may be used again by another log.
        let mut candidates = (0_u64..).map(|count| format!("{name}.{count}"));
        let Some(name) = candidates.find(|candidate| !taken.contains(candidate)) else {
            return Ok(Kept::NoRoom);
        };
        let to = self.folder.join(name);
        self.disk.rename(from, &to)?;
        self.used_bytes += bytes;
        Ok(Kept::Now(to))
    }

    /// Makes the names of what was kept durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.used_bytes == 0 {
            return Ok(());
        }
        self.disk.sync_folder(&self.folder)
    }
}

/// What is kept of a log: names and bytes.
pub(crate) fn kept(disk: &dyn Disk, log: &Path) -> Vec<(String, u64)> {
    files(disk, &log.join(DAMAGED)).collect()
}

fn files(disk: &dyn Disk, folder: &Path) -> impl Iterator<Item = (String, u64)> {
    let names = disk.list(folder).unwrap_or_default();
    names.into_iter().map(move |name| {
        let file = disk.open(&folder.join(&name), Access::Read);
        let bytes = file.and_then(|file| file.length()).unwrap_or(0);
        (name, bytes)
    })
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
