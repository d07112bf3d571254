//! The messages of `tempopb.StreamingQuerier` by their field numbers. What we neither read nor say is left out.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use prost::Message;
use spanloom_traceql::OwnedValue;

use crate::tempo::wire::PartialStatus;

/// A search; times are in seconds.
#[derive(Clone, PartialEq, Message)]
pub struct SearchRequest {
    /// Attributes and their values: the older form.
    #[prost(btree_map = "string, string", tag = "1")]
    pub tags: BTreeMap<String, String>,
    /// The shortest trace, in the older form.
    #[prost(uint32, tag = "2")]
    pub min_duration_ms: u32,
    /// The longest trace, in the older form.
    #[prost(uint32, tag = "3")]
    pub max_duration_ms: u32,
    /// How many traces are wanted.
    #[prost(uint32, tag = "4")]
    pub limit: u32,
    /// Where the window begins.
    #[prost(uint32, tag = "5")]
    pub start: u32,
    /// Where it ends.
    #[prost(uint32, tag = "6")]
    pub end: u32,
    /// TraceQL.
    #[prost(string, tag = "8")]
    pub query: String,
    /// How many spans of each spanset are wanted.
    #[prost(uint32, tag = "9")]
    pub spans_per_span_set: u32,
}

/// Traces that were not in the messages before, and how far the search is.
#[derive(Clone, PartialEq, Message)]
pub struct SearchResponse {
    /// The traces.
    #[prost(message, repeated, tag = "1")]
    pub traces: Vec<FoundTrace>,
    /// Never absent: Grafana draws its progress from it.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
}

/// A trace that matches.
#[derive(Clone, PartialEq, Message)]
pub struct FoundTrace {
    /// Its id, in hexadecimal.
    #[prost(string, tag = "1")]
    pub trace_id: String,
    /// The service of its root.
    #[prost(string, tag = "2")]
    pub root_service_name: String,
    /// The name of its root.
    #[prost(string, tag = "3")]
    pub root_trace_name: String,
    /// Its start.
    #[prost(uint64, tag = "4")]
    pub start_time_unix_nano: u64,
    /// Its duration.
    #[prost(uint32, tag = "5")]
    pub duration_ms: u32,
    /// The spans that match. The field before, for one spanset, hides this one where it is set.
    #[prost(message, repeated, tag = "7")]
    pub span_sets: Vec<SpanSet>,
    /// Its spans by service.
    #[prost(btree_map = "string, message", tag = "8")]
    pub service_stats: BTreeMap<String, ServiceStats>,
}

/// How many spans a service has in a trace.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct ServiceStats {
    /// All of them.
    #[prost(uint32, tag = "1")]
    pub span_count: u32,
    /// Those with status error.
    #[prost(uint32, tag = "2")]
    pub error_count: u32,
}

/// Spans that match together.
#[derive(Clone, PartialEq, Message)]
pub struct SpanSet {
    /// As many as are wanted.
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<FoundSpan>,
    /// How many there are.
    #[prost(uint32, tag = "2")]
    pub matched: u32,
    /// What is said of all of them.
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<KeyValue>,
}

/// A span that matches.
#[derive(Clone, PartialEq, Message)]
pub struct FoundSpan {
    /// Its id, in hexadecimal.
    #[prost(string, tag = "1")]
    pub span_id: String,
    /// Its name, where the query reads names.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its start.
    #[prost(uint64, tag = "3")]
    pub start_time_unix_nano: u64,
    /// Its duration.
    #[prost(uint64, tag = "4")]
    pub duration_nanos: u64,
    /// What the query read and selects.
    #[prost(message, repeated, tag = "5")]
    pub attributes: Vec<KeyValue>,
}

/// How far a query is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct SearchMetrics {
    /// Traces that were looked at.
    #[prost(uint32, tag = "1")]
    pub inspected_traces: u32,
    /// What is done.
    #[prost(uint32, tag = "4")]
    pub completed_jobs: u32,
    /// What there is to do.
    #[prost(uint32, tag = "5")]
    pub total_jobs: u32,
    /// Spans that were looked at.
    #[prost(uint64, tag = "7")]
    pub inspected_spans: u64,
}

/// A list of keys; times are in seconds.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagsRequest {
    /// The scope, if not all of them.
    #[prost(string, tag = "1")]
    pub scope: String,
    /// A filter.
    #[prost(string, tag = "2")]
    pub query: String,
    /// Where the window begins.
    #[prost(uint32, tag = "3")]
    pub start: u32,
    /// Where it ends.
    #[prost(uint32, tag = "4")]
    pub end: u32,
    /// How many keys are wanted of a scope.
    #[prost(uint32, tag = "5")]
    pub max_tags_per_scope: u32,
}

/// Keys that were not in the messages before.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagsResponse {
    /// The keys.
    #[prost(string, repeated, tag = "1")]
    pub tag_names: Vec<String>,
    /// How far the list is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// Keys by scope that were not in the messages before.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagsV2Response {
    /// The scopes.
    #[prost(message, repeated, tag = "1")]
    pub scopes: Vec<TagScope>,
    /// How far the list is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// A scope and keys of it.
