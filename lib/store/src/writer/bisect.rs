//! Finding the rows that ClickHouse refuses: a piece that fails is cut in two. So is one that has rows of
//! too many days.
//!
//! Pieces have tokens of their own, derived from the batch's, so that a repeated piece is recognised
//! as well. Where a batch is cut depends on its rows and on what the server refuses, which may be something else
//! the next time: so cuts are said before a piece is sent ([`BatchHistory`](super::BatchHistory)), and a batch that is made
//! again begins with the pieces that it had.

use bytes::Bytes;
use std::ops::Range;

use crate::block::{Frozen, FrozenTable, TableId};
use crate::failure::Failure;

/// Rows that ClickHouse refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRows {
    /// Which rows of the batch, counted from 0 in the order they were written.
    pub range: Range<usize>,
    /// Why.
    pub reason: String,
}

/// With this many pieces cut, what still fails is refused whole: bad rows must not cost the server
/// an insert each without end.
const MAX_CUTS: usize = 256;

/// When so many single rows were refused and none was stored, it is not the rows, unless the error says so.
const HOPELESS: usize = 8;

/// Some rows and how they are inserted.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) rows: Range<usize>,
    pub(crate) token: String,
    pub(crate) body: Bytes,
}

/// What is left to do for one table.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: TableId,
    whole: Piece,
    pieces: Vec<Piece>,
    pub(crate) refused: Vec<RefusedRows>,
    stored: bool,
    unknown: bool,
    /// All pieces by their rows, also those that are done; one for the whole.
    leaves: Vec<Range<usize>>,
    /// The batch's history has these pieces.
    is_said: bool,
}

impl Job {
    /// What is to do for a table that was cut into pieces with these rows before; none if it was not.
    pub(crate) fn resumed(frozen: &Frozen, table: FrozenTable, known: Vec<Range<usize>>) -> Self {
        let mut job = Self::new(table);
        if is_partition(&known, job.whole.rows.end) && known.len() > 1 {
            job.pieces = known
                .iter()
                .rev()
                .map(|rows| job.piece(frozen, rows))
                .collect();
            job.leaves = known;
        }
        job
    }

    pub(crate) fn new(table: FrozenTable) -> Self {
        let whole = Piece {
            rows: 0..table.rows,
            token: table.token,
            body: table.body,
        };
        Self {
            id: table.id,
            pieces: vec![whole.clone()],
            leaves: vec![whole.rows.clone()],
            whole,
            refused: Vec::new(),
            stored: false,
            unknown: false,
            is_said: true,
        }
    }

    /// Whether the batch's history has all pieces: none is inserted before.
    pub(crate) fn is_said(&self) -> bool {
        self.is_said
    }

    /// The batch's history has all pieces.
    pub(crate) fn said(&mut self) {
        self.is_said = true;
    }

    /// The rows of the pieces; empty where there is one.
    pub(crate) fn cuts(&self) -> &[Range<usize>] {
        match self.is_cut() {
            true => &self.leaves,
            false => &[],
        }
    }

    /// The next piece to insert; `None` when all is done.
    pub(crate) fn next(&self) -> Option<&Piece> {
        self.pieces.last()
    }

    /// All of it is stored.
    pub(crate) fn skip(&mut self) {
        self.pieces.clear();
        self.stored = true;
    }

    /// Only these rows are not stored, in pieces that are not kept: nobody sends them again under these tokens
    /// while they are unknown.
    pub(crate) fn only(&mut self, frozen: &Frozen, missing: &[Range<usize>]) {
        self.pieces = missing
            .iter()
            .rev()
            .map(|rows| self.piece(frozen, rows))
            .collect();
        self.stored = true;
    }

    /// Whether some of it is stored, or may be.
    pub(crate) fn touched(&self) -> bool {
        self.stored || self.unknown
    }

    /// Whether pieces are smaller than the batch.
    pub(crate) fn is_cut(&self) -> bool {
        self.leaves.len() > 1
    }

    /// The piece is stored.
    pub(crate) fn done(&mut self) {
        self.pieces.pop();
        self.stored = true;
    }

    /// Nobody knows whether the piece is stored.
    pub(crate) fn uncertain(&mut self) {
        self.unknown = true;
    }

    /// The piece has a bad row. `false` when it looks as if no row could ever be stored; the job is
    /// then as it was at first.
    pub(crate) fn bad_rows(&mut self, frozen: &Frozen, failure: &Failure) -> bool {
        let Some(piece) = self.pieces.pop() else {
            return true;
        };
        if piece.rows.len() <= 1 || self.leaves.len() > MAX_CUTS {
            self.refused.push(RefusedRows {
                range: piece.rows,
                reason: failure.message.clone(),
            });
            let is_hopeless = !self.touched()
                && self.refused.len() >= HOPELESS
                && !self.pieces.is_empty()
                && !failure.is_of_rows_alone();
            if is_hopeless {
                self.refused.clear();
                self.pieces = vec![self.whole.clone()];
                self.leaves = vec![self.whole.rows.clone()];
                self.is_said = false;
                return false;
            }
            return true;
        }
        self.halve(frozen, piece);
        true
    }

    /// The piece is too much for one insert. `false` when there is nothing to cut.
    pub(crate) fn cut(&mut self, frozen: &Frozen) -> bool {
        match self.pieces.pop_if(|piece| piece.rows.len() > 1) {
            Some(piece) => {
                self.halve(frozen, piece);
                true
            }
            None => false,
        }
    }

    fn halve(&mut self, frozen: &Frozen, piece: Piece) {
        let middle = piece.rows.start + piece.rows.len() / 2;
        let halves = [piece.rows.start..middle, middle..piece.rows.end];
        for rows in halves.iter().rev() {
            self.pieces.push(self.piece(frozen, rows));
        }
        if let Some(at) = self.leaves.iter().position(|rows| *rows == piece.rows) {
            self.leaves.splice(at..=at, halves);
        }
        self.is_said = false;
    }

    fn piece(&self, frozen: &Frozen, rows: &Range<usize>) -> Piece {
        let body = frozen.body_of(self.id, rows.clone());
        Piece {
            token: self.piece_token(rows, &body),
            rows: rows.clone(),
            body,
        }
    }

    fn piece_token(&self, rows: &Range<usize>, body: &[u8]) -> String {
        let token = format!("{}:{}-{}", self.whole.token, rows.start, rows.end);
        match self.id {
            // The rows with these numbers may be others when the batch is made again.
            TableId::Tags => format!("{token}:{:032x}", cityhash_rs::cityhash_102_128(body)),
            _ => token,
        }
    }
}

/// Whether the ranges, one after the other, are all rows.
fn is_partition(ranges: &[Range<usize>], rows: usize) -> bool {
    let mut end = 0;
    let follow = ranges.iter().all(|range| {
        let follows = range.start == end && range.end > end;
        end = range.end;
        follows
    });
    follow && end == rows
}

#[cfg(test)]
mod tests;
