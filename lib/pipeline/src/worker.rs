//! Workers: each takes jobs from its queue through intake into its batcher, and sends what is ready.
//!
//! Each has a thread of its own ([`Parts`](crate::parts)) so that long stretches of work never hold up
//! tokio's, which answer and refuse requests.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::sleep_until;

use crate::batch::{Batch, Export};
use crate::batcher::{Batcher, Due};
use crate::delivery::Delivery;
use crate::durable::Room;
use crate::flight::Slot;
use crate::intake::{Intake, Job, Panicked, Taken};
use crate::measure::AccountRow;
use crate::metrics::Metrics;
use crate::outcome::Outcome;
use crate::queue::{Inbox, Message};
use crate::settlement::{BUG, Settlement};

pub(crate) struct Worker<B, E> {
    pub(crate) inbox: Inbox,
    pub(crate) intake: Intake,
    pub(crate) batcher: Batcher<B>,
    pub(crate) settlement: Arc<Settlement>,
    pub(crate) delivery: Arc<Delivery<E>>,
    pub(crate) metrics: Arc<Metrics>,
    /// What the batch that is being sealed takes of the accounts.
    pub(crate) accounts: Vec<AccountRow>,
    /// No more jobs follow.
    pub(crate) stopping: bool,
    /// A batch is being sealed.
    pub(crate) sealing: bool,
}

impl<B, E> Worker<B, E>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    /// Works until it is told to stop, then exports what is left. After a panic, which is a bug, it goes
    /// on with an empty batch.
    pub(crate) async fn run(mut self) {
        while AssertUnwindSafe(self.work()).catch_unwind().await.is_err() {
            self.recover();
            // Timers panic when the runtime is gone: then whoever polls this has a chance to end it.
            tokio::task::yield_now().await;
        }
    }

    async fn work(&mut self) {
        while !self.stopping {
            match self.next().await {
                Message::Job(job) => {
                    let room = match self.settlement.log() {
                        Some(log) => Some(Room::wait(log, job.permit.bytes() as u64).await),
                        None => None,
                    };
                    self.take(*job);
                    drop(room);
                }
                Message::Wake => {}
                Message::Stop => self.stopping = true,
            }
            if !self.stopping {
                let due = self.batcher.due(self.inbox.messages.is_empty()).await;
                self.act(due);
            }
        }
        let last = self.batcher.last().await;
        self.act(last);
    }

    /// What comes next; a wake when it is time to look at the batch.
    async fn next(&mut self) -> Message {
        let messages = &mut self.inbox.messages;
        // What waits is taken without a timer.
        match messages.try_recv() {
            Ok(message) => return message,
            Err(TryRecvError::Disconnected) => return Message::Stop,
            Err(TryRecvError::Empty) => {}
        }
        let message = match self.batcher.deadline() {
            None => messages.recv().await,
            Some(deadline) => tokio::select! {
                biased;
                message = messages.recv() => message,
                () = sleep_until(deadline) => Some(Message::Wake),
            },
        };
        message.unwrap_or(Message::Stop)
    }

    /// What the batch holds is in doubt: nothing of it is stored. A request that was alone in a batch that
    /// cannot be sealed would make the next one fail as well; all others are told to retry.
    fn recover(&mut self) {
        self.metrics.worker_panics.inc();
        tracing::error!("a worker panicked; the requests of its batch were rejected");
        self.intake.reset();
        let entries = self.batcher.discard();
        self.settlement.put_back(std::mem::take(&mut self.accounts));
        match std::mem::take(&mut self.sealing) {
            true => self.settlement.spoiled(entries),
            false => self.settlement.abandon(entries),
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
                return settlement.not_processed(request, Outcome::Internal(BUG.into()));
            }
        };
        let Taken {
            request,
            rows,
            outside,
            payload,
            fault,
            permit,
        } = taken;
        self.metrics.left_out.inc_by(outside.left_out);
        let malformed = match fault {
            None => None,
            Some(Outcome::Malformed(message)) if !rows.is_empty() => Some(message),
            Some(outcome) => return settlement.not_processed(request, outcome),
        };
        let is_measured = outside.is_there || request.tally.sampled_out > 0;
        if malformed.is_none() && rows.is_empty() && !is_measured {
            return settlement.nothing_kept(request);
        }
        match settlement.enter(request, rows, malformed, permit, payload) {
            Some(entry) => self.batcher.add(entry),
            // The others leave memory with its rows: the log has them.
            None => settlement.spill(self.batcher.discard()),
        }
    }

    fn act(&mut self, due: Due) {
        match due {
            Due::NotYet => {}
            Due::Send(slot) => self.flush(slot),
            Due::Spill => self.settlement.spill(self.batcher.discard()),
        }
    }

    /// Takes the batch out and sends it.
    fn flush(&mut self, slot: Slot) {
        self.accounts = self.settlement.due_accounts();
        self.sealing = true;
        let sealed = self.batcher.seal(self.accounts.clone());
        self.sealing = false;
        self.metrics.batches.inc();
        self.metrics.batch_rows.inc_by(sealed.rows as u64);
        let accounts = std::mem::take(&mut self.accounts);
        let lot = self
            .settlement
            .hand_over(sealed.id, sealed.entries, accounts);
        self.delivery.send(sealed.freeze, lot, slot);
    }
}
