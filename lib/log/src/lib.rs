//! The log on disk: keeps export requests from the moment they are acknowledged until they are stored.
//!
//! [`Log::append`] puts a [`Record`] into a buffer and gives it a [`Position`]. A commit writes what is in
//! the buffer to a segment and syncs it once (`writer`, `commit`); then [`Log::durable`] has reached the
//! positions and the senders can be answered. [`Log::open`] reads the segments again (`survey`, `scan`),
//! repairs them (`repair`) and returns what is still to be delivered ([`Recovered`]). [`inspect`] explains a
//! log without changing it.
//!
//! # Layout
//!
//! | name | content |
//! |---|---|
//! | `00000001.seg`, … | segments: a header of 80 bytes, then frames; files 0600 in a folder 0700 |
//! | `dead-letters` | rows that the store refused for good, in the format of a segment |
//! | `reserve` | zeros: reserved disk space |
//! | `dead-letters.lock`, `dead-letters.new` | for changing that file while a log is open |
//! | `damaged/` | bytes that could not be read |
//! | `told` | what was found to be damaged or lost, so that it is counted once |
//! | `lock` | is locked while a process has the log open, and names that process |
//!
//! All numbers are little endian. A segment's header has the magic `SPANLOG\n`, the format version (4 bytes),
//! the header's length (4), the segment's number (8), the log's id (16), the time of creation (8), the
//! position of the first frame (8), the highest position written before (8), whether records were written before
//! their turn (4), how long the file was made at first (4), zeros (4) and a CRC32C (4). This layout is the same in
//! every version.
//!
//! A frame's header has a marker (4 bytes), a CRC32C (4) of the segment's checksum, the frame's offset and the
//! following fields: the payload's length (4), the payload's CRC32C (4), the position (8), the kind (1) and
//! zeros (7). The payload follows.
//!
//! # Limits
//!
//! [`Options`] has them all. Bytes of segments, buffer and reserve are at most `max_bytes`; an eighth is kept for
//! records that settle requests. Ends of batches (48 bytes each) are always taken, because they free
//! space. Memory is bounded by the buffer, the number of undelivered requests and the number of keys. On top
//! of `max_bytes` come `dead_letter_bytes` and `damaged_bytes`.
//!
//! # A full disk
//!
//! Requests are refused. Records that settle requests (batches, that they were sent, refused and stored) are
//! written before their turn, to the reserve, which becomes a segment; those of a batch of 50 requests are
//! 560 bytes, so 1 MiB lasts for 1,800 such batches. Segments that go on the way become the next reserve: its
//! blocks never are free for other programs. Requests that waited when the disk became full may use half of the
//! reserve, once they are in a batch: it could not be sent without them, and may have others that are durable.
//! A process that is started on a full disk goes on with the reserve's segment where the last one ended.
//!
//! A file system that copies what is overwritten can refuse room that was reserved. Without `fallocate` the
//! reserve is zeros that were written.
//!
//! # Recovery
//!
//! * Bytes behind the last good frame are a write that did not finish. They are copied to `damaged/` and cut.
//! * A bad frame before good ones is skipped. The next good frame is found by its marker and its checksums.
//! * Missing positions are counted as lost. Records that were written out of order, or in a write that was
//!   torn in the middle, can be counted although they were never reported durable.
//! * A segment with a damaged header is read under the number in its name; a renamed one under the number in
//!   its header. A copy is set aside. A segment of another log or of a later version is left alone.
//! * What was read is synced before it is used, and new records go to a new segment.
//! * The reserve is renamed only after its first records were synced. What lies in a file of that name was
//!   never confirmed: it is filled with zeros, or removed if a segment is the same file.
//! * A segment that was made of the reserve ends in zeros. A torn end in it is overwritten with them.
//!
//! Not covered: a process that is killed after a failed sync, before it wrote the records to a new segment,
//! leaves bytes in the page cache that the next process takes for durable. A disk error in the last block of a
//! segment can damage older records in the same block. After a read error at start, a segment that cannot be
//! read is left where it is, and its requests may be delivered a second time by a later start.
//!
//! # Invariants
//!
//! * **I1** What was durable and not stored is recovered, in the order of its positions.
//! * **I2** A position is reported durable only after its bytes, and its segment's name, were synced.
//! * **I3** A position is given once, also across restarts.
//! * **I4** A frame is valid only in its segment and at its offset.
//! * **I5** After a failed write or sync the segment is not written to again. What was not confirmed goes to a
//!   new one, under the same positions.
//! * **I6** A torn end does not keep the log from starting, and takes no good frame with it.
//! * **I7** A bad frame takes no other frame with it, and is never read as a record.
//! * **I8** Records that are lost are counted, once.
//! * **I9** A batch is recovered with its requests in order, its tokens, its pieces, and whether it was sent.
//! * **I10** Segments are deleted oldest first, one at a time, when all of their requests are durably stored.
//!   The newest one stays.
//! * **I11** Records of unknown kinds and segments of later versions are kept.
//! * **I12** The keys of the last ten minutes outlive their segments, unless they are too many or the disk is
//!   full; then they are evicted and counted.
//! * **I13** A full log refuses requests and drops nothing.
//! * **I14** Dead letters are written once, within their limit. Those that are replayed leave the file all at once,
//!   also while the log is open.
//! * **I15** Inspecting changes nothing.
//! * **I16** One process at a time has a log open.
//! * **I17** Files of version 1 are read and written as ever (`tests/golden`).
//! * **I18** What was durable can be delivered while the disk is full, if there was a reserve.
//!
//! Each is named by a test in `tests/`.

#![forbid(unsafe_code)]

mod aside;
mod commit;
mod dead_letters;
pub mod disk;
mod error;
mod finding;
mod format;
mod index;
mod inspect;
mod log;
mod names;
mod options;
mod positions;
mod read;
mod record;
mod recovered;
mod repair;
mod reserve;
mod scan;
mod state;
mod status;
mod survey;
mod told;
mod writer;

pub use dead_letters::{DeadLetter, DeadLetterFile};
pub use error::{
    AppendError, DeadLetterError, Full, InspectError, OpenError, ReadError, WaitError, WriteError,
};
pub use finding::{Finding, Problem};
pub use inspect::{DeadLetterReport, Report, SegmentReport, inspect, inspect_on};
pub use log::Log;
pub use options::{Committer, Event, Observer, Options};
pub use record::{BatchId, Key, Position, Record, Request};
pub use recovered::{Recovered, RecoveredBatch, RecoveredRequest};
pub use status::Status;
