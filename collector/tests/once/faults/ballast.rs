//! A small disk of a scenario's own, and what fills it beside the log.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs. It is gone when dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many bytes.
    ///
    /// # Errors
    /// With the reason, where that is refused.
    pub fn mount(folder: &Path, bytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(folder).unwrap();
        let size = format!("size={bytes},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .map_err(|error| error.to_string())?;
        if mounted.status.success() {
            return Ok(Self(folder.to_owned()));
        }
        Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// Takes space away, so many bytes or what there is.
    pub fn put(&self, bytes: usize) {
        Self::write(File::create(self.ballast()).unwrap(), bytes);
    }

    /// Takes what there is.
    pub fn put_more(&self) {
        let ballast = File::options().append(true).open(self.ballast());
        Self::write(ballast.unwrap(), usize::MAX);
    }

    fn write(mut file: File, bytes: usize) {
        let part = [0; 4096];
        for _ in 0..bytes / part.len() {
            match file.write_all(&part) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives it back.
    pub fn take(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Also while something still has a file open in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
