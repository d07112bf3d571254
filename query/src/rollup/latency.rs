//! `GET /api/v1/latency`: percentiles, counts and errors by service and operation, from the RED
//! rollup.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clickhouse::Row;
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::Text;
use crate::params::{Allowed, Params, SPAN_KINDS};
use crate::problem::{Problem, ProblemDocument};
use crate::rollup::histogram::{Histogram, RED_BASE_NS};
use crate::rollup::{Minutes, ROWS_MAX, cut};
use crate::sql::Sql;
use crate::times::Window;
use crate::trace::span::name_of;

/// What the route takes.
pub const ALLOWED: Allowed = Allowed {
    once: &["service", "operation", "kind", "start", "end"],
    repeated: &[],
};

/// Latency over a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatencyList {
    /// The whole minutes that contain the window that was asked for; the end is exclusive.
    pub window: Window,
    /// By service, then by operation, then by kind.
    pub operations: Vec<OperationLatency>,
    /// Whether there are more.
    pub truncated: bool,
}

/// All spans of one name and kind of a service, before sampling. A span that was delivered again in another
/// request is counted again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationLatency {
    /// The spans' service.
    pub service: String,
    /// The spans' name.
    pub operation: String,
    /// Their kind: unspecified, internal, server, client, producer or consumer.
    pub kind: String,
    /// How many there are.
    pub count: u64,
    /// Those with status error.
    pub error_count: u64,
    /// The mean duration in nanoseconds.
    pub average_ns: String,
    /// The median in nanoseconds; percentiles err by at most 5 %, and lie between the least and the
    /// greatest duration.
    pub p50_ns: String,
    /// The 95th percentile in nanoseconds.
    pub p95_ns: String,
    /// The 99th percentile in nanoseconds.
    pub p99_ns: String,
}

#[derive(Debug, Row, Deserialize)]
struct LatencyRow {
    service_name: Text,
    operation: Text,
    kind_number: i8,
    spans: u64,
    errors: u64,
    total_ns: u64,
    least_ns: u64,
    greatest_ns: u64,
    merged: Vec<(i16, u64)>,
}

impl From<LatencyRow> for OperationLatency {
    fn from(row: LatencyRow) -> Self {
        let histogram = Histogram::new(RED_BASE_NS, row.merged)
            .with_sum(row.total_ns)
            .with_range(row.least_ns, row.greatest_ns);
        let quantile = |q| histogram.quantile(q).to_string();
        Self {
            service: row.service_name.0,
            operation: row.operation.0,
            kind: name_of(&SPAN_KINDS, row.kind_number),
            count: row.spans,
            error_count: row.errors,
            average_ns: row.total_ns.checked_div(row.spans).unwrap_or(0).to_string(),
            p50_ns: quantile(0.5),
            p95_ns: quantile(0.95),
            p99_ns: quantile(0.99),
        }
    }
}

/// Tells latency by service, operation and kind.
///
/// A span that was delivered again in another request is counted again.
#[utoipa::path(
    get,
    path = "/api/v1/latency",
    tag = "services",
    operation_id = "latency",
    params(
        ("service" = Option<String>, Query, description = "Only this service"),
        ("operation" = Option<String>, Query, description = "Only this operation"),
        ("kind" = Option<String>, Query,
            description = "Only this kind: unspecified, internal, server, client, producer or consumer"),
        ("start" = String, Query, description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = String, Query, description = "End of the time range: RFC 3339 or Unix seconds"),
    ),
    responses(
        (status = 200, description = "Latency by service and operation", body = LatencyList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn latency(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<LatencyList>, Problem> {
    let params = Params::read(&uri, ALLOWED)?;
    let window = Minutes::new(params.window()?);
    let mut and = Sql::default();
    if let Some(service) = params.one("service") {
        and.push(" AND service = ").string(service);
    }
    if let Some(operation) = params.one("operation") {
        and.push(" AND name = ").string(operation);
    }
    if let Some(kind) = params.kind()? {
        and.push(" AND toInt8(kind) = ").int(kind.into());
    }
    let mut sql = Sql::new(
        "SELECT toString(service) AS service_name, toString(name) AS operation, \
         toInt8(kind) AS kind_number, sum(m.spans) AS spans, sum(m.errors) AS errors, ",
    );
    sql.saturating_sum("m.total_ns").push(
        " AS total_ns, min(m.least_ns) AS least_ns, max(m.greatest_ns) AS greatest_ns, \
         sumMap(m.counts) AS merged FROM ",
    );
    sql.append(&window.measures(&and));
    sql.push(" AS m GROUP BY service, name, kind ORDER BY service, name, kind LIMIT ")
        .uint(ROWS_MAX as u64 + 1);
    if window.is_short() {
        sql.push(" SETTINGS max_threads = 1");
    }
    let rows: Vec<LatencyRow> = app.db.rows("latency", &sql, app.db.deadline()).await?;
    let (rows, truncated) = cut(rows);
    let operations = rows.into_iter().map(OperationLatency::from).collect();
    Ok(Json(LatencyList {
        window: window.window(),
        operations,
        truncated,
    }))
}
