//! What can go wrong, for callers and for the people who read their messages.

use std::io;
use std::path::PathBuf;

use crate::record::{BatchId, Position};

/// A log could not be opened. Damaged data is never the reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the log {} is in use by another process ({owner}); stop it, or give this one a folder of its own",
        folder.display()
    )]
    InUse {
        /// The log's folder.
        folder: PathBuf,
        /// What the other process wrote about itself, such as `pid 17`.
        owner: String,
    },
    /// Its folder cannot be made, read or locked.
    #[error(
        "cannot use {} for the log: {source}; it must be a folder that this user can write to",
        path.display()
    )]
    Folder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the log {}: {source}; check the limit of threads", folder.display())]
    Thread {
        /// The log's folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A record was not taken. The log is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room. Nothing is dropped to make some: the sender has to try again later.
    #[error("{0}")]
    Full(Full),
    /// The record alone is too large.
    #[error("a record of {bytes} bytes is larger than the limit of {max_bytes} bytes")]
    TooLarge {
        /// Bytes of its frame.
        bytes: u64,
        /// The limit.
        max_bytes: u64,
    },
    /// A batch names a request that is not undelivered, or is in a batch already.
    #[error("the request at position {0} is finished, in another batch, or was never appended")]
    NotWaiting(Position),
    /// There is a batch of this id already.
    #[error("the batch {0} is in the log already; each batch needs an id of its own")]
    BatchExists(BatchId),
    /// No open batch has this id.
    #[error("the batch {0} is stored already or was never appended")]
    NoBatch(BatchId),
    /// The record is one that only the log itself writes.
    #[error("records of keys are written by the log itself")]
    Reserved,
    /// The log is closed.
    #[error("the log is closed")]
    Closed,
}

/// Which limit was reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Records arrive faster than the disk takes them, or it takes none.
    #[error("the log waits for its disk, with {buffered_bytes} bytes{}", fault.as_deref().map(|fault| format!(", which fails: {fault}")).unwrap_or_default())]
    Buffer {
        /// Bytes that wait.
        buffered_bytes: u64,
        /// What the disk said last, if it fails.
        fault: Option<String>,
    },
    /// What is not stored yet fills the log.
    #[error(
        "the log is full: its files have {used_bytes} of {max_bytes} bytes, and the store has not taken their requests yet"
    )]
    Bytes {
        /// Bytes on disk and in the buffer.
        used_bytes: u64,
        /// The log's limit.
        max_bytes: u64,
    },
    /// The disk has no room: what it said.
    #[error("the log's disk has no room: {0}")]
    Disk(String),
    /// There are too many undelivered requests.
    #[error("the log is full: {0} requests wait for the store, the most that are allowed")]
    Requests(usize),
}

/// Waiting for a position to become durable ended without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The time is over.
    #[error("not durable within the time allowed{}", fault.as_deref().map(|fault| format!(": {fault}")).unwrap_or_default())]
    TimedOut {
        /// What the disk said last, if it fails.
        fault: Option<String>,
    },
    /// The log was closed before.
    #[error("the log was closed before the record was durable")]
    Closed,
}

/// A write of the log failed. What was to be written stays in memory, and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct WriteError {
    /// What was tried.
    pub action: &'static str,
    /// On which file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// A request could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is finished, or was never appended.
    #[error("the log has no undelivered request at position {0}")]
    NoRequest(Position),
    /// Its bytes on disk are not what was written.
    #[error(
        "the request at position {position} is damaged in {}; it is lost unless its sender repeats it",
        path.display()
    )]
    Damaged {
        /// The request.
        position: Position,
        /// Its segment.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A dead letter was not kept: its rows are lost, or the caller tries again.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The file has no room.
    #[error(
        "{} has no room for {bytes} more bytes of {max_bytes}; replay or clear it",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes of the letter.
        bytes: u64,
        /// The file's limit.
        max_bytes: u64,
    },
    /// Another process changes the file.
    #[error("{} is being changed by another process ({owner}); try again", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// What the other process wrote about itself, such as `pid 17`.
        owner: String,
    },
    /// A later version wrote the file.
    #[error(
        "a later version wrote {} (format {version}); use that version",
        path.display()
    )]
    LaterVersion {
        /// The file.
        path: PathBuf,
        /// The version of the format.
        version: u32,
    },
    /// The disk failed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A folder could not be inspected.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log {}: {source}", folder.display())]
pub struct InspectError {
    /// The folder.
    pub folder: PathBuf,
    /// What the system said.
    pub source: io::Error,
}
