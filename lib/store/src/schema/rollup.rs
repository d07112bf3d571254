//! The rollups: half-edges become calls per minute, measures per minute become measures per hour.
//!
//! Edges: every few seconds the halves that arrived since the last refresh are looked up; every minute whose
//! calls they can change is computed again from all its halves and appended with a higher version.
//! What makes a call ([`CALLS`]):
//!
//! * A parent and a child of two services, whatever their kinds. Of one service it is a call where a client
//!   meets a server, or a producer a consumer: a service may call itself.
//! * A consumer and each producer that it links to.
//! * A client and a server that share an id (B3 propagation), before what the server names as its parent.
//!
//! One client or producer span is one call of each service below it; below another span each child is a call.
//! A call counts in the minute of its caller's span. Where nothing is below a client, its peer (a database, a
//! queue, a service without instrumentation) is the server, but for one that has the service's own name.
//!
//! Hours: a batch has its minutes once more by the hour, in an insert of their own, so an hour is soon the sum of
//! its minutes.

use std::time::Duration;

use super::SchemaOptions;
use super::table::{Feed, Rollup};
use super::tables;

/// Seconds between refreshes. The query service joins what is newer itself, so rollups need not be fresh; to
/// plan one takes ClickHouse half a second of CPU even where nothing has arrived.
pub const REFRESH_SECONDS: u32 = 30;

/// Each refresh looks this far back behind the last one: longer than an insert takes between the
/// moment that `inserted_at` shows and the moment that its rows can be seen.
const OVERLAP_MS: u32 = 60_000;

/// Two halves whose spans start further apart than this are not paired: it bounds what a refresh
/// reads. A consumer may start long after its producer.
pub const PAIRING_SECONDS: u32 = 1_800;

/// A server's clock may be behind its client's by this much.
pub const SKEW_SECONDS: u32 = 300;

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

/// What is selected of halves as callers.
pub const CALLERS: &str =
    "SELECT tenant, trace_id, span_id, service, kind, toStartOfMinute(time) AS minute,
            duration_ns, error, peer, connection_type,
            side = 'client' OR kind IN ('CLIENT', 'PRODUCER') AS is_caller";

/// One half is enough of copies of a span.
pub const ONE_CALLER: &str = "LIMIT 1 BY tenant, trace_id, span_id, service, kind";

/// What is selected of halves as children.
pub const CHILDREN: &str =
    "SELECT tenant, trace_id, span_id, parent_span_id, side, time, service, kind, duration_ns,
            error, side = 'server' OR kind IN ('SERVER', 'CONSUMER') AS is_callee";

/// Which halves can be children.
pub const CAN_BE_CHILD: &str =
    "(side = 'server' OR side = 'span' AND (parent_span_id != toFixedString('', 8)
                OR kind IN ('SERVER', 'CONSUMER')))";

/// As [`ONE_CALLER`].
pub const ONE_CHILD: &str = "LIMIT 1 BY tenant, trace_id, span_id, parent_span_id, service, kind";

/// The calls among `callers` and `children`, as common table expressions that follow those two.
///
/// A child looks for its parent by the parent's id and, as a server may share its client's, by its own. Of
/// several spans with the id the one of its own service is its parent, so that what a server does is not taken
/// for a call of its client's.
pub const CALLS: &str = "keys AS (
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
    )";

/// The columns of an edge, of `c` and the calls `s` of it.
pub const EDGE: &str = "c.service AS client,
    if(s.found, s.callee, c.peer) AS server,
    multiIf(
        s.found AND s.is_consumer, 'messaging_system',
        s.found AND c.connection_type = 'virtual_node', 'unset',
        NOT s.found AND c.connection_type = 'unset', 'virtual_node',
        toString(c.connection_type)) AS connection_type";

/// What joins `callers AS c` with its calls.
pub const EDGE_JOIN: &str = "LEFT JOIN calls AS s
    ON c.tenant = s.tenant AND c.trace_id = s.trace_id AND c.span_id = s.span_id
        AND c.service = s.caller AND c.kind = s.kind";

/// Which rows of that join are edges.
pub const IS_EDGE: &str = "(s.found OR c.peer != '' AND c.peer != c.service)";

/// The least and the greatest duration of an edge's calls. Those of servers are 0 where none was found.
pub const EDGE_RANGES: &str = "min(c.duration_ns) AS client_duration_min_ns,
    max(c.duration_ns) AS client_duration_max_ns,
    minIf(s.callee_ns, s.found) AS server_duration_min_ns,
    maxIf(s.callee_ns, s.found) AS server_duration_max_ns";

