//! What the log needs of a machine: files and a clock. Tests put others in their place.

mod real;
pub mod simulated;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::Duration;

pub use real::{RealClock, RealDisk};

/// A file system.
pub trait Disk: Debug + Send + Sync {
    /// Makes a folder that only its owner can enter, and those above it, unless it is there.
    ///
    /// # Errors
    /// When it cannot.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// Takes the lock on a file, which is made when it is missing, and writes `owner` into it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    fn lock(&self, file: &Path, owner: &str) -> io::Result<Lock>;

    /// The names in a folder, in any order.
    ///
    /// # Errors
    /// When it cannot be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<String>>;

    /// Makes a file that only its owner can read. It must not be there yet.
    ///
    /// # Errors
    /// When it cannot.
    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file, for reading only or also for writing.
    ///
    /// # Errors
    /// When it cannot.
    fn open(&self, file: &Path, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Renames a file within a folder or to another one.
    ///
    /// # Errors
    /// When it cannot.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Bytes that are free on the disk that a folder is on.
    ///
    /// # Errors
    /// When it is not known.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// When it is not known that they are.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// A file that is open.
pub trait DiskFile: Debug + Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// When it is not known.
    fn length(&self) -> io::Result<u64>;

    /// Reads at `offset`, and says how many bytes it read: 0 at the end.
    ///
    /// # Errors
    /// When it cannot.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at `offset`.
    ///
    /// # Errors
    /// When it cannot; some of them may be written then.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_parts_at(&mut [IoSlice::new(bytes)], offset)
    }

    /// Writes all bytes of some parts, one behind the other, at `offset`.
    ///
    /// # Errors
    /// When it cannot; some of them may be written then.
    fn write_parts_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;

    /// Makes the file `length` bytes long, unless it is longer, and takes the room for all of them from the disk:
    /// writing to them needs no more. Bytes that are new are zeros.
    ///
    /// # Errors
    /// When it cannot; the file may be longer then.
    fn allocate(&mut self, length: u64) -> io::Result<()> {
        fill_with_zeros(self, length)
    }

    /// Cuts the file to `length`.
    ///
    /// # Errors
    /// When it cannot.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes its bytes and its length durable.
    ///
    /// # Errors
    /// When it is not known that they are.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes zeros behind the end of a file until it has `length` bytes.
fn fill_with_zeros<F: DiskFile + ?Sized>(file: &mut F, length: u64) -> io::Result<()> {
    let end = file.length()?;
    write_zeros(file, end, length)
}

/// Writes zeros from `start` to before `end`.
pub(crate) fn write_zeros<F: DiskFile + ?Sized>(
    file: &mut F,
    start: u64,
    end: u64,
) -> io::Result<()> {
    const ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    let mut at = start;
    while at < end {
        let count = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_at(ZEROS.get(..count).unwrap_or_default(), at)?;
        at += count as u64;
    }
    Ok(())
}

/// What became of taking a lock.
#[derive(Debug)]
pub enum Lock {
    /// It is held until the guard is dropped.
    Taken(Box<dyn LockGuard>),
    /// Another process holds it: what that one wrote into the file.
    Held(String),
}

/// Holds a lock.
pub trait LockGuard: Debug + Send + Sync {}

/// Time, and what else differs between two runs.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since 1970. It may jump.
    fn unix_ms(&self) -> u64;

    /// Time since some moment of this process. It never goes back.
    fn monotonic(&self) -> Duration;

    /// A number that no other log has.
    fn random_id(&self) -> u128;
}
