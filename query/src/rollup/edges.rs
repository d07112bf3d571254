//! Reading the calls between services.
//!
//! The store rolls half-edges up every few seconds: a minute that got new halves is appended again
//! with a higher version, and only its highest counts. What arrived since then would be missing, so
//! the minutes it touches are joined here, from all their halves, and take the place of their
//! rollups.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::Deserialize;

use crate::db::{Db, DbError, Text};
use crate::rollup::{Minutes, ROWS_MAX};
use crate::sql::Sql;

/// More minutes than these are left to the rollup: they would be as much work as it is.
const LIVE_MINUTES_MAX: u64 = 10;

/// What identifies an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EdgeKey {
    pub(super) caller: String,
    pub(super) callee: String,
    /// The store's name of the connection's type.
    pub(super) connection: String,
}

/// The calls over one edge.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) key: EdgeKey,
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) client_total_ns: u64,
    pub(super) server_total_ns: u64,
    pub(super) client_buckets: Vec<(i16, u64)>,
    pub(super) server_buckets: Vec<(i16, u64)>,
}

#[derive(Debug, Row, Deserialize)]
struct EdgeRow {
    caller: Text,
    callee: Text,
    connection: Text,
    calls: u64,
    errors: u64,
    client_total_ns: u64,
    server_total_ns: u64,
    client_merged: Vec<(i16, u64)>,
    server_merged: Vec<(i16, u64)>,
}

#[derive(Debug, Row, Deserialize)]
struct LiveMinute {
    minute_seconds: i64,
}

/// All edges of the window, by their keys; one more than [`ROWS_MAX`] at least where there are
/// more.
pub(super) async fn read(db: &Db, window: Minutes) -> Result<Vec<Edge>, DbError> {
    let deadline = db.deadline();
    let live: Vec<LiveMinute> = db
        .rows("live_minutes", &live_minutes_sql(window), deadline)
        .await?;
    let live: Vec<i64> = live.into_iter().map(|row| row.minute_seconds).collect();
    let mut rows: Vec<EdgeRow> = db
        .rows("edges", &rolled_up_sql(window, &live), deadline)
        .await?;
    if let Some(sql) = live_sql(&live) {
        rows.extend(db.rows::<EdgeRow>("live_edges", &sql, deadline).await?);
    }
    Ok(merge(rows))
}

fn merge(rows: Vec<EdgeRow>) -> Vec<Edge> {
    let mut edges: BTreeMap<EdgeKey, Edge> = BTreeMap::new();
    for row in rows {
        let key = EdgeKey {
            caller: row.caller.0,
            callee: row.callee.0,
            connection: row.connection.0,
        };
        let edge = edges.entry(key).or_insert_with_key(|key| Edge {
            key: key.clone(),
            calls: 0,
            errors: 0,
            client_total_ns: 0,
            server_total_ns: 0,
            client_buckets: Vec::new(),
            server_buckets: Vec::new(),
        });
        edge.calls += row.calls;
        edge.errors += row.errors;
        edge.client_total_ns = edge.client_total_ns.saturating_add(row.client_total_ns);
        edge.server_total_ns = edge.server_total_ns.saturating_add(row.server_total_ns);
        // A key may now stand in the list twice; quantiles only need them sorted.
        edge.client_buckets.extend(row.client_merged);
        edge.server_buckets.extend(row.server_merged);
    }
    edges.into_values().collect()
}

/// The minutes of the window that got halves since the last rollup, or within the ten seconds
/// before it that it may not have seen. Minutes of which halves may have expired already are left
/// as they are.
fn live_minutes_sql(window: Minutes) -> Sql {
    let mut sql = Sql::new(
        "WITH greatest((SELECT toInt64(intDiv(max(version), 1000)) FROM edges) - 10000, \
         toInt64(toUnixTimestamp64Milli(now64(3))) - 300000) AS since_ms \
         SELECT DISTINCT toInt64(toUnixTimestamp(toStartOfMinute(time))) AS minute_seconds \
         FROM half_edges WHERE tenant = '' AND side = 'client' \
         AND time >= now64(3) - toIntervalMinute(30) AND toStartOfMinute(time) >= toDateTime(",
    );
    sql.int(window.from)
        .push(") AND toStartOfMinute(time) < toDateTime(")
        .int(window.to);
    sql.push(
        ") AND (trace_id, span_id) IN (SELECT trace_id, span_id FROM half_edges \
         WHERE tenant = '' AND inserted_at >= fromUnixTimestamp64Milli(since_ms)) \
         ORDER BY minute_seconds DESC LIMIT ",
    );
    sql.uint(LIVE_MINUTES_MAX);
    sql
}

