//! What a query needs, for query planning.

use crate::ast::{Expr, Literal, Node};
use crate::field::{Field, Intrinsic, Scope};
use crate::query::{
    Aggregate, Body, Form, MetricsExpr, MetricsFunction, Pipeline, Query, ScalarExpr, SpansetExpr,
    SpansetOp, Stage,
};
use crate::span::TraceFact;

/// What has to be known to run a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Needs {
    /// The fields that it reads, once each, in reading order; what series are made by and what is selected
    /// included.
    pub fields: Vec<Field>,
    /// Whether it asks how spans stand to each other: all spans of the trace are needed.
    pub structure: bool,
    /// What it asks that only the whole trace knows, once each, in order.
    pub facts: Vec<TraceFact>,
    /// Whether it may read events.
    pub events: bool,
    /// Whether it may read links.
    pub links: bool,
    /// Whether it reads every attribute of the spans it is about (`compare`).
    pub all_attributes: bool,
    /// Conditions without which a trace cannot match.
    pub candidates: Candidates,
}

impl Needs {
    /// Whether it asks how many children spans have.
    pub fn child_counts(&self) -> bool {
        self.facts.contains(&TraceFact::ChildCount)
    }

    /// Whether it asks for nested set numbers.
    pub fn nested_sets(&self) -> bool {
        use TraceFact::{NestedSetLeft, NestedSetParent, NestedSetRight};
        let nested = [NestedSetLeft, NestedSetParent, NestedSetRight];
        self.facts.iter().any(|fact| nested.contains(fact))
    }

    pub(crate) fn of(query: &Query) -> Self {
        let mut needs = Self::default();
        match &query.body {
            Body::Search(pipeline) => {
                needs.pipeline(pipeline);
                needs.candidates = candidates(pipeline);
            }
            Body::Metrics { expr, .. } => needs.metrics(expr),
        }
        needs.facts.sort_unstable();
        needs.facts.dedup();
        needs
    }

    fn metrics(&mut self, expr: &MetricsExpr) {
        let mut any = Vec::new();
        for metrics in expr.pipelines() {
            self.pipeline(&metrics.spans);
            any.push(candidates(&metrics.spans));
            for field in metrics
                .function
                .field()
                .into_iter()
                .chain(metrics.function.by())
            {
                self.field(&field.field);
            }
            if let MetricsFunction::Compare { selection, .. } = &metrics.function {
                self.expr(selection);
                self.all_attributes = true;
                use TraceFact::{ChildCount, RootName, RootService};
                self.facts.extend([ChildCount, RootName, RootService]);
            }
        }
        self.candidates = Candidates::or(any);
    }

    fn pipeline(&mut self, pipeline: &Pipeline) {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(expr) => self.spansets(expr),
                Stage::Scalar(filter) => {
                    self.scalar(&filter.left);
                    self.scalar(&filter.right);
                }
                Stage::By(expr) => self.expr(expr),
                Stage::Coalesce => {}
                Stage::Select(fields) => fields.iter().for_each(|field| self.field(&field.field)),
            }
        }
    }

    fn spansets(&mut self, expr: &SpansetExpr) {
        match expr {
            SpansetExpr::Filter(expr) => self.expr(expr),
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline),
            SpansetExpr::Op { op, left, right } => {
                self.structure |= matches!(op, SpansetOp::Structural(..));
                self.spansets(left);
                self.spansets(right);
            }
        }
    }

    fn scalar(&mut self, scalar: &ScalarExpr) {
        match scalar {
            ScalarExpr::Aggregate(Aggregate { value, .. }) => {
                value.iter().for_each(|value| self.expr(value));
            }
            ScalarExpr::Number(_) => {}
            ScalarExpr::Arith { left, right, .. } => {
                self.scalar(left);
                self.scalar(right);
            }
            ScalarExpr::Pipeline(pipeline, aggregate) => {
                self.pipeline(pipeline);
                aggregate.value.iter().for_each(|value| self.expr(value));
            }
        }
    }

    fn expr(&mut self, expr: &Expr) {
        expr.for_each_field(&mut |field| self.field(field));
    }

    fn field(&mut self, field: &Field) {
        match field {
            Field::Attribute { scope, .. } => {
                self.events |= *scope == Scope::Event;
                self.links |= *scope == Scope::Link;
            }
            Field::Intrinsic(intrinsic) => match intrinsic {
                Intrinsic::EventName | Intrinsic::EventTimeSinceStart => self.events = true,
                Intrinsic::LinkTraceId | Intrinsic::LinkSpanId => self.links = true,
                intrinsic => self.facts.extend(intrinsic.fact()),
            },
        }
        if !self.fields.contains(field) {
            self.fields.push(field.clone());
        }
    }
}

