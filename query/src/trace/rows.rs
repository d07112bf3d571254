//! A trace's rows in the store, and what they become.

use std::collections::HashMap;
use std::sync::Arc;

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::promoted::{Kind, PROMOTED_SPAN, Promoted};

use crate::db::Text;
use crate::ids::{hex, span_id};
use crate::params::{SPAN_KINDS, SPAN_STATUSES};
use crate::sql::Sql;
use crate::times::rfc3339;
use crate::trace::outline::SpanRecord;
use crate::trace::span::{Event, Link, Resource, Scope, Shared, Span, name_of};
use crate::trace::tree::Placed;
use crate::trace::value::{Attribute, TypedValue, stored_attributes};

/// All columns of `spans` that an answer shows, by the names of [`SpanRow`]'s fields. The promoted ones are
/// two arrays, of texts and of numbers.
fn columns() -> Sql {
    let mut sql = Sql::new(
        "SELECT span_id, parent_span_id, toUnixTimestamp64Nano(time) AS start_ns, \
         duration_ns, toString(name) AS name_text, toString(service) AS service_name, \
         toInt8(kind) AS kind_number, toInt8(status) AS status_number, status_message, trace_state, \
         flags, array(",
    );
    for (place, promoted) in promoted_texts().enumerate() {
        sql.push(if place == 0 {
            "toString("
        } else {
            ", toString("
        });
        sql.push(promoted.column).push(")");
    }
    sql.push(") AS promoted, array(");
    for (place, promoted) in promoted_codes().enumerate() {
        sql.push(if place == 0 { "" } else { ", " });
        sql.push(promoted.column);
    }
    sql.push(
        ") AS codes, \
         toString(resource) AS resource_json, toString(scope_name) AS scope, \
         toString(scope_version) AS scope_version_text, toString(scope_attributes) AS scope_json, \
         toString(envelope) AS envelope_json, attr_str, attr_int, attr_double, attr_other, \
         dropped_attributes_count, dropped_events_count, dropped_links_count, \
         CAST(events, 'Array(Tuple(DateTime64(9), String, String, UInt32))') AS event_list, \
         CAST(links, 'Array(Tuple(FixedString(16), FixedString(8), String, UInt32, String, UInt32))') \
         AS link_list FROM ",
    );
    sql
}

/// The columns of [`SpanRow::promoted`].
pub(crate) fn promoted_texts() -> impl Iterator<Item = &'static Promoted> {
    PROMOTED_SPAN.iter().filter(|p| p.kind != Kind::Code)
}

/// The columns of [`SpanRow::codes`].
pub(crate) fn promoted_codes() -> impl Iterator<Item = &'static Promoted> {
    PROMOTED_SPAN.iter().filter(|p| p.kind == Kind::Code)
}

/// The query of a trace's first `limit` spans.
pub fn spans_sql(trace_id: [u8; 16], start_ns: i64, end_ns: i64, limit: usize) -> Sql {
    let mut sql = columns();
    sql.push("spans WHERE ");
    of_trace(&mut sql, trace_id, start_ns, end_ns);
    sql.push(" ORDER BY time, span_id LIMIT ")
        .uint(limit as u64);
    sql
}

/// The same with one row for each span, as [`crate::trace::outline`] has it: the one that ends last.
pub fn unique_spans_sql(trace_id: [u8; 16], start_ns: i64, end_ns: i64, limit: usize) -> Sql {
    let mut sql = columns();
    sql.push("(SELECT * FROM spans WHERE ");
    of_trace(&mut sql, trace_id, start_ns, end_ns);
    sql.push(
        " ORDER BY toUnixTimestamp64Nano(time) + duration_ns DESC LIMIT 1 BY span_id, kind, service) \
         ORDER BY time, span_id LIMIT ",
    )
    .uint(limit as u64);
    sql
}

/// All of them as they are stored, in the order of the table.
pub fn every_span_sql(trace_id: [u8; 16], start_ns: i64, end_ns: i64) -> Sql {
    let mut sql = columns();
    sql.push("spans WHERE ");
    of_trace(&mut sql, trace_id, start_ns, end_ns);
    sql
}

/// A span that is stored several times, as [`crate::trace::outline`] tells them apart.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct CopiesRow {
    /// The span's id.
    pub span_id: [u8; 8],
    /// Its kind.
    pub kind_number: i8,
    /// Its service.
    pub service_name: Text,
    /// The end of the one that ends last.
    pub end_ns: i64,
}

/// The query of those spans of a trace, at most `limit`.
pub fn copies_sql(trace_id: [u8; 16], start_ns: i64, end_ns: i64, limit: usize) -> Sql {
    let mut sql = Sql::new(
        "SELECT span_id, toInt8(kind) AS kind_number, toString(service) AS service_name, \
         toInt64(least(max(toInt128(toUnixTimestamp64Nano(time)) + duration_ns), \
         toInt128(9223372036854775807))) AS end_ns FROM spans WHERE ",
    );
    of_trace(&mut sql, trace_id, start_ns, end_ns);
    sql.push(" GROUP BY span_id, kind, service HAVING count() > 1 LIMIT ")
        .uint(limit as u64);
    sql
}

