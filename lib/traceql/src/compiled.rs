//! A query that is ready to run.

use std::fmt;

use crate::ast::Expr;
use crate::error::Error;
use crate::metrics::Plan;
use crate::needs::Needs;
use crate::parse_query::parse_query;
use crate::query::{Body, MetricsPipeline, Query};
use crate::shown::{Shown, shown};
use crate::span::TraceSpan;
use crate::stages::Stages;
use crate::trace::Trace;
use crate::value::OwnedValue;

/// A query, checked and compiled. It does not change when it runs: threads can share it. `Display` prints it
/// as TraceQL.
#[derive(Debug)]
pub struct CompiledQuery {
    query: Query,
    needs: Needs,
    search: Option<Search>,
    plan: Option<Plan>,
}

#[derive(Debug)]
struct Search {
    stages: Stages,
    shown: Vec<Shown>,
}

/// A pipeline of a query of metrics.
#[derive(Debug, Clone, Copy)]
pub struct Leaf<'q> {
    /// The pipeline and its function.
    pub pipeline: &'q MetricsPipeline,
    /// The expression that decides by itself for each span whether it counts; none where other spans of its
    /// trace matter.
    pub filter: Option<&'q Expr>,
}

/// Spans of one trace that match together.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanset {
    /// The spans by start, then by id. There is at least one.
    pub spans: Vec<Matched>,
    /// What `by(…)` and aggregates say of them, in the order of the query: keys as the query writes them, and
    /// values as they are answered ([`OwnedValue::plain`]).
    pub attributes: Vec<(String, OwnedValue)>,
}

/// A span that matches.
#[derive(Debug, Clone, PartialEq)]
pub struct Matched {
    /// Its index among the spans of the trace.
    pub index: usize,
    /// The attributes that the query compared, where the comparison holds, and those that it selected or read
    /// otherwise; keys without scope, values as they are answered ([`OwnedValue::plain`]). What every answer
    /// has of a span and its trace (name, duration, ids, root) is left out.
    pub attributes: Vec<(String, OwnedValue)>,
}

impl CompiledQuery {
    /// Parses, checks and compiles a query.
    pub fn new(text: &str) -> Result<Self, Error> {
        Self::of(parse_query(text)?)
    }

    /// Checks and compiles a query.
    pub fn of(query: Query) -> Result<Self, Error> {
        query.check()?;
        let needs = Needs::of(&query);
        let (search, plan) = match &query.body {
            Body::Search(pipeline) => {
                let search = Search {
                    stages: Stages::new(pipeline, &mut 0)?,
                    shown: shown(pipeline)?,
                };
                (Some(search), None)
            }
            Body::Metrics { expr, second } => (None, Some(Plan::new(expr, second, &query.hints)?)),
        };
        Ok(Self {
            query,
            needs,
            search,
            plan,
        })
    }

    /// The query that it was made of.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// Whether it answers series; otherwise it is a search.
    pub fn is_metrics(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether it counts each span as those that it was sampled from: `with (extrapolate = true)`.
    pub fn extrapolates(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.extrapolates)
    }

    /// The most exemplars that it asks for; none where it says nothing.
    pub fn exemplars(&self) -> Option<usize> {
        self.plan.as_ref().and_then(|plan| plan.exemplars)
    }

    /// The pipelines of a query of metrics, in reading order; [`crate::Metrics`] knows each by its index.
    pub fn leaves(&self) -> Vec<Leaf<'_>> {
        let leaves = self
            .plan
            .iter()
            .flat_map(|plan| &plan.leaves)
            .map(|leaf| Leaf {
                pipeline: &leaf.pipeline,
                filter: leaf.filter.as_ref(),
            });
        leaves.collect()
    }

    pub(crate) fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// What it needs.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The spansets of a trace that match; none for a query of metrics. Spans are asked through the trace, so
    /// that all of it should be there.
    pub fn search<S: TraceSpan>(&self, trace: &Trace<'_, S>) -> Vec<Spanset> {
        let Some(search) = &self.search else {
            return Vec::new();
        };
        let sets = search.stages.run(trace).into_iter().map(|set| Spanset {
            spans: set
                .positions
                .iter()
                .map(|position| Matched {
                    index: trace.index(*position),
                    attributes: search
                        .shown
                        .iter()
                        .filter_map(|shown| shown.of(&trace.in_trace(*position)))
                        .collect(),
                })
                .collect(),
            attributes: set.attributes,
        });
        sets.collect()
    }
}

impl fmt::Display for CompiledQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.query.fmt(f)
    }
}
