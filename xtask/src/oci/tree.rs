//! The files of a layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Files by their path in the image, without the leading slash.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
enum Entry {
    Folder { mode: u32, owner: u32 },
    Bytes { bytes: Vec<u8>, mode: u32 },
    Copy { from: PathBuf, mode: u32 },
    Link { to: String },
}

impl Tree {
    /// A folder that belongs to `owner` (user and group), with the folders above it.
    pub fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        let path = self.place(path);
        self.entries.insert(path, Entry::Folder { mode, owner });
    }

    /// A file with these bytes.
    pub fn bytes(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        let path = self.place(path);
        let entry = Entry::Bytes {
            bytes: bytes.into(),
            mode: 0o644,
        };
        self.entries.insert(path, entry);
    }

    /// A file of this machine, wherever links lead; programs stay programs.
    ///
    /// # Errors
    /// When it is not there.
    pub fn copy(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        let from = from
            .canonicalize()
            .with_context(|| format!("cannot read {}", from.display()))?;
        let executable = from.metadata()?.permissions().mode() & 0o111 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        let path = self.place(path);
        self.entries.insert(path, Entry::Copy { from, mode });
        Ok(())
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        let path = self.place(path);
        self.entries.insert(path, Entry::Link { to: to.to_owned() });
    }

    /// A folder of this machine with all that is in it, but for what `skip` names.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn copy_folder(
        &mut self,
        path: &str,
        from: &Path,
        skip: &dyn Fn(&Path) -> bool,
    ) -> anyhow::Result<()> {
        let listed = from
            .read_dir()
            .with_context(|| format!("cannot read {}", from.display()))?;
        for entry in listed {
            let entry = entry?;
            let source = entry.path();
            if skip(&source) {
                continue;
            }
            let name = entry.file_name();
            let name = name
                .to_str()
                .with_context(|| format!("a file name in {} is not UTF-8", from.display()))?;
            let target = format!("{path}/{name}");
            let kind = entry.file_type()?;
            if kind.is_symlink() {
                let to = source.read_link()?;
                match to.to_str() {
                    // Within the folder it still leads there.
                    Some(to) if !to.starts_with('/') => self.link(&target, to),
                    _ if source.is_file() => self.copy(&target, &source)?,
                    _ if source.is_dir() => self.copy_folder(&target, &source, skip)?,
                    // It leads nowhere here either.
                    _ => {}
                }
            } else if kind.is_dir() {
                self.copy_folder(&target, &source, skip)?;
            } else if kind.is_file() {
                self.copy(&target, &source)?;
            }
        }
        Ok(())
    }

    /// Whether something has this path.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// Makes the folders above it and gives the path as archives write it.
    fn place(&mut self, path: &str) -> String {
        let path = path.trim_matches('/').to_owned();
        for (at, _) in path.match_indices('/') {
            if let Some(above) = path.get(..at) {
                self.entries
                    .entry(above.to_owned())
                    .or_insert(Entry::Folder {
                        mode: 0o755,
                        owner: 0,
                    });
            }
        }
        path
    }

    /// Writes it as a tar, always the same bytes for the same files.
    ///
    /// # Errors
    /// When a file cannot be read or `out` fails.
    pub fn write(&self, out: impl Write) -> anyhow::Result<()> {
        let mut archive = tar::Builder::new(out);
        for (path, entry) in &self.entries {
            write_entry(&mut archive, path, entry)
                .with_context(|| format!("cannot put {path} into the image"))?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

fn write_entry<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    entry: &Entry,
) -> anyhow::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    match entry {
        Entry::Folder { mode, owner } => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(*mode);
            header.set_uid(u64::from(*owner));
            header.set_gid(u64::from(*owner));
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Entry::Bytes { bytes, mode } => {
            header.set_mode(*mode);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_slice())?;
        }
        Entry::Copy { from, mode } => {
            let file = File::open(from)?;
            let length = file.metadata()?.len();
            header.set_mode(*mode);
            header.set_size(length);
            // At most that many: a file that grows would put the archive out of step.
            let read = std::io::Read::take(BufReader::with_capacity(1 << 20, file), length);
            let mut read = Exactly {
                inner: read,
                left: length,
            };
            archive.append_data(&mut header, path, &mut read)?;
            if read.left != 0 {
                bail!("{} became shorter while it was read", from.display());
            }
        }
        Entry::Link { to } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            archive.append_link(&mut header, path, to)?;
        }
    }
    Ok(())
}

/// Counts down what was read.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: std::io::Read> std::io::Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        Ok(read)
    }
}
