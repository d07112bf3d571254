//! The tables beside `spans`: what makes it quick to search, and the measures.

use super::spans::{KIND, STATUS, tenant};
use super::table::{Column, Engine, Index, Lifetime, Table, Ttl};

const LC: &str = "LowCardinality(String)";
const COUNT: &str = "SimpleAggregateFunction(sum, UInt64)";
/// A sum of durations: with 64 bits eleven spans that begin in 1970 would wrap it.
const TOTAL: &str = "SimpleAggregateFunction(sum, UInt128)";
const LEAST: &str = "SimpleAggregateFunction(min, UInt64)";
const GREATEST: &str = "SimpleAggregateFunction(max, UInt64)";
/// Of rows from before schema version 4.
const UNKNOWN_GREATEST: &str = "18446744073709551615";
const BUCKETS: &str = "Map(Int16, UInt64)";
const SUMMED_BUCKETS: &str = "SimpleAggregateFunction(sumMap, Map(Int16, UInt64))";
pub(crate) const TAG_SCOPE: &str =
    "Enum8('resource' = 1, 'span' = 2, 'event' = 3, 'link' = 4, 'instrumentation' = 5)";
pub(crate) const TAG_TYPE: &str =
    "Enum8('string' = 1, 'int' = 2, 'double' = 3, 'bool' = 4, 'other' = 5)";
pub(crate) const SIDE: &str = "Enum8('client' = 1, 'server' = 2, 'span' = 3)";
pub(crate) const CONNECTION: &str =
    "Enum8('unset' = 0, 'messaging_system' = 1, 'database' = 2, 'virtual_node' = 3)";

fn zstd(name: &'static str, ty: &'static str) -> Column {
    Column::new(name, ty).codec("ZSTD(1)")
}

fn retention(from: &'static str) -> Option<Ttl> {
    Some(Ttl {
        from: from.into(),
        lifetime: Lifetime::Retention,
        whole_parts: true,
    })
}

/// Trace id to time window, root and counts; a batch writes a row for each trace it holds, and
/// readers group by `trace_id`.
pub fn trace_index() -> Table {
    Table {
        name: "trace_index".into(),
        columns: vec![
            tenant(),
            zstd("day", "Date"),
            zstd("trace_id", "FixedString(16)"),
            zstd("start", "SimpleAggregateFunction(min, DateTime64(9))").codec("Delta(8), ZSTD(1)"),
            zstd("end", "SimpleAggregateFunction(max, DateTime64(9))").codec("Delta(8), ZSTD(1)"),
            zstd("root_service", "SimpleAggregateFunction(max, String)"),
            zstd("root_name", "SimpleAggregateFunction(max, String)"),
            zstd("span_count", COUNT),
            zstd("error_count", COUNT),
        ],
        indices: vec![
            Index::new(
                "idx_trace_id_hex",
                "lower(hex(trace_id))",
                "bloom_filter(0.001)",
            ),
            Index::new("idx_start", "start", "minmax"),
        ],
        engine: Engine::Aggregating,
        partition_by: "day".into(),
        order_by: "(tenant, trace_id)".into(),
        ttl: retention("toDateTime(day + 1)"),
        sharding_key: "cityHash64(trace_id)".into(),
        deduplicated: true,
        // A page of a search looks up some twenty ids, each somewhere else: short granules, in
        // blocks of their own, and little is unpacked for each.
        settings: vec![
            ("index_granularity".into(), "512".into()),
            ("min_compress_block_size".into(), "8192".into()),
        ],
    }
}

/// Which attribute keys and values there were on a day.
pub fn tags() -> Table {
    Table {
        name: "tags".into(),
        columns: vec![
            tenant(),
            zstd("day", "Date"),
            zstd("scope", TAG_SCOPE),
            zstd("key", LC),
            zstd("type", TAG_TYPE),
            zstd("value", "String"),
        ],
        indices: Vec::new(),
        engine: Engine::Replacing(None),
        partition_by: "day".into(),
        order_by: "(tenant, day, scope, key, type, value)".into(),
        ttl: retention("toDateTime(day + 1)"),
        sharding_key: "cityHash64(key, value)".into(),
        deduplicated: true,
        settings: Vec::new(),
    }
}

