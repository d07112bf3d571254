//! The syntax tree of a whole query: pipelines of spansets, metrics, and arithmetic over metrics.

use crate::ast::{ArithOp, CompareOp, Expr, Literal};
use crate::error::Position;
use crate::field::Field;

/// Where a part of a query stands. Any two are equal, so that queries which say the same are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Place(pub Position);

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A query: what to answer, and hints on how. `Display` prints it as TraceQL.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// What to answer.
    pub body: Body,
    /// `with (…)`; of several the last.
    pub hints: Vec<Hint>,
}

/// What a query answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Spansets: a search.
    Search(Pipeline),
    /// Series.
    Metrics {
        /// Where the series come from.
        expr: MetricsExpr,
        /// What is done with all of them: `| topk(3)`, `> 5`.
        second: Vec<SecondStage>,
    },
}

/// One of `with (name = value, …)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Hint {
    /// Its name, such as `most_recent`.
    pub name: String,
    /// Its value.
    pub value: Literal,
}

/// Stages, each of which takes the spansets of the one before: `a | b | c`. There is at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// A stage of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// `{ … }` and what is made of several.
    Spansets(SpansetExpr),
    /// `count() > 2`: keeps the spansets for which it holds.
    Scalar(ScalarFilter),
    /// `by(expr)`: one spanset for each value.
    By(Expr),
    /// `coalesce()`: one spanset of all.
    Coalesce,
    /// `select(…)`: what else is answered of each span.
    Select(Vec<FieldRef>),
}

/// A field and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldRef {
    /// The field.
    pub field: Field,
    /// Where it stands.
    pub at: Place,
}

/// An expression of spansets.
#[derive(Debug, Clone, PartialEq)]
pub enum SpansetExpr {
    /// `{ … }`
    Filter(Expr),
    /// `a op b`
    Op {
        /// The operator.
        op: SpansetOp,
        /// What stands before it.
        left: Box<SpansetExpr>,
        /// What stands behind it.
        right: Box<SpansetExpr>,
    },
    /// `( pipeline )` of more than spansets.
    Pipeline(Box<Pipeline>),
}

/// An operator between spansets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpansetOp {
    /// `&&`: the spans of both sides where both have any.
    And,
    /// `||`: the spans of both sides.
    Or,
    /// A relation in the tree of spans.
    Structural(Relation, Form),
}

/// How a span on the right side stands to one on the left side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `>`: the left one is its parent.
    Child,
    /// `<`: the left one is its child.
    Parent,
    /// `>>`: the left one is its parent, or the parent's parent, and so on.
    Descendant,
    /// `<<`: the left one is below it.
    Ancestor,
    /// `~`: both name the same parent.
    Sibling,
}

/// Which spans a structural operator answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Those on the right side for which the relation holds.
    Plain,
    /// `!>` and its like: those on the right side for which it holds with no span on the left.
    Negated,
    /// `&>` and its like: those on both sides for which it holds.
    Union,
}

/// Every spanset operator and how it is written.
pub(crate) const SPANSET_OPS: &[(&str, SpansetOp)] = &[
    ("&&", SpansetOp::And),
    ("||", SpansetOp::Or),
    (">", SpansetOp::Structural(Relation::Child, Form::Plain)),
    ("<", SpansetOp::Structural(Relation::Parent, Form::Plain)),
    (
        ">>",
        SpansetOp::Structural(Relation::Descendant, Form::Plain),
    ),
    ("<<", SpansetOp::Structural(Relation::Ancestor, Form::Plain)),
    ("~", SpansetOp::Structural(Relation::Sibling, Form::Plain)),
    ("!>", SpansetOp::Structural(Relation::Child, Form::Negated)),
    ("!<", SpansetOp::Structural(Relation::Parent, Form::Negated)),
    (
        "!>>",
        SpansetOp::Structural(Relation::Descendant, Form::Negated),
    ),
    (
        "!<<",
        SpansetOp::Structural(Relation::Ancestor, Form::Negated),
    ),
    (
        "!~",
        SpansetOp::Structural(Relation::Sibling, Form::Negated),
    ),
    ("&>", SpansetOp::Structural(Relation::Child, Form::Union)),
    ("&<", SpansetOp::Structural(Relation::Parent, Form::Union)),
    (
        "&>>",
        SpansetOp::Structural(Relation::Descendant, Form::Union),
    ),
    (
        "&<<",
        SpansetOp::Structural(Relation::Ancestor, Form::Union),
    ),
    ("&~", SpansetOp::Structural(Relation::Sibling, Form::Union)),
];

impl SpansetOp {
    /// The operator as it is written.
    pub fn symbol(self) -> &'static str {
        SPANSET_OPS
            .iter()
            .find(|(_, op)| *op == self)
            .map_or("", |(symbol, _)| symbol)
    }

    /// The operator written `symbol`.
    pub(crate) fn written(symbol: &str) -> Option<Self> {
        SPANSET_OPS
            .iter()
            .find(|(s, _)| *s == symbol)
            .map(|(_, op)| *op)
    }
}

/// `left op right`, where at least one side is an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct ScalarFilter {
    /// The operator; never one of regular expressions.
    pub op: CompareOp,
    /// What stands before it.
    pub left: ScalarExpr,
    /// What stands behind it.
    pub right: ScalarExpr,
    /// Where the operator stands.
    pub at: Place,
}

