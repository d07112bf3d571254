//! What a whole query can mean.

use crate::ast::{Expr, Node};
use crate::check::{Mode, Type, check, field_type, type_of};
use crate::error::{Error, ErrorKind};
use crate::field::Field;
use crate::query::{
    Aggregate, Body, FieldRef, MetricsExpr, MetricsFunction, MetricsPipeline, Pipeline, Query,
    ScalarExpr, ScalarFilter, SecondStage, SpansetExpr, Stage,
};

/// The most fields that series are made by.
pub const MAX_BY: usize = 5;

impl Query {
    /// Refuses what cannot be meant, with the first reason in reading order.
    pub fn check(&self) -> Result<(), Error> {
        match &self.body {
            Body::Search(pipeline) => check_pipeline(pipeline),
            Body::Metrics { expr, second } => {
                check_metrics(expr)?;
                check_second(second)?;
                let alone = matches!(expr, MetricsExpr::Pipeline(_)) && second.is_empty();
                expr.pipelines()
                    .into_iter()
                    .try_for_each(|pipeline| check_compare(pipeline, alone))
            }
        }
    }
}

fn check_pipeline(pipeline: &Pipeline) -> Result<(), Error> {
    for stage in &pipeline.stages {
        match stage {
            Stage::Spansets(expr) => check_spansets(expr)?,
            Stage::Scalar(filter) => check_scalar_filter(filter)?,
            Stage::By(expr) => {
                reads_span(expr, "by()")?;
                type_of(expr, Mode::Trace)?;
            }
            Stage::Coalesce => {}
            Stage::Select(fields) => {
                for field in fields {
                    field_type(&field.field, field.at.0, Mode::Trace)?;
                }
            }
        }
    }
    Ok(())
}

fn check_spansets(expr: &SpansetExpr) -> Result<(), Error> {
    match expr {
        SpansetExpr::Filter(expr) => check(expr, Mode::Trace),
        SpansetExpr::Op { left, right, .. } => {
            check_spansets(left)?;
            check_spansets(right)
        }
        SpansetExpr::Pipeline(pipeline) => check_pipeline(pipeline),
    }
}

/// A value that is the same for every span says nothing about them.
fn reads_span(expr: &Expr, what: &str) -> Result<(), Error> {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match &expr.node {
            Node::Literal(_) => {}
            Node::Field(_) => return Ok(()),
            Node::Not(inner) | Node::Neg(inner) => todo.push(inner),
            Node::Exists { value, .. } => todo.push(value),
            Node::And(list) | Node::Or(list) => todo.extend(list),
            Node::Compare { left, right, .. } | Node::Arith { left, right, .. } => {
                todo.extend([&**left, &**right]);
            }
        }
    }
    let expected = format!("{what} takes something that reads the span");
    let found = format!("`{}`", expr.node);
    Err(Error::new(ErrorKind::Type, expr.at, expected, found))
}

fn check_scalar_filter(filter: &ScalarFilter) -> Result<(), Error> {
    check_scalar(&filter.left)?;
    check_scalar(&filter.right)?;
    match (&filter.left, &filter.right) {
        (ScalarExpr::Aggregate(_), ScalarExpr::Number(_)) => Ok(()),
        _ => {
            let expected = "only an aggregate compared with a number is supported";
            let found = format!("`{filter}`");
            let e = Error::new(ErrorKind::Unsupported, filter.at.0, expected, found);
            Err(e.hint("as in count() > 2"))
        }
    }
}

fn check_scalar(scalar: &ScalarExpr) -> Result<(), Error> {
    match scalar {
        ScalarExpr::Number(_) => Ok(()),
        ScalarExpr::Aggregate(aggregate) => check_aggregate(aggregate),
        ScalarExpr::Arith { left, right, .. } => {
            check_scalar(left)?;
            check_scalar(right)
        }
        ScalarExpr::Pipeline(pipeline, aggregate) => {
            check_pipeline(pipeline)?;
            check_aggregate(aggregate)
        }
    }
}

