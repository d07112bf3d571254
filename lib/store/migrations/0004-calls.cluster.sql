-- Migration 4: a half-edge is a span, whatever its kind, so that parents and children of two services are
-- calls; keys of lists, maps, events and links have indexes. Parts that are there already get theirs when they
-- are merged. Sums of durations do not wrap, and the least and the greatest duration are known.

ALTER TABLE `${database}`.`half_edges_local` ON CLUSTER `${cluster}` MODIFY COLUMN `side` Enum8('client' = 1, 'server' = 2, 'span' = 3) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`half_edges` ON CLUSTER `${cluster}` MODIFY COLUMN `side` Enum8('client' = 1, 'server' = 2, 'span' = 3) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`half_edges_local` ON CLUSTER `${cluster}` ADD COLUMN IF NOT EXISTS `parent_span_id` FixedString(8) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`half_edges` ON CLUSTER `${cluster}` ADD COLUMN IF NOT EXISTS `parent_span_id` FixedString(8) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`half_edges_local` ON CLUSTER `${cluster}` ADD COLUMN IF NOT EXISTS `kind` Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, 'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`half_edges` ON CLUSTER `${cluster}` ADD COLUMN IF NOT EXISTS `kind` Enum8('UNSPECIFIED' = 0, 'INTERNAL' = 1, 'SERVER' = 2, 'CLIENT' = 3, 'PRODUCER' = 4, 'CONSUMER' = 5) CODEC(ZSTD(1));

ALTER TABLE `${database}`.`spans_local` ON CLUSTER `${cluster}` ADD INDEX IF NOT EXISTS `idx_attr_other_key` mapKeys(attr_other) TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE `${database}`.`spans_local` ON CLUSTER `${cluster}` ADD INDEX IF NOT EXISTS `idx_nested_key` arrayFlatten(arrayMap(a -> JSONExtractKeys(a), arrayConcat(tupleElement(events, 'attributes'), tupleElement(links, 'attributes')))) TYPE bloom_filter(0.01) GRANULARITY 1;

