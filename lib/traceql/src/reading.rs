//! Values that are read from spans: what aggregates are taken of, what groups are made by, what is answered.

use crate::ast::{Expr, Node};
use crate::compile::{Children, Value, compile_value};
use crate::error::{Error, Position};
use crate::eval;
use crate::field::{Field, Intrinsic};
use crate::span::{Scalar, Span};
use crate::value::OwnedValue;

/// An expression, compiled to be read.
#[derive(Debug)]
pub(crate) struct Reading {
    value: Value,
    children: Children,
    /// Whether its integers are nanoseconds.
    pub(crate) is_duration: bool,
}

/// Whether the field's integers are nanoseconds.
pub(crate) fn is_duration(field: &Field) -> bool {
    matches!(
        field,
        Field::Intrinsic(
            Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart
        )
    )
}

impl Reading {
    pub(crate) fn new(expr: &Expr) -> Result<Self, Error> {
        let mut inner = expr;
        while let Node::Neg(negated) = &inner.node {
            inner = negated;
        }
        let (value, children) = compile_value(expr)?;
        Ok(Self {
            value,
            children,
            is_duration: matches!(&inner.node, Node::Field(field) if is_duration(field)),
        })
    }

    pub(crate) fn of_field(field: &Field, at: Position) -> Result<Self, Error> {
        let node = Node::Field(field.clone());
        Self::new(&Expr { node, at })
    }

    /// Calls `each` with every value; says whether there is any, and whether it is an array.
    pub(crate) fn each<S: Span>(&self, span: &S, each: &mut dyn FnMut(Scalar<'_>)) -> (bool, bool) {
        eval::each_value(&self.value, &self.children, span, each)
    }

    /// Its value on a span: an array where there are several.
    pub(crate) fn owned<S: Span>(&self, span: &S) -> OwnedValue {
        let mut values = Vec::new();
        let (_, is_array) = self.each(span, &mut |scalar| {
            values.push(OwnedValue::of_field(scalar, self.is_duration));
        });
        if !is_array && values.len() < 2 {
            values.pop().unwrap_or(OwnedValue::Nil)
        } else {
            OwnedValue::Array(values)
        }
    }

    /// Calls `each` with every number: one of the span, or one of each event or link. Arrays, values that are
    /// no numbers and NaN are none.
    pub(crate) fn numbers<S: Span>(&self, span: &S, each: &mut dyn FnMut(Number)) {
        let mut numbers = Vec::new();
        let (_, is_array) = self.each(span, &mut |scalar| match scalar {
            Scalar::Int(n) => numbers.push(Number::Int(n)),
            Scalar::Float(x) if !x.is_nan() => numbers.push(Number::Float(x)),
            _ => {}
        });
        if !is_array || !self.children.is_empty() {
            numbers.into_iter().for_each(each);
        }
    }
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    #[allow(clippy::cast_precision_loss)] // floats have no more to give
    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
        }
    }

    pub(crate) fn scalar(self) -> Scalar<'static> {
        match self {
            Self::Int(n) => Scalar::Int(n),
            Self::Float(x) => Scalar::Float(x),
        }
    }
}
