//! Request bodies, collected in memory files: the engine reads them by name, whole, so that what a
//! client did not finish sending is never inserted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::error::{ChError, code};
use crate::ffi;

/// How many bytes bodies may take, one and together.
#[derive(Debug)]
pub(crate) struct Budget {
    /// The most one body may have, before or after decompression.
    pub(crate) one: u64,
    /// The most all together may have.
    pub(crate) all: u64,
    used: AtomicU64,
}

impl Budget {
    /// A budget nothing has been taken from.
    pub(crate) fn new(one: u64, all: u64) -> Arc<Budget> {
        Arc::new(Budget {
            one,
            all,
            used: AtomicU64::new(0),
        })
    }

    fn take(&self, bytes: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.all {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }
}

/// Bytes in a memory file, charged to the budget as long as it lives.
#[derive(Debug)]
pub(crate) struct Spool {
    file: File,
    length: u64,
    budget: Arc<Budget>,
}

impl Spool {
    /// An empty one.
    pub(crate) fn new(budget: &Arc<Budget>) -> io::Result<Spool> {
        Ok(Spool {
            file: ffi::memory_file(c"body")?,
            length: 0,
            budget: budget.clone(),
        })
    }

    /// Reads a request's body, as it comes, to its end.
    pub(crate) async fn receive(
        mut body: Incoming,
        budget: &Arc<Budget>,
        patience: Duration,
    ) -> Result<Spool, ChError> {
        if body.size_hint().lower() > budget.one {
            return Err(too_large(budget.one));
        }
        let mut spool = Spool::new(budget).map_err(|e| broken(&e))?;
        loop {
            let frame = tokio::time::timeout(patience, body.frame())
                .await
                .map_err(|_| {
                    ChError::new(code::TIMEOUT_EXCEEDED, "the request's body stopped coming")
                })?;
            let Some(frame) = frame else { return Ok(spool) };
            let frame = frame.map_err(|e| {
                ChError::new(
                    code::BAD_ARGUMENTS,
                    format!("the request's body broke off: {e}"),
                )
            })?;
            if let Some(data) = frame.data_ref() {
                spool.write_all(data).map_err(|e| broken(&e))?;
            }
        }
    }

    /// How many bytes there are.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The path under which the engine can open it, while this lives.
    pub(crate) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }

    /// Starts reading at its beginning.
    pub(crate) fn reader(&mut self) -> io::Result<&mut File> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(&mut self.file)
    }

    /// The first bytes, at most as many.
    pub(crate) fn head(&mut self, most: u64) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        self.reader()?.take(most).read_to_end(&mut head)?;
        Ok(head)
    }

    /// A new one with `before`, and this one's bytes from `start`.
    pub(crate) fn tail(&mut self, before: &[u8], start: u64) -> io::Result<Spool> {
        let mut tail = Spool::new(&self.budget)?;
        tail.write_all(before)?;
        self.file.seek(SeekFrom::Start(start))?;
        io::copy(&mut self.file, &mut tail)?;
        Ok(tail)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let more = bytes.len() as u64;
        if self.length + more > self.budget.one {
            return Err(io::Error::other(Refused::One(self.budget.one)));
        }
        if !self.budget.take(more) {
            return Err(io::Error::other(Refused::All(self.budget.all)));
        }
        self.length += more;
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.length, Ordering::Relaxed);
    }
}

/// Why no more bytes were taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("more than {0} bytes in one body")]
    One(u64),
    #[error("more than {0} bytes in all bodies under way")]
    All(u64),
}

fn too_large(limit: u64) -> ChError {
    ChError::new(
        code::QUERY_IS_TOO_LARGE,
        format!("the body is larger than {limit} bytes, decompressed or not; send it in parts"),
    )
}

/// What to tell the client when bytes could not be kept.
pub(crate) fn broken(error: &io::Error) -> ChError {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Refused>())
    {
        Some(Refused::One(limit)) => too_large(*limit),
        Some(refused @ Refused::All(_)) => ChError::new(
            code::MEMORY_LIMIT_EXCEEDED,
            format!("{refused}; try again later"),
        )
        .with_status(StatusCode::SERVICE_UNAVAILABLE),
        None if error.kind() == io::ErrorKind::InvalidData => ChError::new(
            code::CANNOT_DECOMPRESS,
            format!("the body does not decompress: {error}"),
        )
        .with_status(StatusCode::BAD_REQUEST),
        None => ChError::new(
            code::LOGICAL_ERROR,
            format!("the body could not be kept: {error}"),
        ),
    }
}
