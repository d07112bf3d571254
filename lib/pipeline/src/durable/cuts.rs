//! How a batch was cut, in the log.
//!
//! A log's record has ranges of rows and no more. An empty range begins the pieces of a part: its number is that of
//! the part.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spanloom_log::AppendError;

use super::DurableLog;

/// Some rows of a batch that are stored by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which part of the batch, by a number of the export's.
    pub part: u32,
    /// Rows of that part, counted from 0; never none.
    pub rows: Range<u32>,
}

/// How one batch was cut. Where there is no log, that is forgotten with the process.
#[derive(Debug, Clone, Default)]
pub struct Cuts {
    pieces: Arc<Mutex<Vec<Piece>>>,
    log: Option<(Arc<DurableLog>, u128)>,
}

impl Cuts {
    /// The cuts of the batch of this id, which the log names, as they were said before.
    pub(crate) fn of(log: Arc<DurableLog>, id: u128, pieces: Vec<Piece>) -> Self {
        Self {
            pieces: Arc::new(Mutex::new(pieces)),
            log: Some((log, id)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pieces that the batch is sent in; none while it is whole.
    pub fn known(&self) -> Vec<Piece> {
        self.lock().clone()
    }

    /// The batch is sent in these pieces from now on. They may be when this has ended.
    ///
    /// # Errors
    /// When the log was closed.
    pub async fn cut(&self, pieces: Vec<Piece>) -> Result<(), String> {
        if let Some((log, id)) = &self.log {
            match log.cut(*id, encode(&pieces)) {
                Ok(durable) => durable.await.map_err(|_| "the log was closed".to_owned())?,
                // A log that is full gets room only when batches are stored. Made again, this one is cut in the
                // same way as long as the store refuses the same.
                Err(error @ AppendError::Full(_)) => {
                    tracing::warn!(%error, "how a batch is cut is not in the log");
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        *self.lock() = pieces;
        Ok(())
    }
}

fn encode(pieces: &[Piece]) -> Vec<Range<u32>> {
    let mut ranges = Vec::with_capacity(pieces.len() + 1);
    let mut part = None;
    for piece in pieces {
        if part != Some(piece.part) {
            part = Some(piece.part);
            ranges.push(piece.part..piece.part);
        }
        ranges.push(piece.rows.clone());
    }
    ranges
}

pub(super) fn decode(ranges: &[Range<u32>]) -> Vec<Piece> {
    let mut part = 0;
    let mut pieces = Vec::with_capacity(ranges.len());
    for range in ranges {
        match range.start == range.end {
            true => part = range.start,
            false => pieces.push(Piece {
                part,
                rows: range.clone(),
            }),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let piece = |part, rows| Piece { part, rows };
        for pieces in [
            vec![],
            vec![piece(0, 0..1), piece(0, 1..9)],
            vec![
                piece(3, 0..5),
                piece(3, 5..6),
                piece(0, 0..1),
                piece(0, 1..2),
            ],
        ] {
            assert_eq!(decode(&encode(&pieces)), pieces);
        }
    }
}