fn rolled_up_sql(window: Minutes, live: &[i64]) -> Sql {
    let mut sql = Sql::new(
        "SELECT toString(client) AS caller, toString(server) AS callee, \
         toString(connection_type) AS connection, sum(count) AS calls, \
         sum(error_count) AS errors, sum(client_duration_sum_ns) AS client_total_ns, \
         sum(server_duration_sum_ns) AS server_total_ns, sumMap(client_buckets) AS client_merged, \
         sumMap(server_buckets) AS server_merged FROM edges WHERE ",
    );
    sql.append(&window.condition());
    if !live.is_empty() {
        sql.push(" AND NOT has(")
            .ints(live)
            .push(", toInt64(toUnixTimestamp(minute)))");
    }
    sql.push(" AND (minute, version) IN (SELECT minute, max(version) FROM edges WHERE ");
    sql.append(&window.condition());
    sql.push(" GROUP BY minute) GROUP BY client, server, connection_type");
    sql.push(" ORDER BY client, server, connection_type LIMIT ")
        .uint(ROWS_MAX as u64 + 1);
    sql
}

/// The edges of the minutes in `live`, paired as the store's rollup pairs them: a call counts in
/// the minute of its client's half, and without a server's half the client's peer is the server.
fn live_sql(live: &[i64]) -> Option<Sql> {
    let (first, last) = (live.iter().min()?, live.iter().max()?);
    let mut sql = Sql::new(
        "SELECT toString(c.service) AS caller, \
         toString(if(s.found = 1, s.service, c.peer)) AS callee, \
         multiIf(s.found = 1 AND c.connection_type = 'virtual_node', 'unset', \
         s.found = 0 AND c.connection_type = 'unset', 'virtual_node', \
         toString(c.connection_type)) AS connection, \
         count() AS calls, countIf(c.error OR s.error) AS errors, \
         sum(c.duration_ns) AS client_total_ns, sum(s.duration_ns) AS server_total_ns, \
         sumMap(map(c.bucket, toUInt64(1))) AS client_merged, \
         sumMapIf(map(s.bucket, toUInt64(1)), s.found = 1) AS server_merged FROM (\
         SELECT trace_id, span_id, service, duration_ns, error, peer, connection_type, ",
    );
    const BUCKET: &str =
        "toInt16(least(240, greatest(-168, ceil(8 * log2(duration_ns / 100000000))))) AS bucket";
    sql.push(BUCKET)
        .push(" FROM half_edges WHERE tenant = '' AND side = 'client'");
    sql.push(" AND toStartOfMinute(time) >= toDateTime(")
        .int(*first);
    sql.push(") AND toStartOfMinute(time) <= toDateTime(")
        .int(*last);
    sql.push(") AND has(").ints(live);
    sql.push(
        ", toInt64(toUnixTimestamp(toStartOfMinute(time)))) \
         LIMIT 1 BY trace_id, span_id, service) AS c LEFT JOIN (\
         SELECT trace_id, span_id, service, duration_ns, error, 1 AS found, ",
    );
    sql.push(BUCKET)
        .push(" FROM half_edges WHERE tenant = '' AND side = 'server'");
    // Clocks may differ, and a consumer may start long after its producer.
    sql.push(" AND toStartOfMinute(time) >= toDateTime(")
        .int(first - 300);
    sql.push(") AND toStartOfMinute(time) <= toDateTime(")
        .int(last + 1800);
    sql.push(
        ") LIMIT 1 BY trace_id, span_id, service) AS s \
         ON c.trace_id = s.trace_id AND c.span_id = s.span_id \
         WHERE s.found = 1 OR c.peer != '' GROUP BY caller, callee, connection \
         ORDER BY caller, callee, connection LIMIT ",
    );
    sql.uint(ROWS_MAX as u64 + 1)
        .push(" SETTINGS join_use_nulls = 0");
    Some(sql)
}
