//! OTLP read in place: views over the bytes, JSON, limits, ids, trace context, sampling thresholds; and written: the
//! records that processed spans are kept and sent as.

mod error;
pub mod ids;
pub mod json;
pub mod nested;
pub mod record;
pub mod records;
pub mod response;
pub mod sampling;
mod sink;
pub mod text;
pub mod tracestate;
pub mod value_json;
pub mod view;
pub mod wire;
pub mod write;

pub use error::{DecodeError, DecodeErrorKind};
pub use sink::OtlpSink;
