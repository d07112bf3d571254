//! What becomes of requests once their spans were looked at.
//!
//! Two events end a request. *Acknowledged* answers its sender; the policy ([`Acknowledge`]) says when.
//! *Stored* frees its memory, lets a log forget it, and counts its spans. A request that was acknowledged
//! and cannot be stored is counted as lost, unless a log keeps it.

mod policy;

use std::ops::Range;
use std::sync::Arc;

pub use policy::{Acknowledge, Kept, Log, Receipt};

use crate::accounts::{Accounts, Postings, Stage};
use crate::admission::Permit;
use crate::batch::{ExportOutcome, RefusedRows};
use crate::measure::AccountRow;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::process::text;
use crate::receive::Origin;
use crate::repeat::{ABANDONED, Ticket};
use crate::tally::{Rejection, Tally};

/// A request whose spans were looked at.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) origin: Origin,
    /// Bytes received.
    pub(crate) bytes: usize,
    pub(crate) tally: Tally,
    pub(crate) ticket: Ticket,
}

/// A request's part in a batch.
#[derive(Debug)]
pub(crate) struct Entry {
    request: Request,
    /// Its rows in the batch.
    rows: Range<usize>,
    /// Set when the rest of the request could not be read.
    malformed: Option<Arc<str>>,
    permit: Permit,
    kept: Option<Box<dyn Kept>>,
}

impl Entry {
    /// What its sender is told, as far as is known; `reason` is the store's, for rows that it refused.
    fn outcome(&self, reason: Option<&str>) -> Outcome {
        match &self.malformed {
            Some(message) => Outcome::Malformed(Arc::clone(message)),
            None => done(&self.request.tally, reason),
        }
    }

    /// Counts its refused rows; returns how many, and the first reason.
    fn subtract<'a>(&mut self, refused: &'a [RefusedRows]) -> (u64, Option<&'a str>) {
        let (mut all, mut reason) = (0, None);
        for rows in refused {
            let start = rows.range.start.max(self.rows.start);
            let end = rows.range.end.min(self.rows.end);
            if start < end {
                let count = (end - start) as u64;
                let tally = &mut self.request.tally;
                tally.kept = tally.kept.saturating_sub(count);
                tally.reject(Rejection::Store, count);
                all += count;
                reason.get_or_insert(&*rows.reason);
            }
        }
        (all, reason)
    }
}

/// Where requests end.
#[derive(Debug)]
pub(crate) struct Settlement {
    policy: Acknowledge,
    metrics: Arc<Metrics>,
    accounts: Arc<Accounts>,
}

impl Settlement {
    pub(crate) fn new(
        policy: Acknowledge,
        metrics: Arc<Metrics>,
        accounts: Arc<Accounts>,
    ) -> Arc<Self> {
        Arc::new(Self {
            policy,
            metrics,
            accounts,
        })
    }

    /// A request was processed, and nothing of it is in the batch.
    pub(crate) fn nothing_kept(&self, request: Request) {
        self.metrics.stored(request.origin, &request.tally);
        let mut postings = Postings::default();
        postings.request(&request.tally, request.bytes);
        self.accounts.post(&postings);
        request.ticket.answer(done(&request.tally, None));
    }

    /// A request cannot be processed, and nothing of it is in the batch.
    pub(crate) fn not_processed(&self, request: Request, outcome: Outcome) {
        let mut postings = Postings::default();
        if let Outcome::Malformed(_) = outcome {
            // Spans before the fault, for which there were reasons of their own.
            postings.request(&request.tally, 0);
        }
        if let Some(reason) = outcome.reason() {
            postings.add(Stage::Receive, reason, 0, request.bytes as u64);
        }
        self.accounts.post(&postings);
        request.ticket.refuse(outcome);
    }

    /// A request has rows in the batch, or measures.
    pub(crate) fn enter(
        &self,
        request: Request,
        rows: Range<usize>,
        malformed: Option<Arc<str>>,
        permit: Permit,
    ) -> Entry {
        let spans = rows.len();
        let mut entry = Entry {
            request,
            rows,
            malformed,
            permit,
            kept: None,
        };
        if let Acknowledge::Logged(log) = &self.policy {
            let pending = entry.request.ticket.pending();
            let receipt = Receipt::new(pending, entry.outcome(None));
            entry.kept = Some(log.append(spans, receipt));
        }
        entry
    }

    /// A batch with these requests is handed to the export.
    pub(crate) fn hand_over(
        self: &Arc<Self>,
        entries: Vec<Entry>,
        accounts: Vec<AccountRow>,
    ) -> Lot {
        if let Acknowledge::InMemory = self.policy {
            for entry in &entries {
                entry.request.ticket.answer(entry.outcome(None));
            }
        }
        Lot {
            settlement: Arc::clone(self),
            entries,
            accounts,
        }
    }

