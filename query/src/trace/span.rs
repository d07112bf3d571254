//! A trace as the API answers with it.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use crate::trace::value::Attribute;

/// The name of a number in one of OTLP's enums; unknown numbers read as the first.
pub fn name_of(names: &[&str], number: i8) -> String {
    let name = usize::try_from(number)
        .ok()
        .and_then(|place| names.get(place));
    name.or(names.first())
        .copied()
        .unwrap_or_default()
        .to_owned()
}

/// A whole trace.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// The service of the span that names the trace: its root; of several the longest, then the
    /// earliest.
    pub root_service: String,
    /// The name of the same span.
    pub root_operation: String,
    /// Whether no root span is stored: then the trace is named by its entry span, the longest of those
    /// whose parents are missing.
    pub root_missing: bool,
    /// The first span's start (RFC 3339 with nanoseconds).
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: String,
    /// From the first span's start to the last span's end, in nanoseconds.
    pub duration_ns: String,
    /// The spans of this answer.
    pub span_count: usize,
    /// Those with status error.
    pub error_count: usize,
    /// Their services, by name.
    pub services: Vec<String>,
    /// Whether the trace has more spans than one answer may hold; the earliest are here.
    pub truncated: bool,
    /// The spans in tree order: each after its parent, siblings by start.
    pub spans: Vec<Span>,
}

/// What many spans of a trace have in common; written out for each.
#[derive(Debug, Clone)]
pub struct Shared<T>(pub Arc<T>);

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// One span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Span {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The parent's id; absent when the span names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// The place in the tree: 0 for a root.
    pub depth: usize,
    /// Whether the span names a parent that is not in the trace (or is its own descendant): it
    /// stands as a root here.
    pub orphan: bool,
    /// How much earlier than its parent the span starts, which tells that their clocks differ. No
    /// time here is corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_ns: Option<String>,
    /// How many other copies of this span were stored; absent when none were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duplicates: Option<u32>,
    /// The name.
    pub name: String,
    /// The service.
    pub service: String,
    /// unspecified, internal, server, client, producer or consumer.
    pub kind: String,
    /// unset, ok or error.
    pub status: String,
    /// The status' message.
    pub status_message: String,
    /// The start (RFC 3339 with nanoseconds).
    pub start: String,
    /// The same in nanoseconds since 1970.
    pub start_unix_nano: String,
    /// The duration in nanoseconds.
    pub duration_ns: String,
    /// The W3C trace state.
    pub trace_state: String,
    /// The W3C trace flags and OTLP's bits about the parent.
    pub flags: u32,
    /// The attributes, by key.
    pub attributes: Vec<Attribute>,
    /// Attributes that the sender or the limits left out.
    pub dropped_attributes_count: u32,
    /// The events, in the order they were sent.
    pub events: Vec<Event>,
    /// Events that the sender or the limits left out.
    pub dropped_events_count: u32,
    /// The links, in the order they were sent.
    pub links: Vec<Link>,
    /// Links that the sender or the limits left out.
    pub dropped_links_count: u32,
    /// What sent the span.
    #[schema(value_type = Resource)]
    pub resource: Shared<Resource>,
    /// The instrumentation that made the span.
    #[schema(value_type = Scope)]
    pub scope: Shared<Scope>,
}

/// An event of a span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// The name.
    pub name: String,
    /// The time (RFC 3339 with nanoseconds).
    pub time: String,
    /// The same in nanoseconds since 1970.
    pub time_unix_nano: String,
    /// The attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes that the sender or the limits left out.
    pub dropped_attributes_count: u32,
}

/// A link of a span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// The linked trace.
    pub trace_id: String,
    /// The linked span.
    pub span_id: String,
    /// The link's W3C trace state.
    pub trace_state: String,
    /// The link's flags.
    pub flags: u32,
    /// The attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes that the sender or the limits left out.
    pub dropped_attributes_count: u32,
}

/// What sent a span.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// The attributes, in the order they were stored.
    pub attributes: Vec<Attribute>,
    /// Attributes that the sender or the limits left out.
    pub dropped_attributes_count: u32,
    /// The resource's schema.
    pub schema_url: String,
}

/// The instrumentation that made a span.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The name, usually the library's.
    pub name: String,
    /// The version.
    pub version: String,
    /// The attributes.
    pub attributes: Vec<Attribute>,
    /// Attributes that the sender or the limits left out.
    pub dropped_attributes_count: u32,
    /// The scope's schema.
    pub schema_url: String,
}
