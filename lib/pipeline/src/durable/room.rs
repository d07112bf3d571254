//! Room in the buffer of the log for requests that are being processed: what arrives faster than the disk takes it
//! waits for the disk, and is not refused.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::DurableLog;

/// How long a request waits: less than its sender does.
const PATIENCE: Duration = Duration::from_secs(4);

/// Bytes that requests that are being processed are expected to need.
#[derive(Debug, Default)]
pub(super) struct Promised(Mutex<u64>);

/// What a request is expected to need. Dropped when it has been appended.
#[derive(Debug)]
pub(crate) struct Room {
    log: Arc<DurableLog>,
    bytes: u64,
}

impl Room {
    /// Returns when a request of about so many bytes need not wait for the disk to take others. If the disk takes
    /// nothing, it returns soon: then the request is refused, and its sender tries again.
    pub(crate) async fn wait(log: &Arc<DurableLog>, bytes: u64) -> Self {
        if let Some(room) = Self::take(log, bytes) {
            return room;
        }
        let wait = async {
            loop {
                let mut moved = std::pin::pin!(log.waiting.moved.notified());
                // Before the look, so that nothing in between is missed.
                moved.as_mut().enable();
                if let Some(room) = Self::take(log, bytes) {
                    return room;
                }
                moved.await;
            }
        };
        let none = |_| Self {
            log: Arc::clone(log),
            bytes: 0,
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(none)
    }

    fn take(log: &Arc<DurableLog>, bytes: u64) -> Option<Self> {
        let mut promised = log.promised.lock();
        let fails = log.waiting.failing.load(Ordering::Relaxed);
        if !fails && !log.log.buffer_has_room(*promised, bytes) {
            return None;
        }
        *promised = promised.saturating_add(bytes);
        Some(Self {
            log: Arc::clone(log),
            bytes,
        })
    }
}

impl Promised {
    fn lock(&self) -> std::sync::MutexGuard<'_, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut promised = self.log.promised.lock();
        *promised = promised.saturating_sub(self.bytes);
        drop(promised);
        self.log.waiting.moved.notify_waiters();
    }
}
