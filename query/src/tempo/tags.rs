//! `GET /api/v2/search/tags` and `GET /api/search/tags`: the keys that can be searched for.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clickhouse::Row;
use http::Uri;
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::db::Text;
use crate::params::Params;
use crate::problem::Problem;
use crate::sql::Sql;
use crate::tempo::error::Plain;
use crate::tempo::window::Range;

/// What a data source offers besides attributes, in Tempo's order.
pub const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];

/// More keys are not listed, unless `limit` asks for more.
const LIMIT_DEFAULT: u64 = 5_000;

/// The scopes of attributes, by the names that they have in the catalogue and in answers.
const SCOPES: [&str; 5] = ["resource", "span", "event", "link", "instrumentation"];

#[derive(Debug, Row, Deserialize)]
struct KeyRow {
    scope: Text,
    key: Text,
}

/// A scope and its keys, sorted.
pub type Scoped = (&'static str, Vec<String>);

/// The keys by scope.
pub async fn v2(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<serde_json::Value>, Plain> {
    let scopes = scopes(&app, &Params::of_others(&uri)?).await?;
    let scopes: Vec<_> = scopes
        .into_iter()
        .map(|(name, tags)| json!({"name": name, "tags": tags}))
        .collect();
    Ok(Json(json!({"scopes": scopes, "metrics": {}})))
}

/// The keys without their scopes.
pub async fn v1(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<serde_json::Value>, Plain> {
    let scopes = scopes(&app, &Params::of_others(&uri)?).await?;
    Ok(Json(
        json!({"tagNames": without_scopes(scopes), "metrics": {}}),
    ))
}

/// The keys of all scopes, each once, sorted.
pub fn without_scopes(scopes: Vec<Scoped>) -> Vec<String> {
    let mut names: Vec<String> = scopes.into_iter().flat_map(|(_, tags)| tags).collect();
    names.sort();
    names.dedup();
    names
}

/// A limit, where 0 means ours.
///
/// # Errors
/// When it is not a number.
pub fn limit(params: &Params) -> Result<u64, Problem> {
    let Some(text) = params.one("limit") else {
        return Ok(LIMIT_DEFAULT);
    };
    let limit: u64 = text
        .parse()
        .map_err(|_| Problem::parameter("limit", "is not a whole number"))?;
    Ok(match limit {
        0 => LIMIT_DEFAULT,
        limit => limit.min(10 * LIMIT_DEFAULT),
    })
}

/// The keys that these parameters ask for.
///
/// # Errors
/// When a parameter cannot be used, or ClickHouse has no answer.
pub async fn scopes(app: &App, params: &Params) -> Result<Vec<Scoped>, Plain> {
    let (attributes, intrinsics) = match params.one("scope") {
        None | Some("all" | "none") => (None, true),
        Some("intrinsic") => return Ok(vec![intrinsics_of()]),
        Some(name) if SCOPES.contains(&name) => (Some(name), false),
        Some(_) => {
            let all = SCOPES.join(", ");
            let detail = format!("is not one of all, intrinsic, {all}");
            return Err(Problem::parameter("scope", detail).into());
        }
    };
    let range = Range::read(params)?.unwrap_or(Range::ALL);
    let limit = limit(params)?;
    let mut sql = Sql::new(
        "SELECT toString(scope) AS scope, toString(key) AS key FROM tags WHERE tenant = '' AND ",
    );
    days(&mut sql, range);
    if let Some(scope) = attributes {
        sql.push(" AND scope = ").string(scope);
    }
    sql.push(" GROUP BY scope, key ORDER BY key LIMIT ")
        .uint(limit)
        .push(" BY scope");
    let rows: Vec<KeyRow> = app.db.rows("tags", &sql, app.db.deadline()).await?;
    let mut scopes: Vec<Scoped> = SCOPES.iter().map(|name| (*name, Vec::new())).collect();
    for row in rows {
        if let Some((_, tags)) = scopes.iter_mut().find(|(name, _)| *name == row.scope.0) {
            tags.push(row.key.0);
        }
    }
    scopes.retain(|(_, tags)| !tags.is_empty());
    if intrinsics {
        scopes.push(intrinsics_of());
    }
    Ok(scopes)
}

fn intrinsics_of() -> Scoped {
    ("intrinsic", INTRINSICS.map(str::to_owned).to_vec())
}

/// Adds the condition that a row of the catalogue is of a day of this range.
pub fn days(sql: &mut Sql, range: Range) {
    // The column's days end in 2149, before the range does.
    sql.push("day >= toDate(").time(range.start_ns);
    sql.push(") AND toDate32(day) <= toDate32(")
        .time(range.end_ns)
        .push(")");
}
