//! How many parts all writers of a database may make, and how often each of them may write for that.
//!
//! A batch is an insert into each of its tables, and each insert makes a part. All writers together make
//! [`PARTS_PER_SECOND`] with batches that are sent because of their age; those that are full are sent at once: their
//! parts are large, and few for what is in them.

use std::time::Duration;

use crate::block::TableId;

/// Parts a second that all writers make together with batches that are not full.
pub const PARTS_PER_SECOND: u32 = 100;

/// In a cluster, small batches that have to wait become this old: longer than on a laptop, since there are more
/// writers.
pub const QUIET: Duration = Duration::from_secs(12);

/// How often one of so many writers may send a batch.
pub fn share(writers: u32) -> Duration {
    let parts = u64::from(writers) * TableId::ALL.len() as u64;
    Duration::from_secs(parts) / PARTS_PER_SECOND
}
