//! Reading the calls between services.
//!
//! The store rolls half-edges up every few seconds: a minute that got new halves is appended again
//! with a higher version, and only its highest counts. What arrived since then would be missing, so
//! the minutes it touches are joined here, from all their halves and with the store's own SQL, and take
//! the place of their rollups.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::Deserialize;
use spanloom_store::schema::rollup::{
    CALLERS, CALLS, CAN_BE_CHILD, CHILDREN, EDGE, EDGE_ERRORS, EDGE_JOIN, EDGE_RANGES, IS_EDGE,
    ONE_CALLER, ONE_CHILD, PAIRING_SECONDS, SKEW_SECONDS,
};

use crate::db::{Db, DbError, Text};
use crate::rollup::histogram::{EDGE_BASE_NS, Histogram};
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
    pub(super) client: Durations,
    pub(super) server: Durations,
}

/// How long the spans of one side took.
#[derive(Debug, Default)]
pub(super) struct Durations {
    pub(super) total_ns: u64,
    /// The least and the greatest.
    range: Option<(u64, u64)>,
    buckets: Vec<(i16, u64)>,
}

impl Durations {
    fn add(&mut self, total_ns: u64, (least, greatest): (u64, u64), buckets: Vec<(i16, u64)>) {
        if buckets.is_empty() {
            return;
        }
        self.total_ns = self.total_ns.saturating_add(total_ns);
        let (low, high) = self.range.unwrap_or((least, greatest));
        self.range = Some((low.min(least), high.max(greatest)));
        // A key may now stand in the list twice; quantiles only need them sorted.
        self.buckets.extend(buckets);
    }

    /// Whether no span was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub(super) fn histogram(self) -> Histogram {
        let (least, greatest) = self.range.unwrap_or((0, u64::MAX));
        Histogram::new(EDGE_BASE_NS, self.buckets)
            .with_sum(self.total_ns)
            .with_range(least, greatest)
    }
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
    client_least_ns: u64,
    client_greatest_ns: u64,
    server_least_ns: u64,
    server_greatest_ns: u64,
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
            client: Durations::default(),
            server: Durations::default(),
        });
        edge.calls += row.calls;
        edge.errors += row.errors;
        let range = (row.client_least_ns, row.client_greatest_ns);
        edge.client
            .add(row.client_total_ns, range, row.client_merged);
        let range = (row.server_least_ns, row.server_greatest_ns);
        edge.server
            .add(row.server_total_ns, range, row.server_merged);
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
         FROM half_edges WHERE tenant = '' AND side != 'server' \
         AND time >= now64(3) - toIntervalMinute(30) AND toStartOfMinute(time) >= toDateTime(",
    );
    sql.int(window.from)
        .push(") AND toStartOfMinute(time) < toDateTime(")
        .int(window.to);
    sql.push(
        ") AND (trace_id, span_id) GLOBAL IN (\
         SELECT trace_id, arrayJoin([span_id, parent_span_id]) FROM half_edges \
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
         sum(error_count) AS errors, ",
    );
    sql.saturating_sum("client_duration_sum_ns")
        .push(" AS client_total_ns, ")
        .saturating_sum("server_duration_sum_ns")
        .push(
            " AS server_total_ns, sumMap(client_buckets) AS client_merged, \
             sumMap(server_buckets) AS server_merged, \
             min(client_duration_min_ns) AS client_least_ns, \
             max(client_duration_max_ns) AS client_greatest_ns, \
             minIf(server_duration_min_ns, notEmpty(server_buckets)) AS server_least_ns, \
             maxIf(server_duration_max_ns, notEmpty(server_buckets)) AS server_greatest_ns \
             FROM edges WHERE ",
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

/// The edges of the minutes in `live`, paired as the store's rollup pairs them.
fn live_sql(live: &[i64]) -> Option<Sql> {
    let (first, last) = (live.iter().min()?, live.iter().max()?);
    let mut sql = Sql::new("WITH callers AS (");
    sql.push(CALLERS)
        .push(" FROM half_edges WHERE tenant = '' AND side != 'server'");
    sql.push(" AND toStartOfMinute(time) >= toDateTime(")
        .int(*first);
    sql.push(") AND toStartOfMinute(time) <= toDateTime(")
        .int(*last);
    sql.push(") AND has(")
        .ints(live)
        .push(", toInt64(toUnixTimestamp(toStartOfMinute(time)))) ")
        .push(ONE_CALLER);
    sql.push("), children AS (").push(CHILDREN);
    sql.push(" FROM half_edges WHERE tenant = '' AND ")
        .push(CAN_BE_CHILD);
    // Clocks may differ, and a consumer may start long after its producer.
    sql.push(" AND toStartOfMinute(time) >= toDateTime(")
        .int(first - i64::from(SKEW_SECONDS));
    sql.push(") AND toStartOfMinute(time) <= toDateTime(")
        .int(last + i64::from(PAIRING_SECONDS))
        .push(") ")
        .push(ONE_CHILD);
    sql.push("), ")
        .push(CALLS)
        .push(" SELECT toString(client) AS caller, toString(server) AS callee, connection_type AS connection, ")
        .push("calls, errors, client_total_ns, server_total_ns, client_merged, server_merged, ")
        .push("client_duration_min_ns AS client_least_ns, ")
        .push("client_duration_max_ns AS client_greatest_ns, ")
        .push("server_duration_min_ns AS server_least_ns, ")
        .push("server_duration_max_ns AS server_greatest_ns FROM (SELECT ")
        .push(EDGE)
        .push(", count() AS calls, ")
        .push(EDGE_ERRORS)
        .push(" AS errors, ")
        .saturating_sum("c.duration_ns")
        .push(" AS client_total_ns, ")
        .saturating_sum("s.callee_ns")
        .push(" AS server_total_ns, ");
    const CLIENT_MERGED: &str = "sumMap(map(toInt16(least(240, greatest(-168, \
         ceil(8 * log2(c.duration_ns / 100000000))))), toUInt64(1))) AS client_merged, ";
    const SERVER_MERGED: &str = "sumMapIf(map(toInt16(least(240, greatest(-168, \
         ceil(8 * log2(s.callee_ns / 100000000))))), toUInt64(1)), s.found) AS server_merged, ";
    sql.push(CLIENT_MERGED)
        .push(SERVER_MERGED)
        .push(EDGE_RANGES)
        .push(" FROM callers AS c ")
        .push(EDGE_JOIN)
        .push(" WHERE ")
        .push(IS_EDGE)
        .push(
            " GROUP BY client, server, connection_type) ORDER BY caller, callee, connection LIMIT ",
        );
    sql.uint(ROWS_MAX as u64 + 1)
        .push(" SETTINGS join_use_nulls = 0");
    Some(sql)
}
