//! `GET /api/v1/dependencies`: who calls whom, from the edges rollup and what it does not have yet.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::rollup::edges::{self, Edge};
use crate::rollup::{Minutes, cut};
use crate::times::Window;

/// What the route takes.
pub const ALLOWED: Allowed = Allowed {
    once: &["start", "end"],
    repeated: &[],
};

/// The service graph over a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct DependencyList {
    /// The whole minutes that contain the window that was asked for; the end is exclusive.
    pub window: Window,
    /// By caller, then by callee.
    pub dependencies: Vec<Dependency>,
    /// Whether there are more.
    pub truncated: bool,
}

/// Calls from one service to another, before sampling.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// The calling service.
    pub caller: String,
    /// The called service, database, queue or uninstrumented peer.
    pub callee: String,
    /// What the callee is: empty for a service, else messaging_system, database or virtual_node.
    pub connection_type: String,
    /// The calls.
    pub count: u64,
    /// Those that failed.
    pub error_count: u64,
    /// The mean duration in nanoseconds.
    pub average_ns: String,
    /// The 95th percentile in nanoseconds; it errs by at most 5 %.
    pub p95_ns: String,
    /// Whose spans the durations are of: server, or client where the callee sends none.
    pub measured_by: String,
}

impl From<Edge> for Dependency {
    fn from(row: Edge) -> Self {
        let (durations, measured_by) = if row.server.is_empty() {
            (row.client, "client")
        } else {
            (row.server, "server")
        };
        let total_ns = durations.total_ns;
        let histogram = durations.histogram();
        Self {
            caller: row.key.caller,
            callee: row.key.callee,
            connection_type: match row.key.connection.as_str() {
                "unset" => String::new(),
                _ => row.key.connection,
            },
            count: row.calls,
            error_count: row.errors,
            average_ns: total_ns
                .checked_div(histogram.count())
                .unwrap_or(0)
                .to_string(),
            p95_ns: histogram.quantile(0.95).to_string(),
            measured_by: measured_by.to_owned(),
        }
    }
}

/// Tells who calls whom.
#[utoipa::path(
    get,
    path = "/api/v1/dependencies",
    tag = "services",
    operation_id = "dependencies",
    params(
        ("start" = String, Query, description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = String, Query, description = "End of the time range: RFC 3339 or Unix seconds"),
    ),
    responses(
        (status = 200, description = "The calls between services", body = DependencyList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn dependencies(
    State(app): State<Arc<App>>,
    uri: Uri,
) -> Result<Json<DependencyList>, Problem> {
    let window = Minutes::new(Params::read(&uri, ALLOWED)?.window()?);
    let (edges, truncated) = cut(edges::read(&app.db, window).await?);
    let dependencies = edges.into_iter().map(Dependency::from).collect();
    Ok(Json(DependencyList {
        window: window.window(),
        dependencies,
        truncated,
    }))
}
