//! What the evaluator reads of spans: the columns that a query needs. The others come empty, since to read them, to
//! send them and to take them apart is most of what a query costs.

use std::collections::BTreeSet;

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::promoted::{Kind, PROMOTED_SPAN, Promoted};
use spanloom_traceql::{Field, Intrinsic, Needs, Scope};

use crate::db::Text;
use crate::search::traces::Traces;
use crate::sql::Sql;
use crate::trace::outline::SpanRecord;

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

/// Which attributes are read.
#[derive(Debug, Default)]
struct Keys<'q> {
    all: bool,
    named: BTreeSet<&'q str>,
}

impl<'q> Keys<'q> {
    fn has(&self, key: &str) -> bool {
        self.all || self.named.contains(key)
    }

    fn is_empty(&self) -> bool {
        !self.all && self.named.is_empty()
    }

    fn only(&self, key: &str) -> bool {
        !self.all && self.named.len() == 1 && self.named.contains(key)
    }

    /// A column of attributes, with those that are read.
    fn of_map(&self, column: &'static str, none: &'static str, name: &'static str) -> Sql {
        if self.is_empty() {
            let mut sql = Sql::new(none);
            sql.push(name);
            return sql;
        }
        if self.all {
            let mut sql = Sql::new(column);
            sql.push(name);
            return sql;
        }
        let mut sql = Sql::new("mapFilter((k, v) -> k IN (");
        for (place, key) in self.named.iter().enumerate() {
            sql.push(if place == 0 { "" } else { ", " }).string(key);
        }
        sql.push("), ").push(column).push(")").push(name);
        sql
    }
}

/// The columns that a query needs.
#[derive(Debug)]
pub struct Columns {
    /// Attributes that are columns of texts, in the order of [`EvalRow::texts`].
    pub texts: Vec<&'static Promoted>,
    /// Attributes that are columns of numbers, in the order of [`EvalRow::codes`].
    pub codes: Vec<&'static Promoted>,
    select: Sql,
}

impl Columns {
    /// Of a query.
    pub fn of(needs: &Needs) -> Self {
        let all = needs.all_attributes;
        let keys = || Keys {
            all,
            named: BTreeSet::new(),
        };
        let (mut span, mut resource) = (keys(), keys());
        let (mut scope, mut scope_name, mut message) = (all, all, all);
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
                    Scope::Instrumentation => scope = true,
                    Scope::Event | Scope::Link => {}
                },
                Field::Intrinsic(intrinsic) => match intrinsic {
                    Intrinsic::StatusMessage => message = true,
                    Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => {
                        scope_name = true;
                    }
                    _ => {}
                },
            }
        }
        let promoted = |is_code: bool| {
            let columns = PROMOTED_SPAN.iter();
            let columns = columns.filter(|promoted| (promoted.kind == Kind::Code) == is_code);
            columns
                .filter(|promoted| span.has(promoted.key))
                .collect::<Vec<_>>()
        };
        let (texts, codes) = (promoted(false), promoted(true));

        let mut sql = Sql::new(
            "SELECT trace_id, span_id, parent_span_id, toUnixTimestamp64Nano(time) AS start_ns, \
             duration_ns, toString(name) AS name_text, toString(service) AS service_name, \
             toInt8(kind) AS kind_number, toInt8(status) AS status_number, ",
        );
        let given = |is_given: bool, column: &'static str| match is_given {
            true => column,
            false => "''",
        };
        sql.push(given(message, "status_message"))
            .push(" AS message, ");
        for (place, promoted) in texts.iter().enumerate() {
            sql.push(if place == 0 {
                "[toString("
            } else {
                ", toString("
            });
            sql.push(promoted.column).push(")");
        }
        sql.push(if texts.is_empty() {
            "[]::Array(String)"
        } else {
            "]"
        });
        sql.push(" AS texts, ");
        for (place, promoted) in codes.iter().enumerate() {
            sql.push(if place == 0 { "[" } else { ", " })
                .push(promoted.column);
        }
        sql.push(if codes.is_empty() {
            "[]::Array(UInt16)"
        } else {
            "]"
        });
        sql.push(" AS codes, ");
        sql.push(if resource.is_empty() {
            "''"
        } else if resource.only("service.name") {
            // Where it is a text, `service` has it. Where the key is once in the JSON, but in a map, the resource has
            // no name of its own, and the same is right.
            "if(countSubstrings(resource, '\"service.name\":') = 1 \
             AND position(resource, '\"service.name\":\"') > 0, '', toString(resource))"
        } else {
            "toString(resource)"
        });
        sql.push(" AS resource_json, ");
        sql.push(given(scope_name, "toString(scope_name)"))
            .push(" AS scope, ");
        sql.push(given(scope_name, "toString(scope_version)"))
            .push(" AS scope_version_text, ");
        sql.push(given(scope, "toString(scope_attributes)"))
            .push(" AS scope_json, ");
        const NO_TEXTS: &str = "CAST([], 'Array(Tuple(String, String))')";
        const NO_INTS: &str = "CAST([], 'Array(Tuple(String, Int64))')";
        const NO_DOUBLES: &str = "CAST([], 'Array(Tuple(String, Float64))')";
        sql.append(&span.of_map("attr_str", NO_TEXTS, " AS strings, "))
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
                 'Array(Tuple(FixedString(16), FixedString(8), String))') AS link_list"
            }
            false => {
                "CAST([], 'Array(Tuple(FixedString(16), FixedString(8), String))') AS link_list"
            }
        });
        sql.push(" FROM spans WHERE ");
        Self {
            texts,
            codes,
            select: sql,
        }
    }

    /// The query of the spans of these traces, those of one after those of another.
    pub fn traces_sql(&self, traces: &Traces) -> Sql {
        let mut sql = self.select.clone();
        sql.append(&traces.condition())
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
