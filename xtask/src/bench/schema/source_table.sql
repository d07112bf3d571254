-- The widest form of a span; each candidate takes from it what it stores.
CREATE TABLE source
(
    time DateTime64(9), duration_ns UInt64, service LowCardinality(String), name LowCardinality(String),
    kind LowCardinality(String), status LowCardinality(String), status_message String,
    trace_id FixedString(16), span_id FixedString(8), parent_span_id FixedString(8),
    resource LowCardinality(String), scope_name LowCardinality(String), scope_version LowCardinality(String),
    attributes Map(LowCardinality(String), String), integers Map(LowCardinality(String), Int64),
    doubles Map(LowCardinality(String), Float64), others Map(LowCardinality(String), String),
    events Array(Tuple(time DateTime64(9), name LowCardinality(String), attributes String, dropped UInt32))
)
ENGINE = MergeTree ORDER BY tuple()
