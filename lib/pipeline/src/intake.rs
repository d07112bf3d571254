//! Intake: a received request is decompressed, made OTLP by its codec, and processed into a batch.
//!
//! It knows neither when batches are sent nor what becomes of them.

use std::net::SocketAddr;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use spanloom_otlp::records;
use tokio::sync::watch;

use crate::admission::{Permit, Refused};
use crate::batch::Batch;
use crate::batcher::Open;
use crate::buffers::Buffer;
use crate::clock;
use crate::codec::{CodecError, Form, Forwarded, Ignored};
use crate::config::Config;
use crate::decompress::{Decompressor, Fault};
use crate::durable::{Payload, Recording};
use crate::measure::{Measures, MergeLimits, Recorder};
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
    /// What came with it from outside.
    pub(crate) outside: Outside,
    /// What a log keeps of it, if there is one.
    pub(crate) payload: Option<Vec<u8>>,
    /// Why the request, or the rest of it, could not be read.
    pub(crate) fault: Option<Outcome>,
    /// As much memory as the batch holds of it.
    pub(crate) permit: Permit,
}

/// Measures that came with a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outside {
    /// There are some, so that the request is not done before they are stored.
    pub(crate) is_there: bool,
    /// What of them was not taken.
    pub(crate) left_out: u64,
}

/// How a pod is known, and what it is called in the accounts.
const POD_UID: &str = "k8s.pod.uid";
const POD_NAME: &str = "k8s.pod.name";

/// What measures of a sidecar may come to in one batch, in bytes.
const MAX_MEASURES_BYTES: usize = 16 << 20;

/// Processing panicked, which is a bug: what the batch holds is in doubt.
pub(crate) struct Panicked(pub(crate) Request);

/// Takes requests; one per worker.
pub(crate) struct Intake {
    rules: watch::Receiver<Arc<Rules>>,
    decompressor: Decompressor,
    max_request_bytes: usize,
    table: Table,
}

/// What an unpacked request is worked on with.
struct Table {
    processor: Processor,
    /// A log keeps requests.
    is_logged: bool,
    /// What is done here to the requests of applications.
    mode: Mode,
    /// This agent's node, in the accounts.
    node: Arc<str>,
    /// Measures of what sampling leaves out of a request that is logged.
    left_out: Recorder,
}

impl Intake {
    pub(crate) fn new(
        mut rules: watch::Receiver<Arc<Rules>>,
        config: &Config,
    ) -> std::io::Result<Self> {
        let max_request_bytes = config.max_request_bytes;
        let processor = Processor::with_rules(Arc::clone(&rules.borrow_and_update()));
        Ok(Self {
            rules,
            decompressor: Decompressor::new(max_request_bytes)?,
            max_request_bytes,
            table: Table {
                processor,
                is_logged: config.acknowledge.log().is_some(),
                mode: config.mode,
                node: config.accounts.node.as_str().into(),
                left_out: Recorder::default(),
            },
        })
    }

    /// Forgets what a panic has left behind.
    pub(crate) fn reset(&mut self) {
        self.table.processor = Processor::with_rules(Arc::clone(&self.rules.borrow()));
        self.table.left_out = Recorder::default();
    }