/// Counts and duration buckets per minute of every span, also of those that sampling drops.
pub fn red() -> Table {
    Table {
        name: "red".into(),
        columns: vec![
            tenant(),
            zstd("minute", "DateTime").codec("Delta(4), ZSTD(1)"),
            zstd("service", LC),
            zstd("name", LC),
            zstd("kind", KIND),
            zstd("status", STATUS),
            zstd("count", COUNT),
            // What a writer says; summed in `duration_total_ns`, since here merges could wrap.
            zstd("duration_sum_ns", COUNT),
            zstd("buckets", SUMMED_BUCKETS),
            zstd("duration_total_ns", TOTAL).default_to("duration_sum_ns"),
            zstd("duration_min_ns", LEAST),
            zstd("duration_max_ns", GREATEST).default_to(UNKNOWN_GREATEST),
            // The writer writes `red_hours` as well: since schema version 5.
            zstd("in_hours", "SimpleAggregateFunction(max, UInt8)"),
        ],
        indices: vec![Index::new("idx_minute", "minute", "minmax")],
        engine: Engine::Aggregating,
        partition_by: "toDate(minute)".into(),
        // The hour first: whole hours are read from `red_hours`, and only the minutes at a window's
        // ends from here.
        order_by: "(tenant, toStartOfHour(minute), service, name, kind, status, minute)".into(),
        ttl: retention("minute"),
        sharding_key: "cityHash64(service, name)".into(),
        deduplicated: true,
        settings: Vec::new(),
    }
}

/// The rows of [`red`] by the hour, errors as a count of their own; those of writers before schema version 5
/// come by [`red_hours_feed`](super::rollup::red_hours_feed). A day of all operations is read from some thousand rows.
pub fn red_hours() -> Table {
    Table {
        name: "red_hours".into(),
        columns: vec![
            tenant(),
            zstd("hour", "DateTime").codec("Delta(4), ZSTD(1)"),
            zstd("service", LC),
            zstd("name", LC),
            zstd("kind", KIND),
            zstd("count", COUNT),
            zstd("error_count", COUNT),
            zstd("duration_sum_ns", COUNT),
            // LZ4: a day of all operations is half a million buckets, and unpacking ZSTD took a third of
            // the time of their percentiles, for a tenth of a byte a span.
            zstd("buckets", SUMMED_BUCKETS).codec("LZ4"),
            zstd("duration_total_ns", TOTAL).default_to("duration_sum_ns"),
            zstd("duration_min_ns", LEAST),
            zstd("duration_max_ns", GREATEST).default_to(UNKNOWN_GREATEST),
        ],
        indices: Vec::new(),
        engine: Engine::Aggregating,
        partition_by: "toDate(hour)".into(),
        order_by: "(tenant, hour, service, name, kind)".into(),
        ttl: retention("hour"),
        sharding_key: "cityHash64(service, name)".into(),
        deduplicated: true,
        settings: Vec::new(),
    }
}

/// A row for each span, and for each span that a consumer links to: the rollup finds the spans above and
/// below. A parent and a child of two services are a call, whatever their kinds, so no kind is left out.
///
/// Rows of the sides `client` and `server` are of writers before schema version 4: a `server`'s `span_id` is
/// its parent's.
pub fn half_edges() -> Table {
    Table {
        name: "half_edges".into(),
        columns: vec![
            tenant(),
            zstd("time", "DateTime64(9)").codec("Delta(8), ZSTD(1)"),
            zstd("trace_id", "FixedString(16)"),
            zstd("span_id", "FixedString(8)"),
            zstd("side", SIDE),
            zstd("service", LC),
            zstd("duration_ns", "UInt64").codec("T64, ZSTD(1)"),
            zstd("error", "Bool"),
            zstd("peer", LC),
            zstd("connection_type", CONNECTION),
            // Set by the server when the rows arrive: the rollup asks for what is new.
            zstd("inserted_at", "DateTime64(3)")
                .default_to("now64(3)")
                .codec("Delta(8), ZSTD(1)"),
            // Zeros where there is none, or where it is known to be of the same service.
            zstd("parent_span_id", "FixedString(8)"),
            zstd("kind", KIND),
        ],
        indices: vec![Index::new("idx_inserted_at", "inserted_at", "minmax")],
        engine: Engine::MergeTree,
        // Never by `inserted_at`: deduplication is per partition, and a repeat may come in the next.
        partition_by: "toDate(time)".into(),
        order_by: "(tenant, toStartOfMinute(time), trace_id, span_id)".into(),
        // By arrival, so that spans which come late after an outage are still paired.
        ttl: Some(Ttl {
            from: "toDateTime(inserted_at)".into(),
            lifetime: Lifetime::HalfEdges,
            whole_parts: false,
        }),
        sharding_key: "cityHash64(trace_id)".into(),
        deduplicated: true,
        // The lifetime is short, so look for expired rows more often than every four hours.
        settings: vec![("merge_with_ttl_timeout".into(), "1800".into())],
    }
}

