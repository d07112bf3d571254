//! What became of a batch before, kept where another process finds it: a batch that is sent again has to have the
//! pieces that it had, whatever the server takes by then; and one that was sent long ago is looked for first, since
//! the server may not know its token any more.

use std::future::Future;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::bisect::Job;
use crate::block::TableId;
use crate::failure::{Class, Failure};

/// Some rows of a table, inserted under a token of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The table.
    pub table: TableId,
    /// Which of the batch's rows for it, counted from 0.
    pub rows: Range<usize>,
}

/// The history of one batch. `()` has none.
pub trait BatchHistory: Send + Sync {
    /// Whether another process may send the batch again.
    fn is_kept(&self) -> bool;

    /// Whether the batch may have been stored, so long ago that the server does not know its tokens any more.
    fn may_be_forgotten(&self) -> bool;

    /// All pieces of the tables that were cut.
    fn pieces(&self) -> Vec<Piece>;

    /// These are all pieces of the tables that are cut from now on. They may be inserted when this has ended.
    ///
    /// # Errors
    /// When they cannot be kept now: why.
    fn cut(&self, pieces: Vec<Piece>) -> impl Future<Output = Result<(), String>> + Send;
}

impl BatchHistory for () {
    fn is_kept(&self) -> bool {
        false
    }

    fn may_be_forgotten(&self) -> bool {
        false
    }

    fn pieces(&self) -> Vec<Piece> {
        Vec::new()
    }

    async fn cut(&self, _: Vec<Piece>) -> Result<(), String> {
        Ok(())
    }
}

/// What a history has been told of a batch's cuts.
pub(super) struct Said<'b, C> {
    history: &'b C,
    pieces: Mutex<Vec<Piece>>,
}

impl<'b, C: BatchHistory> Said<'b, C> {
    pub(super) fn new(history: &'b C, jobs: &[Job]) -> Self {
        let pieces = jobs.iter().flat_map(pieces_of).collect();
        Self {
            history,
            pieces: Mutex::new(pieces),
        }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.history.is_kept()
    }

    /// Tells the history how a job is cut, if it does not know.
    pub(super) async fn say(&self, job: &mut Job) -> Result<(), Failure> {
        if job.is_said() {
            return Ok(());
        }
        let all = {
            let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
            pieces.retain(|piece| piece.table != job.id);
            pieces.extend(pieces_of(job));
            pieces.clone()
        };
        self.history.cut(all).await.map_err(|error| Failure {
            class: Class::Retry,
            code: None,
            absent: true,
            message: format!("cannot keep how a batch is cut: {error}"),
        })?;
        job.said();
        Ok(())
    }
}

fn pieces_of(job: &Job) -> impl Iterator<Item = Piece> {
    let table = job.id;
    job.cuts().iter().map(move |rows| Piece {
        table,
        rows: rows.clone(),
    })
}
