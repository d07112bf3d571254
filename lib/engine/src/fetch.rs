//! Gets `libchdb.so`: from its npm package, through the user's own `npm` (so its configuration
//! decides which registry is asked), checked against a digest that is part of this program, and
//! kept in the user's cache folder.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use sha2::{Digest, Sha512};

/// The version of the library and of its packages.
pub const VERSION: &str = "26.7.3-stable.1";
/// A variable with the path of a library to use instead.
pub const OVERRIDE: &str = "SPANLOOM_LIBCHDB";

/// A package for one system.
struct Package {
    os: &'static str,
    arch: &'static str,
    name: &'static str,
    /// SHA-512 of the package file, in base64.
    digest: &'static str,
}

/// Systems with a package. arm64's was never published in this version.
const PACKAGES: [Package; 1] = [Package {
    os: "linux",
    arch: "x86_64",
    name: "@chdb/lib-linux-x64-gnu",
    digest: "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
}];
const FILE: &str = "libchdb.so";

/// Why there is no library.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No package for this system.
    #[error(
        "there is no embedded ClickHouse for {system}, only for Linux on x86-64 with glibc; \
         use a ClickHouse server instead"
    )]
    Unsupported {
        /// This system.
        system: String,
    },
    /// Neither `XDG_CACHE_HOME` nor `HOME` is set.
    #[error("no cache directory for the embedded ClickHouse: set HOME or XDG_CACHE_HOME")]
    NoCache,
    /// The override names no file.
    #[error("{OVERRIDE} is set to {path}, which is not a file")]
    Override {
        /// Its value.
        path: PathBuf,
    },
    /// There is no npm.
    #[error(
        "npm is needed once, to get the embedded ClickHouse ({package}), and was not found: \
         install Node.js, or set {OVERRIDE} to a libchdb.so of version {VERSION}"
    )]
    NoNpm {
        /// The package.
        package: String,
    },
    /// npm did not get the package.
    #[error("npm could not download {package}{hint}: {said}")]
    Npm {
        /// The package.
        package: String,
        /// What that may mean.
        hint: &'static str,
        /// The end of its output.
        said: String,
    },
    /// The package is not the one this program was made with.
    #[error(
        "the package {package} is not the one that is expected: its SHA-512 is {got}, not \
         {expected}; nothing of it was kept"
    )]
    Digest {
        /// The package.
        package: String,
        /// What it is, in base64.
        got: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The package has no library.
    #[error("the package {package} does not contain {FILE}")]
    Empty {
        /// The package.
        package: String,
    },
    /// No room on the disk.
    #[error(
        "not enough disk space for the embedded ClickHouse at {path}: unpacking it requires 0.8 GB"
    )]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// The system refused something else.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl FetchError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FetchError::Full { path },
            _ => FetchError::Io { path, source },
        }
    }
}

/// The library, if no download is needed: the override, or what is in the cache.
pub fn library_cached() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        return Some(PathBuf::from(path)).filter(|path| path.is_file());
    }
    Some(cache_dir().ok()?.join(FILE)).filter(|path| path.is_file())
}

/// The library's path. Downloads it if need be (178 MB) and says how that goes, a line at a time.
/// Of several callers at once, in any processes, one downloads and the others wait.
pub async fn library(progress: impl Fn(&str)) -> Result<PathBuf, FetchError> {
    if let Some(path) = std::env::var_os(OVERRIDE) {
        let path = PathBuf::from(path);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(FetchError::Override { path })
        };
    }
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let package = PACKAGES
        .iter()
        .find(|package| package.os == os && package.arch == arch && cfg!(target_env = "gnu"))
        .ok_or_else(|| FetchError::Unsupported {
            system: format!("{os} on {arch}"),
        })?;
    fetch(package, OsStr::new("npm"), &cache_dir()?, progress).await
}

/// The folder under the user's cache folder that is ours.
pub(crate) fn cache_root() -> Result<PathBuf, FetchError> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".cache")))
        .map(|cache| cache.join("spanloom"))
        .ok_or(FetchError::NoCache)
}

fn cache_dir() -> Result<PathBuf, FetchError> {
    Ok(cache_root()?.join("chdb").join(VERSION))
}