ALTER TABLE `${database}`.`red_local` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `duration_total_ns` SimpleAggregateFunction(sum, UInt128) DEFAULT duration_sum_ns CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_min_ns` SimpleAggregateFunction(min, UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_max_ns` SimpleAggregateFunction(max, UInt64) DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`red` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `duration_total_ns` SimpleAggregateFunction(sum, UInt128) DEFAULT duration_sum_ns CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_min_ns` SimpleAggregateFunction(min, UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_max_ns` SimpleAggregateFunction(max, UInt64) DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`red_hours_local` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `duration_total_ns` SimpleAggregateFunction(sum, UInt128) DEFAULT duration_sum_ns CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_min_ns` SimpleAggregateFunction(min, UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_max_ns` SimpleAggregateFunction(max, UInt64) DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`red_hours` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `duration_total_ns` SimpleAggregateFunction(sum, UInt128) DEFAULT duration_sum_ns CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_min_ns` SimpleAggregateFunction(min, UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `duration_max_ns` SimpleAggregateFunction(max, UInt64) DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`edges_local` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `client_duration_min_ns` UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `client_duration_max_ns` UInt64 DEFAULT 18446744073709551615 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `server_duration_min_ns` UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `server_duration_max_ns` UInt64 DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`edges` ON CLUSTER `${cluster}`
    ADD COLUMN IF NOT EXISTS `client_duration_min_ns` UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `client_duration_max_ns` UInt64 DEFAULT 18446744073709551615 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `server_duration_min_ns` UInt64 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS `server_duration_max_ns` UInt64 DEFAULT 18446744073709551615 CODEC(ZSTD(1));

ALTER TABLE `${database}`.`red_hours_feed` ON CLUSTER `${cluster}` MODIFY QUERY SELECT
    tenant,
    toStartOfHour(minute) AS hour,
    service,
    name,
    kind,
    sum(m.count) AS count,
    sumIf(m.count, status = 'ERROR') AS error_count,
    sum(m.duration_sum_ns) AS duration_sum_ns,
    sumMap(m.buckets) AS buckets,
    sum(m.duration_total_ns) AS duration_total_ns,
    min(m.duration_min_ns) AS duration_min_ns,
    max(m.duration_max_ns) AS duration_max_ns
FROM `${database}`.`red_local` AS m
GROUP BY tenant, hour, service, name, kind;

DROP VIEW IF EXISTS `${database}`.`edges_rollup` ON CLUSTER `${cluster}` SYNC;

CREATE MATERIALIZED VIEW IF NOT EXISTS `${database}`.`edges_rollup` ON CLUSTER `${cluster}`
REFRESH EVERY 30 SECOND APPEND TO `${database}`.`edges` AS
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
        WHERE side != 'server'
            AND time >= oldest - toIntervalSecond(1800)
            AND (tenant, trace_id, span_id) GLOBAL IN (
                SELECT tenant, trace_id, arrayJoin([span_id, parent_span_id])
                FROM `${database}`.`half_edges` WHERE inserted_at >= since)
            AND (tenant, toStartOfMinute(time)) GLOBAL NOT IN (
                SELECT tenant, minute FROM `${database}`.`edges`
                WHERE minute >= toDateTime(oldest) - toIntervalSecond(1800 + 60)
                GROUP BY tenant, minute
                HAVING intDiv(min(first_version), 1000) < intDiv(this, 1000) - ${half_edges_whole_ms})
    ) AS touched,
    arrayMin(t -> t.2, touched) AS first_minute,
    arrayMax(t -> t.2, touched) AS last_minute,
    callers AS (
        SELECT tenant, trace_id, span_id, service, kind, toStartOfMinute(time) AS minute,
            duration_ns, error, peer, connection_type,
            side = 'client' OR kind IN ('CLIENT', 'PRODUCER') AS is_caller
        FROM `${database}`.`half_edges`
        WHERE side != 'server'
            AND toStartOfMinute(time) BETWEEN first_minute AND last_minute
            AND has(touched, (tenant, toStartOfMinute(time)))
        LIMIT 1 BY tenant, trace_id, span_id, service, kind
    ),
    children AS (
        SELECT tenant, trace_id, span_id, parent_span_id, side, time, service, kind, duration_ns,
            error, side = 'server' OR kind IN ('SERVER', 'CONSUMER') AS is_callee
        FROM `${database}`.`half_edges`
        WHERE (side = 'server' OR side = 'span' AND (parent_span_id != toFixedString('', 8)
                OR kind IN ('SERVER', 'CONSUMER')))
            AND toStartOfMinute(time) BETWEEN first_minute - toIntervalSecond(300)
                AND last_minute + toIntervalSecond(1800)
        LIMIT 1 BY tenant, trace_id, span_id, parent_span_id, service, kind
    ),
    keys AS (
        SELECT *, arrayJoin(multiIf(
            side = 'server', [(span_id, false)],
            is_callee, [(parent_span_id, false), (span_id, true)],
            [(parent_span_id, false)])) AS key
        FROM children
    ),
    pairs AS (
        SELECT c.tenant AS tenant, c.trace_id AS trace_id, c.span_id AS child_id, c.time AS child_time,
            c.service AS callee, c.kind AS child_kind, any(c.is_callee) AS is_callee,
            any(c.duration_ns) AS duration_ns, any(c.error) AS error,
            argMin(
                (p.span_id, p.service, p.kind, p.is_caller),
                multiIf(key.2, 0, p.service = c.service, 1, p.kind IN ('SERVER', 'CONSUMER'), 2, 3)
            ) AS parent
        FROM keys AS c
        INNER JOIN callers AS p
            ON c.tenant = p.tenant AND c.trace_id = p.trace_id AND c.key.1 = p.span_id
        WHERE NOT c.key.2 OR p.is_caller
        GROUP BY c.tenant, c.trace_id, c.span_id, c.parent_span_id, c.time, c.service, c.kind
    ),
    calls AS (
        SELECT tenant, trace_id, parent.1 AS span_id, parent.2 AS caller, parent.3 AS kind, callee,
            if(parent.4, toFixedString('', 8), child_id) AS one_call,
            argMin(duration_ns, child_time) AS callee_ns, max(error) AS callee_error,
            max(child_kind = 'CONSUMER') AS is_consumer, true AS found
        FROM (
            SELECT *, max(parent.3 = 'PRODUCER') OVER (
                PARTITION BY tenant, child_id, child_time, callee, parent.2) AS has_producer
            FROM pairs
            WHERE parent.2 != callee
                OR is_callee AND parent.4 AND (parent.3 = 'PRODUCER') = (child_kind = 'CONSUMER')
        )
        WHERE child_kind != 'CONSUMER' OR parent.3 = 'PRODUCER' OR NOT has_producer
        GROUP BY tenant, trace_id, span_id, caller, kind, callee, one_call
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
    if(s.found, s.callee, c.peer) AS server,
    multiIf(
        s.found AND s.is_consumer, 'messaging_system',
        s.found AND c.connection_type = 'virtual_node', 'unset',
        NOT s.found AND c.connection_type = 'unset', 'virtual_node',
        toString(c.connection_type)) AS connection_type,
    this AS version,
    if(any(k.first_version) = 0, this, any(k.first_version)) AS first_version,
    count() AS count,
    countIf(c.is_caller AND c.error OR s.callee_error) AS error_count,
    toUInt64(least(sum(toUInt128(c.duration_ns)), 18446744073709551615)) AS client_duration_sum_ns,
    toUInt64(least(sum(toUInt128(s.callee_ns)), 18446744073709551615)) AS server_duration_sum_ns,
    sumMap(map(toInt16(least(240, greatest(-168, ceil(8 * log2(c.duration_ns / 100000000))))), toUInt64(1))) AS client_buckets,
    sumMapIf(map(toInt16(least(240, greatest(-168, ceil(8 * log2(s.callee_ns / 100000000))))), toUInt64(1)), s.found) AS server_buckets,
    min(c.duration_ns) AS client_duration_min_ns,
    max(c.duration_ns) AS client_duration_max_ns,
    minIf(s.callee_ns, s.found) AS server_duration_min_ns,
    maxIf(s.callee_ns, s.found) AS server_duration_max_ns
FROM callers AS c
LEFT JOIN calls AS s
    ON c.tenant = s.tenant AND c.trace_id = s.trace_id AND c.span_id = s.span_id
        AND c.service = s.caller AND c.kind = s.kind
LEFT JOIN known AS k ON c.tenant = k.tenant AND c.minute = k.minute
WHERE (s.found OR c.peer != '' AND c.peer != c.service)
GROUP BY tenant, minute, client, server, connection_type
SETTINGS join_use_nulls = 0;
