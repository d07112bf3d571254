//! What keeps ClickHouse from taking spans, as the writer saw it last: for senders, health pages and the
//! operator. It names no address and quotes nothing, since anybody may read it.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::{Class, Failure};

/// What was seen longer ago may be over: writers try again much sooner.
const FRESH: Duration = Duration::from_secs(60);

/// A kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// Its disk has no room.
    DiskFull,
    /// It cannot be reached.
    Unreachable,
    /// The schema or our credentials are at fault: ClickHouse's number for the error.
    Rejects(Option<u32>),
    /// Inserts fail: ClickHouse's number for the error.
    Fails(Option<u32>),
}

impl TroubleKind {
    /// Whether it takes a person to end it. A store that is away, or fails, may be back in a moment.
    pub fn lasts(self) -> bool {
        match self {
            Self::DiskFull | Self::Rejects(_) => true,
            Self::Unreachable | Self::Fails(_) => false,
        }
    }
}

impl fmt::Display for TroubleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, code) = match self {
            Self::DiskFull => return f.write_str("the store's disk is full"),
            Self::Unreachable => return f.write_str("the store cannot be reached"),
            Self::Rejects(code) => ("the store rejects all inserts", code),
            Self::Fails(code) => ("inserts into the store fail", code),
        };
        f.write_str(text)?;
        match code {
            Some(code) => write!(f, " (ClickHouse error {code})"),
            None => Ok(()),
        }
    }
}

/// The trouble of a store, shared by all clones.
#[derive(Debug, Clone, Default)]
pub struct Trouble(Arc<Mutex<Option<(TroubleKind, Instant)>>>);

impl Trouble {
    /// What keeps ClickHouse from taking spans now.
    pub fn now(&self) -> Option<TroubleKind> {
        let seen = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.filter(|(_, at)| at.elapsed() < FRESH)
            .map(|(kind, _)| kind)
    }

    /// An insert failed, for a reason that is not in its rows.
    pub(crate) fn failed(&self, failure: &Failure) {
        self.set(Some((kind_of(failure), Instant::now())));
    }

    /// Inserts succeed. Returns what kept them from it until now.
    pub(crate) fn over(&self) -> Option<TroubleKind> {
        self.set(None).map(|(kind, _)| kind)
    }

    fn set(&self, seen: Option<(TroubleKind, Instant)>) -> Option<(TroubleKind, Instant)> {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, seen)
    }
}

/// NOT_ENOUGH_SPACE.
const NOT_ENOUGH_SPACE: u32 = 243;
/// What the system says of a full disk, in errors of other numbers.
const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

fn kind_of(failure: &Failure) -> TroubleKind {
    let says_no_space = || NO_SPACE.iter().any(|text| failure.message.contains(text));
    match (failure.class, failure.code) {
        (_, Some(NOT_ENOUGH_SPACE)) => TroubleKind::DiskFull,
        (_, Some(_)) if says_no_space() => TroubleKind::DiskFull,
        (Class::Fault, code) => TroubleKind::Rejects(code),
        // No answer, and certainly nothing sent: there was no connection.
        (_, None) if failure.absent => TroubleKind::Unreachable,
        (_, code) => TroubleKind::Fails(code),
    }
}

#[cfg(test)]
mod tests {
    use clickhouse::error::Error;

    use super::*;

    #[test]
    fn kinds() {
        let said = |answer: &str| {
            let trouble = Trouble::default();
            assert_eq!(trouble.now(), None);
            trouble.failed(&Failure::of(&Error::BadResponse(answer.to_owned())));
            let text = trouble.now().unwrap().to_string();
            trouble.over();
            assert_eq!(trouble.now(), None);
            text
        };
        for full in [
            "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space",
            "Code: 75. DB::ErrnoException: Cannot write to file /x: errno: 28, strerror: No space left on device",
        ] {
            assert_eq!(said(full), "the store's disk is full");
        }
        assert_eq!(
            said("Code: 516. DB::Exception: secret"),
            "the store rejects all inserts (ClickHouse error 516)"
        );
        assert_eq!(
            said("Code: 242. DB::Exception: read-only"),
            "inserts into the store fail (ClickHouse error 242)"
        );
        // A proxy's page.
        assert_eq!(
            said("No space left on device"),
            "inserts into the store fail"
        );
    }
}
