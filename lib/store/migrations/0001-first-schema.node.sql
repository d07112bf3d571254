-- Migration 1: the first schema.

CREATE TABLE IF NOT EXISTS `${database}`.`spans`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `time` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `duration_ns` UInt64 CODEC(T64, ZSTD(1)),
    `service` LowCardinality(String) CODEC(ZSTD(1)),
    `name` LowCardinality(String) CODEC(ZSTD(1)),
    `kind` Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, 'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5) CODEC(ZSTD(1)),
    `status` Enum8('UNSET' = 0, 'OK' = 1, 'ERROR' = 2) CODEC(ZSTD(1)),
    `status_message` String CODEC(ZSTD(1)),
    `trace_id` FixedString(16) CODEC(ZSTD(1)),
    `span_id` FixedString(8) CODEC(ZSTD(1)),
    `parent_span_id` FixedString(8) CODEC(ZSTD(1)),
    `trace_state` String CODEC(ZSTD(1)),
    `flags` UInt32 CODEC(ZSTD(1)),
    `http_request_method` LowCardinality(String) CODEC(ZSTD(1)),
    `http_route` LowCardinality(String) CODEC(ZSTD(1)),
    `url_path` String CODEC(ZSTD(1)),
    `rpc_service` LowCardinality(String) CODEC(ZSTD(1)),
    `rpc_method` LowCardinality(String) CODEC(ZSTD(1)),
    `db_system_name` LowCardinality(String) CODEC(ZSTD(1)),
    `messaging_destination_name` LowCardinality(String) CODEC(ZSTD(1)),
    `server_address` LowCardinality(String) CODEC(ZSTD(1)),
    `peer_service` LowCardinality(String) CODEC(ZSTD(1)),
    `error_type` LowCardinality(String) CODEC(ZSTD(1)),
    `http_response_status_code` UInt16 CODEC(ZSTD(1)),
    `service_version` LowCardinality(String) CODEC(ZSTD(1)),
    `deployment_environment_name` LowCardinality(String) CODEC(ZSTD(1)),
    `k8s_namespace_name` LowCardinality(String) CODEC(ZSTD(1)),
    `k8s_pod_name` LowCardinality(String) CODEC(ZSTD(1)),
    `k8s_node_name` LowCardinality(String) CODEC(ZSTD(1)),
    `resource` LowCardinality(String) CODEC(ZSTD(1)),
    `scope_name` LowCardinality(String) CODEC(ZSTD(1)),
    `scope_version` LowCardinality(String) CODEC(ZSTD(1)),
    `scope_attributes` LowCardinality(String) CODEC(ZSTD(1)),
    `envelope` LowCardinality(String) CODEC(ZSTD(1)),
    `attr_str` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `attr_int` Map(LowCardinality(String), Int64) CODEC(ZSTD(1)),
    `attr_double` Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),
    `attr_other` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `dropped_attributes_count` UInt32 CODEC(ZSTD(1)),
    `dropped_events_count` UInt32 CODEC(ZSTD(1)),
    `dropped_links_count` UInt32 CODEC(ZSTD(1)),
    `events` Array(Tuple(time DateTime64(9), name LowCardinality(String), attributes String, dropped UInt32)) CODEC(ZSTD(1)),
    `links` Array(Tuple(trace_id FixedString(16), span_id FixedString(8), trace_state String, flags UInt32, attributes String, dropped UInt32)) CODEC(ZSTD(1)),
    INDEX `idx_trace_id` trace_id TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX `idx_trace_id_hex` lower(hex(trace_id)) TYPE bloom_filter(0.001) GRANULARITY 4,
    INDEX `idx_attr_int_key` mapKeys(attr_int) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX `idx_attr_double_key` mapKeys(attr_double) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX `idx_attr_str_key` mapKeys(attr_str) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX `idx_attr_str_value` mapValues(attr_str) TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX `idx_duration` duration_ns TYPE minmax GRANULARITY 1,
    INDEX `idx_time` time TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (tenant, toStartOfFiveMinutes(time), service, name, time)
