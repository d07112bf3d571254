//! The columns of a batch of spans.
//!
//! A span is one row of fixed size; texts and maps lie in columns that the row says its ends of.
//! What spans have in common with their resource and scope is kept once for each run of spans.

mod write;

use spanloom_otlp::record::{ResourceRecord, ScopeRecord, Value};
use spanloom_otlp::value_json;

use super::dictionary::Dictionary;
use super::keys::{MapColumn, MapKeys};
use super::nested::{Events, Links};
use super::strings::Strings;
use crate::schema::promoted::{Kind, PROMOTED_RESOURCE, PROMOTED_SPAN, Scope, count};

/// How many promoted columns of spans there are of each kind.
pub(crate) const NAMES: usize = count(Scope::Span, Some(Kind::Name));
pub(crate) const TEXTS: usize = count(Scope::Span, Some(Kind::Text));
pub(crate) const CODES: usize = count(Scope::Span, Some(Kind::Code));

/// What the spans of one scope of one resource share: numbers in the columns' dictionaries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Group {
    pub(crate) service: u32,
    promoted: [u32; PROMOTED_RESOURCE.len()],
    resource: u32,
    scope_name: u32,
    scope_version: u32,
    scope_attributes: u32,
    envelope: u32,
}

/// One span.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Row {
    pub(crate) time: i64,
    pub(crate) duration_ns: u64,
    pub(crate) trace_id: [u8; 16],
    pub(crate) span_id: [u8; 8],
    pub(crate) parent_span_id: [u8; 8],
    pub(crate) group: u32,
    pub(crate) name: u32,
    pub(crate) promoted: [u32; NAMES],
    pub(crate) flags: u32,
    pub(crate) dropped_attributes: u32,
    pub(crate) dropped_events: u32,
    pub(crate) dropped_links: u32,
    pub(crate) codes: [u16; CODES],
    pub(crate) kind: u8,
    pub(crate) status: u8,
    pub(crate) ends: Ends,
}

/// Where a row's values end in the columns of variable length.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ends {
    status_message: usize,
    trace_state: usize,
    texts: [usize; TEXTS],
    str_pairs: usize,
    str_bytes: usize,
    int_pairs: usize,
    double_pairs: usize,
    other_pairs: usize,
    other_bytes: usize,
    events: usize,
    links: usize,
}

/// The columns.
#[derive(Debug, Default)]
pub(crate) struct SpanColumns {
    pub(crate) rows: Vec<Row>,
    groups: Vec<Group>,
    pub(crate) services: Dictionary,
    pub(crate) names: Dictionary,
    promoted_names: [Dictionary; NAMES],
    promoted_texts: [Strings; TEXTS],
    promoted_resource: [Dictionary; PROMOTED_RESOURCE.len()],
    resources: Dictionary,
    scope_names: Dictionary,
    scope_versions: Dictionary,
    scope_attributes: Dictionary,
    envelopes: Dictionary,
    status_messages: Strings,
    trace_states: Strings,
    maps: [MapKeys; 4],
    str_values: Strings,
    int_values: Vec<i64>,
    double_values: Vec<f64>,
    other_values: Strings,
    pub(crate) events: Events,
    pub(crate) links: Links,
}

/// What the two levels above a span say that is hardly ever there.
fn envelope(out: &mut Vec<u8>, resource: (&str, u32), scope: (&str, u32)) {
    let mut first = true;
    let mut field = |out: &mut Vec<u8>, name: &str| {
        out.push(if first { b'{' } else { b',' });
        first = false;
        value_json::escape(out, name);
        out.push(b':');
    };
    let texts = [
        ("resourceSchemaUrl", resource.0),
        ("scopeSchemaUrl", scope.0),
    ];
    for (name, url) in texts.into_iter().filter(|(_, url)| !url.is_empty()) {
        field(out, name);
        value_json::escape(out, url);
    }
    let counts = [
        ("resourceDroppedAttributesCount", resource.1),
        ("scopeDroppedAttributesCount", scope.1),
    ];
    for (name, count) in counts.into_iter().filter(|&(_, count)| count != 0) {
        field(out, name);
        value_json::write_value(out, &Value::Int(i64::from(count)));
    }
    if !first {
        out.push(b'}');
    }
}

