//! What was found to be wrong with a log's files, in words.

use std::fmt;
use std::path::PathBuf;

use crate::record::kind;

/// Something in a log's folder that is not as the log wrote it, or not the log's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
    /// Where the bytes in question are kept; `None` if they are where they were, or nowhere.
    pub kept_in: Option<PathBuf>,
    /// Whether this is the first time that it is seen.
    pub is_new: bool,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It ends in bytes that are not a record: a write that did not finish.
    TornEnd {
        /// How many.
        bytes: u64,
    },
    /// It ends in zeros: the file grew, and its bytes were never written.
    ZeroEnd {
        /// How many.
        bytes: u64,
    },
    /// Bytes between records are not a record.
    BadBytes {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// The disk does not give these bytes.
    Unreadable {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// What the system said.
        error: String,
    },
    /// It is empty: it was made, and nothing was written.
    Empty,
    /// Its header is damaged; its records could be read all the same.
    BadHeader,
    /// Nothing in it can be read.
    Unusable {
        /// Its bytes.
        bytes: u64,
    },
    /// It says that it is another segment. It is read as what it says.
    OtherName {
        /// The number that it has by its header.
        number: u64,
    },
    /// It says that it is a segment that another file is.
    Copy {
        /// Of which segment.
        number: u64,
    },
    /// It belongs to another log.
    OtherLog,
    /// A later version of this program wrote it.
    LaterVersion {
        /// The version of the format.
        version: u32,
    },
    /// It is not a file of a log.
    ForeignFile,
    /// A record has a right checksum, and does not read as what it should be.
    Malformed {
        /// What it should be.
        kind: u8,
        /// Its position.
        position: u64,
    },
    /// Records of kinds that this version does not know. They are kept.
    UnknownKinds {
        /// How many.
        records: u64,
    },
    /// Records that must have been there are in no file.
    Missing {
        /// The position of the first.
        from: u64,
        /// How many.
        records: u64,
    },
    /// It could not be synced, cut or moved.
    NotRepaired {
        /// What was tried, and what the system said.
        error: String,
    },
}

impl Problem {
    /// Records that are lost for sure.
    pub fn lost_records(&self) -> u64 {
        match self {
            Self::Missing { records, .. } => *records,
            Self::Malformed { .. } => 1,
            _ => 0,
        }
    }

    /// Bytes that could not be read as records and were not left by a write that did not finish.
    pub fn damaged_bytes(&self) -> u64 {
        match self {
            Self::BadBytes { bytes, .. }
            | Self::Unreadable { bytes, .. }
            | Self::Unusable { bytes } => *bytes,
            _ => 0,
        }
    }

    /// Whether something is damaged or lost, as opposed to what a crash or another version leaves.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::TornEnd { .. }
                | Self::ZeroEnd { .. }
                | Self::Empty
                | Self::LaterVersion { .. }
                | Self::ForeignFile
                | Self::UnknownKinds { .. }
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)?;
        if let Some(path) = &self.kept_in {
            write!(f, "; the bytes are kept in {}", path.display())?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornEnd { bytes } => write!(
                f,
                "the last {bytes} bytes are a write that did not finish; nothing in them was acknowledged"
            ),
            Self::ZeroEnd { bytes } => write!(
                f,
                "the last {bytes} bytes were never written; nothing in them was acknowledged"
            ),
            Self::BadBytes { offset, bytes } => write!(
                f,
                "{bytes} bytes at offset {offset} are damaged and were skipped; check the disk"
            ),
            Self::Unreadable {
                offset,
                bytes,
                error,
            } => write!(
                f,
                "{bytes} bytes at offset {offset} cannot be read and were skipped ({error}); check the disk"
            ),
            Self::Empty => f.write_str("it is empty: the process ended before it wrote to it"),
            Self::BadHeader => {
                f.write_str("its header is damaged; its records were read; check the disk")
            }
            Self::Unusable { bytes } => write!(
                f,
                "none of its {bytes} bytes can be read as records; check the disk"
            ),
            Self::OtherName { number } => write!(
                f,
                "it is segment {number} by its header, and was read as that; the file was renamed"
            ),
            Self::Copy { number } => write!(
                f,
                "it is a copy of segment {number}, which is there, and was not read"
            ),
            Self::OtherLog => f.write_str(
                "it belongs to another log, and was left alone; move it to a folder of its own to deliver it",
            ),
            Self::LaterVersion { version } => write!(
                f,
                "a later version wrote it (format {version}), and it was left alone; start that version to deliver it"
            ),
            Self::ForeignFile => f.write_str("it is not a file of a log, and was left alone"),
            Self::Malformed { kind, position } => write!(
                f,
                "the {} at position {position} cannot be decoded and is lost; please report it",
                kind::name(*kind)
            ),
            Self::UnknownKinds { records } => write!(
                f,
                "{records} records are of kinds that a later version knows; they are kept for it"
            ),
            Self::Missing { from, records } => write!(
                f,
                "{records} records from position {from} on are in no file; they are lost"
            ),
            Self::NotRepaired { error } => f.write_str(error),
        }
    }
}
