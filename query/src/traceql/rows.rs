//! What the evaluator reads of spans: the columns that a query needs. The others come empty, since to read them, to
//! send them and to take them apart is most of what a query costs.

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::promoted::{Kind, PROMOTED_SPAN, Promoted};
use spanloom_traceql::{CompiledQuery, Field, Intrinsic, Scope};

use crate::db::Text;
use crate::sql::Sql;
use crate::trace::outline::SpanRecord;
use crate::traceql::condition::Condition;

/// How many spans one stands for, in SQL: by the threshold `th` that samplers leave in the `ot` member of its
/// `tracestate`, the first digits of a number below 2^56. Without one it stands for itself.
/// <https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>
pub const WEIGHT: &str = "72057594037927936. / (72057594037927936 - reinterpretAsUInt64(reverse(unhex(rightPad(\
     extract(trace_state, '(?:^|,)[ \\t]*ot=(?:[^,;]*;)*?th:([0-9a-f]{1,14})[ \\t]*(?:[,;]|$)'), 14, '0')))))";

type EventRow = (i64, Text, Text);
type LinkRow = ([u8; 16], [u8; 8], Text);

/// A row of `spans`, as far as a query needs it.
#[derive(Debug, Clone, Row, Deserialize)]
pub struct EvalRow {
    /// The trace's id.
    pub trace_id: [u8; 16],
    /// The span's id.
    pub span_id: [u8; 8],
    /// The parent's id; zeros for none.
    pub parent_span_id: [u8; 8],
    /// The start in nanoseconds since 1970.
    pub start_ns: i64,
    /// The duration in nanoseconds.
    pub duration_ns: u64,
    /// The span's name.
    pub name_text: Text,
    /// The service's name.
    pub service_name: Text,
    /// The kind, by its number in the store.
    pub kind_number: i8,
    /// The status, by its number in the store.
    pub status_number: i8,
    /// The status message.
    pub message: Text,
    /// The values of [`Columns::texts`].
    pub texts: Vec<Text>,
    /// The values of [`Columns::codes`].
    pub codes: Vec<u16>,
    /// The resource's attributes.
    pub resource_json: Text,
    /// The scope's name.
    pub scope: Text,
    /// The scope's version.
    pub scope_version_text: Text,
    /// The scope's attributes.
    pub scope_json: Text,
    /// Attributes that are texts.
    pub strings: Vec<(Text, Text)>,
    /// Attributes that are integers.
    pub ints: Vec<(Text, i64)>,
    /// Attributes that are doubles.
    pub doubles: Vec<(Text, f64)>,
    /// Other attributes, in the store's JSON.
    pub others: Vec<(Text, Text)>,
    /// The events: when, the name, and the attributes.
    pub event_list: Vec<EventRow>,
    /// The links: trace id, span id, and the attributes.
    pub link_list: Vec<LinkRow>,
    /// How many spans it stands for, as [`WEIGHT`] says; 1 where the query does not extrapolate.
    pub weight: f64,
}

impl EvalRow {
    /// About what the row takes in memory.
    pub fn bytes(&self) -> usize {
        const PER_ITEM: usize = 64;
        let pairs = |pairs: &[(Text, Text)]| {
            let texts = pairs.iter().map(|(key, value)| key.0.len() + value.0.len());
            texts.sum::<usize>() + PER_ITEM * pairs.len()
        };
        let numbers = self.ints.iter().map(|(key, _)| key.0.len());
        let numbers = numbers.chain(self.doubles.iter().map(|(key, _)| key.0.len()));
        let numbers: usize = numbers.map(|length| length + PER_ITEM).sum();
        let events = self.event_list.iter();
        let events = events.map(|event| PER_ITEM + event.1.0.len() + event.2.0.len());
        let links = self.link_list.iter();
        let links = links.map(|link| PER_ITEM + link.2.0.len());
        let texts = [
            &self.name_text,
            &self.service_name,
            &self.message,
            &self.resource_json,
            &self.scope,
            &self.scope_version_text,
            &self.scope_json,
        ];
        size_of::<Self>()
            + texts.map(|text| text.0.len()).iter().sum::<usize>()
            + self
                .texts
                .iter()
                .map(|text| PER_ITEM + text.0.len())
                .sum::<usize>()
            + pairs(&self.strings)
            + pairs(&self.others)
            + numbers
            + events.sum::<usize>()
            + links.sum::<usize>()
    }
}

impl SpanRecord for EvalRow {
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

/// Maps whose values are attributes as well: `a.b` is `b` in the map `a`.
#[derive(Debug)]
pub struct Maps {
    /// The keys of the maps.
    pub keys: BTreeSet<String>,
    /// The condition of a span that may match: that of the query does not look into maps.
    pub condition: Condition,
}

/// Which attributes are read.
#[derive(Debug, Default)]
struct Keys<'q> {
    /// Whether all are, of the spans that are read whole.
    all: bool,
    /// Those that are read of each span.
    named: BTreeSet<&'q str>,
}

