//! The layouts that are compared: the schema as it is, and one change at a time.

use spanloom_store::schema::promoted::{Kind, PROMOTED, PROMOTED_SPAN, Promoted, Scope};
use spanloom_store::schema::table::{Column, Index, Table, Ttl};
use spanloom_store::schema::{SchemaOptions, spans};
use std::collections::BTreeMap;

/// A layout of the table of spans, how to fill it, and how to ask it.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Its name in the result.
    pub name: &'static str,
    create: Create,
    /// What each column takes from the source, in order.
    pub fill: Vec<(String, String)>,
    /// What queries call things.
    pub words: Words,
}

#[derive(Debug, Clone)]
enum Create {
    Table(Box<Table>),
    Statement(&'static str),
}

/// Columns and conditions as a layout spells them; `{…}` in a condition is a query's parameter.
#[derive(Debug, Clone)]
pub struct Words {
    /// The start time.
    pub time: &'static str,
    /// The service.
    pub service: &'static str,
    /// The operation.
    pub name: &'static str,
    /// The duration in nanoseconds.
    pub duration: &'static str,
    /// Being of one trace.
    pub in_trace: &'static str,
    /// A promoted attribute.
    pub route: &'static str,
    /// A text attribute without a column.
    pub user: &'static str,
    /// An integer attribute without a column.
    pub port: &'static str,
    /// A resource attribute.
    pub pod: &'static str,
}

const OURS: Words = Words {
    time: "time",
    service: "service",
    name: "name",
    duration: "duration_ns",
    in_trace: "trace_id = unhex('{trace}')",
    route: "http_route = '{route}'",
    user: "attr_str['user.id'] = '{user}'",
    port: "attr_int['network.peer.port'] = {port}",
    pod: "k8s_pod_name = '{pod}'",
};

const EXPORTERS: Words = Words {
    time: "Timestamp",
    service: "ServiceName",
    name: "SpanName",
    duration: "Duration",
    in_trace: "TraceId = '{trace}'",
    route: "SpanAttributes['http.route'] = '{route}'",
    user: "SpanAttributes['user.id'] = '{user}'",
    port: "SpanAttributes['network.peer.port'] = '{port}'",
    pod: "ResourceAttributes['k8s.pod.name'] = '{pod}'",
};

impl Layout {
    /// The statement that creates it as table `layout`, in `database`.
    pub fn create(&self, database: &str) -> Vec<String> {
        match &self.create {
            Create::Table(table) => {
                let options = SchemaOptions {
                    database: database.to_owned(),
                    ..SchemaOptions::default()
                };
                options.create_table(table)
            }
            Create::Statement(statement) => vec![(*statement).to_owned()],
        }
    }
}

/// All of them; the schema itself is the first.
pub fn layouts() -> Vec<Layout> {
    let mut layouts = vec![
        base("schema", |_| {}),
        base("order: service, name, time", |l| {
            l.order("tenant, service, name, time")
        }),
        base("order: hour first", |l| {
            l.order("tenant, toStartOfHour(time), service, name, time");
        }),
        base("order: five minutes first", |l| {
            l.order("tenant, toStartOfFiveMinutes(time), service, name, time");
        }),
        base("order: minute first", |l| {
            l.order("tenant, toStartOfMinute(time), service, name, time");
        }),
        base("granules of 8,192 rows", |l| {
            l.setting("index_granularity", "8192")
        }),
        base("granules of 1,024 rows", |l| {
            l.setting("index_granularity", "1024")
        }),
        base("ids: hex text", |l| {
            for id in ["trace_id", "span_id", "parent_span_id"] {
                l.column(id, "String", format!("lower(hex({id}))"));
            }
            l.without_index("idx_trace_id_hex");
            l.words.in_trace = "trace_id = '{trace}'";
        }),
        base("ids: not compressed", |l| {
            for id in ["trace_id", "span_id", "parent_span_id"] {
                l.codec(|column| column.name == id, "NONE");
            }
        }),
        base("attributes: one map of text", |l| {
            l.column(
                "attr_str",
                "Map(LowCardinality(String), String)",
                all_as_text(),
            );
            l.drop(&["attr_int", "attr_double", "attr_other"]);
            l.words.port = "attr_str['network.peer.port'] = '{port}'";
        }),
        base("attributes: JSON text", |l| {
            l.without_attribute_indices();
            l.column(
                "attr_str",
                "String",
                format!("toJSONString({})", all_as_text()),
            );
            l.drop(&["attr_int", "attr_double", "attr_other"]);
            l.words.user = "JSONExtractString(attr_str, 'user.id') = '{user}'";
            l.words.port = "JSONExtractString(attr_str, 'network.peer.port') = '{port}'";
        }),
        base("attributes: JSON type", |l| {
            l.without_attribute_indices();
            l.column(
                "attr_str",
                "JSON",
                format!("toJSONString({})", all_as_text()),
            );
            l.drop(&["attr_int", "attr_double", "attr_other"]);
            l.words.user = "attr_str.`user.id`::String = '{user}'";
            l.words.port = "attr_str.`network.peer.port`::String = '{port}'";
        }),
        base("attributes: bucketed maps", |l| {
            l.setting("map_serialization_version", "'with_buckets'");
            l.setting("map_serialization_version_for_zero_level_parts", "'basic'");
            l.setting("max_buckets_in_map", "8");
        }),
        base("no promoted columns", |l| {
            let promoted: Vec<&str> = PROMOTED_SPAN.iter().map(|p| p.column).collect();
            l.drop(&promoted);
            l.column(
                "attr_str",
                "Map(LowCardinality(String), String)",
                "attributes".into(),
            );
            l.column(
                "attr_int",
                "Map(LowCardinality(String), Int64)",
                "integers".into(),
            );
            l.words.route = "attr_str['http.route'] = '{route}'";
        }),
        base("resource: a map", |l| {
            l.column(
                "resource",
                "Map(LowCardinality(String), String)",
                resource_map(),
            );
        }),
        base(
            "index: none on attributes",
            Draft::without_attribute_indices,
        ),
        base("index: text on key=value", |l| {
            l.without_attribute_indices();
            l.index("idx_items", ITEMS, "text(tokenizer = 'array')");
            l.words.user = HAS_ITEM;
        }),
        base("index: none on trace_id", |l| {
            l.without_index("idx_trace_id");
            l.without_index("idx_trace_id_hex");
        }),
        base("codec: LZ4", |l| l.recompress("LZ4")),
        base("codec: ZSTD(3)", |l| l.recompress("ZSTD(3)")),
    ];
    layouts.push(exporters());
    layouts
}

const ITEMS: &str =
    "arrayMap(x -> concat(x.1, '=', x.2), CAST(attr_str, 'Array(Tuple(String, String))'))";

/// The one form of a condition that the text index answers; it repeats the indexed expression.
const HAS_ITEM: &str = "has(arrayMap(x -> concat(x.1, '=', x.2), CAST(attr_str, 'Array(Tuple(String, String))')), \
     'user.id={user}')";

fn base(name: &'static str, change: impl FnOnce(&mut Draft)) -> Layout {
    let mut table = spans::spans();
    table.name = "layout".into();
    // The source's spans are of a fixed day, which retention would remove.
    table.ttl = None::<Ttl>;
    table.deduplicated = false;
    let fill = table
        .columns
        .iter()
        .map(|column| (column.name.to_string(), source_of(&column.name)))
        .collect();
    let mut draft = Draft {
        table,
        fill,
        words: OURS,
    };
    change(&mut draft);
    let fill = draft
        .table
        .columns
        .iter()
        .filter_map(|column| draft.fill.remove_entry(column.name.as_ref()))
        .collect();
    Layout {
        name,
        create: Create::Table(Box::new(draft.table)),
        fill,
        words: draft.words,
    }
}

/// A layout being changed.
struct Draft {
    table: Table,
    fill: BTreeMap<String, String>,
    words: Words,
}

impl Draft {
    fn order(&mut self, key: &str) {
        self.table.order_by = format!("({key})").into();
    }

