//! `explain=true`: how a search was run, and what it cost.

use serde::Serialize;
use utoipa::ToSchema;

use crate::tally::Read;
use crate::traceql::plan::Plan;
use crate::traceql::watch::{Cost, Inspected};

/// How a search was run, and what it cost.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The query as it was understood.
    pub query: String,
    /// The condition on spans that ClickHouse checks, as SQL; missing if it returns all spans of the time range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pushed_down: Option<String>,
    /// The parts of the query that are evaluated on whole traces, after ClickHouse has narrowed them down.
    pub evaluated: Vec<String>,
    /// What ClickHouse did.
    pub clickhouse: ExplainedReads,
    /// What was evaluated.
    pub inspected: ExplainedInspection,
    /// The time that the search took, in nanoseconds.
    pub duration_ns: String,
}

/// What ClickHouse did for a search.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedReads {
    /// The number of queries.
    pub queries: u64,
    /// Rows read, as ClickHouse reports them when it starts to respond; at least the rows of its results.
    pub rows_read: u64,
    /// Bytes read, uncompressed, likewise.
    pub bytes_read: u64,
    /// Bytes of the results, uncompressed.
    pub result_bytes: u64,
}

/// What a search evaluated.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExplainedInspection {
    /// Traces.
    pub traces: u64,
    /// Their spans.
    pub spans: u64,
}

impl Explanation {
    /// Of a TraceQL query.
    pub fn of_query(query: String, plan: Plan, cost: Cost) -> Self {
        let Inspected { traces, spans } = cost.inspected;
        Self {
            query,
            pushed_down: plan.pushed_down,
            evaluated: plan.evaluated,
            clickhouse: cost.read.into(),
            inspected: ExplainedInspection { traces, spans },
            duration_ns: cost.took.as_nanos().to_string(),
        }
    }
}

impl From<Read> for ExplainedReads {
    fn from(read: Read) -> Self {
        Self {
            queries: read.queries,
            rows_read: read.rows,
            bytes_read: read.bytes,
            result_bytes: read.result_bytes,
        }
    }
}