/// Calls from service to service per minute. Of a minute's rows only those of its highest `version`
/// count: a minute that gets more halves is written again, whole.
pub fn edges() -> Table {
    Table {
        name: "edges".into(),
        columns: vec![
            tenant(),
            zstd("minute", "DateTime").codec("Delta(4), ZSTD(1)"),
            zstd("client", LC),
            zstd("server", LC),
            zstd("connection_type", CONNECTION),
            zstd("version", "UInt64"),
            // The version of the minute's first rollup: past the halves' lifetime they are no longer
            // all there, and the minute stays as it is.
            zstd("first_version", "UInt64"),
            zstd("count", "UInt64"),
            zstd("error_count", "UInt64"),
            zstd("client_duration_sum_ns", "UInt64"),
            zstd("server_duration_sum_ns", "UInt64"),
            zstd("client_buckets", BUCKETS),
            zstd("server_buckets", BUCKETS),
            zstd("client_duration_min_ns", "UInt64"),
            zstd("client_duration_max_ns", "UInt64").default_to(UNKNOWN_GREATEST),
            zstd("server_duration_min_ns", "UInt64"),
            zstd("server_duration_max_ns", "UInt64").default_to(UNKNOWN_GREATEST),
        ],
        indices: Vec::new(),
        engine: Engine::Replacing(Some("version".into())),
        partition_by: "toDate(minute)".into(),
        order_by: "(tenant, minute, client, server, connection_type)".into(),
        ttl: retention("minute"),
        // A minute's rows together, so that a shard knows its highest version.
        sharding_key: "cityHash64(minute)".into(),
        deduplicated: false,
        settings: Vec::new(),
    }
}

/// What became of spans, by the minute: how many came to which end at which stage of their way, and
/// their bytes. Stages and reasons are the agents' own words.
pub fn accounts() -> Table {
    Table {
        name: "accounts".into(),
        columns: vec![
            tenant(),
            zstd("minute", "DateTime").codec("Delta(4), ZSTD(1)"),
            zstd("node", LC),
            zstd("agent", LC),
            zstd("stage", LC),
            zstd("reason", LC),
            zstd("spans", COUNT),
            zstd("bytes", COUNT),
        ],
        indices: Vec::new(),
        engine: Engine::Aggregating,
        partition_by: "toDate(minute)".into(),
        order_by: "(tenant, minute, node, agent, stage, reason)".into(),
        ttl: retention("minute"),
        sharding_key: "cityHash64(node, agent)".into(),
        deduplicated: true,
        settings: Vec::new(),
    }
}

/// Which migrations ran, and whose database it is. Every node of a cluster holds it whole.
pub fn schema_migrations() -> Table {
    Table {
        name: "schema_migrations".into(),
        columns: vec![
            Column::new("version", "UInt32"),
            Column::new("name", "String"),
            Column::new("checksum", "String"),
            Column::new("pipeline", "String"),
            Column::new("applied_at", "DateTime64(3)").default_to("now64(3)"),
            // The schema version that a program must know at least to work with the result.
            Column::new("needs", "UInt32").default_to("version"),
        ],
        indices: Vec::new(),
        engine: Engine::Replacing(None),
        partition_by: "".into(),
        order_by: "(version, pipeline)".into(),
        ttl: None,
        sharding_key: "".into(),
        deduplicated: false,
        settings: Vec::new(),
    }
}