fn of_trace(sql: &mut Sql, trace_id: [u8; 16], start_ns: i64, end_ns: i64) {
    sql.push("tenant = '' AND ")
        .started_within(start_ns, end_ns)
        .push(" AND trace_id = ")
        .trace_id(trace_id);
}

type EventRow = (i64, Text, Text, u32);
type LinkRow = ([u8; 16], [u8; 8], Text, u32, Text, u32);

/// A row of `spans`.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct SpanRow {
    /// The span's id.
    pub span_id: [u8; 8],
    /// The parent's id; zeros for none.
    pub parent_span_id: [u8; 8],
    /// The start in nanoseconds since 1970.
    pub start_ns: i64,
    /// The duration in nanoseconds.
    pub duration_ns: u64,
    pub(crate) name_text: Text,
    pub(crate) service_name: Text,
    pub(crate) kind_number: i8,
    pub(crate) status_number: i8,
    pub(crate) status_message: Text,
    pub(crate) trace_state: Text,
    pub(crate) flags: u32,
    pub(crate) promoted: Vec<Text>,
    pub(crate) codes: Vec<u16>,
    pub(crate) resource_json: Text,
    pub(crate) scope: Text,
    pub(crate) scope_version_text: Text,
    pub(crate) scope_json: Text,
    pub(crate) envelope_json: Text,
    pub(crate) attr_str: Vec<(Text, Text)>,
    pub(crate) attr_int: Vec<(Text, i64)>,
    pub(crate) attr_double: Vec<(Text, f64)>,
    pub(crate) attr_other: Vec<(Text, Text)>,
    pub(crate) dropped_attributes_count: u32,
    pub(crate) dropped_events_count: u32,
    pub(crate) dropped_links_count: u32,
    pub(crate) event_list: Vec<EventRow>,
    pub(crate) link_list: Vec<LinkRow>,
}

impl SpanRow {
    /// About what the row takes in memory, and more than what it takes in the answer.
    pub fn bytes(&self) -> usize {
        const FIXED: usize = 1024;
        const PER_ATTRIBUTE: usize = 128;
        let pairs = |pairs: &[(Text, Text)]| {
            let texts = pairs.iter().map(|(key, value)| key.0.len() + value.0.len());
            texts.sum::<usize>() + PER_ATTRIBUTE * pairs.len()
        };
        let numbers = self.attr_int.len() + self.attr_double.len();
        let events = self
            .event_list
            .iter()
            .map(|event| 256 + event.1.0.len() + event.2.0.len());
        let links = self
            .link_list
            .iter()
            .map(|link| 256 + link.2.0.len() + link.4.0.len());
        FIXED
            + pairs(&self.attr_str)
            + pairs(&self.attr_other)
            + 2 * PER_ATTRIBUTE * numbers
            + events.sum::<usize>()
            + links.sum::<usize>()
            + [
                &self.resource_json,
                &self.scope_json,
                &self.status_message,
                &self.name_text,
            ]
            .iter()
            .map(|text| text.0.len())
            .sum::<usize>()
    }
}

impl SpanRecord for SpanRow {
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
        &self.service_name.0
    }

    fn name(&self) -> &str {
        &self.name_text.0
    }

    fn kind(&self) -> i8 {
        self.kind_number
    }

    fn status(&self) -> i8 {
        self.status_number
    }
}

/// What the envelope column holds: rare, so it is stored as one JSON text.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Envelope {
    resource_schema_url: String,
    resource_dropped_attributes_count: u32,
    scope_schema_url: String,
    scope_dropped_attributes_count: u32,
}

/// Turns rows into spans. Resources and scopes repeat, so each is read once.
#[derive(Debug, Default)]
pub struct Converter {
    /// By their attributes, then by the envelope.
    resources: HashMap<Text, HashMap<Text, Shared<Resource>>>,
    scopes: HashMap<[Text; 4], Shared<Scope>>,
}

impl Converter {
    /// The span of `row` at its place in the tree.
    pub fn span(&mut self, row: SpanRow, placed: Placed, duplicates: u32) -> Span {
        let resource = self.resource(&row);
        let scope = self.scope(&row);
        let attributes = attributes(
            &row.promoted,
            &row.codes,
            Maps {
                strings: row.attr_str,
                ints: row.attr_int,
                doubles: row.attr_double,
                others: row.attr_other,
            },
        );
        Span {
            span_id: hex(&row.span_id),
            parent_span_id: span_id(row.parent_span_id),
            depth: placed.depth,
            orphan: placed.orphan,
            clock_skew_ns: placed.skew_ns.map(|ns| ns.to_string()),
            duplicates: Some(duplicates).filter(|count| *count > 0),
            name: row.name_text.0,
            service: row.service_name.0,
            kind: name_of(&SPAN_KINDS, row.kind_number),
            status: name_of(&SPAN_STATUSES, row.status_number),
            status_message: row.status_message.0,
            start: rfc3339(row.start_ns),
            start_unix_nano: row.start_ns.to_string(),
            duration_ns: row.duration_ns.to_string(),
            trace_state: row.trace_state.0,
            flags: row.flags,
            attributes,
            dropped_attributes_count: row.dropped_attributes_count,
            events: row.event_list.into_iter().map(event).collect(),
            dropped_events_count: row.dropped_events_count,
            links: row.link_list.into_iter().map(link).collect(),
            dropped_links_count: row.dropped_links_count,
            resource,
            scope,
        }
    }