TTL toDateTime(time) + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window}, index_granularity = 2048;

CREATE TABLE IF NOT EXISTS `${database}`.`trace_index`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `day` Date CODEC(ZSTD(1)),
    `trace_id` FixedString(16) CODEC(ZSTD(1)),
    `start` SimpleAggregateFunction(min, DateTime64(9)) CODEC(Delta(8), ZSTD(1)),
    `end` SimpleAggregateFunction(max, DateTime64(9)) CODEC(Delta(8), ZSTD(1)),
    `root_service` SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
    `root_name` SimpleAggregateFunction(max, String) CODEC(ZSTD(1)),
    `span_count` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `error_count` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    INDEX `idx_trace_id_hex` lower(hex(trace_id)) TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX `idx_start` start TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY day
ORDER BY (tenant, trace_id)
TTL toDateTime(day + 1) + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window}, index_granularity = 512, min_compress_block_size = 8192;

CREATE TABLE IF NOT EXISTS `${database}`.`tags`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `day` Date CODEC(ZSTD(1)),
    `scope` Enum8('resource' = 1, 'span' = 2, 'event' = 3, 'link' = 4, 'instrumentation' = 5) CODEC(ZSTD(1)),
    `key` LowCardinality(String) CODEC(ZSTD(1)),
    `type` Enum8('string' = 1, 'int' = 2, 'double' = 3, 'bool' = 4, 'other' = 5) CODEC(ZSTD(1)),
    `value` String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY day
ORDER BY (tenant, day, scope, key, type, value)
TTL toDateTime(day + 1) + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window};

CREATE TABLE IF NOT EXISTS `${database}`.`red`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `minute` DateTime CODEC(Delta(4), ZSTD(1)),
    `service` LowCardinality(String) CODEC(ZSTD(1)),
    `name` LowCardinality(String) CODEC(ZSTD(1)),
    `kind` Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, 'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5) CODEC(ZSTD(1)),
    `status` Enum8('UNSET' = 0, 'OK' = 1, 'ERROR' = 2) CODEC(ZSTD(1)),
    `count` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `duration_sum_ns` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `buckets` SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1)),
    INDEX `idx_minute` minute TYPE minmax GRANULARITY 1
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(minute)
ORDER BY (tenant, toStartOfHour(minute), service, name, kind, status, minute)
TTL minute + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window};

