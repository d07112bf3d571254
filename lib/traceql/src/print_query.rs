//! A whole query as TraceQL text.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{ArithOp, Literal};
use crate::query::{
    Aggregate, Body, FieldRef, Hint, MetricsExpr, MetricsFunction, MetricsPipeline, Pipeline,
    Query, ScalarExpr, ScalarFilter, SecondStage, SpansetExpr, SpansetOp, Stage,
};

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Search(pipeline) => pipeline.fmt(f)?,
            Body::Metrics { expr, second } => {
                match expr {
                    // Without parentheses its stages would be read as stages of the pipeline itself.
                    MetricsExpr::Pipeline(pipeline) if second.is_empty() => pipeline.fmt(f)?,
                    expr => expr.fmt(f)?,
                }
                second.iter().try_for_each(|stage| stage.fmt(f))?;
            }
        }
        if self.hints.is_empty() {
            return Ok(());
        }
        f.write_str(" with (")?;
        list(f, &self.hints)?;
        f.write_char(')')
    }
}

fn list<T: Display>(f: &mut Formatter<'_>, items: &[T]) -> fmt::Result {
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            f.write_str(", ")?;
        }
        item.fmt(f)?;
    }
    Ok(())
}

impl Display for Hint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl Display for FieldRef {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.field.fmt(f)
    }
}

impl Display for Pipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (n, stage) in self.stages.iter().enumerate() {
            if n > 0 {
                f.write_str(" | ")?;
            }
            stage.fmt(f)?;
        }
        Ok(())
    }
}

impl Display for Stage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spansets(expr) => expr.fmt(f),
            Self::Scalar(filter) => filter.fmt(f),
            Self::By(expr) => write!(f, "by({})", expr.node),
            Self::Coalesce => f.write_str("coalesce()"),
            Self::Select(fields) => {
                f.write_str("select(")?;
                list(f, fields)?;
                f.write_char(')')
            }
        }
    }
}

// How tightly operators bind; as for fields.
pub(crate) const LOGIC: u8 = 1;
pub(crate) const COMPARE: u8 = 2;
pub(crate) const ADD: u8 = 3;
pub(crate) const MUL: u8 = 5;
pub(crate) const POW: u8 = 6;
/// What needs no parentheses anywhere.
const SINGLE: u8 = 7;

fn binds(op: ArithOp) -> u8 {
    match op {
        ArithOp::Add | ArithOp::Sub => ADD,
        ArithOp::Mul | ArithOp::Div | ArithOp::Mod => MUL,
        ArithOp::Pow => POW,
    }
}

/// Prints `left op right`, with parentheses only where they are needed: what is printed nests no deeper than
/// what was parsed.
fn operation<T: Display>(
    f: &mut Formatter<'_>,
    (left, symbol, right): (&T, &str, &T),
    op_binds: u8,
    binds: impl Fn(&T) -> u8,
) -> fmt::Result {
    // `^` groups from the right, everything else from the left.
    let from_right = op_binds == POW;
    operand(f, left, binds(left) < op_binds + u8::from(from_right))?;
    write!(f, " {symbol} ")?;
    operand(f, right, binds(right) < op_binds + u8::from(!from_right))
}

fn operand<T: Display>(f: &mut Formatter<'_>, operand: &T, wrapped: bool) -> fmt::Result {
    if wrapped {
        write!(f, "({operand})")
    } else {
        operand.fmt(f)
    }
}

impl Display for SpansetExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Spansets {
            expr: self,
            wrapped: self.has_pipeline(),
        }
        .fmt(f)
    }
}

/// Spansets to be printed; beside a pipeline every operand needs parentheses.
struct Spansets<'a> {
    expr: &'a SpansetExpr,
    wrapped: bool,
}

impl Display for Spansets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let wrapped = self.wrapped;
        match self.expr {
            SpansetExpr::Filter(expr) => expr.fmt(f),
            SpansetExpr::Pipeline(pipeline) => write!(f, "({pipeline})"),
            SpansetExpr::Op { op, left, right } => {
                let [left, right] = &[left, right].map(|expr| Spansets { expr, wrapped });
                let parts = (left, op.symbol(), right);
                operation(f, parts, op.binds(), |side| match side.expr {
                    SpansetExpr::Op { op, .. } => op.binds(),
                    SpansetExpr::Filter(_) if wrapped => 0,
                    SpansetExpr::Filter(_) | SpansetExpr::Pipeline(_) => SINGLE,
                })
            }
        }
    }
}

impl SpansetOp {
    fn binds(self) -> u8 {
        match self {
            Self::And | Self::Or => LOGIC,
            Self::Structural(..) => COMPARE,
        }
    }
}

impl SpansetExpr {
    /// Whether a pipeline stands in it.
    pub(crate) fn has_pipeline(&self) -> bool {
        let mut todo = vec![self];
        while let Some(expr) = todo.pop() {
            match expr {
                Self::Filter(_) => {}
                Self::Pipeline(_) => return true,
                Self::Op { left, right, .. } => todo.extend([&**left, &**right]),
            }
        }
        false
    }
}

impl Display for ScalarFilter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.op.symbol(), self.right)
    }
}

impl Display for ScalarExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aggregate(aggregate) => aggregate.fmt(f),
            Self::Number(literal) => literal.fmt(f),
            Self::Pipeline(pipeline, aggregate) => write!(f, "({pipeline} | {aggregate})"),
            Self::Arith { op, left, right } => {
                let parts = (&**left, op.symbol(), &**right);
                operation(f, parts, binds(*op), |side| match side {
                    Self::Arith { op, .. } => binds(*op),
                    _ => SINGLE,
                })
            }
        }
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}({})", self.op.text(), value.node),
            None => write!(f, "{}()", self.op.text()),
        }
    }
}

/// Prints pipelines in parentheses.
impl Display for MetricsExpr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipeline(pipeline) => write!(f, "({pipeline})"),
            Self::Number(x) => Literal::Float(*x).fmt(f),
            Self::Arith { op, left, right } => {
                let parts = (&**left, op.symbol(), &**right);
                operation(f, parts, binds(*op), |side| match side {
                    Self::Arith { op, .. } => binds(*op),
                    _ => SINGLE,
                })
            }
        }
    }
}

/// Prints it without parentheses.
impl Display for MetricsPipeline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.spans, self.function)?;
        self.second.iter().try_for_each(|stage| stage.fmt(f))
    }
}

impl Display for MetricsFunction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        f.write_char('(')?;
        match self {
            Self::Rate { .. } | Self::Count { .. } => {}
            Self::Over { field, .. } => field.fmt(f)?,
            Self::Quantile {
                field, quantiles, ..
            } => {
                field.fmt(f)?;
                for quantile in quantiles {
                    write!(f, ", {}", Literal::Float(*quantile))?;
                }
            }
            Self::Compare {
                selection,
                top,
                window,
            } => {
                write!(f, "{selection}, {top}")?;
                if let Some((start, end)) = window {
                    write!(f, ", {start}, {end}")?;
                }
            }
        }
        f.write_char(')')?;
        if !self.by().is_empty() {
            f.write_str(" by (")?;
            list(f, self.by())?;
            f.write_char(')')?;
        }
        Ok(())
    }
}

/// Prints what stands before it too: ` | topk(3)`, ` > 5.0`.
impl Display for SecondStage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopK(limit, _) => write!(f, " | topk({limit})"),
            Self::BottomK(limit, _) => write!(f, " | bottomk({limit})"),
            Self::Compare(op, value) => {
                write!(f, " {} {}", op.symbol(), Literal::Float(*value))
            }
        }
    }
}
