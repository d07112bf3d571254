//! The `spans` table: one row a span, everything that OTLP carries.

use super::promoted::{PROMOTED_RESOURCE, PROMOTED_SPAN};
use super::table::{Column, Engine, Index, Lifetime, Table, Ttl};

const LC: &str = "LowCardinality(String)";

pub(crate) const KIND: &str = "Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, \
     'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5)";
pub(crate) const STATUS: &str = "Enum8('UNSET' = 0, 'OK' = 1, 'ERROR' = 2)";
pub(crate) const MAP_TO_STRING: &str = "Map(LowCardinality(String), String)";
pub(crate) const EVENTS: &str = "Array(Tuple(time DateTime64(9), name LowCardinality(String), \
     attributes String, dropped UInt32))";
pub(crate) const LINKS: &str = "Array(Tuple(trace_id FixedString(16), span_id FixedString(8), \
     trace_state String, flags UInt32, attributes String, dropped UInt32))";

/// The keys of a span's events and links. It has an index, which serves conditions that spell it the same.
pub const NESTED_KEYS: &str = "arrayFlatten(arrayMap(a -> JSONExtractKeys(a), \
     arrayConcat(tupleElement(events, 'attributes'), tupleElement(links, 'attributes'))))";

/// `tenant` stands first in every key and is constant until there are tenants.
pub(super) fn tenant() -> Column {
    Column::new("tenant", LC).default_to("''").codec("ZSTD(1)")
}

fn columns() -> Vec<Column> {
    // ZSTD(1) reads about as fast as LZ4 and takes a third less room; numbers that move in small
    // steps are turned into their steps first.
    let zstd = |name: &'static str, ty: &'static str| Column::new(name, ty).codec("ZSTD(1)");
    let mut columns = vec![
        tenant(),
        Column::new("time", "DateTime64(9)").codec("Delta(8), ZSTD(1)"),
        Column::new("duration_ns", "UInt64").codec("T64, ZSTD(1)"),
        zstd("service", LC),
        zstd("name", LC),
        zstd("kind", KIND),
        zstd("status", STATUS),
        zstd("status_message", "String"),
        zstd("trace_id", "FixedString(16)"),
        zstd("span_id", "FixedString(8)"),
        zstd("parent_span_id", "FixedString(8)"),
        zstd("trace_state", "String"),
        zstd("flags", "UInt32"),
    ];
    let promoted = PROMOTED_SPAN.iter().chain(&PROMOTED_RESOURCE);
    columns.extend(promoted.map(|p| zstd(p.column, p.kind.sql())));
    columns.extend([
        zstd("resource", LC),
        zstd("scope_name", LC),
        zstd("scope_version", LC),
        zstd("scope_attributes", LC),
        zstd("envelope", LC),
        zstd("attr_str", MAP_TO_STRING),
        zstd("attr_int", "Map(LowCardinality(String), Int64)"),
        zstd("attr_double", "Map(LowCardinality(String), Float64)"),
        zstd("attr_other", MAP_TO_STRING),
        zstd("dropped_attributes_count", "UInt32"),
        zstd("dropped_events_count", "UInt32"),
        zstd("dropped_links_count", "UInt32"),
        zstd("events", EVENTS),
        zstd("links", LINKS),
    ]);
    columns
}

/// The table of spans.
pub fn spans() -> Table {
    Table {
        name: "spans".into(),
        columns: columns(),
        indices: vec![
            Index::new("idx_trace_id", "trace_id", "bloom_filter(0.001)"),
            // For lookups by the view's `TraceId`, which is this expression.
            Index {
                granularity: 4,
                ..Index::new(
                    "idx_trace_id_hex",
                    "lower(hex(trace_id))",
                    "bloom_filter(0.001)",
                )
            },
            // For conditions like `attr_str['user.id'] = 'u-1'`: rare keys, and rare values. A number
            // may be in three maps, and a granule is skipped when none of them can have it.
            Index::new(
                "idx_attr_int_key",
                "mapKeys(attr_int)",
                "bloom_filter(0.01)",
            ),
            Index::new(
                "idx_attr_double_key",
                "mapKeys(attr_double)",
                "bloom_filter(0.01)",
            ),
            Index::new(
                "idx_attr_str_key",
                "mapKeys(attr_str)",
                "bloom_filter(0.01)",
            ),
            Index::new(
                "idx_attr_str_value",
                "mapValues(attr_str)",
                "bloom_filter(0.01)",
            ),
            Index::new("idx_duration", "duration_ns", "minmax"),
            Index::new("idx_time", "time", "minmax"),
            // Lists, maps and booleans, and what events and links have: rare, so most granules are skipped.
            Index::new(
                "idx_attr_other_key",
                "mapKeys(attr_other)",
                "bloom_filter(0.01)",
            ),
            Index::new("idx_nested_key", NESTED_KEYS, "bloom_filter(0.01)"),
        ],
        engine: Engine::MergeTree,
        partition_by: "toDate(time)".into(),
        // Searches have a time range, mostly a short one: the time first, in steps long enough that
        // a service's spans still lie together in them (docs/schema-benchmark.md).
        order_by: "(tenant, toStartOfFiveMinutes(time), service, name, time)".into(),
        ttl: Some(Ttl {
            from: "toDateTime(time)".into(),
            lifetime: Lifetime::Retention,
            whole_parts: true,
        }),
        sharding_key: "cityHash64(trace_id)".into(),
        deduplicated: true,
        // A trace's spans, and an operation's within five minutes, are a few rows each: with the
        // usual 8,192 rows most of what is read for them is of others.
        settings: vec![("index_granularity".into(), "2048".into())],
    }
}
