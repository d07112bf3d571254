//! What the log keeps of a request: its records, then the measures of what sampling left out, then the
//! length of these in 4 bytes, little endian.
//!
//! Spans that are kept are measured from their records, in the same order, whenever the batch is made.

use std::ops::Range;
use std::sync::Arc;

use spanloom_log::{Position, ReadError, Request};
use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_otlp::records::{self, RecordWriter, RecordsError};

use crate::measure::{BundleError, Measures, MergeLimits, Recorder, TextId};
use crate::process::{Rules, is_probe};

/// What is added was bounded when it was measured.
const UNLIMITED: MergeLimits = MergeLimits {
    max_bytes: usize::MAX,
    oldest_ns: 0,
    newest_ns: u64::MAX,
};

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PayloadError {
    /// It is shorter than it says.
    #[error("the payload is cut")]
    Cut,
    /// Its records cannot be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// Its measures cannot be read.
    #[error(transparent)]
    Measures(#[from] BundleError),
    /// The log does not give it.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// What becomes a payload.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    pub(crate) records: RecordWriter,
}

impl Payload {
    /// Makes room for the records of a request of so many bytes, before any is written: they are about as
    /// long, with what is known of the sender's pod.
    pub(crate) fn expect(&mut self, bytes: usize) {
        let room = bytes.saturating_add(bytes / 8).saturating_add(512);
        self.records = RecordWriter::append_to(Vec::with_capacity(room));
    }

    /// The payload, with what sampling left out; that is added to the batch's measures too.
    pub(crate) fn finish(self, left_out: &Measures, recorder: &mut Recorder) -> Vec<u8> {
        let mut bytes = self.records.finish();
        let start = bytes.len();
        if !left_out.is_empty() {
            left_out.encode(&mut bytes);
            recorder.merge(left_out, &UNLIMITED);
        }
        let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes
    }
}

fn split(payload: &[u8]) -> Result<(&[u8], &[u8]), PayloadError> {
    let (rest, length) = payload.split_last_chunk::<4>().ok_or(PayloadError::Cut)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| PayloadError::Cut)?;
    let at = rest.len().checked_sub(length).ok_or(PayloadError::Cut)?;
    rest.split_at_checked(at).ok_or(PayloadError::Cut)
}

/// Writes a payload's spans and measures to a batch, as they were written first. Says how many spans.
pub(crate) fn replay<S: SpanSink>(
    payload: &[u8],
    rules: &Arc<Rules>,
    batch: &mut S,
    recorder: &mut Recorder,
) -> Result<u64, PayloadError> {
    let (spans, measures) = split(payload)?;
    let measures = match measures {
        [] => None,
        bundle => Some(Measures::decode(bundle)?),
    };
    let mut recording = Recording::new(Arc::clone(rules), batch, recorder);
    let count = records::read(spans, &mut recording)?;
    if let Some(measures) = measures {
        recorder.merge(&measures, &UNLIMITED);
    }
    Ok(count)
}

/// Writes a payload's spans to a batch, without measures.
pub(crate) fn spans<S: SpanSink>(payload: &[u8], batch: &mut S) -> Result<u64, PayloadError> {
    let (spans, _) = split(payload)?;
    Ok(records::read(spans, batch)?)
}

/// The payload of some rows of another payload.
pub(crate) fn part(wanted: &Range<usize>, payload: &[u8]) -> Result<Vec<u8>, PayloadError> {
    let mut picked = Picked::new(wanted);
    spans(payload, &mut picked)?;
    Ok(picked.finish())
}

/// The payload of some rows of a batch, without measures: these are stored.
pub(crate) fn rows(
    wanted: &Range<usize>,
    requests: &[Position],
    read: impl Fn(Position) -> Result<Request, ReadError>,
) -> Result<Vec<u8>, PayloadError> {
    let mut picked = Picked::new(wanted);
    for position in requests {
        let request = read(*position)?;
        spans(&request.payload, &mut picked)?;
    }
    Ok(picked.finish())
}

/// Hands on the rows that are wanted; a resource or scope without any costs a few bytes.
struct Picked<'w> {
    wanted: &'w Range<usize>,
    row: usize,
    out: RecordWriter,
}

impl<'w> Picked<'w> {
    fn new(wanted: &'w Range<usize>) -> Self {
        Self {
            wanted,
            row: 0,
            out: RecordWriter::new(),
        }
    }

    fn finish(self) -> Vec<u8> {
        Payload { records: self.out }.finish(&Measures::default(), &mut Recorder::default())
    }
}

impl SpanSink for Picked<'_> {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.out.resource(resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.out.scope(scope);
    }

    fn span(&mut self, span: &SpanRecord<'_>) {
        if self.wanted.contains(&self.row) {
            self.out.span(span);
        }
        self.row += 1;
    }
}

/// Measures spans on their way into a sink.
pub(crate) struct Recording<'w, S> {
    rules: Arc<Rules>,
    sink: &'w mut S,
    recorder: &'w mut Recorder,
    /// The current resource's service; none of a probe.
    service: Option<TextId>,
}

impl<'w, S: SpanSink> Recording<'w, S> {
    pub(crate) fn new(rules: Arc<Rules>, sink: &'w mut S, recorder: &'w mut Recorder) -> Self {
        Self {
            rules,
            sink,
            recorder,
            service: None,
        }
    }
}

impl<S: SpanSink> SpanSink for Recording<'_, S> {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        let is_probe = is_probe(&self.rules, resource.attributes);
        self.service = (!is_probe).then(|| self.recorder.text(resource.service));
        self.sink.resource(resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.sink.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        if let Some(service) = self.service {
            self.recorder.span(service, span);
        }
        self.sink.span(span);
    }
}
