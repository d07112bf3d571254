//! What became of a batch before: when it was sent first, and how it was cut.
//!
//! A log's record of cuts has ranges of rows and no more. An empty range begins the pieces of a part: its number is that of
//! the part.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spanloom_log::AppendError;

use super::DurableLog;
use crate::clock::unix_ms;

/// Some rows of a batch that are stored by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which part of the batch, by a number of the export's.
    pub part: u32,
    /// Rows of that part, counted from 0; never none.
    pub rows: Range<u32>,
}

/// What the log says of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// When it was sent first, in milliseconds since 1970; none if it was not.
    pub(crate) sent_at_ms: Option<u64>,
    /// The pieces that it is sent in; none while it is whole.
    pub(crate) pieces: Vec<Piece>,
}

impl Past {
    /// Of a batch that is sent now for the first time.
    pub(crate) fn of_now() -> Self {
        Self {
            sent_at_ms: Some(unix_ms()),
            pieces: Vec::new(),
        }
    }
}

/// What became of one batch before. Where there is no log, that is forgotten with the process.
#[derive(Debug, Clone, Default)]
pub struct History {
    past: Arc<Mutex<Past>>,
    log: Option<(Arc<DurableLog>, u128)>,
}

impl History {
    /// The history of the batch of this id, which the log names.
    pub(crate) fn of(log: Arc<DurableLog>, id: u128, past: Past) -> Self {
        Self {
            past: Arc::new(Mutex::new(past)),
            log: Some((log, id)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn past(&self) -> Past {
        self.lock().clone()
    }

    /// Whether a log has the batch: then another process may send it again.
    pub fn is_logged(&self) -> bool {
        self.log.is_some()
    }

    /// How long ago the batch was sent first.
    pub fn age(&self) -> Duration {
        let now = unix_ms();
        let sent = self.lock().sent_at_ms.unwrap_or(now);
        Duration::from_millis(now.saturating_sub(sent))
    }

    /// The pieces that the batch is sent in; none while it is whole.
    pub fn pieces(&self) -> Vec<Piece> {
        self.lock().pieces.clone()
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
        self.lock().pieces = pieces;
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
