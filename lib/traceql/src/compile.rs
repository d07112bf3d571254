//! From the tree to the program that runs on each span: constants folded to scalars, regular
//! expressions compiled, and each comparison told which events' and links' fields it ranges over.

use regex::{Regex, RegexBuilder};

use crate::ast::{ArithOp, CompareOp, Expr, Literal, Node};
use crate::error::{Error, ErrorKind, Position};
use crate::field::{Field, Intrinsic, Scope};
use crate::re2;
use crate::span::{AttributeScope, ChildField, Kind, Scalar, Status, TraceFact};

/// The most memory of one compiled regular expression, in bytes.
const REGEX_SIZE: usize = 512 << 10;
/// The most regular expressions in one filter.
const MAX_REGEXES: usize = 64;
/// The most different fields of events and links in one comparison: it looks at every pair of their
/// values, and with a third at every triple.
pub(crate) const MAX_CHILDREN: usize = 2;

/// Compiles `pattern` anchored at both ends, as Tempo does; there `.` matches a line's end too.
pub(crate) fn regex(pattern: &str, at: Position) -> Result<Regex, Error> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .size_limit(REGEX_SIZE)
            .dfa_size_limit(REGEX_SIZE)
            .build()
    };
    let pattern_here = re2::translated(pattern);
    let (text, pattern) = (pattern, pattern_here.as_str());
    // First by itself, so that `a)(b` is not made right by the parentheses around it.
    build(pattern)
        .and_then(|_| {
            // Only a comment (`(?x)`) that takes the parenthesis in makes a right pattern wrong; a
            // line's end ends it and means nothing else there.
            build(&format!("^(?s:{pattern})$")).or_else(|_| build(&format!("^(?s:{pattern}\n)$")))
        })
        .map_err(|e| {
            let reason = match &e {
                regex::Error::CompiledTooBig(_) => {
                    format!("it needs more than {} KiB", REGEX_SIZE >> 10)
                }
                e => {
                    // The last line of a syntax error says what is wrong; the others draw it.
                    let text = e.to_string();
                    let last = text.lines().last().unwrap_or("").trim();
                    last.strip_prefix("error: ").unwrap_or(last).to_owned()
                }
            };
            Error::new(
                ErrorKind::Regex,
                at,
                "expected a regular expression that compiles",
                format!("{text:?}"),
            )
            .hint(reason)
        })
}

/// A condition.
#[derive(Debug)]
pub(crate) enum Pred {
    Const(bool),
    And(Box<[Pred]>),
    Or(Box<[Pred]>),
    Not(Box<Pred>),
    /// A value that should be a boolean.
    Truth(Value, Children),
    Exists {
        value: Value,
        negated: bool,
        children: Children,
    },
    Compare {
        op: CompareOp,
        left: Value,
        right: Value,
        children: Children,
    },
    Match {
        value: Value,
        regex: Box<Regex>,
        negated: bool,
        children: Children,
    },
}

/// Something with a value on each span.
#[derive(Debug)]
pub(crate) enum Value {
    Const(Const),
    Attribute(AttributeScope, Box<str>),
    /// The span's attribute, else the resource's.
    Unscoped(Box<str>),
    Intrinsic(Own),
    /// What the trace knows.
    Fact(TraceFact),
    /// The field with this number in the comparison's [`Children`].
    Child(usize),
    Neg(Box<Value>),
    Arith(ArithOp, Box<Value>, Box<Value>),
    Pred(Box<Pred>),
}

/// The fields of events and links that a condition ranges over.
pub(crate) type Children = Box<[Child]>;

/// One of them; owned, since the filter outlives its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Child {
    EventName,
    EventTimeSinceStart,
    EventAttribute(Box<str>),
    LinkTraceId,
    LinkSpanId,
    LinkAttribute(Box<str>),
}

impl Child {
    pub(crate) fn field(&self) -> ChildField<'_> {
        match self {
            Self::EventName => ChildField::EventName,
            Self::EventTimeSinceStart => ChildField::EventTimeSinceStart,
            Self::EventAttribute(key) => ChildField::EventAttribute(key),
            Self::LinkTraceId => ChildField::LinkTraceId,
            Self::LinkSpanId => ChildField::LinkSpanId,
            Self::LinkAttribute(key) => ChildField::LinkAttribute(key),
        }
    }
}

