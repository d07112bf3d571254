//! Which attributes are answered with the spans that match: those that the query compared, where the
//! comparison holds, and those that it selected or read otherwise.

use regex::Regex;

use crate::ast::{CompareOp, Expr, Literal, Node};
use crate::compile::{Value, compile_literal, regex};
use crate::error::{Error, Position};
use crate::eval;
use crate::field::{Field, Intrinsic, Scope};
use crate::query::{Aggregate, Pipeline, ScalarExpr, SpansetExpr, Stage};
use crate::reading::Reading;
use crate::span::{Scalar, Span};
use crate::value::OwnedValue;

/// A field and when it is answered.
#[derive(Debug)]
pub(crate) struct Shown {
    field: Field,
    reading: Reading,
    /// Answered wherever it is there.
    always: bool,
    /// Answered as `nil` where it is missing.
    nil: bool,
    tests: Vec<Test>,
}

/// A comparison with a constant.
#[derive(Debug)]
enum Test {
    Compare {
        op: CompareOp,
        literal: Value,
        /// Whether the constant stands on the left.
        flipped: bool,
    },
    Match {
        regex: Box<Regex>,
        negated: bool,
    },
}

/// What Tempo has columns of their own for: a selection answers them as `nil` where they are missing, and other
/// attributes not at all.
const COLUMNS: &[(Scope, &str)] = &[
    (Scope::Resource, "k8s.cluster.name"),
    (Scope::Resource, "k8s.namespace.name"),
    (Scope::Resource, "k8s.pod.name"),
    (Scope::Resource, "k8s.container.name"),
    (Scope::Span, "http.method"),
    (Scope::Span, "http.request.method"),
    (Scope::Span, "http.response.status_code"),
    (Scope::Span, "http.route"),
    (Scope::Span, "http.status_code"),
    (Scope::Span, "http.url"),
    (Scope::Span, "server.address"),
    (Scope::Span, "server.port"),
    (Scope::Span, "url.path"),
    (Scope::Span, "url.route"),
];

/// A trace and its spans carry these in fields of their own. Grafana fails on a span that has one twice.
fn is_carried(field: &Field) -> bool {
    let Field::Intrinsic(intrinsic) = field else {
        return false;
    };
    matches!(
        intrinsic,
        Intrinsic::Name
            | Intrinsic::Duration
            | Intrinsic::SpanId
            | Intrinsic::TraceId
            | Intrinsic::TraceDuration
            | Intrinsic::RootName
            | Intrinsic::RootService
    )
}

/// Every field that a pipeline answers, in the order of reading.
pub(crate) fn shown(pipeline: &Pipeline) -> Result<Vec<Shown>, Error> {
    let mut list = List(Vec::new());
    list.pipeline(pipeline)?;
    Ok(list.0)
}

struct List(Vec<Shown>);

