//! `GET /api/v1/accounts`: what became of spans, from the agents' accounts per minute.
//!
//! Each span that an agent receives ends in one row: at a stage of its way, for a reason. So the sum over
//! all rows is what was received, and the rows say where it went.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use clickhouse::Row;
use http::Uri;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::Text;
use crate::params::{Allowed, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::rollup::{Minutes, ROWS_MAX, cut_at};
use crate::sql::Sql;
use crate::times::{Window, rfc3339};

/// What the route takes.
pub const ALLOWED: Allowed = Allowed {
    once: &["node", "agent", "stage", "reason", "step", "start", "end"],
    repeated: &["by"],
};

/// Parameters that choose rows, and the condition's text up to the value.
const FILTERS: [(&str, &str); 4] = [
    ("node", " AND node = "),
    ("agent", " AND agent = "),
    ("stage", " AND stage = "),
    ("reason", " AND reason = "),
];

/// Steps that one row may have.
const STEPS_MAX: u64 = 1_500;

/// Steps of all rows of an answer; with more steps it has fewer rows.
const POINTS_MAX: u64 = 100_000;

/// What became of the spans of a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountList {
    /// The whole minutes that contain the window that was asked for; the end is exclusive.
    pub window: Window,
    /// All accounts together, also those that are not in the list.
    pub total: Total,
    /// By spans, then by bytes, largest first.
    pub accounts: Vec<Account>,
    /// Whether there are more.
    pub truncated: bool,
}

/// What was received.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Total {
    /// Its spans.
    pub spans: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Spans that ended at the same stage for the same reason.
#[derive(Debug, Serialize, ToSchema)]
pub struct Account {
    /// The agents' node; with by=node only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The agent; with by=agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How far the spans came, such as receive, process, sample or store.
    pub stage: String,
    /// What became of them there.
    pub reason: String,
    /// How many spans; 0 where requests were refused before their spans were looked at.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The steps that have any, in the order of time; with step only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub series: Option<Vec<Point>>,
}

/// What ended in one step.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    /// The step's begin (RFC 3339).
    pub start: String,
    /// Its spans.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Debug, Row, Deserialize)]
struct AccountRow {
    node_name: Text,
    agent_name: Text,
    stage_name: Text,
    reason_name: Text,
    all_spans: u64,
    all_bytes: u64,
    total_spans: u64,
    total_bytes: u64,
    /// Begins of steps in seconds since 1970, their spans, and their bytes.
    points: (Vec<i64>, Vec<u64>, Vec<u64>),
}

/// How an answer is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division {
    by_node: bool,
    by_agent: bool,
    /// Seconds of a step; `None` for no series.
    step: Option<u64>,
    /// Rows of the answer at most.
    rows: usize,
}

impl Division {
    fn read(params: &Params, window: Minutes) -> Result<Self, Problem> {
        let mut division = Self {
            by_node: false,
            by_agent: false,
            step: step(params)?,
            rows: ROWS_MAX,
        };
        for by in params.all("by") {
            match by {
                "node" => division.by_node = true,
                "agent" => division.by_agent = true,
                _ => {
                    let detail = "by must be node or agent";
                    return Err(Problem::parameter("by", detail));
                }
            }
        }
        if let Some(step) = division.step {
            let steps = window.seconds() / step + 1;
            if steps > STEPS_MAX {
                let detail = format!(
                    "the time range has {steps} steps; at most {STEPS_MAX} are allowed: use a \
                     longer step or a shorter time range"
                );
                return Err(Problem::parameter("step", detail));
            }
            let rows = usize::try_from(POINTS_MAX / steps).unwrap_or(ROWS_MAX);
            division.rows = rows.min(ROWS_MAX);
        }
        Ok(division)
    }

    fn account(self, row: AccountRow) -> Account {
        let (starts, spans, bytes) = row.points;
        let points = starts.into_iter().zip(spans).zip(bytes);
        let series = points.map(|((start, spans), bytes)| Point {
            start: rfc3339(start.saturating_mul(1_000_000_000)),
            spans,
            bytes,
        });
        Account {
            node: self.by_node.then_some(row.node_name.0),
            agent: self.by_agent.then_some(row.agent_name.0),
            stage: row.stage_name.0,
            reason: row.reason_name.0,
            spans: row.all_spans,
            bytes: row.all_bytes,
            series: self.step.map(|_| series.collect()),
        }
    }
}

/// The length of a step in seconds, if one is given.
fn step(params: &Params) -> Result<Option<u64>, Problem> {
    const SECOND_NS: u64 = 1_000_000_000;
    let Some(ns) = params.duration("step")? else {
        return Ok(None);
    };
    if ns == 0 || !ns.is_multiple_of(60 * SECOND_NS) {
        let detail = "step must be a whole number of minutes, such as 1m or 1h";
        return Err(Problem::parameter("step", detail));
    }
    Ok(Some(ns / SECOND_NS))
}

