//! A span that owns all it has, for whole traces.

use spanloom_traceql::{
    Array, AttributeScope, ChildField, Kind, Scalar, Span, Status, TraceSpan, ValueRef,
};

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum V {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Array(Vec<V>),
    Other,
}

impl V {
    pub fn scalar(&self) -> Scalar<'_> {
        match self {
            Self::Str(s) => Scalar::Str(s),
            Self::Int(n) => Scalar::Int(*n),
            Self::Float(x) => Scalar::Float(*x),
            Self::Bool(b) => Scalar::Bool(*b),
            Self::Array(_) | Self::Other => Scalar::Other,
        }
    }

    fn value(&self) -> ValueRef<'_, Items<'_>> {
        match self {
            Self::Array(list) => ValueRef::Array(Items(list)),
            value => ValueRef::One(value.scalar()),
        }
    }
}

pub struct Items<'a>(&'a [V]);

impl Array for Items<'_> {
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        self.0.iter().any(|v| test(v.scalar()))
    }
}

pub type Attributes = Vec<(String, V)>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    pub name: String,
    pub since_start: i64,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Link {
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    pub attributes: Attributes,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnedSpan {
    pub name: String,
    pub status: Status,
    pub message: String,
    pub kind: Kind,
    pub start: u64,
    pub duration: u64,
    pub trace_id: Vec<u8>,
    pub span_id: Vec<u8>,
    pub parent: Vec<u8>,
    pub scope: (String, String),
    pub attributes: Attributes,
    pub resource: Attributes,
    pub instrumentation: Attributes,
    pub events: Vec<Event>,
    pub links: Vec<Link>,
    /// How many spans it stands for; 1 by default.
    pub weight: Option<u8>,
}

pub fn find<'a>(list: &'a Attributes, key: &str) -> Option<&'a V> {
    list.iter().find(|(k, _)| k == key).map(|(_, v)| v)
}

impl OwnedSpan {
    pub fn list(&self, scope: AttributeScope) -> &Attributes {
        match scope {
            AttributeScope::Span => &self.attributes,
            AttributeScope::Resource => &self.resource,
            AttributeScope::Instrumentation => &self.instrumentation,
        }
    }
}

fn each<'a>(
    list: impl Iterator<Item = &'a Attributes>,
    key: &str,
    test: &mut dyn FnMut(Scalar<'_>) -> bool,
) -> bool {
    let mut values = list.filter_map(|attributes| find(attributes, key));
    values.any(|value| match value {
        V::Array(list) => list.iter().any(|v| test(v.scalar())),
        value => test(value.scalar()),
    })
}

impl Span for OwnedSpan {
    type Array<'a> = Items<'a>;

    fn name(&self) -> &str {
        &self.name
    }

    fn status(&self) -> Status {
        self.status
    }

    fn status_message(&self) -> &str {
        &self.message
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
        &self.scope.0
    }

    fn scope_version(&self) -> &str {
        &self.scope.1
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Items<'_>>> {
        find(self.list(scope), key).map(V::value)
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        let (events, links) = (&self.events, &self.links);
        match field {
            ChildField::EventName => events.iter().any(|e| test(Scalar::Str(&e.name))),
            ChildField::EventTimeSinceStart => {
                events.iter().any(|e| test(Scalar::Int(e.since_start)))
            }
            ChildField::EventAttribute(key) => {
                each(events.iter().map(|e| &e.attributes), key, test)
            }
            ChildField::LinkTraceId => links.iter().any(|l| test(Scalar::Id(&l.trace_id))),
            ChildField::LinkSpanId => links.iter().any(|l| test(Scalar::Id(&l.span_id))),
            ChildField::LinkAttribute(key) => each(links.iter().map(|l| &l.attributes), key, test),
        }
    }
}

impl TraceSpan for OwnedSpan {
    fn start_ns(&self) -> u64 {
        self.start
    }

    fn service_name(&self) -> &str {
        match find(&self.resource, "service.name") {
            Some(V::Str(name)) => name,
            _ => "",
        }
    }

    fn weight(&self) -> f64 {
        self.weight.map_or(1.0, f64::from)
    }

    fn for_each_attribute<'a>(
        &'a self,
        scope: AttributeScope,
        each: &mut dyn FnMut(&'a str, ValueRef<'a, Items<'a>>),
    ) {
        for (key, value) in self.list(scope) {
            each(key, value.value());
        }
    }
}
