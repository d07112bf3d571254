//! Worker threads: requests are decompressed and processed here, into the batch that each worker
//! owns, and batches are handed to the exporter.
//!
//! They are threads of their own so that long stretches of work never hold up tokio's, which answer
//! and refuse requests.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use spanloom_otlp::json;
use tokio::sync::watch;

use crate::admission::{Permit, Refused};
use crate::batch::{Batch, Export, ExportOutcome, RefusedRows};
use crate::buffers::Buffer;
use crate::config::BatchLimits;
use crate::decompress::{Decompressor, Encoding, Fault};
use crate::measure::Recorder;
use crate::outcome::Outcome;
use crate::peers::Pod;
use crate::process::{Processor, Rules, text};
use crate::receive::{PeerInfo, Transport};
use crate::repeat::Ticket;
use crate::server::{Exporting, Shared};
use crate::tally::{Rejection, Tally};

/// A request that was received and admitted.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) body: Buffer,
    /// Where the message begins in `body`: after gRPC's prefix.
    pub(crate) start: usize,
    pub(crate) encoding: Encoding,
    pub(crate) json: bool,
    pub(crate) transport: Transport,
    pub(crate) peer: PeerInfo,
    /// Who sent it, if that is known.
    pub(crate) pod: Option<Arc<Pod>>,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
    Job(Box<Job>),
    /// An export has ended: it may be time for the next.
    Wake,
    /// No more jobs follow.
    Stop,
}

/// A request's part in a batch.
struct Entry {
    rows: Range<usize>,
    tally: Tally,
    /// Set when the rest of the request could not be read.
    malformed: Option<Arc<str>>,
    transport: Transport,
    permit: Permit,
    ticket: Ticket,
}

/// What a worker is made of.
pub(crate) struct Parts<B, E> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) export: Arc<E>,
    pub(crate) make_batch: Arc<dyn Fn() -> B + Send + Sync>,
    pub(crate) limits: BatchLimits,
    pub(crate) exports: usize,
    pub(crate) rules: watch::Receiver<Arc<Rules>>,
    pub(crate) jobs: Receiver<Message>,
    /// To the worker itself, for [`Message::Wake`].
    pub(crate) wake: Sender<Message>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) index: usize,
    pub(crate) decompressor: Decompressor,
}

pub(crate) struct Worker<B, E> {
    parts: Parts<B, E>,
    processor: Processor,
    recorder: Recorder,
    batch: B,
    entries: Vec<Entry>,
    /// A token for each export that may begin.
    tokens: (Sender<()>, Receiver<()>),
    /// When the batch got its first and its last request.
    first: Option<Instant>,
    last: Instant,
}