/// The resource that the following scopes belong to, as far as their groups need it.
#[derive(Debug, Default)]
pub(crate) struct CurrentResource {
    group: Group,
    schema_url: String,
    dropped: u32,
}

impl SpanColumns {
    pub(crate) fn resource(
        &mut self,
        current: &mut CurrentResource,
        resource: &ResourceRecord<'_>,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        value_json::write_attributes(scratch, resource.attributes);
        let mut group = Group {
            service: self.services.intern(resource.service.as_bytes()),
            resource: self.resources.intern(scratch),
            ..Group::default()
        };
        for attribute in resource.attributes {
            let Value::Str(text) = attribute.value else {
                continue;
            };
            let column = PROMOTED_RESOURCE
                .iter()
                .position(|p| p.key == attribute.key);
            let Some(column) = column else { continue };
            let dictionary = self.promoted_resource.get_mut(column);
            if let (Some(slot), Some(dictionary)) = (group.promoted.get_mut(column), dictionary) {
                *slot = dictionary.intern(text.as_bytes());
            }
        }
        current.group = group;
        current.schema_url.clear();
        current.schema_url.push_str(resource.schema_url);
        current.dropped = resource.dropped_attributes_count;
    }

    pub(crate) fn scope(
        &mut self,
        current: &CurrentResource,
        scope: &ScopeRecord<'_>,
        scratch: &mut Vec<u8>,
    ) {
        let mut group = current.group;
        group.scope_name = self.scope_names.intern(scope.name.as_bytes());
        group.scope_version = self.scope_versions.intern(scope.version.as_bytes());
        if !scope.attributes.is_empty() {
            scratch.clear();
            value_json::write_attributes(scratch, scope.attributes);
            group.scope_attributes = self.scope_attributes.intern(scratch);
        }
        scratch.clear();
        envelope(
            scratch,
            (&current.schema_url, current.dropped),
            (scope.schema_url, scope.dropped_attributes_count),
        );
        group.envelope = self.envelopes.intern(scratch);
        self.groups.push(group);
    }

    /// The number of the group that spans now belong to; a span without a scope gets an empty one.
    #[inline]
    pub(crate) fn current_group(&mut self) -> u32 {
        if self.groups.is_empty() {
            self.groups.push(Group::default());
        }
        (self.groups.len() - 1) as u32
    }

    #[inline]
    pub(crate) fn group(&self, number: u32) -> Group {
        self.groups
            .get(number as usize)
            .copied()
            .unwrap_or_default()
    }

    #[inline]
    pub(crate) fn promote(&mut self, column: usize, text: &str) -> u32 {
        match self.promoted_names.get_mut(column) {
            Some(dictionary) => dictionary.intern(text.as_bytes()),
            None => 0,
        }
    }

    #[inline]
    pub(crate) fn push_str(&mut self, keys: &mut super::keys::Keys, key: u32, text: &str) {
        self.maps[MapColumn::Str as usize].push(keys, key, MapColumn::Str);
        self.str_values.push(text.as_bytes());
    }

    #[inline]
    pub(crate) fn push_int(&mut self, keys: &mut super::keys::Keys, key: u32, value: i64) {
        self.maps[MapColumn::Int as usize].push(keys, key, MapColumn::Int);
        self.int_values.push(value);
    }

    #[inline]
    pub(crate) fn push_double(&mut self, keys: &mut super::keys::Keys, key: u32, value: f64) {
        self.maps[MapColumn::Double as usize].push(keys, key, MapColumn::Double);
        self.double_values.push(value);
    }

    #[inline]
    pub(crate) fn push_other(&mut self, keys: &mut super::keys::Keys, key: u32, json: &[u8]) {
        self.maps[MapColumn::Other as usize].push(keys, key, MapColumn::Other);
        self.other_values.push(json);
    }