#[derive(Clone, PartialEq, Message)]
pub struct TagScope {
    /// The scope.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The keys.
    #[prost(string, repeated, tag = "2")]
    pub tags: Vec<String>,
}

/// A list of a key's values; times are in seconds.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagValuesRequest {
    /// The key.
    #[prost(string, tag = "1")]
    pub tag_name: String,
    /// A filter.
    #[prost(string, tag = "2")]
    pub query: String,
    /// Where the window begins.
    #[prost(uint32, tag = "4")]
    pub start: u32,
    /// Where it ends.
    #[prost(uint32, tag = "5")]
    pub end: u32,
    /// How many values are wanted.
    #[prost(uint32, tag = "6")]
    pub max_tag_values: u32,
}

/// Values that were not in the messages before.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagValuesResponse {
    /// The values.
    #[prost(string, repeated, tag = "1")]
    pub tag_values: Vec<String>,
    /// How far the list is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// Values with their types that were not in the messages before.
#[derive(Clone, PartialEq, Message)]
pub struct SearchTagValuesV2Response {
    /// The values.
    #[prost(message, repeated, tag = "1")]
    pub tag_values: Vec<TagValue>,
    /// How far the list is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<MetadataMetrics>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct TagValue {
    /// Its type, by which Grafana writes it into a query.
    #[prost(string, tag = "1")]
    pub r#type: String,
    /// Its text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// How far a list is.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct MetadataMetrics {
    /// What there is to do.
    #[prost(uint32, tag = "2")]
    pub total_jobs: u32,
    /// What is done.
    #[prost(uint32, tag = "3")]
    pub completed_jobs: u32,
}

/// A query for series with a sample for each step; times are in nanoseconds.
#[derive(Clone, PartialEq, Message)]
pub struct QueryRangeRequest {
    /// TraceQL.
    #[prost(string, tag = "1")]
    pub query: String,
    /// Where the window begins.
    #[prost(uint64, tag = "2")]
    pub start: u64,
    /// Where it ends.
    #[prost(uint64, tag = "3")]
    pub end: u64,
    /// How long a step is.
    #[prost(uint64, tag = "4")]
    pub step: u64,
    /// How many exemplars are wanted.
    #[prost(uint32, tag = "16")]
    pub exemplars: u32,
}

/// Series, which a client merges with those of the messages before.
#[derive(Clone, PartialEq, Message)]
pub struct QueryRangeResponse {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<TimeSeries>,
    /// How far the query is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
    /// Whether that is all of it.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// What is missing, and why.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// A series.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// What tells it from the others.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// Its samples, in the order of time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    /// Examples, in the order of time.
    #[prost(message, repeated, tag = "4")]
    pub exemplars: Vec<Exemplar>,
}

/// A sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// Its value.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// When it is.
    #[prost(int64, tag = "2")]
    pub timestamp_ms: i64,
}

/// A span as an example.
#[derive(Clone, PartialEq, Message)]
pub struct Exemplar {
    /// Which.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// What it adds.
    #[prost(double, tag = "2")]
    pub value: f64,
    /// When it starts.
    #[prost(int64, tag = "3")]
    pub timestamp_ms: i64,
}

/// A query for series with one sample; times are in nanoseconds.
#[derive(Clone, PartialEq, Message)]
pub struct QueryInstantRequest {
    /// TraceQL.
    #[prost(string, tag = "1")]
    pub query: String,
    /// Where the window begins.
    #[prost(uint64, tag = "2")]
    pub start: u64,
    /// Where it ends.
    #[prost(uint64, tag = "3")]
    pub end: u64,
}

/// Series with one sample; for a client this replaces the message before.
#[derive(Clone, PartialEq, Message)]
pub struct QueryInstantResponse {
    /// The series.
    #[prost(message, repeated, tag = "1")]
    pub series: Vec<InstantSeries>,
    /// How far the query is.
    #[prost(message, optional, tag = "2")]
    pub metrics: Option<SearchMetrics>,
    /// Whether that is all of it.
    #[prost(enumeration = "PartialStatus", tag = "3")]
    pub status: i32,
    /// What is missing, and why.
    #[prost(string, tag = "4")]
    pub message: String,
}

/// A series with one sample.
#[derive(Clone, PartialEq, Message)]
pub struct InstantSeries {
    /// What tells it from the others.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<KeyValue>,
    /// The sample.
    #[prost(double, tag = "2")]
    pub value: f64,
}

/// Attributes or labels.
pub fn key_values(pairs: &[(String, OwnedValue)]) -> Vec<KeyValue> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| KeyValue {
            key: key.clone(),
            value: Some(any(value)),
            ..KeyValue::default()
        })
        .collect()
}

fn any(value: &OwnedValue) -> AnyValue {
    let value = match value {
        OwnedValue::Int(number) => Value::IntValue(*number),
        OwnedValue::Float(number) => Value::DoubleValue(*number),
        OwnedValue::Bool(value) => Value::BoolValue(*value),
        OwnedValue::Array(values) => Value::ArrayValue(ArrayValue {
            values: values.iter().map(any).collect(),
        }),
        text => Value::StringValue(text.to_string()),
    };
    AnyValue { value: Some(value) }
}