/// Conditions without which a trace cannot match. They are necessary, not sufficient.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Candidates {
    /// None: any trace with a span may match.
    #[default]
    All,
    /// Some span of the trace satisfies the expression.
    Exists(Expr),
    /// Each of these holds; two or more, none of them `All` or an `And`.
    And(Vec<Candidates>),
    /// Any of these holds; two or more, none of them `All` or an `Or`.
    Or(Vec<Candidates>),
}

impl Candidates {
    fn exists(expr: Expr) -> Self {
        match expr.node {
            Node::Literal(Literal::Bool(true)) => Self::All,
            _ => Self::Exists(expr),
        }
    }

    fn and(list: Vec<Self>) -> Self {
        let mut all = Vec::new();
        for one in list {
            let parts = match one {
                Self::All => Vec::new(),
                Self::And(inner) => inner,
                other => vec![other],
            };
            for part in parts {
                if !all.contains(&part) {
                    all.push(part);
                }
            }
        }
        match all.len() {
            0 => Self::All,
            1 => all.pop().unwrap_or_default(),
            _ => Self::And(all),
        }
    }

    fn or(list: Vec<Self>) -> Self {
        let mut any = Vec::new();
        for one in list {
            let parts = match one {
                Self::All => return Self::All,
                Self::Or(inner) => inner,
                other => vec![other],
            };
            for part in parts {
                if !any.contains(&part) {
                    any.push(part);
                }
            }
        }
        match any.len() {
            0 => Self::All,
            1 => any.pop().unwrap_or_default(),
            _ => Self::Or(any),
        }
    }
}

fn candidates(pipeline: &Pipeline) -> Candidates {
    // One span has to satisfy all filters in a row, which says more than that each has some span.
    if let Some(expr) = span_filter(pipeline) {
        return Candidates::exists(expr);
    }
    let stages = pipeline.stages.iter().filter_map(|stage| match stage {
        Stage::Spansets(expr) => Some(spanset_candidates(expr)),
        _ => None,
    });
    Candidates::and(stages.collect())
}

fn spanset_candidates(expr: &SpansetExpr) -> Candidates {
    match expr {
        SpansetExpr::Filter(expr) => Candidates::exists(expr.clone()),
        SpansetExpr::Pipeline(pipeline) => candidates(pipeline),
        SpansetExpr::Op { op, left, right } => match op {
            SpansetOp::Or => {
                Candidates::or(vec![spanset_candidates(left), spanset_candidates(right)])
            }
            // Without any span on the left, the relation holds with none.
            SpansetOp::Structural(_, Form::Negated) => spanset_candidates(right),
            SpansetOp::And | SpansetOp::Structural(..) => {
                Candidates::and(vec![spanset_candidates(left), spanset_candidates(right)])
            }
        },
    }
}

/// The expression that decides by itself for each span whether the pipeline answers it; none where other
/// spans of the trace matter.
pub(crate) fn span_filter(pipeline: &Pipeline) -> Option<Expr> {
    let mut all = Vec::new();
    for stage in &pipeline.stages {
        match stage {
            Stage::Spansets(expr) => all.push(spanset_filter(expr)?),
            Stage::Scalar(_) => return None,
            Stage::By(_) | Stage::Coalesce | Stage::Select(_) => {}
        }
    }
    Some(joined(true, all))
}

fn spanset_filter(expr: &SpansetExpr) -> Option<Expr> {
    match expr {
        SpansetExpr::Filter(expr) => Some(expr.clone()),
        SpansetExpr::Pipeline(pipeline) => span_filter(pipeline),
        SpansetExpr::Op {
            op: SpansetOp::Or,
            left,
            right,
        } => Some(joined(
            false,
            vec![spanset_filter(left)?, spanset_filter(right)?],
        )),
        SpansetExpr::Op { .. } => None,
    }
}

/// The expressions joined with `&&` or `||`.
fn joined(is_and: bool, list: Vec<Expr>) -> Expr {
    let mut parts = Vec::new();
    for expr in list {
        match expr.node {
            Node::And(inner) if is_and => parts.extend(inner),
            Node::Or(inner) if !is_and => parts.extend(inner),
            // `true && x` is x, `true || x` is true.
            Node::Literal(Literal::Bool(true)) if is_and => {}
            Node::Literal(Literal::Bool(true)) => return expr,
            _ => parts.push(expr),
        }
    }
    let at = parts.first().map(|expr| expr.at).unwrap_or_default();
    let node = match parts.len() {
        0 => Node::Literal(Literal::Bool(true)),
        1 => return parts.remove(0),
        _ if is_and => Node::And(parts),
        _ => Node::Or(parts),
    };
    Expr { node, at }
}
