//! The rollups: half-edges become calls per minute, measures per minute become measures per hour.
//!
//! Edges: every few seconds the halves that arrived since the last refresh are looked up; every minute whose
//! calls they can change is computed again from all its halves and appended with a higher version.
//! A call counts in the minute of its client's half. Where no server's half is there, the client's
//! peer (a database, a queue, a service without instrumentation) is the server; a server's half
//! without its client's is no edge.
//!
//! Hours: an insert of minutes is at once one of hours, under the same deduplication token, so an hour
//! is the sum of its minutes at any time.

use std::time::Duration;

use super::SchemaOptions;
use super::table::{Feed, Rollup};
use super::tables;

/// Seconds between refreshes.
pub const REFRESH_SECONDS: u32 = 10;

/// Each refresh looks this far back behind the last one: longer than an insert takes between the
/// moment that `inserted_at` shows and the moment that its rows can be seen.
const OVERLAP_MS: u32 = 60_000;

/// Two halves whose spans start further apart than this are not paired: it bounds what a refresh
/// reads. A consumer may start long after its producer.
const PAIRING_SECONDS: u32 = 1_800;

/// A server's clock may be behind its client's by this much.
const SKEW_SECONDS: u32 = 300;

/// The bucket of a duration with bounds 100 ms·2^(k/8).
fn bucket(duration_ns: &str) -> String {
    format!("toInt16(least(240, greatest(-168, ceil(8 * log2({duration_ns} / 100000000)))))")
}

/// How long all half-edges of a minute are there for certain: ten minutes less than they live, since a
/// minute older than that may have lost some of them.
pub(crate) fn whole_ms(half_edges_ttl: Duration) -> u128 {
    let lifetime_ms = half_edges_ttl.as_millis();
    lifetime_ms.saturating_sub(600_000).max(lifetime_ms / 2)
}

/// The rollup from `half_edges` to `edges`.
pub fn edges_rollup(options: &SchemaOptions) -> Rollup {
    let halves = options.qualified("half_edges");
    let edges = options.qualified("edges");
    let whole_ms = whole_ms(options.half_edges_ttl);
    let select = format!(
        "WITH
    -- Late spans may have been rolled up later than this finds: then some minutes are done again.
    (
        SELECT toUInt64(max(version)) FROM {edges} WHERE minute >= now() - toIntervalDay(2)
    ) AS last,
    -- Replicas may refresh in the same millisecond: the low digits keep their versions apart.
    greatest(
        toUInt64(toUnixTimestamp64Milli(now64(3))) * 1000 + cityHash64(hostName()) % 1000,
        last + 1) AS this,
    fromUnixTimestamp64Milli(toInt64(greatest(
        toInt64(intDiv(last, 1000)) - {OVERLAP_MS},
        toInt64(intDiv(this, 1000)) - {whole_ms}))) AS since,
    (SELECT min(time) FROM {halves} WHERE inserted_at >= since) AS oldest,
    (
        SELECT groupUniqArray((tenant, toStartOfMinute(time)))
        FROM {halves}
        WHERE side = 'client'
            AND time >= oldest - toIntervalSecond({PAIRING_SECONDS})
            AND (tenant, trace_id, span_id) IN (
                SELECT tenant, trace_id, span_id FROM {halves} WHERE inserted_at >= since)
            AND (tenant, toStartOfMinute(time)) NOT IN (
                SELECT tenant, minute FROM {edges}
                WHERE minute >= toDateTime(oldest) - toIntervalSecond({PAIRING_SECONDS} + 60)
                GROUP BY tenant, minute
                HAVING intDiv(min(first_version), 1000) < intDiv(this, 1000) - {whole_ms})
    ) AS touched,
    arrayMin(t -> t.2, touched) AS first_minute,
    arrayMax(t -> t.2, touched) AS last_minute,
    clients AS (
        SELECT tenant, trace_id, span_id, service, toStartOfMinute(time) AS minute, duration_ns,
            error, peer, connection_type
        FROM {halves}
        WHERE side = 'client'
            AND toStartOfMinute(time) BETWEEN first_minute AND last_minute
            AND has(touched, (tenant, toStartOfMinute(time)))
        LIMIT 1 BY tenant, trace_id, span_id, service
    ),
    servers AS (
        SELECT tenant, trace_id, span_id, service, duration_ns, error, 1 AS found
        FROM {halves}
        WHERE side = 'server'
            AND toStartOfMinute(time) BETWEEN first_minute - toIntervalSecond({SKEW_SECONDS})
                AND last_minute + toIntervalSecond({PAIRING_SECONDS})
        LIMIT 1 BY tenant, trace_id, span_id, service
    ),
    known AS (
        SELECT tenant, minute, min(first_version) AS first_version
        FROM {edges}
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
    sumMap(map({client_bucket}, toUInt64(1))) AS client_buckets,
    sumMapIf(map({server_bucket}, toUInt64(1)), s.found = 1) AS server_buckets
FROM clients AS c
LEFT JOIN servers AS s
    ON c.tenant = s.tenant AND c.trace_id = s.trace_id AND c.span_id = s.span_id
LEFT JOIN known AS k ON c.tenant = k.tenant AND c.minute = k.minute
WHERE s.found = 1 OR c.peer != ''
GROUP BY tenant, minute, client, server, connection_type
SETTINGS join_use_nulls = 0",
        client_bucket = bucket("c.duration_ns"),
        server_bucket = bucket("s.duration_ns"),
    );
    Rollup {
        name: "edges_rollup".into(),
        target: "edges".into(),
        every_seconds: REFRESH_SECONDS,
        select,
    }
}

/// The feed from `red` to `red_hours`.
pub fn red_hours_feed(options: &SchemaOptions) -> Feed {
    Feed {
        name: "red_hours_feed".into(),
        source: options.table_with_rows(&tables::red()),
        target: options.table_with_rows(&tables::red_hours()),
        select: "SELECT
    tenant,
    toStartOfHour(minute) AS hour,
    service,
    name,
    kind,
    sum(m.count) AS count,
    sumIf(m.count, status = 'ERROR') AS error_count,
    sum(m.duration_sum_ns) AS duration_sum_ns,
    sumMap(m.buckets) AS buckets"
            .into(),
        group_by: "tenant, hour, service, name, kind".into(),
    }
}
