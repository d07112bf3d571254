//! The folder that holds a laptop's traces, and the lock that keeps two programs from sharing it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// A data folder that this process holds alone until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held for its lock; the kernel gives it back when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing and takes its lock.
    ///
    /// # Errors
    /// When the folder cannot be made or written, or another process holds it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create the data directory {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot read the data directory {}", path.display()))?;
        let lock_path = path.join("spanloom.lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&lock_path)
            .with_context(|| {
                format!(
                    "cannot write to the data directory {}; check its owner",
                    path.display()
                )
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).unwrap_or_default();
                bail!(
                    "another spanloom (process {}) is using the data directory {}; stop it first, \
                     or choose another directory with --data-dir",
                    holder.trim(),
                    path.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        // The process id is for the message above only; the lock itself is the kernel's.
        lock.set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", lock_path.display()))?;
        Ok(Self { path, _lock: lock })
    }

    /// Where the engine keeps its files.
    pub fn engine(&self) -> PathBuf {
        self.path.join("clickhouse")
    }

    /// Where the collector keeps its log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The folder itself, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `$XDG_DATA_HOME/spanloom`, or `~/.local/share/spanloom`.
///
/// # Errors
/// When neither `XDG_DATA_HOME` nor `HOME` is set.
pub fn default_path() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(data) = set("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("spanloom"));
    }
    match set("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".local/share/spanloom")),
        None => bail!("HOME is not set, so there is no default data directory; use --data-dir DIR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_and_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let error = DataDir::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        assert!(error.contains("--data-dir"), "{error}");
        drop(first);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let below = file.path().join("below");
        let error = DataDir::open(&below).unwrap_err();
        assert!(format!("{error:#}").contains("below"), "{error:#}");
    }
}
