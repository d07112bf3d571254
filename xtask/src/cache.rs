//! Things that are fetched or made once and kept in the user's cache.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Gives `made` in a cache folder, calling `make` for it once, however many ask at a time: `make` gets an
/// empty folder beside it, which becomes the cache folder as soon as it is whole.
pub fn cached(
    folder: &Path,
    made: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let file = folder.join(made);
    if file.is_file() {
        return Ok(file);
    }
    let parent = folder.parent().context("a cache folder at the root")?;
    std::fs::create_dir_all(parent)?;
    // Appended, not `with_extension`: a version's last part is no extension.
    let beside = |suffix: &str| {
        let mut name = folder.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock = File::create(beside(".lock"))?;
    lock.lock()
        .with_context(|| format!("lock {}", folder.display()))?;
    if file.is_file() {
        return Ok(file);
    }
    let work = beside(".work");
    let _ = std::fs::remove_dir_all(&work);
    std::fs::create_dir_all(&work)?;
    make(&work)?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&work, folder).with_context(|| format!("create {}", folder.display()))?;
    if !file.is_file() {
        bail!("{} was to be made and is not there", file.display());
    }
    Ok(file)
}
