//! The log on disk.
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
mod scan;
mod state;
mod status;
mod survey;
mod writer;

pub use dead_letters::DeadLetter;
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
