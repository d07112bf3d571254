//! What can be meant: types that meet, regular expressions that compile, and fields that the place
//! of the filter knows.

use crate::ast::{ArithOp, CompareOp, Expr, Literal, Node};
use crate::compile;
use crate::error::{Error, ErrorKind, Position};
use crate::field::{Field, Intrinsic, Scope};

/// What a filter is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One span by itself: `drop` filters. What only a whole trace knows is refused.
    Span,
    /// A span within its trace: searches.
    Trace,
}

/// Refuses an expression that cannot be meant, with the first reason in reading order.
pub fn check(expr: &Expr, mode: Mode) -> Result<(), Error> {
    let ty = type_of(expr, mode)?;
    if matches!(ty, Type::Bool | Type::Dynamic) {
        return Ok(());
    }
    let found = format!("`{}`, which is {}", expr.node, ty.text());
    Err(Error::new(
        ErrorKind::Type,
        expr.at,
        "a filter must be a boolean",
        found,
    )
    .hint("compare it with something"))
}

/// What is known of a value before there is a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// An attribute: known with each span.
    Dynamic,
    Str,
    Int,
    Float,
    Duration,
    Bool,
    Status,
    Kind,
}

impl Type {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Dynamic => "an attribute",
            Self::Str => "a string",
            Self::Int => "an integer",
            Self::Float => "a float",
            Self::Duration => "a duration",
            Self::Bool => "a boolean",
            Self::Status => "a status",
            Self::Kind => "a kind",
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(
            self,
            Self::Dynamic | Self::Int | Self::Float | Self::Duration
        )
    }

    fn is_bool(self) -> bool {
        matches!(self, Self::Dynamic | Self::Bool)
    }

    fn is_str(self) -> bool {
        matches!(self, Self::Dynamic | Self::Str)
    }

    fn meets(self, other: Self) -> bool {
        self == other
            || matches!(self, Self::Dynamic)
            || matches!(other, Self::Dynamic)
            || (self.is_number() && other.is_number())
    }
}

pub(crate) fn type_of(expr: &Expr, mode: Mode) -> Result<Type, Error> {
    match &expr.node {
        Node::Literal(literal) => literal_type(literal, expr.at),
        Node::Field(field) => field_type(field, expr.at, mode),
        Node::Not(inner) => {
            let ty = type_of(inner, mode)?;
            if ty.is_bool() {
                Ok(Type::Bool)
            } else {
                Err(misfit("!", inner, ty))
            }
        }
        Node::Neg(inner) => {
            let ty = type_of(inner, mode)?;
            if ty.is_number() {
                Ok(ty)
            } else {
                Err(misfit("-", inner, ty))
            }
        }
        Node::And(list) => all_bool("&&", list, mode),
        Node::Or(list) => all_bool("||", list, mode),
        Node::Exists { value, negated } => exists(value, *negated, mode),
        Node::Compare { op, left, right } => compare(*op, left, right, expr.at, mode),
        Node::Arith { op, left, right } => arith(*op, left, right, mode),
    }
}

fn literal_type(literal: &Literal, at: Position) -> Result<Type, Error> {
    Ok(match literal {
        Literal::Str(_) => Type::Str,
        Literal::Int(_) => Type::Int,
        Literal::Float(_) => Type::Float,
        Literal::Bool(_) => Type::Bool,
        Literal::Duration(_) => Type::Duration,
        Literal::Status(_) => Type::Status,
        Literal::Kind(_) => Type::Kind,
        Literal::Nil => {
            let expected = "nil can only be compared with a field, with = or !=";
            return Err(Error::new(ErrorKind::Syntax, at, expected, ""));
        }
    })
}

pub(crate) fn field_type(field: &Field, at: Position, mode: Mode) -> Result<Type, Error> {
    let parent = match field {
        Field::Attribute { parent, .. } => *parent,
        Field::Intrinsic(intrinsic) => *intrinsic == Intrinsic::Parent,
    };
    if parent {
        let expected = "fields of the parent span are not supported";
        let hint = match mode {
            Mode::Span => {
                "a filter sees one span: its own attributes, its resource, events and links"
            }
            Mode::Trace => {
                "a structural operator compares parents: { span.a = 1 } > { span.b = 2 }"
            }
        };
        let error = Error::new(ErrorKind::Unsupported, at, expected, format!("`{field}`"));
        return Err(error.hint(hint));
    }
    let Field::Intrinsic(intrinsic) = field else {
        return Ok(Type::Dynamic);
    };
    if mode == Mode::Span && intrinsic.needs_trace() {
        let expected = "a filter on single spans cannot use properties of the whole trace";
        let e = Error::new(ErrorKind::WholeTrace, at, expected, format!("`{field}`"));
        return Err(match intrinsic {
            Intrinsic::TraceDuration => e.hint("the span's own is `duration`"),
            Intrinsic::RootName => e.hint("the span's own is `name`"),
            Intrinsic::RootService => e.hint("the span's own is `resource.service.name`"),
            Intrinsic::NestedSetParent => e.hint("a root is `span:parentID = \"\"`"),
            _ => e,
        });
    }
    Ok(match intrinsic {
        Intrinsic::Status => Type::Status,
        Intrinsic::Kind => Type::Kind,
        Intrinsic::Duration | Intrinsic::TraceDuration | Intrinsic::EventTimeSinceStart => {
            Type::Duration
        }
        Intrinsic::ChildCount
        | Intrinsic::NestedSetLeft
        | Intrinsic::NestedSetRight
        | Intrinsic::NestedSetParent => Type::Int,
        // As in Tempo, these are not checked before the query runs.
        Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion
            if mode == Mode::Trace =>
        {
            Type::Dynamic
        }
        _ => Type::Str,
    })
}

