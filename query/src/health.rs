//! `/metrics`, `/healthz` and `/readyz`, on the API's port and on one of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use spanloom_program::OPENMETRICS;

use crate::app::App;
use crate::probe;

/// The routes of the admin port: for Kubernetes, Prometheus and the operator, not for people.
pub fn admin(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/probe/{trace_id}", get(probe::probe))
        .with_state(app)
}

/// The process answers, and that is all this says.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether questions can be answered now.
pub async fn readyz(State(app): State<Arc<App>>) -> Response {
    let reason = match app.health.not_ready() {
        Some(reason) => Some(reason),
        None => app.db.ping().await.err().map(|error| error.to_string()),
    };
    match reason {
        None => app.health.ready_body().into_response(),
        Some(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {reason}\n"),
        )
            .into_response(),
    }
}

/// All metrics of the process.
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut body = String::with_capacity(16 * 1024);
    match prometheus_client::encoding::text::encode(&mut body, &app.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], body).into_response(),
        Err(error) => {
            let reason = format!("cannot encode the metrics: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, reason).into_response()
        }
    }
}
