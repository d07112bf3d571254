//! What the pipeline hands to whatever writes spans: a span's fields after processing, still borrowed.
//!
//! A record lives for the length of one call. Its strings point into the request's bytes or, where
//! processing changed them, into the request's arena; nothing is allocated per span. The pipeline
//! drives a [`SpanSink`] in the order of the wire: a resource, its scopes, their spans.

use crate::nested::Nested;

/// An attribute's value. `T` is the form of text: `&[u8]` on the wire ([`RawValue`]), `&str` once the
/// pipeline has checked it.
///
/// The tag fills a word, so that a value is moved word by word: with a boolean right behind a tag of one byte,
/// each move of an attribute read bytes that two stores had just written, and waited for both.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u64)]
pub enum Value<'a, T = &'a str> {
    /// An `AnyValue` with no field set.
    Empty,
    /// Text.
    Str(T),
    /// A boolean.
    Bool(bool),
    /// A signed 64-bit integer.
    Int(i64),
    /// A double; NaN and infinities are possible.
    Double(f64),
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// The message bytes of an `ArrayValue`.
    Array(Nested<'a>),
    /// The message bytes of a `KeyValueList`.
    KvList(Nested<'a>),
}

/// A value as it stands on the wire, its text not yet checked to be UTF-8.
pub type RawValue<'a> = Value<'a, &'a [u8]>;

impl<'a, T> Value<'a, T> {
    /// The value with another form of its text.
    #[inline]
    pub fn try_map<U, E>(self, text: impl FnOnce(T) -> Result<U, E>) -> Result<Value<'a, U>, E> {
        Ok(match self {
            Self::Str(value) => Value::Str(text(value)?),
            Self::Empty => Value::Empty,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Bytes(value) => Value::Bytes(value),
            Self::Array(value) => Value::Array(value),
            Self::KvList(value) => Value::KvList(value),
        })
    }
}

/// One attribute after processing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attr<'a> {
    /// The key; never empty text only by accident: OTLP allows it, so a sink must too.
    pub key: &'a str,
    /// The value.
    pub value: Value<'a>,
}

/// The service of a resource that names none (semantic conventions).
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// The service that a resource's attributes name: the first `service.name` that is text.
pub fn service_of<'a>(attributes: &[Attr<'a>]) -> &'a str {
    let named = attributes
        .iter()
        .find_map(|attribute| match attribute.value {
            Value::Str(name) if attribute.key == "service.name" && !name.is_empty() => Some(name),
            _ => None,
        });
    named.unwrap_or(UNKNOWN_SERVICE)
}

/// The resource that the following scopes and spans belong to.
#[derive(Debug, Clone, Copy)]
pub struct ResourceRecord<'a> {
    /// The service under which the spans are stored: mostly what [`service_of`] says.
    pub service: &'a str,
    /// All attributes, `service.name` among them when it was sent.
    pub attributes: &'a [Attr<'a>],
    /// Attributes that the sender or our limits left out.
    pub dropped_attributes_count: u32,
    /// The resource's schema URL.
    pub schema_url: &'a str,
}

/// The instrumentation scope that the following spans belong to.
#[derive(Debug, Clone, Copy)]
pub struct ScopeRecord<'a> {
    /// The scope's name, usually the instrumentation library.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Its attributes.
    pub attributes: &'a [Attr<'a>],
    /// Attributes that the sender or our limits left out.
    pub dropped_attributes_count: u32,
    /// The scope's schema URL.
    pub schema_url: &'a str,
}

/// One event of a span.
#[derive(Debug, Clone, Copy)]
pub struct EventRecord<'a> {
    /// Nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// The event's name.
    pub name: &'a str,
    /// Its attributes.
    pub attributes: &'a [Attr<'a>],
    /// Attributes that the sender or our limits left out.
    pub dropped_attributes_count: u32,
}

/// One link of a span.
#[derive(Debug, Clone, Copy)]
pub struct LinkRecord<'a> {
    /// The linked trace.
    pub trace_id: [u8; 16],
    /// The linked span.
    pub span_id: [u8; 8],
    /// The link's W3C trace state.
    pub trace_state: &'a str,
    /// The link's flags.
    pub flags: u32,
    /// Its attributes.
    pub attributes: &'a [Attr<'a>],
    /// Attributes that the sender or our limits left out.
    pub dropped_attributes_count: u32,
}

/// A span's kind, by OTLP's numbers; an unknown number is read as `Unspecified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are OTLP's own
pub enum SpanKind {
    #[default]
    Unspecified = 0,
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl SpanKind {
    /// The kind with OTLP's number `n`.
    pub fn from_i32(n: i32) -> Self {
        match n {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }
}

/// A span's status code, by OTLP's numbers; an unknown number is read as `Unset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)] // the names are OTLP's own
pub enum StatusCode {
    #[default]
    Unset = 0,
    Ok = 1,
    Error = 2,
}

impl StatusCode {
    /// The status with OTLP's number `n`.
    pub fn from_i32(n: i32) -> Self {
        match n {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

/// One span after processing.
#[derive(Debug, Clone, Copy)]
pub struct SpanRecord<'a> {
    /// Never zero.
    pub trace_id: [u8; 16],
    /// Never zero.
    pub span_id: [u8; 8],
    /// Zero for a root.
    pub parent_span_id: [u8; 8],
    /// W3C trace state.
    pub trace_state: &'a str,
    /// OTLP flags: W3C trace flags in the low 8 bits, then "context is remote" (bits 8 and 9).
    pub flags: u32,
    /// The span's name.
    pub name: &'a str,
    /// The span's kind.
    pub kind: SpanKind,
    /// Nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// End minus start, zero where the end lies before the start; nanoseconds.
    pub duration_ns: u64,
    /// The status code.
    pub status: StatusCode,
    /// The status message.
    pub status_message: &'a str,
    /// Attributes in the sender's order.
    pub attributes: &'a [Attr<'a>],
    /// Attributes that the sender or our limits left out.
    pub dropped_attributes_count: u32,
    /// Events in the sender's order.
    pub events: &'a [EventRecord<'a>],
    /// Events that the sender or our limits left out.
    pub dropped_events_count: u32,
    /// Links in the sender's order.
    pub links: &'a [LinkRecord<'a>],
    /// Links that the sender or our limits left out.
    pub dropped_links_count: u32,
}

/// Something that takes processed spans: a block of ClickHouse columns, an OTLP message, a test.
///
/// Calls come in the order of the wire. A sink copies what it keeps.
pub trait SpanSink {
    /// The spans that follow belong to this resource.
    fn resource(&mut self, resource: &ResourceRecord<'_>);
    /// The spans that follow belong to this scope of the current resource.
    fn scope(&mut self, scope: &ScopeRecord<'_>);
    /// One span of the current scope.
    fn span(&mut self, span: &SpanRecord<'_>);
}

/// A borrowed sink.
impl<S: SpanSink + ?Sized> SpanSink for &mut S {
    #[inline]
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        (**self).resource(resource);
    }

    #[inline]
    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        (**self).scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        (**self).span(span);
    }
}

/// Two sinks that both get everything.
impl<A: SpanSink, B: SpanSink> SpanSink for (A, B) {
    #[inline]
    fn resource(&mut self, resource: &ResourceRecord<'_>) {
        self.0.resource(resource);
        self.1.resource(resource);
    }

    #[inline]
    fn scope(&mut self, scope: &ScopeRecord<'_>) {
        self.0.scope(scope);
        self.1.scope(scope);
    }

    #[inline]
    fn span(&mut self, span: &SpanRecord<'_>) {
        self.0.span(span);
        self.1.span(span);
    }
}
