//! A stored span as TraceQL's evaluator asks it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value as Json;
use spanloom_traceql::{
    Array, AttributeScope, ChildField, Kind, OwnedValue, Scalar, Span, Status, TraceSpan, ValueRef,
};

use crate::db::Text;
use crate::params::{SPAN_KINDS, SPAN_STATUSES};
use crate::trace::outline::SpanRecord;
use crate::trace::value::{Attribute, TypedValue, ValueType, double_of, stored_attributes};
use crate::traceql::rows::{Columns, EvalRow};

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

    fn owned(&self) -> OwnedValue {
        match self {
            Self::Str(text) => OwnedValue::Str(text.clone()),
            Self::Int(number) => OwnedValue::Int(*number),
            Self::Float(number) => OwnedValue::Float(*number),
            Self::Bool(value) => OwnedValue::Bool(*value),
            Self::Array(values) => {
                let element = |value: &Self| match value {
                    Self::Array(_) => OwnedValue::Nil,
                    value => value.owned(),
                };
                OwnedValue::Array(values.iter().map(element).collect())
            }
            Self::Other => OwnedValue::Nil,
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
    /// Those of the store's JSON.
    fn stored(json: &Text, are_maps_flat: bool) -> Self {
        if json.0.is_empty() {
            return Self::default();
        }
        let mut pairs = Vec::new();
        for attribute in stored_attributes(&json.0) {
            add(&mut pairs, attribute, are_maps_flat);
        }
        Self::of(pairs)
    }

    fn of(mut pairs: Vec<(String, Value)>) -> Self {
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

/// Adds an attribute, and where it is a map its values under their paths, if these are wanted.
fn add(pairs: &mut Vec<(String, Value)>, attribute: Attribute, are_maps_flat: bool) {
    let Attribute { key, r#type, value } = attribute;
    if are_maps_flat && r#type == ValueType::Kvlist {
        flatten(pairs, &key, &value, MAPS_MAX);
    }
    pairs.extend(value_of(r#type, &value).map(|value| (key, value)));
}

/// Maps within more maps are not looked into.
const MAPS_MAX: usize = 8;

fn flatten(pairs: &mut Vec<(String, Value)>, key: &str, map: &Json, depth: usize) {
    for item in map.as_array().into_iter().flatten() {
        let text = |name: &str| item.get(name).and_then(Json::as_str);
        let r#type = text("type").and_then(ValueType::named);
        let (Some(name), Some(r#type), Some(value)) = (text("key"), r#type, item.get("value"))
        else {
            continue;
        };
        let key = format!("{key}.{name}");
        if r#type == ValueType::Kvlist && depth > 0 {
            flatten(pairs, &key, value, depth - 1);
        }
        pairs.extend(value_of(r#type, value).map(|value| (key, value)));
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

/// So much is remembered of what many spans share, and a little more.
const SHARED_MAX: usize = 10_000;

/// What many spans share, read once.
#[derive(Debug, Default)]
struct Shared(HashMap<Text, Arc<Attributes>>);

impl Shared {
    fn read(&mut self, json: Text, are_maps_flat: bool) -> Arc<Attributes> {
        if let Some(read) = self.0.get(&json) {
            return Arc::clone(read);
        }
        let read = Arc::new(Attributes::stored(&json, are_maps_flat));
        self.0.insert(json, Arc::clone(&read));
        read
    }
}

/// A value of the store's JSON, as series are made by it.
pub fn stored_value(json: &str) -> OwnedValue {
    let Attribute { r#type, value, .. } = TypedValue::stored(json).under(String::new());
    value_of(r#type, &value).map_or(OwnedValue::Nil, |value| value.owned())
}

/// Attributes of resources by their JSON, each read once.
#[derive(Debug, Default)]
pub struct Resources(Shared);

impl Resources {
    /// The value that the resource has of a key.
    pub fn value(&mut self, json: &Text, key: &str) -> OwnedValue {
        let read = self.0.read(json.clone(), false);
        read.get(key).map_or(OwnedValue::Nil, Value::owned)
    }

    /// Whether it remembers so much that it should be begun anew.
    pub fn is_large(&self) -> bool {
        self.0.0.len() > SHARED_MAX
    }

    /// Calls `take` with each key and its value, as far as values are compared; nil is an array.
    pub fn compared(&mut self, json: &Text, take: &mut dyn FnMut(&str, OwnedValue)) {
        for (key, value) in &self.0.read(json.clone(), false).0 {
            match value {
                Value::Other => {}
                Value::Array(_) => take(key, OwnedValue::Nil),
                value => take(key, value.owned()),
            }
        }
    }
}

/// Makes spans of rows; what they share is read once.
#[derive(Debug, Default)]
pub struct Reader {
    resources: Shared,
    scopes: Shared,
}

impl Reader {
    /// Whether it remembers so much that it should be begun anew.
    pub fn is_large(&self) -> bool {
        self.resources.0.len() + self.scopes.0.len() > SHARED_MAX
    }

    /// The span of a row of these columns.
    pub fn span(&mut self, columns: &Columns, row: EvalRow) -> StoredSpan {
        let (start_ns, is_flat) = (row.start_ns, columns.are_maps_flat);
        let events = row
            .event_list
            .into_iter()
            .map(|(time_ns, name, json)| Event {
                name: name.0,
                since_start_ns: time_ns.saturating_sub(start_ns),
                attributes: Attributes::stored(&json, is_flat),
            });
        let links = row.link_list.into_iter();
        let links = links.map(|(trace_id, span_id, json)| Link {
            trace_id,
            span_id,
            attributes: Attributes::stored(&json, is_flat),
        });
        // Of several values of one key, that of the column comes first.
        let mut pairs = Vec::new();
        let texts = columns.texts.iter().zip(row.texts);
        let texts = texts.filter(|(_, text)| !text.0.is_empty());
        pairs.extend(texts.map(|(column, text)| (column.key.to_owned(), Value::Str(text.0))));
        let codes = columns
            .codes
            .iter()
            .zip(row.codes)
            .filter(|(_, code)| *code != 0);
        pairs.extend(codes.map(|(column, code)| (column.key.to_owned(), Value::Int(code.into()))));
        let strings = row.strings.into_iter();
        pairs.extend(strings.map(|(key, text)| (key.0, Value::Str(text.0))));
        pairs.extend(
            row.ints
                .into_iter()
                .map(|(key, number)| (key.0, Value::Int(number))),
        );
        let doubles = row.doubles.into_iter();
        pairs.extend(doubles.map(|(key, number)| (key.0, Value::Float(number))));
        for (key, json) in row.others {
            add(
                &mut pairs,
                TypedValue::stored(&json.0).under(key.0),
                is_flat,
            );
        }
        StoredSpan {
            trace_id: row.trace_id,
            span_id: row.span_id,
            parent_span_id: row.parent_span_id,
            start_ns,
            duration_ns: row.duration_ns,
            status: status_of(row.status_number),
            kind: kind_of(row.kind_number),
            events: events.collect(),
            links: links.collect(),
            name: row.name_text.0,
            service: row.service_name.0,
            status_message: row.message.0,
            attributes: Attributes::of(pairs),
            resource: self.resources.read(row.resource_json, is_flat),
            scope_name: row.scope.0,
            scope_version: row.scope_version_text.0,
            scope_attributes: self.scopes.read(row.scope_json, is_flat),
            weight: row.weight,
        }
    }
}

/// The place of a name in the store's own capitals.
fn place_of(names: &[&str], text: &str) -> i8 {
    let mut names = names.iter();
    let place = names.position(|name| name.eq_ignore_ascii_case(text));
    place
        .and_then(|place| i8::try_from(place).ok())
        .unwrap_or(0)
}

/// By its name in the store.
pub fn status_named(text: &str) -> Status {
    status_of(place_of(&SPAN_STATUSES, text))
}

/// By its name in the store.
pub fn kind_named(text: &str) -> Kind {
    kind_of(place_of(&SPAN_KINDS, text))
}

/// By its number in the store, OTLP's own.
fn status_of(number: i8) -> Status {
    match number {
        1 => Status::Ok,
        2 => Status::Error,
        _ => Status::Unset,
    }
}

/// By its number in the store, OTLP's own.
fn kind_of(number: i8) -> Kind {
    match number {
        1 => Kind::Internal,
        2 => Kind::Server,
        3 => Kind::Client,
        4 => Kind::Producer,
        5 => Kind::Consumer,
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
    scope_name: String,
    scope_version: String,
    scope_attributes: Arc<Attributes>,
    weight: f64,
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

impl SpanRecord for StoredSpan {
    fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    fn parent_span_id(&self) -> [u8; 8] {
        self.parent_span_id
    }

    fn start_ns(&self) -> i64 {
        self.start_ns
    }

    fn duration_ns(&self) -> u64 {
        self.duration_ns
    }

    fn service(&self) -> &str {
        &self.service
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> i8 {
        match self.kind {
            Kind::Unspecified => 0,
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
            Kind::Producer => 4,
            Kind::Consumer => 5,
        }
    }

    fn status(&self) -> i8 {
        match self.status {
            Status::Unset => 0,
            Status::Ok => 1,
            Status::Error => 2,
        }
    }
}

impl TraceSpan for StoredSpan {
    fn start_ns(&self) -> u64 {
        u64::try_from(self.start_ns).unwrap_or(0)
    }

    fn service_name(&self) -> &str {
        &self.service
    }

    fn weight(&self) -> f64 {
        self.weight
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
        &self.scope_name
    }

    fn scope_version(&self) -> &str {
        &self.scope_version
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
