//! When a sender is told that its spans are safe.

use std::fmt;
use std::sync::Arc;

use crate::outcome::{Outcome, Pending};

/// When the sender of a request is answered with success. Memory is freed and spans are counted when
/// they are stored, whatever the policy.
#[derive(Debug, Clone, Default)]
pub enum Acknowledge {
    /// When all of it is stored.
    #[default]
    Stored,
    /// When this log has it, or when it is stored, whichever comes first.
    Logged(Arc<dyn Log>),
    /// When its batch is handed to the export: what is then not stored is lost, and counted.
    InMemory,
}

/// Keeps requests until they are stored.
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Takes a request of which so many spans are in a batch. The log uses the receipt once the request
    /// would survive it; when it drops the receipt, the sender is answered when the request is stored.
    /// This is called on a worker's thread and must not block.
    fn append(&self, spans: usize, receipt: Receipt) -> Box<dyn Kept>;
}

/// A request that a [`Log`] keeps. Dropped, it is not stored: the log still has it.
pub trait Kept: fmt::Debug + Send + 'static {
    /// It is stored: the log need not keep it.
    fn stored(self: Box<Self>);
}

/// The right to answer a request whose spans are not stored yet.
#[derive(Debug)]
pub struct Receipt {
    pending: Arc<Pending>,
    outcome: Outcome,
}

impl Receipt {
    pub(super) fn new(pending: Arc<Pending>, outcome: Outcome) -> Self {
        Self { pending, outcome }
    }

    /// Answers the sender, unless it was answered before.
    pub fn acknowledge(self) {
        if self.pending.claim() {
            self.pending.set(self.outcome);
        }
    }
}
