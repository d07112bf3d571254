//! What a batch is known by.

use std::fmt;

/// The identity of a batch: its rows are inserted under tokens made from it.
///
/// It is drawn at random when the batch begins, and it is not a hash of the rows: two exports with equal
/// content, both sent on purpose, are two batches. Whoever makes a batch again from its records gives it
/// the id that it had, and therefore keeps that id beside the records.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(u128);

impl BatchId {
    /// The id of a new batch.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The id that [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as bytes, to be kept beside the batch's records.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
