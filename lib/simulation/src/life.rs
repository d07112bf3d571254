//! A process that may die at any moment, also between two calls to the disk.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

const EIO: i32 = 5;

/// Whether a process lives.
#[derive(Debug)]
pub(crate) struct Life {
    is_alive: AtomicBool,
    /// So many calls to the disk are left to it.
    calls: AtomicU64,
    died: CancellationToken,
}

impl Life {
    pub(crate) fn new() -> Self {
        Self {
            is_alive: AtomicBool::new(true),
            calls: AtomicU64::new(u64::MAX),
            died: CancellationToken::new(),
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Relaxed)
    }

    /// It dies now.
    pub(crate) fn end(&self) {
        self.is_alive.store(false, Ordering::Relaxed);
        self.died.cancel();
    }

    /// It dies at one of its next calls to the disk.
    pub(crate) fn end_after(&self, calls: u64) {
        self.calls.store(calls, Ordering::Relaxed);
    }

    pub(crate) async fn died(&self) {
        self.died.cancelled().await;
    }

    /// A call to the disk; it may be the last, and is not made then. A dead process makes none.
    pub(crate) fn call(&self) -> io::Result<()> {
        if !self.is_alive() {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let left = self.calls.load(Ordering::Relaxed);
        if left == 0 {
            self.end();
            return Err(io::Error::from_raw_os_error(EIO));
        }
        if left != u64::MAX {
            self.calls.store(left - 1, Ordering::Relaxed);
        }
        Ok(())
    }
}