impl Keys<'_> {
    fn is_empty(&self) -> bool {
        !self.all && self.named.is_empty()
    }

    /// A column of attributes, with those that are read.
    fn of_map(&self, column: &'static str, none: &'static str, name: &'static str) -> Sql {
        let mut sql = Sql::default();
        if self.is_empty() {
            sql.push(none).push(name);
            return sql;
        }
        sql.push("mapFilter((k, v) -> ");
        sql.push(if self.all { "is_whole" } else { "false" });
        if !self.named.is_empty() {
            sql.push(" OR k IN (");
            for (place, key) in self.named.iter().enumerate() {
                sql.push(if place == 0 { "" } else { ", " }).string(key);
            }
            sql.push(")");
        }
        sql.push(", ").push(column).push(")").push(name);
        sql
    }

    /// The columns of attributes that have one of their own.
    fn promoted(&self, is_code: bool) -> Vec<&'static Promoted> {
        let columns = PROMOTED_SPAN.iter();
        let columns = columns.filter(|promoted| (promoted.kind == Kind::Code) == is_code);
        columns
            .filter(|promoted| self.all || self.named.contains(promoted.key))
            .collect()
    }

    /// Their values, as an array.
    fn of_columns(&self, columns: &[&'static Promoted], is_code: bool) -> Sql {
        let mut sql = Sql::default();
        for (place, promoted) in columns.iter().enumerate() {
            sql.push(if place == 0 { "[" } else { ", " });
            let is_of_each = self.named.contains(promoted.key);
            sql.push(if is_of_each { "" } else { "if(is_whole, " });
            match is_code {
                true => sql.push(promoted.column),
                false => sql.push("toString(").push(promoted.column).push(")"),
            };
            sql.push(match (is_of_each, is_code) {
                (true, _) => "",
                (false, true) => ", 0)",
                (false, false) => ", '')",
            });
        }
        sql.push(match (columns.is_empty(), is_code) {
            (false, true) => "]::Array(UInt16) AS codes, ",
            (false, false) => "]::Array(String) AS texts, ",
            (true, true) => "[]::Array(UInt16) AS codes, ",
            (true, false) => "[]::Array(String) AS texts, ",
        });
        sql
    }
}

/// Of which spans a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    None,
    Whole,
    Each,
}

/// A text, or nothing of the spans of which it is not read.
fn text(of: Of, column: &'static str, name: &'static str) -> Sql {
    let mut sql = Sql::default();
    match of {
        Of::None => sql.push("''"),
        Of::Whole => sql.push("if(is_whole, ").push(column).push(", '')"),
        Of::Each => sql.push(column),
    };
    sql.push(name);
    sql
}

/// The columns that a query needs.
#[derive(Debug)]
pub struct Columns {
    /// Attributes that are columns of texts, in the order of [`EvalRow::texts`].
    pub texts: Vec<&'static Promoted>,
    /// Attributes that are columns of numbers, in the order of [`EvalRow::codes`].
    pub codes: Vec<&'static Promoted>,
    /// Whether the values of maps are attributes as well.
    pub are_maps_flat: bool,
    select: Sql,
}

impl Columns {
    /// Of a query. Where it reads all attributes, it does so of the spans of this condition: of others those that
    /// it names.
    pub fn of(query: &CompiledQuery, whole: &Condition) -> Self {
        let all = query.needs().all_attributes.then_some(whole);
        Self::read(query, all, None)
    }

