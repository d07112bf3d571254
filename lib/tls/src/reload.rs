//! Files whose content is kept ready, and read again when they have changed.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::TlsError;

/// How often files are looked at, at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells a file's content from another's without reading it: inode, size, and both times of
/// change. Links are followed, so a swapped link is seen.
type Stamp = Vec<Option<(u64, u64, i64, i64, i64, i64)>>;

/// Makes the value of the files' content.
type Load<T> = dyn Fn() -> Result<T, TlsError> + Send + Sync;

/// The value of some files.
pub(crate) struct Reloading<T> {
    files: Vec<PathBuf>,
    load: Box<Load<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    /// Of what `value` was made.
    stamp: Stamp,
    looked: Instant,
    /// What was logged last, so that it is logged once.
    complaint: Option<String>,
}

impl<T> Reloading<T> {
    /// Reads the files for the first time.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // The stamp is taken first: a change in between is seen later and not missed.
        let stamp = stamp(&files);
        let value = Arc::new(load()?);
        Ok(Self {
            files,
            load: Box::new(load),
            state: Mutex::new(State {
                value,
                stamp,
                looked: Instant::now(),
                complaint: None,
            }),
        })
    }

    /// The newest value that could be made.
    pub(crate) fn get(&self) -> Arc<T> {
        // A panic while it was held leaves nothing half done: fields are set one by one from whole
        // values.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= INTERVAL {
            state.looked = Instant::now();
            self.refresh(&mut state);
        }
        Arc::clone(&state.value)
    }

    fn refresh(&self, state: &mut State<T>) {
        let now = stamp(&self.files);
        if now == state.stamp {
            return;
        }
        let names = || {
            let names: Vec<_> = self.files.iter().map(|file| file.display()).collect();
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        match (self.load)() {
            Ok(value) => {
                state.value = Arc::new(value);
                state.stamp = now;
                state.complaint = None;
                tracing::info!(files = ?names(), "certificates reloaded");
            }
            Err(error) => {
                let complaint = error.to_string();
                if state.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(%error, "cannot use the changed certificates; the last ones \
                                            stay in use");
                    state.complaint = Some(complaint);
                }
            }
        }
    }
}

impl<T> std::fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloading")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let one = |file: &PathBuf| {
        let meta = std::fs::metadata(file).ok()?;
        Some((
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ))
    };
    files.iter().map(one).collect()
}

/// A file's bytes.
pub(crate) fn read(path: &std::path::Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