impl List {
    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<(), Error> {
        for stage in &pipeline.stages {
            match stage {
                Stage::Spansets(expr) => self.spansets(expr)?,
                Stage::Scalar(filter) => {
                    for side in [&filter.left, &filter.right] {
                        if let ScalarExpr::Aggregate(Aggregate {
                            value: Some(value), ..
                        }) = side
                        {
                            self.reads(value)?;
                        }
                    }
                }
                Stage::By(expr) => self.reads(expr)?,
                Stage::Coalesce => {}
                Stage::Select(fields) => {
                    for field in fields {
                        let is_column = match &field.field {
                            Field::Attribute { scope, name, .. } => {
                                COLUMNS.contains(&(*scope, name.as_str()))
                            }
                            Field::Intrinsic(_) => false,
                        };
                        if let Some(shown) = self.field(&field.field, field.at.0)? {
                            shown.always = true;
                            shown.nil |= is_column;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn spansets(&mut self, expr: &SpansetExpr) -> Result<(), Error> {
        match expr {
            SpansetExpr::Filter(expr) => self.condition(expr),
            SpansetExpr::Op { left, right, .. } => {
                self.spansets(left)?;
                self.spansets(right)
            }
            SpansetExpr::Pipeline(pipeline) => self.pipeline(pipeline),
        }
    }

    fn field(&mut self, field: &Field, at: Position) -> Result<Option<&mut Shown>, Error> {
        if is_carried(field) {
            return Ok(None);
        }
        let known = self.0.iter().position(|shown| shown.field == *field);
        let known = match known {
            Some(known) => known,
            None => {
                self.0.push(Shown {
                    field: field.clone(),
                    reading: Reading::of_field(field, at)?,
                    always: false,
                    nil: false,
                    tests: Vec::new(),
                });
                self.0.len() - 1
            }
        };
        Ok(self.0.get_mut(known))
    }

    /// Every field in the expression, wherever it is there.
    fn reads(&mut self, expr: &Expr) -> Result<(), Error> {
        match &expr.node {
            Node::Literal(_) => Ok(()),
            Node::Field(field) => {
                if let Some(shown) = self.field(field, expr.at)? {
                    shown.always = true;
                }
                Ok(())
            }
            Node::Not(inner) | Node::Neg(inner) => self.reads(inner),
            Node::Exists { value, .. } => self.reads(value),
            Node::And(list) | Node::Or(list) => list.iter().try_for_each(|e| self.reads(e)),
            Node::Compare { left, right, .. } | Node::Arith { left, right, .. } => {
                self.reads(left)?;
                self.reads(right)
            }
        }
    }

    fn condition(&mut self, expr: &Expr) -> Result<(), Error> {
        match &expr.node {
            Node::And(list) | Node::Or(list) => list.iter().try_for_each(|e| self.condition(e)),
            Node::Exists {
                value,
                negated: true,
            } => match &value.node {
                Node::Field(field) => {
                    if let Some(shown) = self.field(field, value.at)? {
                        shown.nil = true;
                    }
                    Ok(())
                }
                _ => self.reads(value),
            },
            Node::Compare { op, left, right } => self.comparison(expr, *op, left, right),
            _ => self.reads(expr),
        }
    }

    fn comparison(
        &mut self,
        whole: &Expr,
        op: CompareOp,
        left: &Expr,
        right: &Expr,
    ) -> Result<(), Error> {
        let (field, literal, flipped) = match (&left.node, &right.node) {
            (Node::Field(field), node) if is_constant(node) => (field, right, false),
            (node, Node::Field(field)) if is_constant(node) => (field, left, true),
            _ => return self.reads(whole),
        };
        let test = match (op, &literal.node) {
            (CompareOp::Match | CompareOp::NotMatch, Node::Literal(Literal::Str(pattern)))
                if !flipped =>
            {
                Test::Match {
                    regex: Box::new(regex(pattern, literal.at)?),
                    negated: op == CompareOp::NotMatch,
                }
            }
            (CompareOp::Match | CompareOp::NotMatch, _) => return self.reads(whole),
            _ => Test::Compare {
                op,
                literal: compile_literal(literal, if flipped { right } else { left })?,
                flipped,
            },
        };
        if let Some(shown) = self.field(field, whole.at)? {
            shown.tests.push(test);
        }
        Ok(())
    }
}

/// A literal, perhaps with a sign.
fn is_constant(node: &Node) -> bool {
    match node {
        Node::Literal(_) => true,
        Node::Neg(inner) => matches!(inner.node, Node::Literal(_)),
        _ => false,
    }
}

impl Test {
    fn is_negative(&self) -> bool {
        match self {
            Self::Compare { op, .. } => op.is_negative(),
            Self::Match { negated, .. } => *negated,
        }
    }

    fn holds(&self, scalar: Scalar<'_>) -> bool {
        match self {
            Self::Compare {
                op,
                literal,
                flipped,
            } => {
                let Value::Const(literal) = literal else {
                    return false;
                };
                let Some(literal) = literal.scalar() else {
                    return false;
                };
                let (left, right) = if *flipped {
                    (literal, scalar)
                } else {
                    (scalar, literal)
                };
                eval::compare(*op, left, right) == Some(true)
            }
            Self::Match { regex, negated } => {
                eval::matches(regex, scalar).is_some_and(|m| m != *negated)
            }
        }
    }
}

impl Shown {
    /// The key without a scope, and the value to answer for a span that matched, if any.
    pub(crate) fn of<S: Span>(&self, span: &S) -> Option<(String, OwnedValue)> {
        let mut values: Vec<(OwnedValue, bool)> = Vec::new();
        let mut failed = vec![false; self.tests.len()];
        let (present, is_array) = self.reading.each(span, &mut |scalar| {
            let mut passes = self.always;
            for (test, failed) in self.tests.iter().zip(&mut failed) {
                let holds = test.holds(scalar);
                *failed |= !holds;
                passes |= holds && !test.is_negative();
            }
            values.push((
                OwnedValue::of_field(scalar, self.reading.is_duration),
                passes,
            ));
        });
        if !present {
            return self.nil.then(|| (self.key(), OwnedValue::Nil.plain()));
        }
        // What holds for none of several values says something of all of them.
        let whole = self.always
            || self
                .tests
                .iter()
                .zip(&failed)
                .any(|(test, failed)| test.is_negative() && !failed);
        let count = values.len();
        let mut values: Vec<OwnedValue> = values
            .into_iter()
            .filter(|(_, passes)| whole || *passes)
            .map(|(value, _)| value)
            .collect();
        let several = values.len() > 1 || (is_array && whole && values.len() == count);
        let value = if several {
            OwnedValue::Array(values)
        } else {
            values.pop()?
        };
        (value != OwnedValue::Nil).then(|| (self.key(), value.plain()))
    }

    fn key(&self) -> String {
        match &self.field {
            Field::Attribute { name, .. } => name.clone(),
            Field::Intrinsic(intrinsic) => intrinsic.text().to_owned(),
        }
    }
}