    fn setting(&mut self, name: &'static str, value: &'static str) {
        self.table.settings.retain(|(other, _)| other != name);
        self.table.settings.push((name.into(), value.into()));
    }

    fn column(&mut self, name: &str, ty: &'static str, source: String) {
        for column in self
            .table
            .columns
            .iter_mut()
            .filter(|column| column.name == name)
        {
            column.ty = ty.into();
        }
        self.fill.insert(name.to_owned(), source);
    }

    /// Without these columns, and the indices on them.
    fn drop(&mut self, names: &[&str]) {
        self.table
            .columns
            .retain(|column| !names.contains(&column.name.as_ref()));
        self.table
            .indices
            .retain(|index| !names.iter().any(|name| index.expression.contains(name)));
    }

    fn codec(&mut self, which: impl Fn(&Column) -> bool, codec: &'static str) {
        for column in self.table.columns.iter_mut().filter(|column| which(column)) {
            column.codec = Some(codec.into());
        }
    }

    /// Another general codec in the place of ZSTD(1), behind the same preparation.
    fn recompress(&mut self, codec: &str) {
        for column in &mut self.table.columns {
            if let Some(old) = &column.codec {
                column.codec = Some(old.replace("ZSTD(1)", codec).into());
            }
        }
    }

    fn index(&mut self, name: &'static str, expression: &'static str, kind: &'static str) {
        self.table.indices.push(Index::new(name, expression, kind));
    }