    /// The resource of a row.
    pub fn resource(&mut self, row: &SpanRow) -> Shared<Resource> {
        // Mostly known, so that the key is not made first.
        let known = self.resources.get(&row.resource_json);
        if let Some(known) = known.and_then(|known| known.get(&row.envelope_json)) {
            return known.clone();
        }
        let envelope = read_envelope(&row.envelope_json);
        let resource = Shared(Arc::new(Resource {
            attributes: stored_attributes(&row.resource_json.0),
            dropped_attributes_count: envelope.resource_dropped_attributes_count,
            schema_url: envelope.resource_schema_url,
        }));
        let known = self.resources.entry(row.resource_json.clone()).or_default();
        known.insert(row.envelope_json.clone(), resource.clone());
        resource
    }

    /// The scope of a row.
    pub fn scope(&mut self, row: &SpanRow) -> Shared<Scope> {
        let key = [
            &row.scope,
            &row.scope_version_text,
            &row.scope_json,
            &row.envelope_json,
        ];
        let entry = self
            .scopes
            .entry(key.map(Text::clone))
            .or_insert_with_key(|key| {
                let [name, version, json, envelope] = key;
                let envelope = read_envelope(envelope);
                Shared(Arc::new(Scope {
                    name: name.0.clone(),
                    version: version.0.clone(),
                    attributes: stored_attributes(&json.0),
                    dropped_attributes_count: envelope.scope_dropped_attributes_count,
                    schema_url: envelope.scope_schema_url,
                }))
            });
        entry.clone()
    }
}

/// No envelope, or one of another writer, is an empty one.
fn read_envelope(json: &Text) -> Envelope {
    serde_json::from_str(&json.0).unwrap_or_default()
}

struct Maps {
    strings: Vec<(Text, Text)>,
    ints: Vec<(Text, i64)>,
    doubles: Vec<(Text, f64)>,
    others: Vec<(Text, Text)>,
}

/// All attributes of a span, from wherever they are stored, by key.
fn attributes(texts: &[Text], codes: &[u16], maps: Maps) -> Vec<Attribute> {
    let texts = promoted_texts()
        .zip(texts)
        .filter(|(_, text)| !text.0.is_empty());
    let mut all: Vec<Attribute> = texts
        .map(|(promoted, text)| TypedValue::string(text.0.clone()).under(promoted.key.to_owned()))
        .collect();
    let codes = promoted_codes().zip(codes).filter(|(_, code)| **code != 0);
    all.extend(
        codes
            .map(|(promoted, code)| TypedValue::int((*code).into()).under(promoted.key.to_owned())),
    );
    let strings = maps.strings.into_iter();
    all.extend(strings.map(|(key, value)| TypedValue::string(value.0).under(key.0)));
    all.extend(
        maps.ints
            .into_iter()
            .map(|(key, value)| TypedValue::int(value).under(key.0)),
    );
    all.extend(
        maps.doubles
            .into_iter()
            .map(|(key, value)| TypedValue::double(value).under(key.0)),
    );
    let others = maps.others.into_iter();
    all.extend(others.map(|(key, value)| TypedValue::stored(&value.0).under(key.0)));
    all.sort_by(|one, other| one.key.cmp(&other.key));
    all
}

/// An event of a row.
pub(crate) fn event((time_ns, name, attributes, dropped): EventRow) -> Event {
    Event {
        name: name.0,
        time: rfc3339(time_ns),
        time_unix_nano: time_ns.to_string(),
        attributes: stored_attributes(&attributes.0),
        dropped_attributes_count: dropped,
    }
}

/// A link of a row.
pub(crate) fn link((trace_id, span_id, trace_state, flags, attributes, dropped): LinkRow) -> Link {
    Link {
        trace_id: hex(&trace_id),
        span_id: hex(&span_id),
        trace_state: trace_state.0,
        flags,
        attributes: stored_attributes(&attributes.0),
        dropped_attributes_count: dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::selected;

    #[test]
    fn columns_are_in_the_order_of_the_fields() {
        for sql in [
            spans_sql([0; 16], 0, 1, 2),
            unique_spans_sql([0; 16], 0, 1, 2),
            every_span_sql([0; 16], 0, 1),
        ] {
            assert_eq!(selected(&sql), SpanRow::COLUMN_NAMES, "{}", sql.shown());
        }
    }
}
