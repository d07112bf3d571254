//! Spans to records.

use super::{OWN, VERSION};
use crate::record::{ResourceRecord, ScopeRecord, SpanRecord, SpanSink};
use crate::{OtlpSink, write};

/// A [`SpanSink`] that writes records into a buffer.
#[derive(Debug)]
pub struct RecordWriter {
    sink: OtlpSink,
    spans: u64,
}

impl Default for RecordWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordWriter {
    /// No records yet, in a buffer of its own.
    pub fn new() -> Self {
        Self::append_to(Vec::new())
    }

    /// Records that begin after what is in `out`.
    pub fn append_to(mut out: Vec<u8>) -> Self {
        write::uint(&mut out, OWN, u64::from(VERSION));
        Self {
            sink: OtlpSink::append_to(out),
            spans: 0,
        }
    }

    /// Bytes in the buffer.
    pub fn bytes(&self) -> usize {
        self.sink.len()
    }

    /// Spans written.
    pub fn spans(&self) -> u64 {
        self.spans
    }

    /// The buffer with the finished records.
    pub fn finish(self) -> Vec<u8> {
        self.sink.into_bytes()
    }
}

impl SpanSink for RecordWriter {
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.sink.resource(resource);
        write::bytes(&mut self.sink.out, OWN, resource.service.as_bytes());
    }

    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.sink.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        self.sink.span(span);
        self.spans += 1;
    }
}