/// A constant.
#[derive(Debug)]
pub(crate) enum Const {
    Nil,
    Str(Box<str>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Status(Status),
    Kind(Kind),
}

impl Const {
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        Some(match self {
            Self::Nil => return None,
            Self::Str(text) => Scalar::Str(text),
            Self::Int(n) => Scalar::Int(*n),
            Self::Float(x) => Scalar::Float(*x),
            Self::Bool(b) => Scalar::Bool(*b),
            Self::Status(status) => Scalar::Status(*status),
            Self::Kind(kind) => Scalar::Kind(*kind),
        })
    }
}

/// An intrinsic with one value on every span.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Own {
    Name,
    Status,
    StatusMessage,
    Kind,
    Duration,
    TraceId,
    SpanId,
    ParentId,
    ScopeName,
    ScopeVersion,
}

/// Compiles a checked expression; also tells how many regular expressions it holds.
pub(crate) fn compile(expr: &Expr) -> Result<(Pred, usize), Error> {
    let mut compiler = Compiler { regexes: 0 };
    let pred = compiler.pred(expr)?;
    Ok((pred, compiler.regexes))
}

/// Compiles what is not a condition: the value of an expression.
pub(crate) fn compile_value(expr: &Expr) -> Result<(Value, Children), Error> {
    let mut children = Vec::new();
    let value = Compiler { regexes: 0 }.value(expr, &mut children)?;
    Ok((value, children.into()))
}

/// The literal of a comparison, brought to the form of the field opposite.
pub(crate) fn compile_literal(literal: &Expr, field: &Expr) -> Result<Value, Error> {
    Compiler { regexes: 0 }.side(literal, field, &mut Vec::new())
}

struct Compiler {
    regexes: usize,
}

impl Compiler {
    fn pred(&mut self, expr: &Expr) -> Result<Pred, Error> {
        let mut children = Vec::new();
        Ok(match &expr.node {
            Node::Literal(Literal::Bool(b)) => Pred::Const(*b),
            Node::And(list) => Pred::And(self.list(list)?),
            Node::Or(list) => Pred::Or(self.list(list)?),
            Node::Not(inner) => Pred::Not(Box::new(self.pred(inner)?)),
            Node::Exists { value, negated } => {
                let value = self.value(value, &mut children)?;
                Pred::Exists {
                    value,
                    negated: *negated,
                    children: children.into(),
                }
            }
            Node::Compare { op, left, right } if op.is_regex() => {
                let Node::Literal(Literal::Str(pattern)) = &right.node else {
                    return Err(unchecked(right));
                };
                self.regexes += 1;
                if self.regexes > MAX_REGEXES {
                    let expected =
                        format!("a filter has at most {MAX_REGEXES} regular expressions");
                    return Err(
                        Error::new(ErrorKind::TooLarge, right.at, expected, "one more")
                            .hint("join alternatives in one: =~ \"a|b|c\""),
                    );
                }
                let regex = Box::new(regex(pattern, right.at)?);
                let value = self.value(left, &mut children)?;
                let negated = *op == CompareOp::NotMatch;
                Pred::Match {
                    value,
                    regex,
                    negated,
                    children: children.into(),
                }
            }
            Node::Compare { op, left, right } => {
                let left_value = self.side(left, right, &mut children)?;
                let right_value = self.side(right, left, &mut children)?;
                let children = children.into();
                Pred::Compare {
                    op: *op,
                    left: left_value,
                    right: right_value,
                    children,
                }
            }
            Node::Literal(_) | Node::Field(_) | Node::Neg(_) | Node::Arith { .. } => {
                let value = self.value(expr, &mut children)?;
                Pred::Truth(value, children.into())
            }
        })
    }

    fn list(&mut self, list: &[Expr]) -> Result<Box<[Pred]>, Error> {
        list.iter().map(|e| self.pred(e)).collect()
    }

    /// One side of a comparison; a literal opposite an id is brought to the id's form.
    fn side(
        &mut self,
        expr: &Expr,
        other: &Expr,
        children: &mut Vec<Child>,
    ) -> Result<Value, Error> {
        let digits = match &other.node {
            Node::Field(Field::Intrinsic(Intrinsic::TraceId | Intrinsic::LinkTraceId)) => 32,
            Node::Field(Field::Intrinsic(
                Intrinsic::SpanId | Intrinsic::ParentId | Intrinsic::LinkSpanId,
            )) => 16,
            _ => 0,
        };
        match &expr.node {
            Node::Literal(Literal::Str(id))
                if (1..=digits).contains(&id.len())
                    && id.bytes().all(|b| b.is_ascii_hexdigit()) =>
            {
                let full = format!("{:0>digits$}", id.to_ascii_lowercase());
                Ok(Value::Const(Const::Str(full.into())))
            }
            _ => self.value(expr, children),
        }
    }