    /// The batch that held these requests is gone.
    pub(crate) fn abandon(self: &Arc<Self>, entries: Vec<Entry>) {
        drop(Lot {
            settlement: Arc::clone(self),
            entries,
            accounts: Vec::new(),
        });
    }

    /// The batch that held these requests cannot be frozen. Alone in it, a request is the reason.
    pub(crate) fn spoiled(self: &Arc<Self>, mut entries: Vec<Entry>) {
        match (entries.pop(), entries.is_empty()) {
            (Some(only), true) if only.kept.is_none() && only.request.ticket.claim() => {
                let mut postings = Postings::default();
                let Request { bytes, ticket, .. } = only.request;
                postings.add(Stage::Receive, "internal", 0, bytes as u64);
                self.accounts.post(&postings);
                ticket.give(Outcome::Internal(BUG.into()));
            }
            (last, _) => {
                entries.extend(last);
                self.abandon(entries);
            }
        }
    }

    /// The batch that took these accounts is gone.
    pub(crate) fn put_back(&self, accounts: Vec<AccountRow>) {
        self.accounts.put_back(accounts);
    }

    /// Accounts that the next batch takes along.
    pub(crate) fn due_accounts(&self) -> Vec<AccountRow> {
        self.accounts.take_due()
    }

    fn stored(&self, mut entry: Entry, refused: &[RefusedRows], postings: &mut Postings) {
        let (count, reason) = entry.subtract(refused);
        let outcome = entry.outcome(reason);
        let Entry {
            request,
            permit,
            kept,
            ..
        } = entry;
        self.metrics.stored(request.origin, &request.tally);
        postings.request(&request.tally, request.bytes);
        // Before the answer, so that the sender's next request finds the memory free.
        drop(permit);
        if let Some(kept) = kept {
            kept.stored();
        }
        if !request.ticket.answer(outcome) && count > 0 {
            // The sender was told that all is well.
            self.metrics.lost("refused", count);
        }
    }

    fn not_stored(&self, entry: Entry, why: &Arc<str>, postings: &mut Postings) {
        let Entry { request, kept, .. } = entry;
        let spans = request.tally.all();
        if request.ticket.claim() {
            self.metrics.unavailable(request.origin, spans);
            postings.whole(Stage::Store, "unavailable", &request.tally, request.bytes);
            request.ticket.give(Outcome::Unavailable(Arc::clone(why)));
        } else if kept.is_none() {
            self.metrics.lost("unavailable", spans);
            postings.whole(Stage::Store, "lost", &request.tally, request.bytes);
        }
    }
}

/// The requests of a batch that is on its way. Dropped, the batch is not stored.
#[derive(Debug)]
pub(crate) struct Lot {
    settlement: Arc<Settlement>,
    entries: Vec<Entry>,
    /// What the batch has taken of the accounts.
    accounts: Vec<AccountRow>,
}

impl Lot {
    /// The export has ended.
    pub(crate) fn settle(mut self, outcome: ExportOutcome) {
        let refused = match outcome {
            ExportOutcome::Stored => Vec::new(),
            ExportOutcome::Partial(refused) => refused,
            ExportOutcome::Unavailable(why) => return self.fail(&why.into()),
        };
        self.accounts.clear();
        let mut postings = Postings::default();
        for entry in self.entries.drain(..) {
            self.settlement.stored(entry, &refused, &mut postings);
        }
        self.settlement.accounts.post(&postings);
    }

    fn fail(&mut self, why: &Arc<str>) {
        let mut postings = Postings::default();
        for entry in self.entries.drain(..) {
            self.settlement.not_stored(entry, why, &mut postings);
        }
        self.settlement.accounts.post(&postings);
        let accounts = std::mem::take(&mut self.accounts);
        self.settlement.accounts.put_back(accounts);
    }
}

impl Drop for Lot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.settlement.metrics.worker_panics.inc();
            tracing::error!("the export of a batch panicked; its clients are asked to retry");
        }
        if !self.entries.is_empty() || !self.accounts.is_empty() {
            self.fail(&ABANDONED.into());
        }
    }
}

/// For a request that made us panic.
pub(crate) const BUG: &str = "processing the request failed; this is a bug";

/// Answers stay small whatever the store has to say.
const MAX_REASON_BYTES: usize = 1024;

fn done(tally: &Tally, reason: Option<&str>) -> Outcome {
    let mut message = tally.message();
    if let Some(reason) = reason {
        message.push_str(": ");
        message.push_str(text::cut(reason, MAX_REASON_BYTES));
    }
    let message = (!message.is_empty()).then(|| message.into());
    Outcome::Done {
        rejected: tally.rejected(),
        message,
    }
}

#[cfg(test)]
mod tests;
