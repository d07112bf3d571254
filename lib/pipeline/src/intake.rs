//! Intake: a received request is decompressed, made OTLP by its codec, and processed into a batch.
//!
//! It knows neither when batches are sent nor what becomes of them.

use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::watch;

use crate::admission::{Permit, Refused};
use crate::batch::Batch;
use crate::batcher::Open;
use crate::buffers::Buffer;
use crate::clock;
use crate::codec::{CodecError, Form, Ignored};
use crate::decompress::{Decompressor, Fault};
use crate::durable::{Payload, Recording};
use crate::measure::Recorder;
use crate::outcome::Outcome;
use crate::peers::Sender;
use crate::process::{self, Mode, Processor, Rules};
use crate::receive::Origin;
use crate::repeat::Ticket;
use crate::settlement::Request;
use crate::tally::Tally;

/// A request that was received and admitted.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) body: Buffer,
    /// Where the message begins in `body`: after gRPC's prefix.
    pub(crate) start: usize,
    pub(crate) form: Form,
    pub(crate) origin: Origin,
    pub(crate) address: SocketAddr,
    /// Who sent it.
    pub(crate) sender: Sender,
    pub(crate) permit: Permit,
    pub(crate) ticket: Ticket,
}

impl Job {
    /// Bytes received.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// What a request left in the batch.
pub(crate) struct Taken {
    pub(crate) request: Request,
    /// Its rows in the batch.
    pub(crate) rows: Range<usize>,
    /// What a log keeps of it, if there is one.
    pub(crate) payload: Option<Vec<u8>>,
    /// Why the request, or the rest of it, could not be read.
    pub(crate) fault: Option<Outcome>,
    /// As much memory as the batch holds of it.
    pub(crate) permit: Permit,
}

/// Processing panicked, which is a bug: what the batch holds is in doubt.
pub(crate) struct Panicked(pub(crate) Request);

/// Takes requests; one per worker.
pub(crate) struct Intake {
    rules: watch::Receiver<Arc<Rules>>,
    processor: Processor,
    decompressor: Decompressor,
    max_request_bytes: usize,
    /// A log keeps requests.
    is_logged: bool,
    /// Measures of what sampling leaves out of a request that is logged.
    left_out: Recorder,
}

impl Intake {
    pub(crate) fn new(
        mut rules: watch::Receiver<Arc<Rules>>,
        max_request_bytes: usize,
        is_logged: bool,
    ) -> std::io::Result<Self> {
        let processor = Processor::with_rules(Arc::clone(&rules.borrow_and_update()));
        Ok(Self {
            rules,
            processor,
            decompressor: Decompressor::new(max_request_bytes)?,
            max_request_bytes,
            is_logged,
            left_out: Recorder::default(),
        })
    }

    /// Forgets what a panic has left behind.
    pub(crate) fn reset(&mut self) {
        self.processor = Processor::with_rules(Arc::clone(&self.rules.borrow()));
        self.left_out = Recorder::default();
    }

    /// Writes a request's spans and measures to the batch.
    pub(crate) fn take<B: Batch>(
        &mut self,
        job: Job,
        open: &mut Open<B>,
    ) -> Result<Taken, Box<Panicked>> {
        if self.rules.has_changed().unwrap_or(false) {
            let rules = Arc::clone(&self.rules.borrow_and_update());
            self.processor = Processor::with_rules(rules);
        }
        let Job {
            body,
            start,
            form,
            origin,
            address,
            sender,
            mut permit,
            ticket,
        } = job;
        let (rows, bytes) = (open.batch.rows(), open.batch.bytes());
        let mut tally = Tally::default();
        let mut payload = self.is_logged.then(Payload::default);
        let work = AssertUnwindSafe(|| {
            let message = body.get(start..).unwrap_or_default();
            let out = (&mut *open, payload.as_mut());
            self.process(message, &form, &sender, &mut permit, &mut tally, out)
        });
        let result = catch_unwind(work);
        let mut request = Request {
            origin,
            bytes: body.len(),
            tally,
            ticket,
        };
        let Ok((result, unpacked)) = result else {
            tracing::error!(peer = %address, "a request caused a worker to panic; it was rejected");
            self.reset();
            request.tally = Tally::default();
            return Err(Box::new(Panicked(request)));
        };
        let left_out = self.left_out.take();
        let payload = payload.map(|payload| payload.finish(&left_out, &mut open.recorder));
        let grown = open.batch.bytes().saturating_sub(bytes);
        // The columns themselves, and their copy while they are sent.
        let held = grown.saturating_mul(2);
        form.expansion().learn(body.len(), held + unpacked);
        drop(body);
        permit.set(held);
        Ok(Taken {
            request,
            rows: rows..open.batch.rows(),
            payload,
            fault: result.err(),
            permit,
        })
    }

    /// Decompresses, transcodes and processes a message into the batch. Says, beside the result, how many
    /// bytes decompression and transcoding made.
    fn process<B: Batch>(
        &mut self,
        message: &[u8],
        form: &Form,
        sender: &Sender,
        permit: &mut Permit,
        tally: &mut Tally,
        (open, payload): (&mut Open<B>, Option<&mut Payload>),
    ) -> (Result<(), Outcome>, usize) {
        let wire = message.len();
        let mut unpacked = 0;
        let mut reserve = |bytes: usize| {
            // Its columns will take about as much again.
            unpacked = bytes;
            permit.grow_to(wire.saturating_add(bytes.saturating_mul(2)))
        };
        let plain = match self
            .decompressor
            .decompress(form.encoding, message, &mut reserve)
        {
            Ok(plain) => plain,
            Err(fault) => return (Err(fault.into()), unpacked),
        };
        let codec = &*form.coding.codec;
        // What a codec makes of a body is smaller than the body.
        if codec.transcodes()
            && let Err(refused) = permit.grow_to(wire.saturating_add(unpacked + plain.len()))
        {
            return (Err(refused.into()), unpacked);
        }
        let mut ignored = Ignored::default();
        let request = match codec.to_otlp(plain, self.max_request_bytes, &mut ignored) {
            Ok(request) => request,
            Err(error) => return (Err(error.into()), unpacked),
        };
        tally.ignored(ignored);
        if let std::borrow::Cow::Owned(made) = &request {
            unpacked += made.len();
            let columns = made.len();
            if let Err(refused) = permit.grow_to(wire.saturating_add(unpacked + columns)) {
                return (Err(refused.into()), unpacked);
            }
        }
        let now_ns = u64::try_from(clock::since_1970().as_nanos()).unwrap_or(u64::MAX);
        let (batch, recorder) = (&mut open.batch, &mut open.recorder);
        let processor = &mut self.processor;
        let result = match payload {
            None => processor.process_from(sender, &request, now_ns, batch, recorder, tally),
            Some(payload) => {
                let origin = process::Origin {
                    mode: Mode::MeasureSampledOut,
                    ..sender.into()
                };
                payload.expect(request.len());
                let rules = Arc::clone(processor.rules());
                let mut both = (batch, &mut payload.records);
                let mut sink = Recording::new(rules, &mut both, recorder);
                let left_out = &mut self.left_out;
                processor.process_from(origin, &request, now_ns, &mut sink, left_out, tally)
            }
        };
        let result = result.map_err(|error| {
            let kept = match tally.accepted() {
                0 => String::new(),
                kept => format!("; the {kept} spans before that were accepted"),
            };
            Outcome::Malformed(format!("the body is not valid OTLP: {error}{kept}").into())
        });
        (result, unpacked)
    }
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

impl From<CodecError> for Outcome {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error.to_string().into())
    }
}