    fn value(&mut self, expr: &Expr, children: &mut Vec<Child>) -> Result<Value, Error> {
        Ok(match &expr.node {
            Node::Literal(literal) => Value::Const(constant(literal)),
            Node::Field(field) => field_value(field, expr, children)?,
            Node::Neg(inner) => match self.value(inner, children)? {
                Value::Const(Const::Int(n)) if n != i64::MIN => Value::Const(Const::Int(-n)),
                Value::Const(Const::Float(x)) => Value::Const(Const::Float(-x)),
                value => Value::Neg(Box::new(value)),
            },
            Node::Arith { op, left, right } => {
                let left = Box::new(self.value(left, children)?);
                Value::Arith(*op, left, Box::new(self.value(right, children)?))
            }
            Node::Not(_)
            | Node::And(_)
            | Node::Or(_)
            | Node::Exists { .. }
            | Node::Compare { .. } => Value::Pred(Box::new(self.pred(expr)?)),
        })
    }
}

fn constant(literal: &Literal) -> Const {
    match literal {
        Literal::Str(text) => Const::Str(text.as_str().into()),
        Literal::Int(n) | Literal::Duration(n) => Const::Int(*n),
        Literal::Float(x) => Const::Float(*x),
        Literal::Bool(b) => Const::Bool(*b),
        Literal::Status(status) => Const::Status(*status),
        Literal::Kind(kind) => Const::Kind(*kind),
        Literal::Nil => Const::Nil,
    }
}

/// An expression that the checker would have refused.
fn unchecked(expr: &Expr) -> Error {
    let found = format!("`{}`", expr.node);
    Error::new(
        ErrorKind::Unsupported,
        expr.at,
        "this is not available on a single span",
        found,
    )
}

fn field_value(field: &Field, expr: &Expr, children: &mut Vec<Child>) -> Result<Value, Error> {
    let child = match field {
        Field::Attribute { parent: true, .. } => return Err(unchecked(expr)),
        Field::Attribute { scope, name, .. } => {
            let key = Box::from(name.as_str());
            match scope {
                Scope::Unscoped => return Ok(Value::Unscoped(key)),
                Scope::Span => return Ok(Value::Attribute(AttributeScope::Span, key)),
                Scope::Resource => return Ok(Value::Attribute(AttributeScope::Resource, key)),
                Scope::Instrumentation => {
                    return Ok(Value::Attribute(AttributeScope::Instrumentation, key));
                }
                Scope::Event => Child::EventAttribute(key),
                Scope::Link => Child::LinkAttribute(key),
            }
        }
        Field::Intrinsic(intrinsic) => match intrinsic {
            Intrinsic::Name => return Ok(Value::Intrinsic(Own::Name)),
            Intrinsic::Status => return Ok(Value::Intrinsic(Own::Status)),
            Intrinsic::StatusMessage => return Ok(Value::Intrinsic(Own::StatusMessage)),
            Intrinsic::Kind => return Ok(Value::Intrinsic(Own::Kind)),
            Intrinsic::Duration => return Ok(Value::Intrinsic(Own::Duration)),
            Intrinsic::SpanId => return Ok(Value::Intrinsic(Own::SpanId)),
            Intrinsic::ParentId => return Ok(Value::Intrinsic(Own::ParentId)),
            Intrinsic::TraceId => return Ok(Value::Intrinsic(Own::TraceId)),
            Intrinsic::InstrumentationName => return Ok(Value::Intrinsic(Own::ScopeName)),
            Intrinsic::InstrumentationVersion => return Ok(Value::Intrinsic(Own::ScopeVersion)),
            Intrinsic::EventName => Child::EventName,
            Intrinsic::EventTimeSinceStart => Child::EventTimeSinceStart,
            Intrinsic::LinkTraceId => Child::LinkTraceId,
            Intrinsic::LinkSpanId => Child::LinkSpanId,
            other => match other.fact() {
                Some(fact) => return Ok(Value::Fact(fact)),
                None => return Err(unchecked(expr)),
            },
        },
    };
    if let Some(known) = children.iter().position(|c| *c == child) {
        return Ok(Value::Child(known));
    }
    if children.len() == MAX_CHILDREN {
        let expected =
            format!("a comparison has at most {MAX_CHILDREN} fields of events and links");
        let found = format!("`{}`", expr.node);
        return Err(Error::new(ErrorKind::TooLarge, expr.at, expected, found));
    }
    children.push(child);
    Ok(Value::Child(children.len() - 1))
}
