//! The messages of Tempo's API that Grafana reads, by their field numbers (`tempopb`, Apache-2.0).

use prost::Message;

/// What it took to find a trace. We count nothing here.
#[derive(Clone, PartialEq, Message)]
pub struct TraceByIdMetrics {}

/// The answer to `/api/v2/traces/{id}`, without its field 1, which is the trace: that is encoded span by span.
#[derive(Clone, PartialEq, Message)]
pub struct TraceByIdRest {
    /// Never absent, since Grafana reads it without a look.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<TraceByIdMetrics>,
    /// Whether that is all of it.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// What is missing, and why.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// Whether an answer has everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PartialStatus {
    /// It has.
    Complete = 0,
    /// It was cut; the message says why.
    Partial = 1,
}
