//! Records: spans after processing, as bytes that outlive their request.
//!
//! Records are an `ExportTraceServiceRequest`, so whatever reads OTLP reads them, with fields of our own
//! under numbers that OTLP does not use:
//!
//! | message | field | what |
//! |---|---|---|
//! | the request | 2000, varint | the version, [`VERSION`]; the first field of all |
//! | `ResourceSpans` | 2000, bytes | the service under which its spans are stored and measured |
//!
//! [`RecordWriter`] is a [`SpanSink`](crate::record::SpanSink) that writes them; [`read`] drives another sink with
//! them: the same calls, in the same order, with the same values. So what is made of spans, such as a batch
//! of columns, can be made again from their records. [`pick`] takes the spans of some traces only.
//!
//! Fields are written anew, field by field, rather than copied from the request: a request may hold
//! what processing has not looked at (unknown fields, or a name that a second one replaces), and records
//! must not have what a rule would have hidden. A resource and its scope are written once for the spans
//! that follow them, and lengths are known or guessed before their content is written, so that writing
//! costs little more than copying.
//!
//! A field that a later version adds is skipped by an earlier one. The number of the version is raised
//! only when an earlier one would read something wrong; it then refuses the records
//! ([`RecordsError::Version`]).
//!
//! Reading takes memory in proportion to the longest span, whatever the bytes are.

mod read;
mod write;

pub use read::{InvalidSpan, RecordsError, check_version, pick, read, read_request};
pub use write::RecordWriter;

/// The version that is written, and the highest that can be read.
pub const VERSION: u32 = 1;

/// The number of our own field in the messages that have one.
pub(crate) const OWN: u32 = 2000;