    /// Ends a span whose attributes, events and links are in.
    #[inline]
    pub(crate) fn push_row(&mut self, mut row: Row, texts: [&str; 2], promoted: [&str; TEXTS]) {
        let [status_message, trace_state] = texts;
        self.status_messages.push(status_message.as_bytes());
        self.trace_states.push(trace_state.as_bytes());
        for (column, text) in self.promoted_texts.iter_mut().zip(promoted) {
            column.push(text.as_bytes());
        }
        row.ends = Ends {
            status_message: self.status_messages.end(),
            trace_state: self.trace_states.end(),
            texts: self.promoted_texts.each_ref().map(Strings::end),
            str_pairs: self.maps[MapColumn::Str as usize].indices.len(),
            str_bytes: self.str_values.end(),
            int_pairs: self.int_values.len(),
            double_pairs: self.double_values.len(),
            other_pairs: self.maps[MapColumn::Other as usize].indices.len(),
            other_bytes: self.other_values.end(),
            events: self.events.len(),
            links: self.links.len(),
        };
        self.rows.push(row);
    }

    fn dictionaries(&self) -> impl Iterator<Item = &Dictionary> {
        [
            &self.services,
            &self.names,
            &self.resources,
            &self.scope_names,
            &self.scope_versions,
            &self.scope_attributes,
            &self.envelopes,
        ]
        .into_iter()
        .chain(&self.promoted_names)
        .chain(&self.promoted_resource)
    }

    fn strings(&self) -> impl Iterator<Item = &Strings> {
        [
            &self.status_messages,
            &self.trace_states,
            &self.str_values,
            &self.other_values,
        ]
        .into_iter()
        .chain(&self.promoted_texts)
    }

    /// Memory that the rows use.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * size_of::<Row>()
            + self.groups.len() * size_of::<Group>()
            + (self.int_values.len() + self.double_values.len()) * 8
            + self.dictionaries().map(Dictionary::bytes).sum::<usize>()
            + self.strings().map(Strings::end).sum::<usize>()
            + self.maps.iter().map(MapKeys::bytes).sum::<usize>()
            + self.events.bytes()
            + self.links.bytes()
    }

    /// Memory that is held.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
            + self.groups.capacity() * size_of::<Group>()
            + (self.int_values.capacity() + self.double_values.capacity()) * 8
            + self.dictionaries().map(Dictionary::capacity).sum::<usize>()
            + self.strings().map(Strings::capacity).sum::<usize>()
            + self.maps.iter().map(MapKeys::capacity).sum::<usize>()
            + self.events.capacity()
            + self.links.capacity()
    }

    /// Gives about so many bytes of kept memory back, as far as it is easily parted with.
    pub(crate) fn let_go(&mut self, bytes: usize) {
        let freed = self.str_values.let_go(bytes);
        self.other_values.let_go(bytes.saturating_sub(freed));
    }

    /// Forgets the rows, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.groups.clear();
        let dictionaries = [
            &mut self.services,
            &mut self.names,
            &mut self.resources,
            &mut self.scope_names,
            &mut self.scope_versions,
            &mut self.scope_attributes,
            &mut self.envelopes,
        ];
        dictionaries
            .into_iter()
            .chain(&mut self.promoted_names)
            .chain(&mut self.promoted_resource)
            .for_each(Dictionary::clear);
        self.status_messages.clear();
        self.trace_states.clear();
        self.promoted_texts.iter_mut().for_each(Strings::clear);
        self.maps.iter_mut().for_each(MapKeys::clear);
        self.str_values.clear();
        self.int_values.clear();
        self.double_values.clear();
        self.other_values.clear();
        self.events.clear();
        self.links.clear();
    }
}

/// The names of the columns that [`SpanColumns::write`] writes, in its order.
pub(crate) fn column_names() -> Vec<&'static str> {
    let mut names = vec![
        "time",
        "duration_ns",
        "service",
        "name",
        "kind",
        "status",
        "status_message",
        "trace_id",
        "span_id",
        "parent_span_id",
        "trace_state",
        "flags",
    ];
    names.extend(PROMOTED_SPAN.iter().map(|promoted| promoted.column));
    names.extend(PROMOTED_RESOURCE.iter().map(|promoted| promoted.column));
    names.extend([
        "resource",
        "scope_name",
        "scope_version",
        "scope_attributes",
        "envelope",
        "attr_str",
        "attr_int",
        "attr_double",
        "attr_other",
        "dropped_attributes_count",
        "dropped_events_count",
        "dropped_links_count",
        "events",
        "links",
    ]);
    names
}
