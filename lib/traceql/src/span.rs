//! What the evaluator asks of a span.

/// A span's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // the names are OTLP's own
pub enum Status {
    #[default]
    Unset,
    Ok,
    Error,
}

impl Status {
    /// The status as TraceQL writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unset => "unset",
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// A span's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(missing_docs)] // the names are OTLP's own
pub enum Kind {
    #[default]
    Unspecified,
    Internal,
    Server,
    Client,
    Producer,
    Consumer,
}

impl Kind {
    /// The kind as TraceQL writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// One value that a comparison looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// Text.
    Str(&'a str),
    /// An integer, or nanoseconds.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// The raw bytes of a trace or span id, compared as lower-case hex; at most 16.
    Id(&'a [u8]),
    /// A span's status.
    Status(Status),
    /// A span's kind.
    Kind(Kind),
    /// A value that nothing equals: bytes, a map, an array in an array. It does exist.
    Other,
}

/// An attribute's value: one, or an array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a, A> {
    /// One value.
    One(Scalar<'a>),
    /// Many.
    Array(A),
}

/// The elements of an array value.
pub trait Array {
    /// Calls `test` with each element until it answers true; says whether it did.
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool;
}

/// The array of spans that have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoArray {}

impl Array for NoArray {
    fn any(&self, _: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        match *self {}
    }
}

/// Where [`Span::attribute`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttributeScope {
    /// The span's own attributes.
    Span,
    /// The resource's.
    Resource,
    /// The instrumentation scope's.
    Instrumentation,
}

/// What [`Span::any_child`] reads of each event or link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildField<'k> {
    /// An event's name.
    EventName,
    /// Nanoseconds from the span's start to the event, as [`Scalar::Int`].
    EventTimeSinceStart,
    /// An event's attribute.
    EventAttribute(&'k str),
    /// A link's trace id, as [`Scalar::Id`].
    LinkTraceId,
    /// A link's span id, as [`Scalar::Id`].
    LinkSpanId,
    /// A link's attribute.
    LinkAttribute(&'k str),
}

/// A span as filters see it. Nothing here needs to allocate.
pub trait Span {
    /// The form of its array values; [`NoArray`] where there are none.
    type Array<'a>: Array
    where
        Self: 'a;

    /// Its name.
    fn name(&self) -> &str;
    /// Its status.
    fn status(&self) -> Status;
    /// Its status message, empty when there is none.
    fn status_message(&self) -> &str;
    /// Its kind.
    fn kind(&self) -> Kind;
    /// End minus start in nanoseconds.
    fn duration_ns(&self) -> u64;
    /// The raw trace id.
    fn trace_id(&self) -> &[u8];
    /// The raw span id.
    fn span_id(&self) -> &[u8];
    /// The raw id of the parent; empty or all zero for a root.
    fn parent_span_id(&self) -> &[u8];
    /// The instrumentation scope's name.
    fn scope_name(&self) -> &str;
    /// The instrumentation scope's version.
    fn scope_version(&self) -> &str;
    /// The attribute `key` in `scope`. A key with an empty value counts as absent.
    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Self::Array<'_>>>;
    /// Calls `test` with the field of each event or link that has it, and with each element where it
    /// is an array, until `test` answers true; says whether it did.
    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool;
    /// What its trace says of it; nothing where the span stands alone. [`crate::Trace`] knows it for its
    /// spans: there is no need to write this.
    fn trace_fact(&self, fact: TraceFact) -> Option<Scalar<'_>> {
        let _ = fact;
        None
    }
}

/// What only the whole trace knows of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TraceFact {
    /// How many spans are its children, as [`Scalar::Int`].
    ChildCount,
    /// From the start of the trace's first span to the end of its last, in nanoseconds, as [`Scalar::Int`].
    Duration,
    /// The name of the root.
    RootName,
    /// The service of the root.
    RootService,
    /// The number at which a walk through the tree comes to it, from 1; 0 below no root. As [`Scalar::Int`].
    NestedSetLeft,
    /// The number at which the walk leaves it.
    NestedSetRight,
    /// The left number of its parent; -1 for a root, 0 below no root.
    NestedSetParent,
}

/// What the evaluation of a whole trace asks of a span besides.
pub trait TraceSpan: Span {
    /// When it starts, in nanoseconds since 1970.
    fn start_ns(&self) -> u64;
    /// The resource's `service.name`; empty when there is none.
    fn service_name(&self) -> &str;
    /// How many spans it stands for, itself included: one divided by the probability at which it was sampled, of
    /// which OpenTelemetry's `th` in its `tracestate` tells. Queries with `with (extrapolate = true)` ask for it.
    fn weight(&self) -> f64 {
        1.0
    }
    /// Calls `each` with the key and value of each attribute in `scope`.
    fn for_each_attribute<'a>(
        &'a self,
        scope: AttributeScope,
        each: &mut dyn FnMut(&'a str, ValueRef<'a, Self::Array<'a>>),
    );
}
