//! What the pipeline is generic over: a batch that spans are written into, and the place that
//! stores it.

use std::future::Future;
use std::ops::Range;

use spanloom_otlp::record::SpanSink;

use crate::durable::History;
use crate::measure::Measures;

/// The rest of the work on a batch that is complete: writing and compressing take long, so that is done on
/// another thread.
pub type Freeze<F> = Box<dyn FnOnce() -> F + Send>;

/// Where spans are collected until they are stored. Each worker thread owns one.
pub trait Batch: SpanSink + Send + 'static {
    /// What a batch becomes before its first send; it never changes after that.
    type Frozen: Send + 'static;

    /// What the store knows the batch by: batches with one id are the same batch. Drawn at random when the
    /// batch begins.
    fn id(&self) -> u128;

    /// The batch is one that was made before, and had this id.
    fn set_id(&mut self, id: u128);

    /// Spans held.
    fn rows(&self) -> usize;

    /// Memory held, in bytes; an estimate is enough.
    fn bytes(&self) -> usize;

    /// Takes what was built, and leaves the batch empty and ready for the next spans, with a new id.
    fn seal(&mut self, measures: Measures) -> Freeze<Self::Frozen>;
}

/// Where frozen batches go.
pub trait Export: Send + Sync + 'static {
    /// The batch this export takes.
    type Frozen: Send + 'static;

    /// Stores a batch. It ends only when the outcome is known: while it is not, the implementation
    /// repeats the same frozen batch, and clients that repeat their request wait for this outcome. A batch
    /// that is stored in pieces has them in its history before the first is sent, and begins with those that are
    /// there: an earlier try made them.
    fn export(
        &self,
        batch: Self::Frozen,
        history: &History,
    ) -> impl Future<Output = ExportOutcome> + Send;

    /// How many bytes a frozen batch holds from now on. None: as much as its spans did.
    fn held_bytes(&self, frozen: &Self::Frozen) -> Option<usize> {
        let _ = frozen;
        None
    }

    /// Whether what it has leaves no room for more: then senders are told to retry.
    fn is_full(&self) -> bool {
        false
    }

    /// What keeps it from storing batches now.
    fn trouble(&self) -> Option<Trouble> {
        None
    }
}

/// What keeps an export from storing batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// In a few words, for senders and health pages.
    pub message: String,
    /// It does not pass by itself. Then senders are told soon to try again, while the outcome is not known:
    /// their repeats are recognised, and wait for the same outcome. In a trouble that passes they wait for
    /// longer, since SDKs try only a few times.
    pub lasts: bool,
}

/// How an export ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportOutcome {
    /// All rows are stored.
    Stored,
    /// The store refused some rows for good; the rest is stored.
    Partial(Vec<RefusedRows>),
    /// Nothing is stored; clients are told to retry.
    Unavailable(String),
}

/// Rows that the store refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRows {
    /// Which rows of the batch, counted from 0 in the order they were written.
    pub range: Range<usize>,
    /// Why, for the client.
    pub reason: String,
}
