//! A batch: records of spans, and then the message that forwards them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use prost::Message;
use spanloom_otlp::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use spanloom_otlp::records::RecordWriter;
use spanloom_pipeline::measure::Measures;
use spanloom_pipeline::{Batch, Freeze};
use spanloom_proto::sidecar::VERSION;
use spanloom_proto::sidecar::v1::ForwardRequest;

use crate::live::InForce;

/// Fast: spans are compressed on the app's node, in its own pod.
const LEVEL: i32 = 1;

/// What all messages of this process have.
#[derive(Debug)]
pub struct Origin {
    /// The pod's uid.
    pub pod_uid: String,
    /// This process.
    pub instance: [u8; 16],
    sequence: AtomicU64,
    in_force: Arc<InForce>,
}

impl Origin {
    /// A new process in this pod, whose configuration is known there.
    pub fn new(pod_uid: String, in_force: Arc<InForce>) -> Arc<Self> {
        Arc::new(Self {
            pod_uid,
            instance: rand::random(),
            sequence: AtomicU64::new(0),
            in_force,
        })
    }
}

/// Spans that are forwarded together.
#[derive(Debug)]
pub struct ForwardBatch {
    origin: Arc<Origin>,
    id: u128,
    records: RecordWriter,
    /// The hash of the configuration that was in force when it began; none while it is empty.
    begun: Option<Arc<str>>,
}

/// A batch as it is sent, always in the same bytes.
#[derive(Debug, Clone)]
pub struct Frozen {
    /// The message, compressed.
    pub body: Bytes,
    /// Spans in it.
    pub spans: usize,
}

impl ForwardBatch {
    /// An empty batch.
    pub fn new(origin: Arc<Origin>) -> Self {
        Self {
            origin,
            id: rand::random(),
            records: RecordWriter::new(),
            begun: None,
        }
    }
}

impl SpanSink for ForwardBatch {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        if self.begun.is_none() {
            self.begun = Some(self.origin.in_force.hash());
        }
        self.records.resource(resource);
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.records.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        self.records.span(span);
    }
}

impl Batch for ForwardBatch {
    type Frozen = Frozen;

    fn id(&self) -> u128 {
        self.id
    }

    fn set_id(&mut self, id: u128) {
        self.id = id;
    }

    fn rows(&self) -> usize {
        usize::try_from(self.records.spans()).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> usize {
        self.records.bytes()
    }

    fn seal(&mut self, measures: Measures) -> Freeze<Frozen> {
        let records = std::mem::take(&mut self.records);
        self.id = rand::random();
        let now = self.origin.in_force.hash();
        let config_hash = match self.begun.take() {
            // Measures are the same whatever the configuration.
            None => now,
            Some(begun) if begun == now => now,
            Some(_) => "".into(),
        };
        let origin = Arc::clone(&self.origin);
        Box::new(move || freeze(&origin, &config_hash, records, measures))
    }
}

fn freeze(origin: &Origin, config_hash: &str, records: RecordWriter, measures: Measures) -> Frozen {
    let spans = usize::try_from(records.spans()).unwrap_or(usize::MAX);
    let request = ForwardRequest {
        version: VERSION,
        pod_uid: origin.pod_uid.clone(),
        instance: Bytes::copy_from_slice(&origin.instance),
        sequence: origin.sequence.fetch_add(1, Ordering::Relaxed) + 1,
        config_hash: config_hash.to_owned(),
        records: match spans {
            0 => Bytes::new(),
            _ => records.finish().into(),
        },
        measures: bundle(measures).into(),
    };
    let plain = request.encode_to_vec();
    // It fails only where memory does; what is not compressed is larger, and as good.
    let (flag, message) = match zstd::bulk::compress(&plain, LEVEL) {
        Ok(compressed) => (1, compressed),
        Err(_) => (0, plain),
    };
    let mut body = Vec::with_capacity(5 + message.len());
    body.push(flag);
    body.extend_from_slice(
        &u32::try_from(message.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    body.extend_from_slice(&message);
    Frozen {
        body: body.into(),
        spans,
    }
}

fn bundle(mut measures: Measures) -> Vec<u8> {
    for row in &mut measures.accounts {
        // It is the collector that stores.
        if row.stage == "store" && row.reason == "stored" {
            (row.stage, row.reason) = ("forward".into(), "forwarded".into());
        }
    }
    let mut bytes = Vec::new();
    if !measures.is_empty() {
        measures.encode(&mut bytes);
    }
    bytes
}
