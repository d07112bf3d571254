//! When a sender is told that its spans are safe.

use std::sync::Arc;

use crate::durable::DurableLog;

/// When the sender of a request is answered with success. Memory is freed and spans are counted when
/// they are stored, whatever the policy.
#[derive(Debug, Clone, Default)]
pub enum Acknowledge {
    /// When all of it is stored.
    #[default]
    Stored,
    /// When this log has it. What it has no room for now is to be sent again later; what is too large for it
    /// is answered when it is stored.
    Logged(Arc<DurableLog>),
    /// When its spans are in a batch: what is then not stored is lost, and counted.
    InMemory,
}

impl Acknowledge {
    /// The log, if there is one.
    pub(crate) fn log(&self) -> Option<&Arc<DurableLog>> {
        match self {
            Self::Logged(log) => Some(log),
            Self::Stored | Self::InMemory => None,
        }
    }
}
