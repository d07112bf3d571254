//! A stored span as TraceQL's evaluator asks it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use spanloom_traceql::{
    Array, AttributeScope, ChildField, Kind, Scalar, Span, Status, TraceSpan, ValueRef,
};

use crate::ids::unhex;
use crate::trace::span as stored;
use crate::trace::value::{Attribute, ValueType, double_of};

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Array(Vec<Self>),
    Other,
}

impl Value {
    fn scalar(&self) -> Scalar<'_> {
        match self {
            Self::Str(text) => Scalar::Str(text),
            Self::Int(number) => Scalar::Int(*number),
            Self::Float(number) => Scalar::Float(*number),
            Self::Bool(value) => Scalar::Bool(*value),
            Self::Array(_) | Self::Other => Scalar::Other,
        }
    }
}

/// The elements of an array value.
#[derive(Debug, Clone, Copy)]
pub struct Elements<'a>(&'a [Value]);

impl Array for Elements<'_> {
    fn any(&self, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        self.0.iter().any(|value| test(value.scalar()))
    }
}

/// Attributes in the order of their keys; of several of one key the first counts.
#[derive(Debug, Default)]
pub struct Attributes(Vec<(String, Value)>);

impl Attributes {
    fn of(attributes: &[Attribute]) -> Self {
        let pairs = attributes.iter().filter_map(|attribute| {
            let value = value_of(attribute.r#type, &attribute.value)?;
            Some((attribute.key.clone(), value))
        });
        let mut pairs: Vec<_> = pairs.collect();
        pairs.sort_by(|one, other| one.0.cmp(&other.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        Self(pairs)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let place = self
            .0
            .binary_search_by(|(known, _)| known.as_str().cmp(key));
        self.0.get(place.ok()?).map(|(_, value)| value)
    }

    fn value(&self, key: &str) -> Option<ValueRef<'_, Elements<'_>>> {
        Some(value_ref(self.get(key)?))
    }

    /// Calls `test` with the value of a key, or with each element where it is an array, until it answers true.
    fn any(&self, key: &str, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        match self.get(key) {
            None => false,
            Some(Value::Array(values)) => Elements(values).any(test),
            Some(value) => test(value.scalar()),
        }
    }

    /// Each key with its value.
    fn each<'a>(&'a self, take: &mut dyn FnMut(&'a str, ValueRef<'a, Elements<'a>>)) {
        for (key, value) in &self.0 {
            take(key, value_ref(value));
        }
    }
}

fn value_ref(value: &Value) -> ValueRef<'_, Elements<'_>> {
    match value {
        Value::Array(values) => ValueRef::Array(Elements(values)),
        value => ValueRef::One(value.scalar()),
    }
}

/// A value as our own API writes it; none for an attribute without one.
fn value_of(r#type: ValueType, json: &Json) -> Option<Value> {
    let text = || json.as_str().unwrap_or_default();
    Some(match r#type {
        ValueType::String => Value::Str(text().to_owned()),
        ValueType::Int => Value::Int(text().parse().unwrap_or(0)),
        ValueType::Double => Value::Float(double_of(json)),
        ValueType::Bool => Value::Bool(json.as_bool().unwrap_or(false)),
        ValueType::Array => {
            let items = json.as_array().into_iter().flatten();
            let element = |item: &Json| {
                let name = item.get("type").and_then(Json::as_str)?;
                value_of(ValueType::named(name)?, item.get("value")?)
            };
            Value::Array(items.filter_map(element).collect())
        }
        ValueType::Bytes | ValueType::Kvlist => Value::Other,
        ValueType::Empty => return None,
    })
}

/// What was read of what many spans share, by where it lies.
#[derive(Debug)]
struct Shared<T>(HashMap<usize, (Arc<T>, Arc<Attributes>)>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Shared<T> {
    fn read(&mut self, of: &Arc<T>, attributes: impl Fn(&T) -> &[Attribute]) -> Arc<Attributes> {
        // It is held as long as its place is known.
        let (_, read) = self
            .0
            .entry(Arc::as_ptr(of).addr())
            .or_insert_with(|| (Arc::clone(of), Arc::new(Attributes::of(attributes(of)))));
        Arc::clone(read)
    }
}

/// Reads spans; what they share is read once.
#[derive(Debug, Default)]
pub struct Reader {
    resources: Shared<stored::Resource>,
    scopes: Shared<stored::Scope>,
}

impl Reader {
    /// The span, of the trace `trace_id`.
    pub fn span(&mut self, trace_id: [u8; 16], span: stored::Span) -> StoredSpan {
        let resource = self.resources.read(&span.resource.0, |r| &r.attributes);
        let scope = self.scopes.read(&span.scope.0, |s| &s.attributes);
        let attributes = Attributes::of(&span.attributes);
        let start_ns: i64 = span.start_unix_nano.parse().unwrap_or(0);
        let events = span.events.iter().map(|event| {
            let time_ns: i64 = event.time_unix_nano.parse().unwrap_or(0);
            Event {
                name: event.name.clone(),
                since_start_ns: time_ns.saturating_sub(start_ns),
                attributes: Attributes::of(&event.attributes),
            }
        });
        let links = span.links.iter().map(|link| Link {
            trace_id: unhex(&link.trace_id),
            span_id: unhex(&link.span_id),
            attributes: Attributes::of(&link.attributes),
        });
        StoredSpan {
            trace_id,
            span_id: unhex(&span.span_id),
            parent_span_id: span.parent_span_id.as_deref().map_or([0; 8], unhex),
            start_ns,
            duration_ns: span.duration_ns.parse().unwrap_or(0),
            status: status_of(&span.status),
            kind: kind_of(&span.kind),
            events: events.collect(),
            links: links.collect(),
            name: span.name,
            service: span.service,
            status_message: span.status_message,
            attributes,
            resource,
            scope: span.scope.0,
            scope_attributes: scope,
        }
    }
}

fn status_of(name: &str) -> Status {
    match name {
        "ok" => Status::Ok,
        "error" => Status::Error,
        _ => Status::Unset,
    }
}

fn kind_of(name: &str) -> Kind {
    match name {
        "internal" => Kind::Internal,
        "server" => Kind::Server,
        "client" => Kind::Client,
        "producer" => Kind::Producer,
        "consumer" => Kind::Consumer,
        _ => Kind::Unspecified,
    }
}

#[derive(Debug)]
struct Event {
    name: String,
    since_start_ns: i64,
    attributes: Attributes,
}

#[derive(Debug)]
struct Link {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    attributes: Attributes,
}

/// A stored span.
#[derive(Debug)]
pub struct StoredSpan {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent_span_id: [u8; 8],
    start_ns: i64,
    duration_ns: u64,
    status: Status,
    kind: Kind,
    name: String,
    service: String,
    status_message: String,
    attributes: Attributes,
    resource: Arc<Attributes>,
    scope: Arc<stored::Scope>,
    scope_attributes: Arc<Attributes>,
    events: Vec<Event>,
    links: Vec<Link>,
}

impl StoredSpan {
    fn attributes(&self, scope: AttributeScope) -> &Attributes {
        match scope {
            AttributeScope::Span => &self.attributes,
            AttributeScope::Resource => &self.resource,
            AttributeScope::Instrumentation => &self.scope_attributes,
        }
    }

    /// Its id.
    pub fn id(&self) -> [u8; 8] {
        self.span_id
    }

    /// The start, in nanoseconds since 1970.
    pub fn starts_at_ns(&self) -> i64 {
        self.start_ns
    }
}

impl TraceSpan for StoredSpan {
    fn start_ns(&self) -> u64 {
        u64::try_from(self.start_ns).unwrap_or(0)
    }

    fn service_name(&self) -> &str {
        &self.service
    }

    fn for_each_attribute<'a>(
        &'a self,
        scope: AttributeScope,
        each: &mut dyn FnMut(&'a str, ValueRef<'a, Elements<'a>>),
    ) {
        self.attributes(scope).each(each);
    }
}

impl Span for StoredSpan {
    type Array<'a> = Elements<'a>;

    fn name(&self) -> &str {
        &self.name
    }

    fn status(&self) -> Status {
        self.status
    }

    fn status_message(&self) -> &str {
        &self.status_message
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    fn trace_id(&self) -> &[u8] {
        &self.trace_id
    }

    fn span_id(&self) -> &[u8] {
        &self.span_id
    }

    fn parent_span_id(&self) -> &[u8] {
        &self.parent_span_id
    }

    fn scope_name(&self) -> &str {
        &self.scope.name
    }

    fn scope_version(&self) -> &str {
        &self.scope.version
    }

    fn attribute(&self, scope: AttributeScope, key: &str) -> Option<ValueRef<'_, Elements<'_>>> {
        let found = self.attributes(scope).value(key);
        match (scope, key, &found) {
            // A resource without a name has the one that its spans are stored under.
            (AttributeScope::Resource, "service.name", None) => {
                Some(ValueRef::One(Scalar::Str(&self.service)))
            }
            _ => found,
        }
    }

    fn any_child(&self, field: ChildField<'_>, test: &mut dyn FnMut(Scalar<'_>) -> bool) -> bool {
        match field {
            ChildField::EventName => self
                .events
                .iter()
                .any(|event| test(Scalar::Str(&event.name))),
            ChildField::EventTimeSinceStart => self
                .events
                .iter()
                .any(|event| test(Scalar::Int(event.since_start_ns))),
            ChildField::EventAttribute(key) => self
                .events
                .iter()
                .any(|event| event.attributes.any(key, test)),
            ChildField::LinkTraceId => {
                let mut links = self.links.iter();
                links.any(|link| test(Scalar::Id(&link.trace_id)))
            }
            ChildField::LinkSpanId => {
                let mut links = self.links.iter();
                links.any(|link| test(Scalar::Id(&link.span_id)))
            }
            ChildField::LinkAttribute(key) => {
                self.links.iter().any(|link| link.attributes.any(key, test))
            }
        }
    }
}
