//! A file system in memory that fails when it is told to, and forgets at a crash what was not synced.
//!
//! It is harsher than a real one. Of bytes that were not synced, each write is kept, lost, kept in part, or
//! replaced by zeros; of names that were not synced, each change is kept or lost, in no order. After a failed
//! sync the bytes it was for read well until the crash, and no later sync makes them durable, as on Linux.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Access, Clock, Disk, DiskFile, Lock, LockGuard};

/// Numbers of the system's errors.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// What fails until it is told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Writes end with EIO, after half of their bytes.
    pub write: bool,
    /// Syncs of files and folders end with EIO.
    pub sync: bool,
    /// Reads end with EIO.
    pub read: bool,
    /// Reads of these offsets of any file, from the first to before the second, end with EIO.
    pub unreadable: Option<(u64, u64)>,
    /// Nothing can be changed (EROFS).
    pub read_only: bool,
    /// All files together have at most so many bytes (ENOSPC); a write that goes beyond is done in part.
    pub capacity_bytes: Option<u64>,
}

#[derive(Debug, Default)]
struct Contents {
    /// What a read sees.
    seen: Vec<u8>,
    /// What a crash leaves for sure.
    durable: Vec<u8>,
    /// Writes since the last sync: where, and what.
    pending: Vec<(usize, Vec<u8>)>,
}

type Inode = Arc<Mutex<Contents>>;

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    names: BTreeMap<PathBuf, Inode>,
    durable_names: BTreeMap<PathBuf, Inode>,
    locks: BTreeMap<PathBuf, String>,
    /// Raised by a crash: files and locks of the time before are dead.
    epoch: u64,
}

impl State {
    fn used_bytes(&self) -> usize {
        let inodes = self.names.values();
        inodes.map(|inode| lock(inode).seen.len()).sum()
    }
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl SimulatedDisk {
    /// Sets what fails from now on.
    pub fn set_faults(&self, faults: Faults) {
        lock(&self.state).faults = faults;
    }

    /// Bytes of all files in a folder, not of those in folders below it.
    pub fn bytes_in(&self, folder: &Path) -> u64 {
        let state = lock(&self.state);
        let files = state.names.iter();
        files
            .filter(|(path, _)| path.parent() == Some(folder))
            .map(|(_, inode)| lock(inode).seen.len() as u64)
            .sum()
    }

    /// The machine loses power. `random` decides what becomes of each thing that was not synced.
    pub fn crash(&self, mut random: impl FnMut() -> u64) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.epoch += 1;
        state.locks.clear();
        state.faults = Faults::default();
        let mut changed: Vec<PathBuf> = state.names.keys().cloned().collect();
        changed.extend(state.durable_names.keys().cloned());
        changed.sort();
        changed.dedup();
        for path in changed {
            let before = state.durable_names.get(&path);
            let after = state.names.get(&path);
            let is_same = match (before, after) {
                (Some(before), Some(after)) => Arc::ptr_eq(before, after),
                _ => false,
            };
            if !is_same && random().is_multiple_of(2) {
                match after.cloned() {
                    Some(inode) => state.durable_names.insert(path, inode),
                    None => state.durable_names.remove(&path),
                };
            }
        }
        for inode in state.durable_names.values() {
            lock(inode).crash(&mut random);
        }
        state.names = state.durable_names.clone();
    }

    /// The process dies, the machine does not: nothing is lost, locks are free.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        state.epoch += 1;
        state.locks.clear();
    }

    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.state);
        if state.faults.read_only {
            return Err(error(EROFS));
        }
        Ok(state)
    }
}

impl Contents {
    fn crash(&mut self, random: &mut impl FnMut() -> u64) {
        let mut after = std::mem::take(&mut self.durable);
        for (offset, bytes) in std::mem::take(&mut self.pending) {
            let kept = match random() % 4 {
                0 => bytes,
                1 => {
                    let length = random() as usize % (bytes.len() + 1);
                    bytes.get(..length).unwrap_or_default().to_vec()
                }
                2 => vec![0; bytes.len()],
                _ => continue,
            };
            put(&mut after, offset, &kept);
        }
        self.seen.clone_from(&after);
        self.durable = after;
    }
}

