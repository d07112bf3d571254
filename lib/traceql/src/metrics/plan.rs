//! The metrics of a query, made ready to run.

use std::collections::BTreeSet;

use crate::ast::{ArithOp, Expr, Literal};
use crate::compile::{Pred, compile};
use crate::error::Error;
use crate::needs::span_filter;
use crate::query::{Hint, MetricsExpr, MetricsFunction, MetricsPipeline, OverOp, SecondStage};
use crate::reading::Reading;
use crate::stages::Stages;

use super::MAX_EXEMPLARS;

/// The metrics of a query.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) tree: Tree,
    pub(crate) second: Vec<SecondStage>,
    /// How many exemplars the query asks for.
    pub(crate) exemplars: Option<usize>,
    /// Whether each span counts as those that it was sampled from.
    pub(crate) extrapolates: bool,
}

/// One pipeline and its function.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) pipeline: MetricsPipeline,
    pub(crate) filter: Option<Expr>,
    pub(crate) stages: Stages,
    pub(crate) value: Option<Reading>,
    pub(crate) by: Vec<(String, Reading)>,
    /// Which spans `compare()` selects.
    pub(crate) selection: Option<Pred>,
}

/// How the leaves, by their numbers, are calculated with.
#[derive(Debug)]
pub(crate) enum Tree {
    Leaf(usize),
    Number(f64),
    Arith(ArithOp, Box<Tree>, Box<Tree>),
}

impl Plan {
    pub(crate) fn new(
        expr: &MetricsExpr,
        second: &[SecondStage],
        hints: &[Hint],
    ) -> Result<Self, Error> {
        let mut leaves = Vec::new();
        let tree = Tree::new(expr, &mut leaves, &mut 0)?;
        Ok(Self {
            leaves,
            tree,
            second: second.to_vec(),
            exemplars: exemplars(hints),
            extrapolates: extrapolates(hints),
        })
    }
}

/// `with (exemplars = false)` or `with (exemplars = 5)`.
fn exemplars(hints: &[Hint]) -> Option<usize> {
    hints
        .iter()
        .filter(|hint| hint.name == "exemplars")
        .find_map(|hint| match hint.value {
            Literal::Bool(false) => Some(0),
            Literal::Int(n) => Some(usize::try_from(n).unwrap_or(0).min(MAX_EXEMPLARS)),
            _ => None,
        })
}

/// `with (extrapolate = true)`.
fn extrapolates(hints: &[Hint]) -> bool {
    let mut hints = hints.iter().filter(|hint| hint.name == "extrapolate");
    hints.any(|hint| hint.value == Literal::Bool(true))
}

impl Tree {
    fn new(expr: &MetricsExpr, leaves: &mut Vec<Leaf>, regexes: &mut usize) -> Result<Self, Error> {
        Ok(match expr {
            MetricsExpr::Number(number) => Self::Number(*number),
            MetricsExpr::Pipeline(pipeline) => {
                leaves.push(Leaf::new(pipeline, regexes)?);
                Self::Leaf(leaves.len() - 1)
            }
            MetricsExpr::Arith { op, left, right } => {
                let left = Box::new(Self::new(left, leaves, regexes)?);
                Self::Arith(*op, left, Box::new(Self::new(right, leaves, regexes)?))
            }
        })
    }
}

impl Leaf {
    fn new(pipeline: &MetricsPipeline, regexes: &mut usize) -> Result<Self, Error> {
        let function = &pipeline.function;
        let value = function
            .field()
            .map(|field| Reading::of_field(&field.field, field.at.0));
        let by = function.by().iter().map(|field| {
            let reading = Reading::of_field(&field.field, field.at.0)?;
            Ok((field.to_string(), reading))
        });
        let selection = match function {
            MetricsFunction::Compare { selection, .. } => Some(compile(selection)?.0),
            _ => None,
        };
        Ok(Self {
            pipeline: pipeline.clone(),
            filter: span_filter(&pipeline.spans),
            stages: Stages::new(&pipeline.spans, regexes)?,
            value: value.transpose()?,
            by: by.collect::<Result<_, Error>>()?,
            selection,
        })
    }

    /// What its numbers are divided by: durations are seconds in series.
    pub(crate) fn scale(&self) -> f64 {
        match &self.value {
            Some(value) if value.is_duration => 1e9,
            _ => 1.0,
        }
    }

    /// Whether each bucket of values is a series.
    pub(crate) fn is_histogram(&self) -> bool {
        let function = &self.pipeline.function;
        matches!(
            function,
            MetricsFunction::Over {
                op: OverOp::Histogram,
                ..
            }
        )
    }

    /// The quantiles, once each.
    pub(crate) fn quantiles(&self) -> Option<Vec<f64>> {
        match &self.pipeline.function {
            MetricsFunction::Quantile { quantiles, .. } => {
                let mut known = BTreeSet::new();
                let once = quantiles
                    .iter()
                    .copied()
                    .filter(|q| known.insert(q.to_bits()));
                Some(once.collect())
            }
            _ => None,
        }
    }
}