fn misfit(op: &str, operand: &Expr, ty: Type) -> Error {
    let found = format!("`{}`, which is {}", operand.node, ty.text());
    let expected = match op {
        "!" | "&&" | "||" => format!("`{op}` takes booleans"),
        "=~" | "!~" => format!("`{op}` takes strings"),
        _ => format!("`{op}` takes numbers and durations"),
    };
    Error::new(ErrorKind::Type, operand.at, expected, found)
}

fn all_bool(op: &str, list: &[Expr], mode: Mode) -> Result<Type, Error> {
    for operand in list {
        let ty = type_of(operand, mode)?;
        if !ty.is_bool() {
            return Err(misfit(op, operand, ty));
        }
    }
    Ok(Type::Bool)
}

fn arith(op: ArithOp, left: &Expr, right: &Expr, mode: Mode) -> Result<Type, Error> {
    let mut result = Type::Dynamic;
    for operand in [left, right] {
        let ty = type_of(operand, mode)?;
        if !ty.is_number() {
            return Err(misfit(op.symbol(), operand, ty));
        }
        if result == Type::Dynamic {
            result = ty;
        }
    }
    Ok(result)
}

/// `= nil` on what always has a value is a mistake; `!= nil` there is only always true, and
/// Grafana writes it.
fn exists(value: &Expr, negated: bool, mode: Mode) -> Result<Type, Error> {
    // Searches may ask it of anything, as in Tempo; then a constant exists and `nil` does not.
    if mode == Mode::Trace && value.node == Node::Literal(Literal::Nil) {
        return Ok(Type::Bool);
    }
    type_of(value, mode)?;
    let always = match &value.node {
        Node::Field(Field::Attribute {
            scope: Scope::Resource,
            name,
            ..
        }) => name == "service.name",
        Node::Field(Field::Attribute { .. }) => false,
        Node::Field(Field::Intrinsic(_)) => true,
        Node::Arith { .. } | Node::Neg(_) => false,
        _ if mode == Mode::Trace => false,
        node => {
            let found = format!("`{node}`");
            return Err(Error::new(
                ErrorKind::Type,
                value.at,
                "only a field can be nil",
                found,
            ));
        }
    };
    if always && negated {
        let found = format!("`{} = nil`", value.node);
        return Err(
            Error::new(ErrorKind::Type, value.at, "this is never nil", found)
                .hint("an empty string is written = \"\""),
        );
    }
    Ok(Type::Bool)
}

fn compare(
    op: CompareOp,
    left: &Expr,
    right: &Expr,
    at: Position,
    mode: Mode,
) -> Result<Type, Error> {
    let (left_type, right_type) = (type_of(left, mode)?, type_of(right, mode)?);
    if op.is_regex() {
        for (operand, ty) in [(left, left_type), (right, right_type)] {
            if !ty.is_str() {
                return Err(misfit(op.symbol(), operand, ty));
            }
        }
        let Node::Literal(Literal::Str(pattern)) = &right.node else {
            let found = format!("`{}`", right.node);
            let expected = format!("`{}` takes a regular expression in quotes", op.symbol());
            return Err(Error::new(ErrorKind::Type, right.at, expected, found));
        };
        compile::regex(pattern, right.at)?;
        return Ok(Type::Bool);
    }
    if !left_type.meets(right_type) {
        let (l, r) = (left_type.text(), right_type.text());
        let found = format!(
            "{l} and {r}: `{} {} {}`",
            left.node,
            op.symbol(),
            right.node
        );
        let e = Error::new(
            ErrorKind::Type,
            at,
            "only values of one type can be compared",
            found,
        );
        return Err(match (left_type, right_type) {
            (Type::Duration | Type::Status | Type::Kind, Type::Str)
            | (Type::Str, Type::Duration | Type::Status | Type::Kind) => {
                e.hint("durations, statuses and kinds are written without quotes")
            }
            (Type::Str, _) | (_, Type::Str) => e.hint("strings are written in quotes"),
            _ => e,
        });
    }
    let unordered = |ty| matches!(ty, Type::Bool | Type::Status | Type::Kind);
    if !matches!(op, CompareOp::Eq | CompareOp::Ne)
        && (unordered(left_type) || unordered(right_type))
    {
        let ty = if unordered(left_type) {
            left_type
        } else {
            right_type
        };
        let expected = format!("`{}` takes numbers, durations and strings", op.symbol());
        return Err(Error::new(ErrorKind::Type, at, expected, ty.text()));
    }
    Ok(Type::Bool)
}