CREATE TABLE IF NOT EXISTS `${database}`.`red_hours`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `hour` DateTime CODEC(Delta(4), ZSTD(1)),
    `service` LowCardinality(String) CODEC(ZSTD(1)),
    `name` LowCardinality(String) CODEC(ZSTD(1)),
    `kind` Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, 'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5) CODEC(ZSTD(1)),
    `count` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `error_count` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `duration_sum_ns` SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    `buckets` SimpleAggregateFunction(sumMap, Map(Int16, UInt64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toDate(hour)
ORDER BY (tenant, hour, service, name, kind)
TTL hour + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = ${deduplication_window};

CREATE TABLE IF NOT EXISTS `${database}`.`half_edges`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `time` DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    `trace_id` FixedString(16) CODEC(ZSTD(1)),
    `span_id` FixedString(8) CODEC(ZSTD(1)),
    `side` Enum8('client' = 1, 'server' = 2) CODEC(ZSTD(1)),
    `service` LowCardinality(String) CODEC(ZSTD(1)),
    `duration_ns` UInt64 CODEC(T64, ZSTD(1)),
    `error` Bool CODEC(ZSTD(1)),
    `peer` LowCardinality(String) CODEC(ZSTD(1)),
    `connection_type` Enum8('unset' = 0, 'messaging_system' = 1, 'database' = 2, 'virtual_node' = 3) CODEC(ZSTD(1)),
    `inserted_at` DateTime64(3) DEFAULT now64(3) CODEC(Delta(8), ZSTD(1)),
    INDEX `idx_inserted_at` inserted_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(time)
ORDER BY (tenant, toStartOfMinute(time), trace_id, span_id)
TTL toDateTime(inserted_at) + toIntervalSecond(${half_edges_seconds})
SETTINGS non_replicated_deduplication_window = ${deduplication_window}, merge_with_ttl_timeout = 1800;

CREATE TABLE IF NOT EXISTS `${database}`.`edges`
(
    `tenant` LowCardinality(String) DEFAULT '' CODEC(ZSTD(1)),
    `minute` DateTime CODEC(Delta(4), ZSTD(1)),
    `client` LowCardinality(String) CODEC(ZSTD(1)),
    `server` LowCardinality(String) CODEC(ZSTD(1)),
    `connection_type` Enum8('unset' = 0, 'messaging_system' = 1, 'database' = 2, 'virtual_node' = 3) CODEC(ZSTD(1)),
    `version` UInt64 CODEC(ZSTD(1)),
    `first_version` UInt64 CODEC(ZSTD(1)),
    `count` UInt64 CODEC(ZSTD(1)),
    `error_count` UInt64 CODEC(ZSTD(1)),
    `client_duration_sum_ns` UInt64 CODEC(ZSTD(1)),
    `server_duration_sum_ns` UInt64 CODEC(ZSTD(1)),
    `client_buckets` Map(Int16, UInt64) CODEC(ZSTD(1)),
    `server_buckets` Map(Int16, UInt64) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(minute)
ORDER BY (tenant, minute, client, server, connection_type)
TTL minute + toIntervalSecond(${retention_seconds})
SETTINGS ttl_only_drop_parts = 1;

CREATE VIEW IF NOT EXISTS `${database}`.`otel_traces` AS
SELECT
    time AS `Timestamp`,
    lower(hex(trace_id)) AS `TraceId`,
    lower(hex(span_id)) AS `SpanId`,
    if(parent_span_id = toFixedString('', 8), '', lower(hex(parent_span_id))) AS `ParentSpanId`,
    trace_state AS `TraceState`,
    name AS `SpanName`,
    CAST(initcap(toString(kind)), 'LowCardinality(String)') AS `SpanKind`,
    service AS `ServiceName`,
    CAST(arrayMap(kv -> (kv.1, multiIf(startsWith(kv.2, '"'), JSONExtractString(kv.2), startsWith(kv.2, '{"bytesValue"'), JSONExtractString(kv.2, 'bytesValue'), startsWith(kv.2, '{"doubleValue"'), JSONExtractString(kv.2, 'doubleValue'), startsWith(kv.2, '{"kvlistValue"'), JSONExtractRaw(kv.2, 'kvlistValue'), kv.2 = 'null', '', kv.2)), JSONExtractKeysAndValuesRaw(resource)), 'Map(LowCardinality(String), String)') AS `ResourceAttributes`,
    CAST(scope_name, 'String') AS `ScopeName`,
    CAST(scope_version, 'String') AS `ScopeVersion`,
    CAST(arrayConcat(
        arrayMap((k, v) -> (toString(k), v), mapKeys(attr_str), mapValues(attr_str)),
        arrayMap((k, v) -> (toString(k), toString(v)), mapKeys(attr_int), mapValues(attr_int)),
        arrayMap((k, v) -> (toString(k), toString(v)), mapKeys(attr_double), mapValues(attr_double)),
        arrayMap((k, v) -> (toString(k), multiIf(startsWith(v, '"'), JSONExtractString(v), startsWith(v, '{"bytesValue"'), JSONExtractString(v, 'bytesValue'), startsWith(v, '{"doubleValue"'), JSONExtractString(v, 'doubleValue'), startsWith(v, '{"kvlistValue"'), JSONExtractRaw(v, 'kvlistValue'), v = 'null', '', v)), mapKeys(attr_other), mapValues(attr_other)),
        arrayFilter(kv -> kv.2 != '', [('http.request.method', toString(http_request_method)), ('http.route', toString(http_route)), ('url.path', toString(url_path)), ('rpc.service', toString(rpc_service)), ('rpc.method', toString(rpc_method)), ('db.system.name', toString(db_system_name)), ('messaging.destination.name', toString(messaging_destination_name)), ('server.address', toString(server_address)), ('peer.service', toString(peer_service)), ('error.type', toString(error_type)), ('http.response.status_code', if(http_response_status_code = 0, '', toString(http_response_status_code)))])), 'Map(LowCardinality(String), String)') AS `SpanAttributes`,
    duration_ns AS `Duration`,
    CAST(initcap(toString(status)), 'LowCardinality(String)') AS `StatusCode`,
    status_message AS `StatusMessage`,
    tupleElement(events, 'time') AS `Events.Timestamp`,
    tupleElement(events, 'name') AS `Events.Name`,
    arrayMap(o -> CAST(arrayMap(kv -> (kv.1, multiIf(startsWith(kv.2, '"'), JSONExtractString(kv.2), startsWith(kv.2, '{"bytesValue"'), JSONExtractString(kv.2, 'bytesValue'), startsWith(kv.2, '{"doubleValue"'), JSONExtractString(kv.2, 'doubleValue'), startsWith(kv.2, '{"kvlistValue"'), JSONExtractRaw(kv.2, 'kvlistValue'), kv.2 = 'null', '', kv.2)), JSONExtractKeysAndValuesRaw(o)), 'Map(LowCardinality(String), String)'), tupleElement(events, 'attributes')) AS `Events.Attributes`,
    arrayMap(i -> lower(hex(i)), tupleElement(links, 'trace_id')) AS `Links.TraceId`,
    arrayMap(i -> lower(hex(i)), tupleElement(links, 'span_id')) AS `Links.SpanId`,
    tupleElement(links, 'trace_state') AS `Links.TraceState`,
    arrayMap(o -> CAST(arrayMap(kv -> (kv.1, multiIf(startsWith(kv.2, '"'), JSONExtractString(kv.2), startsWith(kv.2, '{"bytesValue"'), JSONExtractString(kv.2, 'bytesValue'), startsWith(kv.2, '{"doubleValue"'), JSONExtractString(kv.2, 'doubleValue'), startsWith(kv.2, '{"kvlistValue"'), JSONExtractRaw(kv.2, 'kvlistValue'), kv.2 = 'null', '', kv.2)), JSONExtractKeysAndValuesRaw(o)), 'Map(LowCardinality(String), String)'), tupleElement(links, 'attributes')) AS `Links.Attributes`
FROM `${database}`.`spans`;

CREATE VIEW IF NOT EXISTS `${database}`.`otel_traces_trace_id_ts` AS
SELECT
    lower(hex(trace_id)) AS `TraceId`,
    toDateTime(start) AS `Start`,
    toDateTime(end) + toIntervalSecond(1) AS `End`
FROM `${database}`.`trace_index`;

CREATE MATERIALIZED VIEW IF NOT EXISTS `${database}`.`edges_rollup`
REFRESH EVERY 10 SECOND APPEND TO `${database}`.`edges` AS
WITH
    -- Late spans may have been rolled up later than this finds: then some minutes are done again.
    (
        SELECT toUInt64(max(version)) FROM `${database}`.`edges` WHERE minute >= now() - toIntervalDay(2)
    ) AS last,
    -- Replicas may refresh in the same millisecond: the low digits keep their versions apart.
    greatest(
        toUInt64(toUnixTimestamp64Milli(now64(3))) * 1000 + cityHash64(hostName()) % 1000,
        last + 1) AS this,
    fromUnixTimestamp64Milli(toInt64(greatest(
        toInt64(intDiv(last, 1000)) - 60000,
        toInt64(intDiv(this, 1000)) - ${half_edges_whole_ms}))) AS since,
    (SELECT min(time) FROM `${database}`.`half_edges` WHERE inserted_at >= since) AS oldest,
    (
        SELECT groupUniqArray((tenant, toStartOfMinute(time)))
        FROM `${database}`.`half_edges`
        WHERE side = 'client'
            AND time >= oldest - toIntervalSecond(1800)
            AND (tenant, trace_id, span_id) IN (
                SELECT tenant, trace_id, span_id FROM `${database}`.`half_edges` WHERE inserted_at >= since)
            AND (tenant, toStartOfMinute(time)) NOT IN (
                SELECT tenant, minute FROM `${database}`.`edges`
                WHERE minute >= toDateTime(oldest) - toIntervalSecond(1800 + 60)
                GROUP BY tenant, minute
                HAVING intDiv(min(first_version), 1000) < intDiv(this, 1000) - ${half_edges_whole_ms})
    ) AS touched,
    arrayMin(t -> t.2, touched) AS first_minute,
    arrayMax(t -> t.2, touched) AS last_minute,
    clients AS (
        SELECT tenant, trace_id, span_id, service, toStartOfMinute(time) AS minute, duration_ns,
            error, peer, connection_type
        FROM `${database}`.`half_edges`
        WHERE side = 'client'
            AND toStartOfMinute(time) BETWEEN first_minute AND last_minute
            AND has(touched, (tenant, toStartOfMinute(time)))
        LIMIT 1 BY tenant, trace_id, span_id, service
    ),
    servers AS (
        SELECT tenant, trace_id, span_id, service, duration_ns, error, 1 AS found
        FROM `${database}`.`half_edges`
        WHERE side = 'server'
            AND toStartOfMinute(time) BETWEEN first_minute - toIntervalSecond(300)
                AND last_minute + toIntervalSecond(1800)
        LIMIT 1 BY tenant, trace_id, span_id, service
    ),
    known AS (
        SELECT tenant, minute, min(first_version) AS first_version
        FROM `${database}`.`edges`
        WHERE minute BETWEEN first_minute AND last_minute
        GROUP BY tenant, minute
    )
SELECT
    c.tenant AS tenant,
    c.minute AS minute,
    c.service AS client,
    if(s.found = 1, s.service, c.peer) AS server,
    multiIf(
        s.found = 1 AND c.connection_type = 'virtual_node', 'unset',
        s.found = 0 AND c.connection_type = 'unset', 'virtual_node',
        toString(c.connection_type)) AS connection_type,
    this AS version,
    if(any(k.first_version) = 0, this, any(k.first_version)) AS first_version,
    count() AS count,
    countIf(c.error OR s.error) AS error_count,
    sum(c.duration_ns) AS client_duration_sum_ns,
    sum(s.duration_ns) AS server_duration_sum_ns,
    sumMap(map(toInt16(least(240, greatest(-168, ceil(8 * log2(c.duration_ns / 100000000))))), toUInt64(1))) AS client_buckets,
    sumMapIf(map(toInt16(least(240, greatest(-168, ceil(8 * log2(s.duration_ns / 100000000))))), toUInt64(1)), s.found = 1) AS server_buckets
FROM clients AS c
LEFT JOIN servers AS s
    ON c.tenant = s.tenant AND c.trace_id = s.trace_id AND c.span_id = s.span_id
LEFT JOIN known AS k ON c.tenant = k.tenant AND c.minute = k.minute
WHERE s.found = 1 OR c.peer != ''
GROUP BY tenant, minute, client, server, connection_type
SETTINGS join_use_nulls = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS `${database}`.`red_hours_feed` TO `${database}`.`red_hours` AS
SELECT
    tenant,
    toStartOfHour(minute) AS hour,
    service,
    name,
    kind,
    sum(m.count) AS count,
    sumIf(m.count, status = 'ERROR') AS error_count,
    sum(m.duration_sum_ns) AS duration_sum_ns,
    sumMap(m.buckets) AS buckets
FROM `${database}`.`red` AS m
GROUP BY tenant, hour, service, name, kind;