impl<B, E> Worker<B, E>
where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    pub(crate) fn new(mut parts: Parts<B, E>) -> Self {
        let exports = parts.exports.max(1);
        let tokens = crossbeam_channel::bounded(exports);
        for _ in 0..exports {
            // There is room for each of them.
            let _ = tokens.0.try_send(());
        }
        let rules = Arc::clone(&parts.rules.borrow_and_update());
        Self {
            processor: Processor::with_rules(rules),
            recorder: Recorder::default(),
            batch: (parts.make_batch)(),
            entries: Vec::new(),
            tokens,
            first: None,
            last: Instant::now(),
            parts,
        }
    }

    /// Works until it is told to stop, then exports what is left.
    pub(crate) fn run(mut self) {
        loop {
            let message = match self.deadline() {
                Some(deadline) => self.parts.jobs.recv_deadline(deadline),
                None => self
                    .parts
                    .jobs
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Job(job)) => self.take(*job),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.flush_if_due();
        }
        if !self.entries.is_empty() {
            self.flush_when_possible();
        }
    }

    fn exports_in_flight(&self) -> usize {
        self.parts.exports.max(1) - self.tokens.1.len()
    }

    /// When to look at the batch again though no message comes.
    fn deadline(&self) -> Option<Instant> {
        let first = self.first?;
        if self.tokens.1.is_empty() {
            return None; // the end of an export wakes us
        }
        let limits = &self.parts.limits;
        let latest = first + limits.max_age;
        let early = self.batch.rows() >= limits.early_rows && self.exports_in_flight() == 0;
        Some(if early {
            latest.min(self.last + limits.linger)
        } else {
            latest
        })
    }

    fn flush_if_due(&mut self) {
        let Some(first) = self.first else { return };
        let limits = &self.parts.limits;
        let bytes = self.batch.bytes() + self.recorder.bytes();
        if self.batch.rows() >= limits.max_rows || bytes >= limits.max_bytes {
            return self.flush_when_possible();
        }
        let now = Instant::now();
        let old = now >= first + limits.max_age;
        let idle = self.batch.rows() >= limits.early_rows
            && now >= self.last + limits.linger
            && self.parts.jobs.is_empty()
            && self.exports_in_flight() == 0;
        if (old || idle) && self.tokens.1.try_recv().is_ok() {
            self.flush();
        }
    }

    /// Waits for an export to end if there are as many as there may be; meanwhile requests
    /// queue, as far as admission lets them.
    fn flush_when_possible(&mut self) {
        // The worker holds a sender itself: this fails never.
        if self.tokens.1.recv().is_ok() {
            self.flush();
        }
    }

    /// Freezes the batch and exports it; a token has been taken for that.
    fn flush(&mut self) {
        self.first = None;
        let rows = self.batch.rows() as u64;
        let frozen = self.batch.freeze(self.recorder.take());
        let entries = std::mem::take(&mut self.entries);
        let shared = Arc::clone(&self.parts.shared);
        shared.metrics.batches.inc();
        shared.metrics.batch_rows.inc_by(rows);
        let export = Arc::clone(&self.parts.export);
        let done = ExportDone {
            token: self.tokens.0.clone(),
            wake: self.parts.wake.clone(),
            _in_flight: shared.exporting(),
        };
        let tracker = shared.exports.clone();
        tracker.spawn_on(
            async move {
                let outcome = tokio::select! {
                    outcome = export.export(frozen) => outcome,
                    () = shared.abort.cancelled() => {
                        ExportOutcome::Unavailable("the collector is stopping; try again".into())
                    }
                };
                settle(&shared, entries, outcome);
                drop(done);
            },
            &self.parts.runtime,
        );
    }

    fn take(&mut self, job: Job) {
        let shared = Arc::clone(&self.parts.shared);
        shared.dequeued(self.parts.index, job.body.len());
        if self.parts.rules.has_changed().unwrap_or(false) {
            let rules = Arc::clone(&self.parts.rules.borrow_and_update());
            self.processor = Processor::with_rules(rules);
        }
        let Job {
            body,
            start,
            encoding,
            json,
            transport,
            peer,
            pod,
            mut permit,
            ticket,
        } = job;
        let (rows, bytes) = (self.batch.rows(), self.batch.bytes());
        let mut tally = Tally::default();
        let work = AssertUnwindSafe(|| {
            let message = body.get(start..).unwrap_or_default();
            let form = (encoding, json);
            self.process(message, form, pod.as_deref(), &mut permit, &mut tally)
        });
        let Ok(result) = catch_unwind(work) else {
            return self.recover(ticket, peer);
        };
        let grown = self.batch.bytes().saturating_sub(bytes);
        // The columns themselves, and their copy while they are sent.
        let held = grown.saturating_mul(2);
        shared
            .expansion(encoding, json)
            .learn(body.len(), held + result.unpacked);
        drop(body);
        permit.set(held);
        let rows = rows..self.batch.rows();
        let malformed = match result.fault {
            None => None,
            Some(Outcome::Malformed(message)) if !rows.is_empty() => Some(message),
            Some(outcome) => return ticket.answer(outcome),
        };
        if malformed.is_none() && rows.is_empty() && tally.sampled_out == 0 {
            // Nothing of it is in the batch.
            shared.metrics.stored(transport, &tally);
            return ticket.answer(done(&tally, None));
        }
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = now;
        self.entries.push(Entry {
            rows,
            tally,
            malformed,
            transport,
            permit,
            ticket,
        });
    }

    /// Decompresses, transcodes and processes a message into the batch.
    fn process(
        &mut self,
        message: &[u8],
        (encoding, json): (Encoding, bool),
        pod: Option<&Pod>,
        permit: &mut Permit,
        tally: &mut Tally,
    ) -> Processed {
        let limit = self.parts.shared.max_request_bytes;
        let wire = message.len();
        let mut unpacked = 0;
        let mut reserve = |bytes: usize| {
            // Its columns will take about as much again.
            unpacked = bytes;
            permit.grow_to(wire.saturating_add(bytes.saturating_mul(2)))
        };
        let plain = match self
            .parts
            .decompressor
            .decompress(encoding, message, &mut reserve)
        {
            Ok(plain) => plain,
            Err(fault) => {
                return Processed {
                    fault: Some(fault.into()),
                    unpacked,
                };
            }
        };
        let transcoded;
        let request = if json {
            if let Err(refused) = permit.grow_to(wire.saturating_add(plain.len() * 2)) {
                return Processed {
                    fault: Some(refused.into()),
                    unpacked,
                };
            }
            match json::to_protobuf(plain, limit) {
                Ok(bytes) => transcoded = bytes,
                Err(error) => {
                    let message = format!("the body is not OTLP in JSON: {error}").into();
                    return Processed {
                        fault: Some(Outcome::Malformed(message)),
                        unpacked,
                    };
                }
            }
            unpacked += transcoded.len();
            &transcoded
        } else {
            plain
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let (batch, recorder) = (&mut self.batch, &mut self.recorder);
        let result = self
            .processor
            .process_from(pod, request, now_ns, batch, recorder, tally);
        let fault = result.err().map(|error| {
            let kept = match tally.accepted() {
                0 => String::new(),
                kept => format!("; the {kept} spans before that were taken"),
            };
            Outcome::Malformed(format!("the body is not OTLP: {error}{kept}").into())
        });
        Processed { fault, unpacked }
    }

    /// Processing panicked, which is a bug: what the batch holds is in doubt. Its other
    /// requests are told to retry, since nothing of them is stored.
    fn recover(&mut self, ticket: Ticket, peer: PeerInfo) {
        self.parts.shared.metrics.worker_panics.inc();
        tracing::error!(peer = %peer.address, "a request made a worker panic; it was refused");
        let rules = Arc::clone(&self.parts.rules.borrow());
        self.processor = Processor::with_rules(rules);
        self.recorder = Recorder::default();
        self.batch = (self.parts.make_batch)();
        self.entries.clear();
        self.first = None;
        ticket.answer(Outcome::Internal(
            "processing the request failed; this is a bug".into(),
        ));
    }
}