    /// Those of the schema expect maps.
    fn without_attribute_indices(&mut self) {
        self.table
            .indices
            .retain(|index| !index.expression.contains("(attr_"));
    }

    fn without_index(&mut self, name: &str) {
        self.table.indices.retain(|index| index.name != name);
    }
}

/// What one of our columns takes from the source.
fn source_of(column: &str) -> String {
    let promoted = PROMOTED.iter().find(|promoted| promoted.column == column);
    if let Some(Promoted {
        key, scope, kind, ..
    }) = promoted
    {
        return match (scope, kind) {
            (Scope::Span, Kind::Code) => format!("integers['{key}']"),
            (Scope::Span, _) => format!("attributes['{key}']"),
            (Scope::Resource, _) => format!("JSONExtractString(resource, '{key}')"),
        };
    }
    match column {
        "tenant" | "trace_state" | "scope_attributes" | "envelope" => "''".to_owned(),
        "flags" => "257".to_owned(),
        "attr_str" => format!(
            "mapFilter((k, v) -> k NOT IN ({}), attributes)",
            promoted_keys()
        ),
        "attr_int" => format!(
            "mapFilter((k, v) -> k NOT IN ({}), integers)",
            promoted_keys()
        ),
        "attr_double" => "doubles".to_owned(),
        "attr_other" => "others".to_owned(),
        "links" => "[]".to_owned(),
        column if column.starts_with("dropped_") => "0".to_owned(),
        column => column.to_owned(),
    }
}

fn promoted_keys() -> String {
    let keys: Vec<String> = PROMOTED_SPAN
        .iter()
        .map(|promoted| format!("'{}'", promoted.key))
        .collect();
    keys.join(", ")
}

/// Every attribute that has no column, as one map of text.
fn all_as_text() -> String {
    format!(
        "mapConcat({}, mapApply((k, v) -> (k, toString(v)), {}), \
         mapApply((k, v) -> (k, toString(v)), doubles), others)",
        source_of("attr_str"),
        source_of("attr_int"),
    )
}

fn resource_map() -> String {
    "CAST(JSONExtract(toString(resource), 'Map(String, String)'), \
     'Map(LowCardinality(String), String)')"
        .to_owned()
}

/// The table of the OpenTelemetry Collector's exporter.
fn exporters() -> Layout {
    let columns = [
        ("Timestamp", "time".to_owned()),
        ("TraceId", "lower(hex(trace_id))".to_owned()),
        ("SpanId", "lower(hex(span_id))".to_owned()),
        (
            "ParentSpanId",
            "if(parent_span_id = toFixedString('', 8), '', lower(hex(parent_span_id)))".to_owned(),
        ),
        ("SpanName", "name".to_owned()),
        ("SpanKind", "initcap(toString(kind))".to_owned()),
        ("ServiceName", "service".to_owned()),
        ("ResourceAttributes", resource_map()),
        ("ScopeName", "scope_name".to_owned()),
        ("ScopeVersion", "scope_version".to_owned()),
        (
            "SpanAttributes",
            "CAST(mapConcat(attributes, mapApply((k, v) -> (k, toString(v)), integers), \
             mapApply((k, v) -> (k, toString(v)), doubles), others), \
             'Map(LowCardinality(String), String)')"
                .to_owned(),
        ),
        ("Duration", "duration_ns".to_owned()),
        ("StatusCode", "initcap(toString(status))".to_owned()),
        ("StatusMessage", "status_message".to_owned()),
        ("`Events.Timestamp`", "events.time".to_owned()),
        ("`Events.Name`", "events.name".to_owned()),
        (
            "`Events.Attributes`",
            "arrayMap(x -> CAST(JSONExtract(x, 'Map(String, String)'), \
             'Map(LowCardinality(String), String)'), events.attributes)"
                .to_owned(),
        ),
    ];
    Layout {
        name: "otel_traces of the Collector's exporter",
        create: Create::Statement(include_str!("otel_traces.sql")),
        fill: columns
            .map(|(column, source)| (column.to_owned(), source))
            .to_vec(),
        words: EXPORTERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_fills_the_columns_it_has() {
        for layout in layouts() {
            let create = layout.create("d").join("\n");
            for (column, source) in &layout.fill {
                let name = column.trim_matches('`');
                let name = name.split('.').next_back().unwrap();
                assert!(create.contains(name), "{}: no column {column}", layout.name);
                assert!(!source.is_empty(), "{}: {column}", layout.name);
            }
        }
    }
}
