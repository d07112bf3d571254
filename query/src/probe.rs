//! Whether a probe has come through: the operator sends a span to each collector and asks here
//! whether it can be read.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;
use spanloom_crds::agent::{PROBE_ATTRIBUTE, PROBE_SERVICE};

use crate::app::App;
use crate::ids::parse_trace_id;
use crate::problem::Problem;
use crate::sql::Sql;

/// How far back a probe is looked for: it is asked for seconds after it was sent.
const WINDOW: &str = "1 HOUR";

/// How much of a probe's trace is stored.
#[derive(Debug, Serialize)]
pub struct Probe {
    /// Its spans that can be read now.
    spans: u64,
}

/// Counts the spans of a probe's trace. Spans of anyone else's are not counted: this port asks for
/// no token.
///
/// # Errors
/// When the id is none, or ClickHouse cannot be asked.
pub async fn probe(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Probe>, Problem> {
    let Some(id) = parse_trace_id(&id) else {
        let detail = "a trace ID is 1 to 32 hexadecimal digits";
        return Err(Problem::parameter("trace_id", detail));
    };
    let rows = app.db.check("probe", &sql(id), app.db.deadline()).await?;
    let spans = rows.first().copied().unwrap_or(0);
    Ok(Json(Probe { spans }))
}

fn sql(id: [u8; 16]) -> Sql {
    let mut sql =
        Sql::new("SELECT uniqExact(span_id) FROM spans WHERE tenant = '' AND service = '");
    sql.push(PROBE_SERVICE)
        .push("' AND time > now() - INTERVAL ")
        .push(WINDOW)
        .push(" AND JSONHas(resource, '")
        .push(PROBE_ATTRIBUTE)
        .push("') AND trace_id = ")
        .trace_id(id);
    sql
}