fn check_aggregate(aggregate: &Aggregate) -> Result<(), Error> {
    let Some(value) = &aggregate.value else {
        return Ok(());
    };
    let ty = type_of(value, Mode::Trace)?;
    if !ty.is_number() {
        let expected = format!("{}() takes numbers and durations", aggregate.op.text());
        let found = format!("`{}`, which is {}", value.node, ty.text());
        return Err(Error::new(ErrorKind::Type, value.at, expected, found));
    }
    reads_span(value, &format!("{}()", aggregate.op.text()))
}

fn check_metrics(expr: &MetricsExpr) -> Result<(), Error> {
    match expr {
        MetricsExpr::Number(_) => Ok(()),
        MetricsExpr::Pipeline(pipeline) => {
            check_pipeline(&pipeline.spans)?;
            check_function(pipeline)?;
            check_second(&pipeline.second)
        }
        MetricsExpr::Arith { left, right, .. } => {
            check_metrics(left)?;
            check_metrics(right)
        }
    }
}

fn check_function(pipeline: &MetricsPipeline) -> Result<(), Error> {
    let function = &pipeline.function;
    let invalid = |expected: &str, found: String| {
        Err(Error::new(ErrorKind::Type, pipeline.at.0, expected, found))
    };
    if let Some(field) = function.field() {
        check_number_field(function, field)?;
    }
    for field in function.by() {
        field_type(&field.field, field.at.0, Mode::Trace)?;
    }
    // As in Tempo: those whose series have a label more can be made by one field less.
    let most = match function {
        MetricsFunction::Rate { .. } | MetricsFunction::Count { .. } => MAX_BY,
        MetricsFunction::Over { op, .. } => match op {
            crate::OverOp::Min | crate::OverOp::Max | crate::OverOp::Sum => MAX_BY,
            crate::OverOp::Avg | crate::OverOp::Histogram => MAX_BY - 1,
        },
        MetricsFunction::Quantile { .. } | MetricsFunction::Compare { .. } => MAX_BY - 1,
    };
    if let Some(field) = function.by().get(most) {
        let expected = format!(
            "{} by more than {most} fields is not supported",
            function.name()
        );
        let found = format!("`{field}`");
        return Err(Error::new(
            ErrorKind::Unsupported,
            field.at.0,
            expected,
            found,
        ));
    }
    match function {
        MetricsFunction::Quantile { quantiles, .. } => {
            match quantiles.iter().find(|q| !(0.0..=1.0).contains(*q)) {
                Some(q) => invalid("a quantile is from 0 to 1", format!("`{q}`")),
                None => Ok(()),
            }
        }
        MetricsFunction::Compare {
            selection,
            top,
            window,
        } => {
            check(selection, Mode::Trace)?;
            if *top <= 0 {
                return invalid("compare() answers at least one value", format!("`{top}`"));
            }
            match window {
                Some((start, end)) if *start <= 0 || end <= start => invalid(
                    "the end of compare() is after its start, in nanoseconds since 1970",
                    format!("`{start}, {end}`"),
                ),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// What can never be a number can have no sum.
fn check_number_field(function: &MetricsFunction, field: &FieldRef) -> Result<(), Error> {
    let ty = field_type(&field.field, field.at.0, Mode::Trace)?;
    // A type that is only known with each span may be a number.
    if ty.is_number() || matches!(&field.field, Field::Attribute { .. }) || ty == Type::Dynamic {
        return Ok(());
    }
    let expected = format!("{} takes numbers and durations", function.name());
    let found = format!("`{field}`, which is {}", ty.text());
    Err(Error::new(ErrorKind::Type, field.at.0, expected, found))
}

fn check_second(stages: &[SecondStage]) -> Result<(), Error> {
    for stage in stages {
        if let SecondStage::TopK(limit, at) | SecondStage::BottomK(limit, at) = stage
            && *limit <= 0
        {
            let expected = "topk and bottomk take a number above 0";
            let found = format!("`{limit}`");
            return Err(Error::new(ErrorKind::Type, at.0, expected, found));
        }
    }
    Ok(())
}

fn check_compare(pipeline: &MetricsPipeline, alone: bool) -> Result<(), Error> {
    let is_compare = matches!(pipeline.function, MetricsFunction::Compare { .. });
    if is_compare && !(alone && pipeline.second.is_empty()) {
        let expected = "compare() stands alone: nothing can be done with its series";
        return Err(Error::new(ErrorKind::Type, pipeline.at.0, expected, ""));
    }
    Ok(())
}
