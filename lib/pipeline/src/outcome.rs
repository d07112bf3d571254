//! How a request ends, told to everyone who waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

/// The answer to one request, whatever the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is stored, or discarded by a rule and counted; spans that could not be taken are
    /// counted here.
    Done {
        /// Spans refused for good.
        rejected: u64,
        /// Why spans were refused or what was repaired; `None` when there is nothing to say.
        message: Option<Arc<str>>,
    },
    /// The request cannot be read.
    Malformed(Arc<str>),
    /// The request is larger than the limit, as sent or decompressed.
    TooLarge(Arc<str>),
    /// The sender may not send this.
    Denied(Arc<str>),
    /// Nothing is stored; a retry can succeed.
    Unavailable(Arc<str>),
    /// A fault of ours that a retry would meet again.
    Internal(Arc<str>),
}

impl Outcome {
    /// Full success.
    pub const OK: Self = Self::Done {
        rejected: 0,
        message: None,
    };

    /// For a request that was not taken, the value of the label `reason` in metrics and accounts.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Done { .. } => None,
            Self::Malformed(_) => Some("malformed"),
            Self::TooLarge(_) => Some("too_large"),
            Self::Denied(_) => Some("sender"),
            Self::Unavailable(_) => Some("unavailable"),
            Self::Internal(_) => Some("internal"),
        }
    }
}

/// An outcome to come.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Somebody answers or has answered.
    claimed: AtomicBool,
    outcome: OnceLock<Outcome>,
    notify: Notify,
}

impl Pending {
    /// One that is known already.
    pub(crate) fn ended(outcome: Outcome) -> Self {
        Self {
            claimed: AtomicBool::new(true),
            outcome: OnceLock::from(outcome),
            notify: Notify::new(),
        }
    }

    /// Waits for the outcome.
    pub(crate) async fn wait(&self) -> Outcome {
        loop {
            let notified = self.notify.notified();
            // Made before the look, so that an outcome set in between is not missed.
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            notified.await;
        }
    }

    /// Whether the caller may answer: only the first who asks.
    pub(crate) fn claim(&self) -> bool {
        !self.claimed.swap(true, Ordering::AcqRel)
    }

    /// Sets the answer; for the caller that has the [claim](Self::claim).
    pub(crate) fn set(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            self.notify.notify_waiters();
        }
    }
}