/// What stands before and after a duration to make it a sum that ends at the greatest number and does not
/// wrap.
pub const SATURATING_SUM: [&str; 2] = [
    "toUInt64(least(sum(toUInt128(",
    ")), 18446744073709551615))",
];

fn saturating_sum(duration_ns: &str) -> String {
    SATURATING_SUM.join(duration_ns)
}

/// How many calls of an edge failed.
pub const EDGE_ERRORS: &str = "countIf(c.is_caller AND c.error OR s.callee_error)";

/// The rollup from `half_edges` to `edges`.
pub fn edges_rollup(options: &SchemaOptions) -> Rollup {
    let halves = options.qualified("half_edges");
    let edges = options.qualified("edges");
    let whole_ms = whole_ms(options.half_edges_ttl);
    // GLOBAL: on a cluster a shard has not all minutes of `edges`.
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
        WHERE side != 'server'
            AND time >= oldest - toIntervalSecond({PAIRING_SECONDS})
            AND (tenant, trace_id, span_id) GLOBAL IN (
                SELECT tenant, trace_id, arrayJoin([span_id, parent_span_id])
                FROM {halves} WHERE inserted_at >= since)
            AND (tenant, toStartOfMinute(time)) GLOBAL NOT IN (
                SELECT tenant, minute FROM {edges}
                WHERE minute >= toDateTime(oldest) - toIntervalSecond({PAIRING_SECONDS} + 60)
                GROUP BY tenant, minute
                HAVING intDiv(min(first_version), 1000) < intDiv(this, 1000) - {whole_ms})
    ) AS touched,
    arrayMin(t -> t.2, touched) AS first_minute,
    arrayMax(t -> t.2, touched) AS last_minute,
    callers AS (
        {CALLERS}
        FROM {halves}
        WHERE side != 'server'
            AND toStartOfMinute(time) BETWEEN first_minute AND last_minute
            AND has(touched, (tenant, toStartOfMinute(time)))
        {ONE_CALLER}
    ),
    children AS (
        {CHILDREN}
        FROM {halves}
        WHERE {CAN_BE_CHILD}
            AND toStartOfMinute(time) BETWEEN first_minute - toIntervalSecond({SKEW_SECONDS})
                AND last_minute + toIntervalSecond({PAIRING_SECONDS})
        {ONE_CHILD}
    ),
    {CALLS},
    known AS (
        SELECT tenant, minute, min(first_version) AS first_version
        FROM {edges}
        WHERE minute BETWEEN first_minute AND last_minute
        GROUP BY tenant, minute
    )
SELECT
    c.tenant AS tenant,
    c.minute AS minute,
    {EDGE},
    this AS version,
    if(any(k.first_version) = 0, this, any(k.first_version)) AS first_version,
    count() AS count,
    {EDGE_ERRORS} AS error_count,
    {client_sum} AS client_duration_sum_ns,
    {server_sum} AS server_duration_sum_ns,
    sumMap(map({client_bucket}, toUInt64(1))) AS client_buckets,
    sumMapIf(map({server_bucket}, toUInt64(1)), s.found) AS server_buckets,
    {EDGE_RANGES}
FROM callers AS c
{EDGE_JOIN}
LEFT JOIN known AS k ON c.tenant = k.tenant AND c.minute = k.minute
WHERE {IS_EDGE}
GROUP BY tenant, minute, client, server, connection_type
SETTINGS join_use_nulls = 0",
        client_sum = saturating_sum("c.duration_ns"),
        server_sum = saturating_sum("s.callee_ns"),
        client_bucket = bucket("c.duration_ns"),
        server_bucket = bucket("s.callee_ns"),
    );
    Rollup {
        name: "edges_rollup".into(),
        target: "edges".into(),
        every_seconds: REFRESH_SECONDS,
        select,
    }
}

/// The feed from `red` to `red_hours`, for what writers before schema version 5 write.
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
    sumMap(m.buckets) AS buckets,
    sum(m.duration_total_ns) AS duration_total_ns,
    min(m.duration_min_ns) AS duration_min_ns,
    max(m.duration_max_ns) AS duration_max_ns"
            .into(),
        filter: "NOT m.in_hours".into(),
        group_by: "tenant, hour, service, name, kind".into(),
    }
}