async fn fetch(
    package: &'static Package,
    npm: &OsStr,
    folder: &Path,
    progress: impl Fn(&str),
) -> Result<PathBuf, FetchError> {
    let library = folder.join(FILE);
    if library.is_file() {
        return Ok(library);
    }
    std::fs::create_dir_all(folder).map_err(FetchError::at(folder))?;
    let _lock = lock(folder, &progress).await?;
    if library.is_file() {
        return Ok(library);
    }
    // In the same folder: the last step is a rename.
    let work = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(folder)
        .map_err(FetchError::at(folder))?;
    let archive = download(package, npm, work.path(), &progress).await?;
    progress("embedded ClickHouse: verifying and unpacking");
    let unpacked = work.path().join(FILE);
    let (from, to) = (archive.clone(), unpacked.clone());
    let mut unpacking = tokio::task::spawn_blocking(move || unpack(package, &from, &to));
    let since = Instant::now();
    loop {
        match tokio::time::timeout(TICK, &mut unpacking).await {
            Err(_) => {
                let done = std::fs::metadata(&unpacked).map_or(0, |data| data.len() >> 20);
                let seconds = since.elapsed().as_secs();
                progress(&format!(
                    "embedded ClickHouse: unpacking, {seconds} s, {done} MiB"
                ));
            }
            Ok(Ok(done)) => break done?,
            Ok(Err(panic)) => {
                return Err(FetchError::Io {
                    path: archive,
                    source: io::Error::other(panic),
                });
            }
        }
    }
    std::fs::rename(&unpacked, &library).map_err(FetchError::at(&library))?;
    // The rename itself on disk, too: a library that is cut short would be found at each start.
    File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(FetchError::at(folder))?;
    progress(&format!(
        "the embedded ClickHouse is in {}",
        folder.display()
    ));
    Ok(library)
}

const TICK: Duration = Duration::from_secs(3);

/// Waits until no other process fetches.
async fn lock(folder: &Path, progress: &impl Fn(&str)) -> Result<File, FetchError> {
    let path = folder.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(FetchError::at(&path))?;
    let since = Instant::now();
    let mut said = 0;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(FetchError::at(&path)(source)),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seconds = since.elapsed().as_secs();
        if seconds >= said + TICK.as_secs() {
            said = seconds;
            progress(&format!(
                "embedded ClickHouse: another process is downloading it, {seconds} s"
            ));
        }
    }
}

/// Runs `npm pack`; gives the file it made.
async fn download(
    package: &Package,
    npm: &OsStr,
    work: &Path,
    progress: &impl Fn(&str),
) -> Result<PathBuf, FetchError> {
    let spec = format!("{}@{VERSION}", package.name);
    progress(&format!(
        "embedded ClickHouse: downloading {spec} with npm (178 MB, once)"
    ));
    let output = tokio::process::Command::new(npm)
        .args(["pack", &spec, "--pack-destination"])
        .arg(work)
        .args(["--loglevel", "error"])
        // A folder of its own: a package.json or .npmrc that happens to be here has no say.
        .current_dir(work)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let mut output = std::pin::pin!(output);
    let since = Instant::now();
    let output = loop {
        match tokio::time::timeout(TICK, output.as_mut()).await {
            Err(_) => {
                let seconds = since.elapsed().as_secs();
                progress(&format!("embedded ClickHouse: downloading, {seconds} s"));
            }
            Ok(output) => break output,
        }
    };
    let output = output.map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => FetchError::NoNpm {
            package: spec.clone(),
        },
        _ => FetchError::Io {
            path: npm.into(),
            source,
        },
    })?;
    let archive = std::fs::read_dir(work)
        .map_err(FetchError::at(work))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "tgz"));
    match archive {
        Some(archive) if output.status.success() => Ok(archive),
        _ => Err(npm_failed(spec, work, &output)),
    }
}

fn npm_failed(package: String, work: &Path, output: &std::process::Output) -> FetchError {
    let text = String::from_utf8_lossy(&output.stderr);
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["ENOSPC"]) {
        return FetchError::Full {
            path: work.to_owned(),
        };
    }
    let hint = if has(&[
        "ENOTFOUND",
        "EAI_AGAIN",
        "ECONNREFUSED",
        "ETIMEDOUT",
        "ENETUNREACH",
    ]) {
        " (check the network connection)"
    } else if has(&["E404", "ETARGET"]) {
        " (the registry that npm is configured for does not have it)"
    } else {
        ""
    };
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let said = lines
        .get(lines.len().saturating_sub(6)..)
        .unwrap_or_default()
        .join("; ");
    FetchError::Npm {
        package,
        hint,
        said: format!("{} {said}", output.status),
    }
}

/// Checks the archive and writes the library from it.
fn unpack(package: &'static Package, archive: &Path, to: &Path) -> Result<(), FetchError> {
    let at_archive = || FetchError::at(archive);
    let mut hash = Sha512::new();
    let mut file = File::open(archive).map_err(at_archive())?;
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(at_archive())?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
    let got = base64::engine::general_purpose::STANDARD.encode(hash.finalize());
    if got != package.digest {
        return Err(FetchError::Digest {
            package: format!("{}@{VERSION}", package.name),
            got,
            expected: package.digest,
        });
    }
    let file = File::open(archive).map_err(at_archive())?;
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(file));
    for entry in tar.entries().map_err(at_archive())? {
        let mut entry = entry.map_err(at_archive())?;
        if entry.path().map_err(at_archive())?.file_name() != Some(OsStr::new(FILE)) {
            continue;
        }
        let mut library = File::create(to).map_err(FetchError::at(to))?;
        io::copy(&mut entry, &mut library).map_err(FetchError::at(to))?;
        library
            .flush()
            .and_then(|()| library.sync_all())
            .map_err(FetchError::at(to))?;
        return Ok(());
    }
    Err(FetchError::Empty {
        package: format!("{}@{VERSION}", package.name),
    })
}

#[cfg(test)]
mod tests;