fn accounts_sql(params: &Params, window: Minutes, division: Division) -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(if division.by_node {
        "toString(node)"
    } else {
        "''"
    });
    sql.push(" AS node_name, ");
    sql.push(if division.by_agent {
        "toString(agent)"
    } else {
        "''"
    });
    // The sum over all groups is of those beyond the limit, too.
    sql.push(
        " AS agent_name, toString(stage) AS stage_name, toString(reason) AS reason_name, \
         sum(a.spans) AS all_spans, sum(a.bytes) AS all_bytes, \
         sum(all_spans) OVER () AS total_spans, sum(all_bytes) OVER () AS total_bytes, \
         sumMap([toInt64(toUnixTimestamp(minute)) - toInt64(toUnixTimestamp(minute)) % ",
    );
    // Without a step all is one.
    sql.uint(division.step.unwrap_or(u32::MAX.into()))
        .push("], [a.spans], [a.bytes]) AS points FROM accounts AS a WHERE ")
        .append(&window.condition());
    for (name, condition) in FILTERS {
        if let Some(value) = params.one(name) {
            sql.push(condition).string(value);
        }
    }
    sql.push(
        " GROUP BY node_name, agent_name, stage_name, reason_name ORDER BY all_spans DESC, \
         all_bytes DESC, stage_name, reason_name, node_name, agent_name LIMIT ",
    );
    sql.uint(division.rows as u64 + 1);
    sql
}

/// Tells what became of spans.
///
/// Every span that an agent receives is in one account: stored, or the stage and the reason for which it is
/// not. A span that was sent again after a refusal is received once more.
#[utoipa::path(
    get,
    path = "/api/v1/accounts",
    tag = "accounts",
    operation_id = "accounts",
    params(
        ("node" = Option<String>, Query, description = "Only collectors on this node"),
        ("agent" = Option<String>, Query, description = "Only this collector, by the name of its \
        pod"),
        ("stage" = Option<String>, Query, description = "Only this stage"),
        ("reason" = Option<String>, Query, description = "Only this reason"),
        ("by" = Option<Vec<String>>, Query,
            description = "Group the accounts by node, by agent (collector), or by both"),
        ("step" = Option<String>, Query,
            description = "Step of the time series, in whole minutes, such as 1m or 1h"),
        ("start" = String, Query, description = "Start of the time range: RFC 3339 or Unix seconds"),
        ("end" = String, Query, description = "End of the time range: RFC 3339 or Unix seconds"),
    ),
    responses(
        (status = 200, description = "What happened to the spans that were received", body = AccountList),
        (status = "default", description = "Error", body = ProblemDocument,
            content_type = "application/problem+json"),
    )
)]
pub async fn accounts(State(app): State<Arc<App>>, uri: Uri) -> Result<Json<AccountList>, Problem> {
    let params = Params::read(&uri, ALLOWED)?;
    let window = Minutes::new(params.window()?);
    let division = Division::read(&params, window)?;
    let sql = accounts_sql(&params, window, division);
    let rows: Vec<AccountRow> = app.db.rows("accounts", &sql, app.db.deadline()).await?;
    let total = rows.first().map(|row| Total {
        spans: row.total_spans,
        bytes: row.total_bytes,
    });
    let (rows, truncated) = cut_at(rows, division.rows);
    let accounts = rows.into_iter().map(|row| division.account(row));
    Ok(Json(AccountList {
        window: window.window(),
        total: total.unwrap_or_default(),
        accounts: accounts.collect(),
        truncated,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str, from: i64, to: i64) -> Result<Division, Problem> {
        let uri = format!("/x?{query}").parse().unwrap();
        let second = 1_000_000_000;
        let window = Minutes::new((from * second, to * second));
        Division::read(&Params::read(&uri, ALLOWED)?, window)
    }

    #[test]
    fn more_steps_mean_fewer_rows() {
        #[track_caller]
        fn check(query: &str, seconds: i64, step: Option<u64>, rows: usize) {
            let division = read(query, 0, seconds - 1).unwrap();
            assert_eq!((division.step, division.rows), (step, rows), "{query}");
        }
        check("", 86_400, None, 10_000);
        check("step=1m", 60, Some(60), 10_000);
        check("step=1m", 3_600, Some(60), 1_639);
        check("step=1m", 86_400, Some(60), 69);
        check("step=1h", 86_400, Some(3_600), 4_000);
        check("step=1d", 60, Some(86_400), 10_000);
    }

    #[test]
    fn what_cannot_be_divided() {
        #[track_caller]
        fn check(query: &str, parameter: &str) {
            let problem = read(query, 0, 1_000_000_000).unwrap_err();
            assert_eq!(problem.at_parameter(), Some(parameter), "{query}");
        }
        check("step=1m", "step");
        check("step=0s", "step");
        check("step=30s", "step");
        check("step=90s", "step");
        check("step=x", "step");
        check("by=stage", "by");
        check("by=", "by");
        check("by=node&by=x", "by");
    }
}
