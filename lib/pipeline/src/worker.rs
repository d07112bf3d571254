//! Worker threads: each takes jobs from its queue through intake into its batcher, and sends what is
//! ready.
//!
//! They are threads of their own so that long stretches of work never hold up tokio's, which answer
//! and refuse requests.

use std::sync::Arc;

use crossbeam_channel::RecvTimeoutError;

use crate::batch::{Batch, Export};
use crate::batcher::{Batcher, Slot};
use crate::delivery::Delivery;
use crate::intake::{Intake, Job, Panicked, Taken};
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::queue::{Inbox, Message};
use crate::settlement::Settlement;

pub(crate) struct Worker<B, E> {
    pub(crate) inbox: Inbox,
    pub(crate) intake: Intake,
    pub(crate) batcher: Batcher<B>,
    pub(crate) settlement: Arc<Settlement>,
    pub(crate) delivery: Arc<Delivery<E>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl<B, E> Worker<B, E>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    /// Works until it is told to stop, then exports what is left.
    pub(crate) fn run(mut self) {
        loop {
            let messages = &self.inbox.messages;
            let message = match self.batcher.deadline() {
                Some(deadline) => messages.recv_deadline(deadline),
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Job(job)) => self.take(*job),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if let Some(slot) = self.batcher.due(self.inbox.messages.is_empty()) {
                self.flush(slot);
            }
        }
        if let Some(slot) = self.batcher.last() {
            self.flush(slot);
        }
    }

    fn take(&mut self, job: Job) {
        self.inbox.taken(&job);
        let settlement = &self.settlement;
        let taken = match self.intake.take(job, self.batcher.open()) {
            Ok(taken) => taken,
            Err(panicked) => {
                let Panicked(request) = *panicked;
                self.metrics.worker_panics.inc();
                // Nothing of the other requests in the batch is stored: they are told to retry.
                settlement.abandon(self.batcher.discard());
                let message = "processing the request failed; this is a bug".into();
                return settlement.not_processed(request, Outcome::Internal(message));
            }
        };
        let Taken {
            request,
            rows,
            fault,
            permit,
        } = taken;
        let malformed = match fault {
            None => None,
            Some(Outcome::Malformed(message)) if !rows.is_empty() => Some(message),
            Some(outcome) => return settlement.not_processed(request, outcome),
        };
        if malformed.is_none() && rows.is_empty() && request.tally.sampled_out == 0 {
            return settlement.nothing_kept(request);
        }
        let entry = settlement.enter(request, rows, malformed, permit);
        self.batcher.add(entry);
    }

    /// Freezes the batch and sends it.
    fn flush(&mut self, slot: Slot) {
        let accounts = self.settlement.due_accounts();
        let sealed = self.batcher.seal(accounts.clone());
        self.metrics.batches.inc();
        self.metrics.batch_rows.inc_by(sealed.rows as u64);
        let lot = self.settlement.hand_over(sealed.entries, accounts);
        self.delivery.send(sealed.frozen, lot, slot);
    }
}
