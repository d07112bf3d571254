//! The disk as one process sees it, until it dies, and the clock of its log.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use spanloom_log::disk::simulated::SimulatedDisk;
use spanloom_log::disk::{Access, Clock, Disk, DiskFile, Lock};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::calendar::Calendar;
use crate::life::Life;
use crate::random::Random;
use crate::trace::Trace;

/// A process's way to the disk.
#[derive(Debug, Clone)]
pub(crate) struct ProcessDisk {
    pub(crate) disk: SimulatedDisk,
    pub(crate) life: Arc<Life>,
    pub(crate) trace: Arc<Trace>,
    /// Says that it has synced and has not: for control runs.
    pub(crate) lies: bool,
}

impl ProcessDisk {
    fn call(&self, what: &str, path: &Path) -> io::Result<()> {
        self.life.call()?;
        self.trace
            .note(format_args!("disk {what} {}", path.display()));
        Ok(())
    }

    fn file(&self, file: Box<dyn DiskFile>, path: &Path) -> Box<dyn DiskFile> {
        let name = path.file_name().unwrap_or_default();
        Box::new(ProcessFile {
            file,
            name: name.to_string_lossy().into_owned(),
            disk: self.clone(),
        })
    }
}

impl Disk for ProcessDisk {
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        self.call("folder", folder)?;
        self.disk.create_folder(folder)
    }

    fn lock(&self, file: &Path, _: &str) -> io::Result<Lock> {
        self.call("lock", file)?;
        self.disk.lock(file, "a simulated process")
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.call("list", folder)?;
        self.disk.list(folder)
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.call("create", file)?;
        Ok(self.file(self.disk.create(file)?, file))
    }

    fn open(&self, file: &Path, access: Access) -> io::Result<Box<dyn DiskFile>> {
        self.call("open", file)?;
        Ok(self.file(self.disk.open(file, access)?, file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call("rename", from)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.call("remove", file)?;
        self.disk.remove(file)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        // It changes nothing: not a moment to die at.
        self.disk.free_bytes(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call("sync", folder)?;
        match self.lies {
            true => Ok(()),
            false => self.disk.sync_folder(folder),
        }
    }
}

#[derive(Debug)]
struct ProcessFile {
    file: Box<dyn DiskFile>,
    name: String,
    disk: ProcessDisk,
}

impl DiskFile for ProcessFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.life.call()?;
        self.file.read_at(buffer, offset)
    }

    fn write_parts_at(&mut self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = &*parts
            .iter()
            .flat_map(|part| part.iter().copied())
            .collect::<Vec<u8>>();
        let was_alive = self.disk.life.is_alive();
        if let Err(dead) = self.disk.life.call() {
            if !was_alive {
                return Err(dead);
            }
            // It died while it wrote.
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            let _ = self.file.write_at(half, offset);
            return Err(dead);
        }
        let result = self.file.write_at(bytes, offset);
        self.disk.trace.note(format_args!(
            "disk write {} {offset} {} {:x} {}",
            self.name,
            bytes.len(),
            xxh3_64(bytes),
            result.is_ok()
        ));
        result
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.life.call()?;
        self.file.truncate(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.life.call()?;
        let result = match self.disk.lies {
            true => Ok(()),
            false => self.file.sync(),
        };
        self.disk
            .trace
            .note(format_args!("disk sync {} {}", self.name, result.is_ok()));
        result
    }
}

/// The clocks of a process's log.
#[derive(Debug)]
pub(crate) struct LogClock {
    calendar: Arc<Calendar>,
    begin: Instant,
    random: Mutex<Random>,
}

impl LogClock {
    pub(crate) fn new(calendar: Arc<Calendar>, random: Random) -> Self {
        Self {
            calendar,
            begin: Instant::now(),
            random: Mutex::new(random),
        }
    }
}

impl Clock for LogClock {
    fn unix_ms(&self) -> u64 {
        u64::try_from(self.calendar.now().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.begin.elapsed()
    }

    fn random_id(&self) -> u128 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        random.id()
    }
}
