//! What becomes of requests once their spans were looked at.
//!
//! Two events end a request. *Acknowledged* answers its sender; the policy ([`Acknowledge`]) says when.
//! *Stored* frees its memory, lets a log forget it, and counts its spans. A request that was acknowledged
//! and cannot be stored is counted as lost, unless a log keeps it.

mod policy;

use std::ops::Range;
use std::sync::Arc;

pub use policy::Acknowledge;
use spanloom_log::{AppendError, Position};

use crate::accounts::{Accounts, Postings, Stage};
use crate::admission::Permit;
use crate::batch::{ExportOutcome, RefusedRows};
use crate::durable::{self, DurableLog, History, Past};
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
    origin: Origin,
    bytes: usize,
    tally: Tally,
    /// Its rows in the batch.
    rows: Range<usize>,
    /// Set when the rest of the request could not be read.
    malformed: Option<Arc<str>>,
    permit: Permit,
    state: State,
}

/// Who answers a request.
#[derive(Debug)]
enum State {
    /// Whoever settles it.
    Open(Ticket),
    /// The log, which has it there.
    Logged(Position),
}

impl Entry {
    /// Whether the log has it.
    pub(crate) fn is_logged(&self) -> bool {
        self.position().is_some()
    }

    fn position(&self) -> Option<Position> {
        match self.state {
            State::Logged(position) => Some(position),
            State::Open(_) => None,
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
                let tally = &mut self.tally;
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

    /// The log, if there is one.
    pub(crate) fn log(&self) -> Option<&Arc<DurableLog>> {
        self.policy.log()
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

    /// A request has rows in the batch, or measures; `payload` is what a log keeps of it. `None` when the log has
    /// no room for it now: its sender is told to retry, and its rows are to leave the batch.
    ///
    /// In the batch it would be stored without the log knowing it. After a crash its sender's retry would be
    /// stored again, and so would rows of others: the batch, made again without it, is cut in other places.
    pub(crate) fn enter(
        &self,
        request: Request,
        rows: Range<usize>,
        malformed: Option<Arc<str>>,
        permit: Permit,
        payload: Option<Vec<u8>>,
    ) -> Option<Entry> {
        let Request {
            origin,
            bytes,
            tally,
            ticket,
        } = request;
        let mut no_room = None;
        let state = match (self.policy.log(), payload) {
            (Some(log), Some(payload)) => {
                let entry = durable::Entry {
                    spans: rows.len(),
                    payload,
                    outcome: outcome(malformed.as_ref(), &tally, None),
                    ticket,
                };
                match log.append(entry) {
                    Ok(position) => State::Logged(position),
                    Err(not_logged) => {
                        let error = &not_logged.error;
                        tracing::debug!(%error, "a request is not in the log");
                        // One that is too large for the log never fits: it is answered when it is stored.
                        if !matches!(error, AppendError::TooLarge { .. }) {
                            no_room = Some(error.to_string().into());
                        }
                        State::Open(not_logged.ticket)
                    }
                }
            }
            _ => {
                if let Acknowledge::InMemory = self.policy {
                    ticket.answer(outcome(malformed.as_ref(), &tally, None));
                }
                State::Open(ticket)
            }
        };
        let entry = Entry {
            origin,
            bytes,
            tally,
            rows,
            malformed,
            permit,
            state,
        };
        let Some(why) = no_room else {
            return Some(entry);
        };
        let mut postings = Postings::default();
        self.not_stored(entry, &why, &mut postings);
        self.accounts.post(&postings);
        None
    }

    /// The batch of this id, with these requests, is handed to the export.
    pub(crate) fn hand_over(
        self: &Arc<Self>,
        id: u128,
        entries: Vec<Entry>,
        accounts: Vec<AccountRow>,
    ) -> Lot {
        Lot {
            settlement: Arc::clone(self),
            id,
            is_named: false,
            entries,
            accounts,
            history: History::default(),
        }
    }

    /// The batch that held these requests leaves memory: the log has them.
    pub(crate) fn spill(&self, entries: Vec<Entry>) {
        let mut postings = Postings::default();
        let mut positions = Vec::with_capacity(entries.len());
        for entry in entries {
            positions.extend(entry.position());
            self.out_of_memory(entry, &mut postings);
        }
        self.accounts.post(&postings);
        if let Some(log) = self.policy.log() {
            log.spill(positions);
        }
    }

    /// A request that the log has is in memory no more, and counts as stored: the log sees to that.
    fn out_of_memory(&self, entry: Entry, postings: &mut Postings) {
        self.metrics.stored(entry.origin, &entry.tally);
        postings.request(&entry.tally, entry.bytes);
    }

    /// The batch that held these requests is gone.
    pub(crate) fn abandon(self: &Arc<Self>, entries: Vec<Entry>) {
        drop(self.hand_over(0, entries, Vec::new()));
    }

    /// The batch that held these requests cannot be sealed or frozen. Alone in it, a request is the reason.
    pub(crate) fn spoiled(self: &Arc<Self>, mut entries: Vec<Entry>) {
        match (entries.pop(), entries.is_empty()) {
            (
                Some(Entry {
                    state: State::Open(ticket),
                    bytes,
                    ..
                }),
                true,
            ) if ticket.claim() => {
                let mut postings = Postings::default();
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
        let Entry {
            origin,
            bytes,
            tally,
            malformed,
            permit,
            state,
            ..
        } = entry;
        self.metrics.stored(origin, &tally);
        postings.request(&tally, bytes);
        // Before the answer, so that the sender's next request finds the memory free.
        drop(permit);
        if let State::Open(ticket) = state
            && !ticket.answer(outcome(malformed.as_ref(), &tally, reason))
            && count > 0
        {
            // The sender was told that all is well.
            self.metrics.lost("refused", count);
        }
    }

    fn not_stored(&self, entry: Entry, why: &Arc<str>, postings: &mut Postings) {
        let State::Open(ticket) = &entry.state else {
            return self.out_of_memory(entry, postings);
        };
        let Entry {
            origin,
            bytes,
            tally,
            ..
        } = &entry;
        let spans = tally.all();
        if ticket.claim() {
            self.metrics.unavailable(*origin, spans);
            postings.whole(Stage::Store, "unavailable", tally, *bytes);
            ticket.give(Outcome::Unavailable(Arc::clone(why)));
        } else {
            self.metrics.lost("unavailable", spans);
            postings.whole(Stage::Store, "lost", tally, *bytes);
        }
    }
}

/// The requests of a batch that is on its way. Dropped, the batch is not stored.
#[derive(Debug)]
pub(crate) struct Lot {
    settlement: Arc<Settlement>,
    /// The batch's id.
    id: u128,
    /// The log has its name.
    is_named: bool,
    entries: Vec<Entry>,
    /// What the batch has taken of the accounts.
    accounts: Vec<AccountRow>,
    history: History,
}

impl Lot {
    fn positions(&self) -> Vec<Position> {
        self.entries.iter().filter_map(Entry::position).collect()
    }

    /// Names the batch in the log, if one has requests of it. It may be sent after that.
    pub(crate) async fn name(&mut self) -> Result<History, String> {
        let positions = self.positions();
        let Some(log) = self.log().filter(|_| !positions.is_empty()) else {
            return Ok(self.history.clone());
        };
        log.name(self.id, positions)
            .map_err(|error| error.to_string())?;
        self.is_named = true;
        self.history = History::of(Arc::clone(&log), self.id, Past::of_now());
        let durable = log.sent(self.id).map_err(|error| error.to_string())?;
        durable
            .await
            .map_err(|_| "the log was closed; try again".to_owned())?;
        Ok(self.history.clone())
    }

    fn log(&self) -> Option<Arc<DurableLog>> {
        self.settlement.policy.log().cloned()
    }

    /// The frozen batch is all that is held of its requests, in so many bytes.
    pub(crate) fn hold(&mut self, bytes: usize) {
        let all: usize = self.entries.iter().map(|entry| entry.permit.bytes()).sum();
        let mut left = bytes;
        let count = self.entries.len();
        for (at, entry) in self.entries.iter_mut().enumerate() {
            let own = entry.permit.bytes() as u128 * bytes as u128 / all.max(1) as u128;
            let share = match at + 1 == count {
                true => left,
                false => usize::try_from(own).unwrap_or(left).min(left),
            };
            entry.permit.set(share);
            left -= share;
        }
    }

    /// Freezing the batch panicked: nothing of it is stored.
    pub(crate) fn spoil(mut self) {
        self.settlement.metrics.worker_panics.inc();
        tracing::error!("freezing a batch panicked; its requests were rejected");
        self.settlement.put_back(std::mem::take(&mut self.accounts));
        self.settlement.spoiled(std::mem::take(&mut self.entries));
    }

    /// The export has ended.
    pub(crate) fn settle(mut self, outcome: ExportOutcome) {
        let refused = match outcome {
            ExportOutcome::Stored => Vec::new(),
            ExportOutcome::Partial(refused) => refused,
            ExportOutcome::Unavailable(why) => return self.fail(&why.into()),
        };
        self.accounts.clear();
        if let Some(log) = self.log().filter(|_| self.is_named) {
            match log.stored(self.id, &self.positions(), &refused) {
                Ok(0) => {}
                Ok(lost) => self.settlement.metrics.lost("refused", lost),
                Err(error) => {
                    tracing::warn!(%error, "a batch is delivered again");
                    log.again(self.id, self.positions(), &self.history);
                }
            }
        }
        let mut postings = Postings::default();
        for entry in self.entries.drain(..) {
            self.settlement.stored(entry, &refused, &mut postings);
        }
        self.settlement.accounts.post(&postings);
    }

    fn fail(&mut self, why: &Arc<str>) {
        let positions = self.positions();
        match self.log() {
            Some(log) if self.is_named => log.again(self.id, positions, &self.history),
            Some(log) => log.spill(positions),
            None => {}
        }
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

/// What a sender is told, as far as is known; `reason` is the store's, for rows that it refused.
fn outcome(malformed: Option<&Arc<str>>, tally: &Tally, reason: Option<&str>) -> Outcome {
    match malformed {
        Some(message) => Outcome::Malformed(Arc::clone(message)),
        None => done(tally, reason),
    }
}

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
