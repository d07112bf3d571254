//! `GET /api/v1/services` and `/services/{service}/operations`, from the RED rollup.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use clickhouse::Row;
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::Text;
use crate::params::{Allowed, Params, SPAN_KINDS};
use crate::problem::{Problem, ProblemDocument};
use crate::rollup::{Minutes, ROWS_MAX, cut};
use crate::sql::Sql;
use crate::trace::span::name_of;

/// What both routes take.
pub const ALLOWED: Allowed = Allowed {
    once: &["start", "end"],
    repeated: &[],
};

/// The services that sent spans.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceList {
    /// By name.
    pub services: Vec<Service>,
    /// Whether there are more.
    pub truncated: bool,
}

/// A service and what it sent, before sampling.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `service.name`.
    pub name: String,
    /// Its spans.
    pub span_count: u64,
    /// Those with status error.
    pub error_count: u64,
}

/// The operations of a service.
#[derive(Debug, Serialize, ToSchema)]
pub struct OperationList {
    /// The service.
    pub service: String,
    /// By name, then by kind.
    pub operations: Vec<Operation>,
    /// Whether there are more.
    pub truncated: bool,
}

/// Spans of one name and kind, before sampling.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The spans' name.
    pub name: String,
    /// Their kind: unspecified, internal, server, client, producer or consumer.
    pub kind: String,
    /// How many there are.
    pub span_count: u64,
    /// Those with status error.
    pub error_count: u64,
}

#[derive(Debug, Row, Deserialize)]
struct ServiceRow {
    service_name: Text,
    spans: u64,
    errors: u64,
}

#[derive(Debug, Row, Deserialize)]
struct OperationRow {
    operation: Text,
    kind_number: i8,
    spans: u64,
    errors: u64,
}

/// Lists services.
///
/// Without a window, all that is still stored.
#[utoipa::path(
    get,
    path = "/api/v1/services",
    tag = "services",
    operation_id = "listServices",
    params(
        ("start" = Option<String>, Query,
            description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = Option<String>, Query, description = "End of the time range: RFC 3339 or Unix \
                                                       seconds"),
    ),
    responses(
        (status = 200, description = "The services", body = ServiceList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn services(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<ServiceList>, Problem> {
    let window = Minutes::new(Params::read(&uri, ALLOWED)?.open_window()?);
    let mut sql = Sql::new(
        "SELECT toString(service) AS service_name, sum(m.spans) AS spans, \
         sum(m.errors) AS errors FROM ",
    );
    sql.append(&window.measures(&Sql::default()))
        .push(" AS m GROUP BY service ORDER BY service LIMIT ");
    sql.uint(ROWS_MAX as u64 + 1);
    let rows: Vec<ServiceRow> = app.db.rows("services", &sql, app.db.deadline()).await?;
    let (rows, truncated) = cut(rows);
    let services = rows.into_iter().map(|row| Service {
        name: row.service_name.0,
        span_count: row.spans,
        error_count: row.errors,
    });
    Ok(Json(ServiceList {
        services: services.collect(),
        truncated,
    }))
}

/// Lists a service's operations.
///
/// Without a window, all that is still stored. An unknown service has none.
#[utoipa::path(
    get,
    path = "/api/v1/services/{service}/operations",
    tag = "services",
    operation_id = "listOperations",
    params(
        ("service" = String, Path, description = "Service name"),
        ("start" = Option<String>, Query,
            description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = Option<String>, Query, description = "End of the time range: RFC 3339 or Unix \
                                                       seconds"),
    ),
    responses(
        (status = 200, description = "The operations", body = OperationList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn operations(
    State(app): State<Arc<App>>,
    service: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Json<OperationList>, Problem> {
    let Path(service) =
        service.map_err(|error| Problem::parameter("service", error.body_text()))?;
    let window = Minutes::new(Params::read(&uri, ALLOWED)?.open_window()?);
    let mut sql = Sql::new(
        "SELECT toString(name) AS operation, toInt8(kind) AS kind_number, \
         sum(m.spans) AS spans, sum(m.errors) AS errors FROM ",
    );
    let mut and = Sql::new(" AND service = ");
    and.string(&service);
    sql.append(&window.measures(&and))
        .push(" AS m GROUP BY name, kind ORDER BY name, kind LIMIT ")
        .uint(ROWS_MAX as u64 + 1);
    let rows: Vec<OperationRow> = app.db.rows("operations", &sql, app.db.deadline()).await?;
    let (rows, truncated) = cut(rows);
    let operations = rows.into_iter().map(|row| Operation {
        name: row.operation.0,
        kind: name_of(&SPAN_KINDS, row.kind_number),
        span_count: row.spans,
        error_count: row.errors,
    });
    Ok(Json(OperationList {
        service,
        operations: operations.collect(),
        truncated,
    }))
}