fn put(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    if let Some(place) = contents.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

impl Disk for SimulatedDisk {
    fn create_folder(&self, _: &Path) -> io::Result<()> {
        self.changing().map(|_| ())
    }

    fn lock(&self, file: &Path, owner: &str) -> io::Result<Lock> {
        let mut state = self.changing()?;
        if let Some(owner) = state.locks.get(file) {
            return Ok(Lock::Held(owner.clone()));
        }
        state.locks.insert(file.to_owned(), owner.to_owned());
        Ok(Lock::Taken(Box::new(SimulatedLock {
            disk: self.clone(),
            path: file.to_owned(),
            epoch: state.epoch,
        })))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = lock(&self.state);
        if state.faults.read {
            return Err(error(EIO));
        }
        let files = state.names.keys();
        let names = files
            .filter(|path| path.parent() == Some(folder))
            .filter_map(|path| path.file_name());
        Ok(names
            .map(|name| name.to_string_lossy().into_owned())
            .collect())
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.changing()?;
        if state.names.contains_key(file) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = Inode::default();
        state.names.insert(file.to_owned(), Arc::clone(&inode));
        let epoch = state.epoch;
        drop(state);
        Ok(Box::new(SimulatedFile {
            disk: self.clone(),
            inode,
            epoch,
        }))
    }

    fn open(&self, file: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let state = lock(&self.state);
        if access == Access::Write && state.faults.read_only {
            return Err(error(EROFS));
        }
        let inode = state.names.get(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimulatedFile {
            disk: self.clone(),
            inode: Arc::clone(inode),
            epoch: state.epoch,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        let removed = state.names.remove(file);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let state = lock(&self.state);
        let used = state.used_bytes() as u64;
        let capacity = state.faults.capacity_bytes.unwrap_or(u64::MAX);
        Ok(capacity.saturating_sub(used))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.changing()?;
        if state.faults.sync {
            return Err(error(EIO));
        }
        let is_here = |path: &PathBuf| path.parent() == Some(folder);
        state.durable_names.retain(|path, _| !is_here(path));
        let here: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| is_here(path))
            .map(|(path, inode)| (path.clone(), Arc::clone(inode)))
            .collect();
        state.durable_names.extend(here);
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
    epoch: u64,
}

impl LockGuard for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut state = lock(&self.disk.state);
        if state.epoch == self.epoch {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: Inode,
    epoch: u64,
}

impl SimulatedFile {
    /// The disk's faults, if this file may be changed. A process that is dead changes nothing.
    fn changing(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.changing()?;
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(error(EIO))
        }
    }
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.inode).seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let faults = lock(&self.disk.state).faults;
        let end = offset.saturating_add(buffer.len() as u64);
        let is_hit = |(from, to): (u64, u64)| offset < to && end > from;
        if faults.read || faults.unreadable.is_some_and(is_hit) {
            return Err(error(EIO));
        }
        let contents = lock(&self.inode);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = contents.seen.get(start..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(length)
    }

    fn write_parts_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let state = self.changing()?;
        let start = usize::try_from(offset).map_err(|_| error(ENOSPC))?;
        let used = state.used_bytes();
        let mut contents = lock(&self.inode);
        let (mut length, mut result) = (bytes.len(), Ok(()));
        if state.faults.write {
            (length, result) = (bytes.len() / 2, Err(error(EIO)));
        } else if let Some(capacity) = state.faults.capacity_bytes {
            let more = (start + bytes.len()).saturating_sub(contents.seen.len());
            let room = usize::try_from(capacity).unwrap_or(usize::MAX);
            let room = room.saturating_sub(used);
            if more > room {
                (length, result) = (bytes.len() - (more - room), Err(error(ENOSPC)));
            }
        }
        let written = bytes.get(..length).unwrap_or_default();
        put(&mut contents.seen, start, written);
        contents.pending.push((start, written.to_vec()));
        result
    }

    fn allocate(&mut self, length: u64) -> io::Result<()> {
        let state = self.changing()?;
        if state.faults.write {
            return Err(error(EIO));
        }
        let used = state.used_bytes() as u64;
        let mut contents = lock(&self.inode);
        let start = contents.seen.len();
        let more = length.saturating_sub(start as u64);
        let capacity = state.faults.capacity_bytes.unwrap_or(u64::MAX);
        if more > capacity.saturating_sub(used) {
            return Err(error(ENOSPC));
        }
        let zeros = vec![0; usize::try_from(more).map_err(|_| error(ENOSPC))?];
        put(&mut contents.seen, start, &zeros);
        contents.pending.push((start, zeros));
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let _state = self.changing()?;
        let mut contents = lock(&self.inode);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        contents.seen.truncate(length);
        contents.durable.truncate(length);
        contents.pending.retain(|(offset, _)| *offset < length);
        for (offset, bytes) in &mut contents.pending {
            bytes.truncate(length - *offset);
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let state = self.changing()?;
        let mut contents = lock(&self.inode);
        let contents = &mut *contents;
        if state.faults.sync {
            // The pages count as clean now. A crash still finds what the disk has: nothing of them.
            contents.pending.clear();
            return Err(error(EIO));
        }
        for (offset, bytes) in contents.pending.drain(..) {
            put(&mut contents.durable, offset, &bytes);
        }
        Ok(())
    }
}

/// A clock that tests set.
#[derive(Debug, Clone, Default)]
pub struct SimulatedClock {
    unix_ms: Arc<AtomicU64>,
    monotonic_ms: Arc<AtomicU64>,
}

impl SimulatedClock {
    /// A clock that shows this time.
    pub fn at(unix_ms: u64) -> Self {
        let clock = Self::default();
        clock.jump_to(unix_ms);
        clock
    }

    /// Time passes.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.unix_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Somebody sets the clock; no time passes.
    pub fn jump_to(&self, unix_ms: u64) {
        self.unix_ms.store(unix_ms, Ordering::Relaxed);
    }
}

impl Clock for SimulatedClock {
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
    }

    fn random_id(&self) -> u128 {
        0x5eed_0000_0000_0000_0000_0000_0000_0001
    }
}