    /// Writes a request's spans and measures to the batch.
    pub(crate) fn take<B: Batch>(
        &mut self,
        job: Job,
        open: &mut Open<B>,
    ) -> Result<Taken, Box<Panicked>> {
        if self.rules.has_changed().unwrap_or(false) {
            let rules = Arc::clone(&self.rules.borrow_and_update());
            self.table.processor = Processor::with_rules(rules);
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
        let mut outside = Outside::default();
        let mut payload = self.table.is_logged.then(Payload::default);
        let work = AssertUnwindSafe(|| {
            let message = body.get(start..).unwrap_or_default();
            let out = (&mut *open, payload.as_mut());
            let counts = (&mut tally, &mut outside);
            self.process(message, &form, &sender, &mut permit, counts, out)
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
        let left_out = self.table.left_out.take();
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
            outside,
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
        (tally, outside): (&mut Tally, &mut Outside),
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
        if plain.len() > codec.max_bytes() {
            let limit = codec.max_bytes();
            let why = format!("the message is larger than the limit of {limit} bytes");
            return (Err(Outcome::TooLarge(why.into())), unpacked);
        }
        if let Some(forwarded) = codec.forwarded(plain) {
            let result = forwarded.map_err(Outcome::from).and_then(|forwarded| {
                let counts = (tally, outside);
                self.table
                    .forwarded(&forwarded, sender, counts, (open, payload))
            });
            return (result, unpacked);
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
        let table = &mut self.table;
        let origin = process::Origin {
            mode: table.mode,
            ..sender.into()
        };
        (
            table.walk(origin, &request, tally, (open, payload)),
            unpacked,
        )
    }
}

impl Table {
    /// Takes what a sidecar sends.
    fn forwarded<B: Batch>(
        &mut self,
        forwarded: &Forwarded<'_>,
        sender: &Sender,
        (tally, outside): (&mut Tally, &mut Outside),
        (open, payload): (&mut Open<B>, Option<&mut Payload>),
    ) -> Result<(), Outcome> {
        let malformed =
            |error: &dyn std::fmt::Display| Outcome::Malformed(error.to_string().into());
        let pod = match sender {
            Sender::Pod(pod) | Sender::Gateway(pod) => Some(pod),
            Sender::Unasked => None,
            Sender::Unknown => return Err(Outcome::Denied("the sender is not known".into())),
        };
        if pod.is_some_and(|pod| pod.attribute(POD_UID) != Some(&*forwarded.pod_uid)) {
            let why = "the message names another pod than the sender's token";
            return Err(Outcome::Denied(why.into()));
        }
        // Both are checked before something of either is taken.
        let measures = match &*forwarded.measures {
            [] => None,
            bundle => Some(Measures::decode(bundle).map_err(|error| malformed(&error))?),
        };
        if !forwarded.records.is_empty() {
            records::check_version(&forwarded.records).map_err(|error| malformed(&error))?;
        }
        if let Some(mut measures) = measures {
            for row in &mut measures.accounts {
                row.node = Arc::clone(&self.node);
                if let Some(name) = pod.and_then(|pod| pod.attribute(POD_NAME)) {
                    row.agent = name.into();
                }
            }
            let now_ns = clock::now_ns();
            let limits = MergeLimits {
                max_bytes: MAX_MEASURES_BYTES,
                oldest_ns: now_ns.saturating_sub(self.processor.rules().retention_ns),
                newest_ns: now_ns.saturating_add(process::FUTURE_NS),
            };
            let recorder = match self.is_logged {
                // They are kept with the records.
                true => &mut self.left_out,
                false => &mut open.recorder,
            };
            let left_out = recorder.merge(&measures, &limits);
            outside.is_there = true;
            outside.left_out = left_out.spans + left_out.half_edges + left_out.accounts;
        }
        let mode = match (forwarded.is_current, self.is_logged) {
            (true, true) => Mode::Check,
            (true, false) => Mode::Measure,
            (false, _) => Mode::Full,
        };
        let origin = process::Origin {
            mode,
            ..sender.into()
        };
        self.walk(origin, &forwarded.records, tally, (open, payload))
    }

    /// Processes a request into the batch, and into what a log keeps.
    fn walk<B: Batch>(
        &mut self,
        origin: process::Origin<'_>,
        request: &[u8],
        tally: &mut Tally,
        (open, payload): (&mut Open<B>, Option<&mut Payload>),
    ) -> Result<(), Outcome> {
        let now_ns = clock::now_ns();
        let (batch, recorder) = (&mut open.batch, &mut open.recorder);
        let processor = &mut self.processor;
        let result = match payload {
            None => processor.process_from(origin, request, now_ns, batch, recorder, tally),
            Some(payload) => {
                let origin = process::Origin {
                    mode: match origin.mode {
                        // What is kept is measured from its records.
                        Mode::Full => Mode::MeasureSampledOut,
                        mode => mode,
                    },
                    ..origin
                };
                payload.expect(request.len());
                let rules = Arc::clone(processor.rules());
                let mut both = (batch, &mut payload.records);
                let mut sink = Recording::new(rules, &mut both, recorder);
                let left_out = &mut self.left_out;
                processor.process_from(origin, request, now_ns, &mut sink, left_out, tally)
            }
        };
        result.map_err(|error| {
            let kept = match tally.accepted() {
                0 => String::new(),
                kept => format!("; the {kept} spans before that were accepted"),
            };
            Outcome::Malformed(format!("the body is not valid OTLP: {error}{kept}").into())
        })
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
