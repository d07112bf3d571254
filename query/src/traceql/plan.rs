//! What of a query ClickHouse decides, and what the evaluator: for people who wonder why a query is slow.

use spanloom_traceql::{Body, CompiledQuery, Expr, Node, Pipeline, SpansetExpr, SpansetOp, Stage};

use crate::traceql::condition::Condition;
use crate::traceql::{metrics, search};

/// How a query is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The SQL conditions that spans in the time range, and their traces in the index, must meet for the traces to be
    /// read; none where any span may count.
    pub pushed_down: Option<String>,
    /// Whether ClickHouse answers it alone.
    pub is_aggregated: bool,
    /// The parts of the query that the evaluator decides, in reading order.
    pub evaluated: Vec<String>,
}

impl Plan {
    /// The plan of a query.
    pub fn of(query: &CompiledQuery) -> Self {
        let mut evaluated = Vec::new();
        let (condition, is_aggregated) = match &query.query().body {
            Body::Search(pipeline) => {
                of_pipeline(pipeline, &mut evaluated);
                (search::candidates(query), false)
            }
            Body::Metrics { .. } => {
                let is_aggregated = metrics::is_aggregated(query);
                if !is_aggregated {
                    of_leaves(query, &mut evaluated);
                }
                (metrics::candidates(query), is_aggregated)
            }
        };
        Self {
            pushed_down: condition.shown(),
            is_aggregated,
            evaluated,
        }
    }
}

fn of_pipeline(pipeline: &Pipeline, evaluated: &mut Vec<String>) {
    for stage in &pipeline.stages {
        match stage {
            Stage::Spansets(expr) => of_spansets(expr, evaluated),
            stage => evaluated.push(stage.to_string()),
        }
    }
}

fn of_spansets(expr: &SpansetExpr, evaluated: &mut Vec<String>) {
    match expr {
        SpansetExpr::Filter(expr) => of_filter(expr, evaluated),
        SpansetExpr::Pipeline(pipeline) => of_pipeline(pipeline, evaluated),
        SpansetExpr::Op {
            op: SpansetOp::Or,
            left,
            right,
        } => {
            of_spansets(left, evaluated);
            of_spansets(right, evaluated);
        }
        // What other spans of the trace are.
        expr => evaluated.push(expr.to_string()),
    }
}

fn of_leaves(query: &CompiledQuery, evaluated: &mut Vec<String>) {
    for leaf in query.leaves() {
        match leaf.filter {
            Some(filter) => {
                of_filter(filter, evaluated);
                evaluated.push(leaf.pipeline.function.to_string());
            }
            None => evaluated.push(leaf.pipeline.to_string()),
        }
    }
}

/// Those conditions of a filter that SQL does not say exactly.
fn of_filter(expr: &Expr, evaluated: &mut Vec<String>) {
    match &expr.node {
        Node::And(parts) => {
            for part in parts {
                of_filter(part, evaluated);
            }
        }
        _ if Condition::of(expr).is_exact() => {}
        node => evaluated.push(node.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, pushed_down: Option<&str>, evaluated: &[&str]) {
        let plan = Plan::of(&CompiledQuery::new(query).unwrap());
        assert_eq!(plan.pushed_down.as_deref(), pushed_down, "{query}");
        assert_eq!(plan.evaluated, evaluated, "{query}");
    }

    #[test]
    fn a_plan_tells_apart_what_clickhouse_and_the_evaluator_decide() {
        const LONG: &str =
            "toUnixTimestamp64Nano(max(end)) - toUnixTimestamp64Nano(min(start)) > 1000000000";
        check("{ }", None, &[]);
        check("{ name = \"a'b\" }", Some("name = 'a\\'b'"), &[]);
        check(
            "{ status = error && duration > 1s }",
            Some("(status = 'ERROR') AND (duration_ns > 1000000000)"),
            &[],
        );
        check(
            "{ name = \"a\" && traceDuration > 1s } | count() > 2",
            Some(&format!("(name = 'a') AND ({LONG})")),
            &["traceDuration > 1s", "count() > 2"],
        );
        check(
            "{ name = \"a\" } >> { status = error }",
            Some("status = 'ERROR'"),
            &["{ name = \"a\" } >> { status = error }"],
        );
        check(
            "{ name = \"a\" } || { name = \"b\" }",
            Some("(name = 'a') OR (name = 'b')"),
            &[],
        );
        check(
            "{ traceDuration > 1s }",
            Some(LONG),
            &["traceDuration > 1s"],
        );
        check("{ status = error } | rate()", Some("status = 'ERROR'"), &[]);
        check(
            "{ name = \"a\" && nestedSetLeft > 5 } | rate()",
            Some("(name = 'a')"),
            &["nestedSetLeft > 5", "rate()"],
        );
    }
}
