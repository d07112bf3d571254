//! How an open log is doing, for metrics, readiness and conditions.

use crate::options::Options;
use crate::state::State;

/// Figures of a log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Bytes that segments and what waits may have in all.
    pub max_bytes: u64,
    /// Bytes of all segments.
    pub disk_bytes: u64,
    /// Bytes on disk that only records that settle requests may use now.
    pub reserve_bytes: u64,
    /// Bytes that wait to be written.
    pub buffered_bytes: u64,
    /// Bytes of the largest request that its files have room for.
    pub room_bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Requests that are not stored.
    pub undelivered_requests: usize,
    /// Bytes of their payloads.
    pub undelivered_bytes: u64,
    /// How long ago the oldest of them was received, in milliseconds. 0 if the clock was set back since.
    pub oldest_age_ms: Option<u64>,
    /// Batches that are not stored.
    pub open_batches: usize,
    /// Keys that are kept.
    pub keys: usize,
    /// Keys that went before their time since the log was opened.
    pub keys_evicted: u64,
    /// What the disk said, if the last commit failed.
    pub fault: Option<String>,
    /// It said that it has no room.
    pub is_disk_full: bool,
}

impl Status {
    pub(crate) fn of(state: &State, options: &Options, now_ms: u64) -> Self {
        let index = &state.index;
        let oldest = index.requests.values().next();
        Self {
            max_bytes: options.max_bytes,
            disk_bytes: state.disk_bytes,
            reserve_bytes: match state.has_reserve {
                true => state.reserve_bytes,
                false => 0,
            },
            buffered_bytes: state.buffered_bytes,
            room_bytes: state.room(options),
            segments: state.segments.len(),
            undelivered_requests: index.requests.len(),
            undelivered_bytes: index.payload_bytes,
            oldest_age_ms: oldest.map(|oldest| now_ms.saturating_sub(oldest.received_at_ms)),
            open_batches: index.batches.len(),
            keys: index.keys.len(),
            keys_evicted: state.keys_evicted,
            fault: state.fault.clone(),
            is_disk_full: state.is_disk_full,
        }
    }
}
