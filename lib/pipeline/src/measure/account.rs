//! The accounts: where spans went, so that what was sent and is not stored has a reason.

use std::borrow::Cow;
use std::sync::Arc;

/// Spans that an agent handled in one minute, in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Start of the minute in which it was decided, seconds since the Unix epoch.
    pub minute: u32,
    /// The node of the agent; on a laptop the machine's name.
    pub node: Arc<str>,
    /// The agent: its pod's name, or the machine's.
    pub agent: Arc<str>,
    /// Where it was decided: `receive`, `process`, `sample`, `store`. Text, since another agent may be
    /// newer than this one.
    pub stage: Cow<'static, str>,
    /// What was decided, such as `stored`, or why.
    pub reason: Cow<'static, str>,
    /// Spans; zero where the request was refused before its spans were looked at.
    pub spans: u64,
    /// Bytes of their requests as received.
    pub bytes: u64,
}