struct Processed {
    fault: Option<Outcome>,
    /// Bytes that decompression and transcoding made.
    unpacked: usize,
}

impl From<Refused> for Outcome {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string().into();
        match refused {
            Refused::Full => Self::Unavailable(message),
            Refused::NeverFits { .. } => Self::TooLarge(message),
        }
    }
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge { .. } => Self::TooLarge(fault.to_string().into()),
            Fault::Malformed { .. } => Self::Malformed(fault.to_string().into()),
            Fault::Refused(refused) => refused.into(),
        }
    }
}

/// Gives the token of an export back and wakes its worker, however the export ended.
struct ExportDone {
    token: Sender<()>,
    wake: Sender<Message>,
    _in_flight: Exporting,
}

impl Drop for ExportDone {
    fn drop(&mut self) {
        // Both fail only when the worker is gone.
        let _ = self.token.try_send(());
        let _ = self.wake.send(Message::Wake);
    }
}

/// Answers a batch's requests.
fn settle(shared: &Shared, entries: Vec<Entry>, outcome: ExportOutcome) {
    let refused = match outcome {
        ExportOutcome::Stored => Vec::new(),
        ExportOutcome::Partial(refused) => refused,
        ExportOutcome::Unavailable(why) => {
            let why: Arc<str> = why.into();
            for entry in entries {
                shared.metrics.unavailable(entry.transport, &entry.tally);
                entry.ticket.answer(Outcome::Unavailable(Arc::clone(&why)));
            }
            return;
        }
    };
    for mut entry in entries {
        let reason = subtract(&mut entry, &refused);
        shared.metrics.stored(entry.transport, &entry.tally);
        // Before the answer, so that whoever is answered finds its memory free.
        drop(entry.permit);
        entry.ticket.answer(match entry.malformed {
            Some(message) => Outcome::Malformed(message),
            None => done(&entry.tally, reason),
        });
    }
}

/// Counts an entry's refused rows; returns the first reason.
fn subtract<'a>(entry: &mut Entry, refused: &'a [RefusedRows]) -> Option<&'a str> {
    let mut reason = None;
    for rows in refused {
        let start = rows.range.start.max(entry.rows.start);
        let end = rows.range.end.min(entry.rows.end);
        if start < end {
            let count = (end - start) as u64;
            entry.tally.kept = entry.tally.kept.saturating_sub(count);
            entry.tally.reject(Rejection::Store, count);
            reason.get_or_insert(&*rows.reason);
        }
    }
    reason
}

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