    /// The same, and those of these maps.
    pub fn with_maps<'q>(
        query: &'q CompiledQuery,
        whole: &Condition,
        maps: Option<&'q Maps>,
    ) -> Self {
        let all = query.needs().all_attributes.then_some(whole);
        Self::read(query, all, maps)
    }

    /// Of a query, where all attributes are read elsewhere: those that it names.
    pub fn named(query: &CompiledQuery) -> Self {
        Self::read(query, None, None)
    }

    /// Those that a query names, and all of the spans of a condition.
    fn read<'q>(
        query: &'q CompiledQuery,
        whole: Option<&Condition>,
        maps: Option<&'q Maps>,
    ) -> Self {
        let needs = query.needs();
        let all = whole.is_some();
        let keys = || Keys {
            all,
            named: BTreeSet::new(),
        };
        let (mut span, mut resource) = (keys(), keys());
        let at_least = if all { Of::Whole } else { Of::None };
        let (mut scope, mut scope_name, mut message) = (at_least, at_least, at_least);
        for field in &needs.fields {
            match field {
                Field::Attribute {
                    scope: of, name, ..
                } => match of {
                    Scope::Span => {
                        span.named.insert(name);
                    }
                    Scope::Resource => {
                        resource.named.insert(name);
                    }
                    Scope::Unscoped => {
                        span.named.insert(name);
                        resource.named.insert(name);
                    }
                    Scope::Instrumentation => scope = Of::Each,
                    Scope::Event | Scope::Link => {}
                },
                Field::Intrinsic(intrinsic) => match intrinsic {
                    Intrinsic::StatusMessage => message = Of::Each,
                    Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => {
                        scope_name = Of::Each;
                    }
                    _ => {}
                },
            }
        }
        let keys = maps.iter().flat_map(|maps| &maps.keys);
        span.named.extend(keys.map(String::as_str));
        let (texts, codes) = (span.promoted(false), span.promoted(true));

        let mut sql = Sql::default();
        if let Some(whole) = whole {
            sql.push("WITH (true");
            whole.and_to(&mut sql);
            sql.push(") AS is_whole ");
        }
        sql.push(
            "SELECT trace_id, span_id, parent_span_id, toUnixTimestamp64Nano(time) AS start_ns, \
             duration_ns, toString(name) AS name_text, toString(service) AS service_name, \
             toInt8(kind) AS kind_number, toInt8(status) AS status_number, ",
        );
        sql.append(&text(message, "status_message", " AS message, "))
            .append(&span.of_columns(&texts, false))
            .append(&span.of_columns(&codes, true));
        let is_name_alone =
            resource.named.len() == 1 && resource.named.contains("service.name") && !all;
        if is_name_alone {
            // Where it is a text, `service` has it. Where the key is once in the JSON, but in a map, the resource has
            // no name of its own, and the same is right.
            sql.push(
                "if(countSubstrings(resource, '\"service.name\":') = 1 \
                 AND position(resource, '\"service.name\":\"') > 0, '', toString(resource)) \
                 AS resource_json, ",
            );
        } else {
            let of = match resource.named.is_empty() {
                true => at_least,
                false => Of::Each,
            };
            sql.append(&text(of, "toString(resource)", " AS resource_json, "));
        }
        const NO_TEXTS: &str = "CAST([], 'Array(Tuple(String, String))')";
        const NO_INTS: &str = "CAST([], 'Array(Tuple(String, Int64))')";
        const NO_DOUBLES: &str = "CAST([], 'Array(Tuple(String, Float64))')";
        sql.append(&text(scope_name, "toString(scope_name)", " AS scope, "))
            .append(&text(
                scope_name,
                "toString(scope_version)",
                " AS scope_version_text, ",
            ))
            .append(&text(
                scope,
                "toString(scope_attributes)",
                " AS scope_json, ",
            ))
            .append(&span.of_map("attr_str", NO_TEXTS, " AS strings, "))
            .append(&span.of_map("attr_int", NO_INTS, " AS ints, "))
            .append(&span.of_map("attr_double", NO_DOUBLES, " AS doubles, "))
            .append(&span.of_map("attr_other", NO_TEXTS, " AS others, "));
        sql.push(match needs.events {
            true => {
                "CAST(arrayZip(events.time, events.name, events.attributes), \
                 'Array(Tuple(DateTime64(9), String, String))') AS event_list, "
            }
            false => "CAST([], 'Array(Tuple(DateTime64(9), String, String))') AS event_list, ",
        });
        sql.push(match needs.links {
            true => {
                "CAST(arrayZip(links.trace_id, links.span_id, links.attributes), \
                 'Array(Tuple(FixedString(16), FixedString(8), String))') AS link_list, "
            }
            false => {
                "CAST([], 'Array(Tuple(FixedString(16), FixedString(8), String))') AS link_list, "
            }
        });
        sql.push(if query.extrapolates() { WEIGHT } else { "1." })
            .push(" AS weight FROM spans WHERE ");
        Self {
            texts,
            codes,
            are_maps_flat: maps.is_some(),
            select: sql,
        }
    }

    /// The query of the spans of some traces, those of one after those of another.
    pub fn traces_sql(&self, condition: &Sql) -> Sql {
        let mut sql = self.select.clone();
        sql.append(condition)
            .push(" ORDER BY trace_id, time, span_id");
        sql
    }

    /// The query of the spans that start in a window; conditions may follow.
    pub fn window_sql(&self, from_ns: i64, to_ns: i64) -> Sql {
        let mut sql = self.select.clone();
        sql.push("tenant = '' AND ").started_within(from_ns, to_ns);
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::selected;

    #[test]
    fn columns_are_in_the_order_of_the_fields() {
        for query in [
            "{ }",
            "{ .a = 1 && statusMessage = \"x\" && instrumentation.b = \"c\" && event:name = \"d\" }",
            "{ link:traceID = \"a\" && resource.service.name = \"b\" && span.http.route = \"c\" }",
            "{ } | compare({ status = error })",
            "{ span.http.response.status_code > 1 } | rate() with (extrapolate = true)",
        ] {
            let query = CompiledQuery::new(query).unwrap();
            for columns in [
                Columns::of(&query, &Condition::UNKNOWN),
                Columns::named(&query),
            ] {
                let sql = columns.window_sql(0, 1);
                assert_eq!(selected(&sql), EvalRow::COLUMN_NAMES, "{}", sql.shown());
            }
        }
    }
}
