//! A span to ask, written in a line.

#![allow(dead_code)] // each test uses a part of it

pub mod arbitrary;
pub mod naive;
pub mod owned;

use spanloom_traceql::{Array, AttributeScope, ChildField, Kind, Scalar, Span, Status, ValueRef};

/// An attribute's value.
#[derive(Debug, Clone)]
pub enum Value {
    Str(&'static str),
    Int(i64),
    Float(f64),
    Bool(bool),
    Bytes,
    Array(Vec<Value>),
}

impl Value {
    fn scalar(&self) -> Scalar<'_> {
        match self {
            Self::Str(s) => Scalar::Str(s),
            Self::Int(n) => Scalar::Int(*n),
            Self::Float(x) => Scalar::Float(*x),
            Self::Bool(b) => Scalar::Bool(*b),
            Self::Bytes | Self::Array(_) => Scalar::Other,
        }
    }
}

impl From<&'static str> for Value {
    fn from(s: &'static str) -> Self {
        Self::Str(s)
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Self {
        Self::Float(x)
    }
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(list: [T; N]) -> Self {
        Self::Array(list.into_iter().map(Into::into).collect())
    }
}

pub struct Elements<'a>(&'a [Value]);

impl Array for Elements<'_> {
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        self.0.iter().any(|v| test(v.scalar()))
    }
}

type Attributes = Vec<(&'static str, Value)>;

/// A span with everything that a filter can read.
#[derive(Debug, Clone, Default)]
pub struct TestSpan {
    pub name: &'static str,
    pub status: Status,
    pub message: &'static str,
    pub kind: Kind,
    pub duration: u64,
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub parent: [u8; 8],
    pub scope: (&'static str, &'static str),
    pub attributes: Attributes,
    pub resource: Attributes,
    pub instrumentation: Attributes,
    pub events: Vec<(&'static str, i64, Attributes)>,
    pub links: Vec<([u8; 16], [u8; 8], Attributes)>,
}

impl TestSpan {
    /// The span with one more attribute.
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((key, value.into()));
        self
    }

    /// The span with one more resource attribute.
    pub fn resource(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.resource.push((key, value.into()));
        self
    }
}

fn find<'a>(list: &'a Attributes, key: &str) -> Option<&'a Value> {
    list.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
}

fn each<'a>(
    list: impl Iterator<Item = &'a Attributes>,
    key: &str,
    test: &mut dyn FnMut(Scalar<'_>) -> bool,
) -> bool {
    let mut values = list.filter_map(|attributes| find(attributes, key));
    values.any(|value| match value {
        Value::Array(list) => list.iter().any(|v| test(v.scalar())),
        value => test(value.scalar()),
    })
}

impl Span for TestSpan {
    type Array<'a> = Elements<'a>;

    fn name(&self) -> &str {
        self.name
    }

    fn status(&self) -> Status {
        self.status
    }

    fn status_message(&self) -> &str {
        self.message
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn duration_ns(&self) -> u64 {
        self.duration
    }

    fn trace_id(&self) -> &[u8] {
        &self.trace_id
    }

    fn span_id(&self) -> &[u8] {
        &self.span_id
    }

    fn parent_span_id(&self) -> &[u8] {
        &self.parent
    }

    fn scope_name(&self) -> &str {
        self.scope.0
    }

    fn scope_version(&self) -> &str {
        self.scope.1
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Elements<'_>>> {
        let list = match scope {
            AttributeScope::Span => &self.attributes,
            AttributeScope::Resource => &self.resource,
            AttributeScope::Instrumentation => &self.instrumentation,
        };
        Some(match find(list, key)? {
            Value::Array(list) => ValueRef::Array(Elements(list)),
            value => ValueRef::One(value.scalar()),
        })
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        let (events, links) = (&self.events, &self.links);
        match field {
            ChildField::EventName => events.iter().any(|e| test(Scalar::Str(e.0))),
            ChildField::EventTimeSinceStart => events.iter().any(|e| test(Scalar::Int(e.1))),
            ChildField::EventAttribute(key) => each(events.iter().map(|e| &e.2), key, test),
            ChildField::LinkTraceId => links.iter().any(|l| test(Scalar::Id(&l.0))),
            ChildField::LinkSpanId => links.iter().any(|l| test(Scalar::Id(&l.1))),
            ChildField::LinkAttribute(key) => each(links.iter().map(|l| &l.2), key, test),
        }
    }
}