/// A number for a spanset.
#[derive(Debug, Clone, PartialEq)]
pub enum ScalarExpr {
    /// An aggregate over its spans.
    Aggregate(Aggregate),
    /// A constant: an integer, a float or a duration.
    Number(Literal),
    /// `a op b`
    Arith {
        /// The operator.
        op: ArithOp,
        /// What stands before it.
        left: Box<ScalarExpr>,
        /// What stands behind it.
        right: Box<ScalarExpr>,
    },
    /// `( pipeline | aggregate )`
    Pipeline(Box<Pipeline>, Aggregate),
}

/// An aggregate over the spans of a spanset.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Which one.
    pub op: AggregateOp,
    /// What it is taken of; nothing for `count()`.
    pub value: Option<Expr>,
    /// Where it starts.
    pub at: Place,
}

/// The aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named by `AggregateOp::text`
pub enum AggregateOp {
    Count,
    Avg,
    Min,
    Max,
    Sum,
}

impl AggregateOp {
    /// The aggregate as it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Sum => "sum",
        }
    }

    pub(crate) fn named(word: &str) -> Option<Self> {
        [Self::Count, Self::Avg, Self::Min, Self::Max, Self::Sum]
            .into_iter()
            .find(|op| op.text() == word)
    }
}

/// Where series come from. At least one leaf of each tree is a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsExpr {
    /// `pipeline | rate()`
    Pipeline(Box<MetricsPipeline>),
    /// A constant.
    Number(f64),
    /// `a op b`: addition, subtraction, multiplication or division.
    Arith {
        /// The operator.
        op: ArithOp,
        /// What stands before it.
        left: Box<MetricsExpr>,
        /// What stands behind it.
        right: Box<MetricsExpr>,
    },
}

impl MetricsExpr {
    /// The pipelines in it, in reading order.
    pub fn pipelines(&self) -> Vec<&MetricsPipeline> {
        let mut found = Vec::new();
        let mut todo = vec![self];
        while let Some(expr) = todo.pop() {
            match expr {
                Self::Pipeline(pipeline) => found.push(&**pipeline),
                Self::Number(_) => {}
                Self::Arith { left, right, .. } => todo.extend([&**right, &**left]),
            }
        }
        found
    }
}

/// A pipeline and the function that makes series of its spans.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricsPipeline {
    /// Which spans.
    pub spans: Pipeline,
    /// The function.
    pub function: MetricsFunction,
    /// Where the function stands.
    pub at: Place,
    /// What is done with its series within parentheses.
    pub second: Vec<SecondStage>,
}

/// A function from spans to series.
#[derive(Debug, Clone, PartialEq)]
pub enum MetricsFunction {
    /// `rate()`: spans per second.
    Rate {
        /// `by (…)`
        by: Vec<FieldRef>,
    },
    /// `count_over_time()`: spans per step.
    Count {
        /// `by (…)`
        by: Vec<FieldRef>,
    },
    /// `min_over_time(field)` and its like.
    Over {
        /// Which one.
        op: OverOp,
        /// What it is taken of.
        field: FieldRef,
        /// `by (…)`
        by: Vec<FieldRef>,
    },
    /// `quantile_over_time(field, 0.5, …)`
    Quantile {
        /// What it is taken of.
        field: FieldRef,
        /// Which quantiles, from 0 to 1.
        quantiles: Vec<f64>,
        /// `by (…)`
        by: Vec<FieldRef>,
    },
    /// `compare({ … }, 10, start, end)`: how the values of attributes differ between the spans that match and
    /// the rest.
    Compare {
        /// Which spans are the selection.
        selection: Expr,
        /// How many values of each attribute are answered.
        top: i64,
        /// When the selection starts and ends, in nanoseconds since 1970; the end is not part of it.
        window: Option<(i64, i64)>,
    },
}

impl MetricsFunction {
    /// Its name as it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Rate { .. } => "rate",
            Self::Count { .. } => "count_over_time",
            Self::Over { op, .. } => op.text(),
            Self::Quantile { .. } => "quantile_over_time",
            Self::Compare { .. } => "compare",
        }
    }

    /// What series are made by.
    pub fn by(&self) -> &[FieldRef] {
        match self {
            Self::Rate { by } | Self::Count { by } => by,
            Self::Over { by, .. } | Self::Quantile { by, .. } => by,
            Self::Compare { .. } => &[],
        }
    }

    /// What it is taken of.
    pub fn field(&self) -> Option<&FieldRef> {
        match self {
            Self::Over { field, .. } | Self::Quantile { field, .. } => Some(field),
            Self::Rate { .. } | Self::Count { .. } | Self::Compare { .. } => None,
        }
    }
}

/// The functions of one field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named by `OverOp::text`
pub enum OverOp {
    Min,
    Max,
    Sum,
    Avg,
    Histogram,
}

impl OverOp {
    /// The function as it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Min => "min_over_time",
            Self::Max => "max_over_time",
            Self::Sum => "sum_over_time",
            Self::Avg => "avg_over_time",
            Self::Histogram => "histogram_over_time",
        }
    }

    pub(crate) fn named(word: &str) -> Option<Self> {
        [Self::Min, Self::Max, Self::Sum, Self::Avg, Self::Histogram]
            .into_iter()
            .find(|op| op.text() == word)
    }
}

/// What is done with series.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondStage {
    /// `topk(n)`: at each step the `n` greatest.
    TopK(i64, Place),
    /// `bottomk(n)`: at each step the `n` smallest.
    BottomK(i64, Place),
    /// `> 5`: the samples for which it holds.
    Compare(CompareOp, f64),
}
