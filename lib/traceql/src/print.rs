//! An expression as TraceQL text, with parentheses wherever it would otherwise be read differently
//! or a reader could doubt.

use std::fmt::{self, Display, Formatter, Write};

use crate::ast::{Expr, Literal, Node};
use crate::field::{Field, Scope};
use crate::lexer::is_attribute_char;

/// Prints the filter with its braces.
impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Literal(Literal::Bool(true)) => f.write_str("{ }"),
            node => write!(f, "{{ {node} }}"),
        }
    }
}

/// Prints the expression without braces.
impl Display for Node {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Field(field) => field.fmt(f),
            Self::Not(inner) => write!(f, "!{}", Inside(&inner.node, Place::Tight)),
            Self::Neg(inner) => write!(f, "-{}", Inside(&inner.node, Place::Tight)),
            Self::And(list) => joined(f, list, " && "),
            Self::Or(list) => joined(f, list, " || "),
            Self::Compare { op, left, right } => {
                let (left, right) = (
                    Inside(&left.node, Place::Loose),
                    Inside(&right.node, Place::Loose),
                );
                write!(f, "{left} {} {right}", op.symbol())
            }
            Self::Exists { value, negated } => {
                let op = if *negated { "=" } else { "!=" };
                write!(f, "{} {op} nil", Inside(&value.node, Place::Loose))
            }
            Self::Arith { op, left, right } => {
                let (left, right) = (
                    Inside(&left.node, Place::Tight),
                    Inside(&right.node, Place::Tight),
                );
                write!(f, "{left} {} {right}", op.symbol())
            }
        }
    }
}

fn joined(f: &mut Formatter<'_>, list: &[Expr], separator: &str) -> fmt::Result {
    for (n, part) in list.iter().enumerate() {
        if n > 0 {
            f.write_str(separator)?;
        }
        Inside(&part.node, Place::Logic).fmt(f)?;
    }
    Ok(())
}

/// Where an operand stands.
#[derive(Clone, Copy)]
enum Place {
    /// Beside `&&` or `||`: comparisons need no parentheses.
    Logic,
    /// Beside a comparison: arithmetic needs none.
    Loose,
    /// Beside arithmetic or behind a sign: only single values need none.
    Tight,
}

struct Inside<'a>(&'a Node, Place);

impl Display for Inside<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(node, place) = *self;
        let bare = match node {
            Node::Literal(_) | Node::Field(_) => true,
            Node::Not(_) | Node::Neg(_) => matches!(place, Place::Logic | Place::Loose),
            Node::Arith { .. } => matches!(place, Place::Logic | Place::Loose),
            Node::Compare { .. } | Node::Exists { .. } => matches!(place, Place::Logic),
            Node::And(_) | Node::Or(_) => false,
        };
        if bare {
            node.fmt(f)
        } else {
            write!(f, "({node})")
        }
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => quoted(f, text),
            Self::Int(n) => write!(f, "{n}"),
            Self::Float(x) => write!(f, "{x:?}"),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Duration(ns) => duration(f, *ns),
            Self::Status(status) => f.write_str(status.text()),
            Self::Kind(kind) => f.write_str(kind.text()),
            Self::Nil => f.write_str("nil"),
        }
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

fn duration(f: &mut Formatter<'_>, ns: i64) -> fmt::Result {
    const UNITS: [(&str, u64); 6] = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ];
    if ns == 0 {
        return f.write_str("0s");
    }
    if ns < 0 {
        f.write_char('-')?;
    }
    let mut rest = ns.unsigned_abs();
    for (unit, scale) in UNITS {
        if rest >= scale {
            write!(f, "{}{unit}", rest / scale)?;
            rest %= scale;
        }
    }
    Ok(())
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intrinsic(intrinsic) => f.write_str(intrinsic.text()),
            Self::Attribute {
                parent,
                scope,
                name,
            } => {
                match (parent, scope) {
                    (true, Scope::Unscoped) => f.write_str("parent.")?,
                    (true, scope) => write!(f, "parent.{}", scope.prefix())?,
                    (false, scope) => f.write_str(scope.prefix())?,
                }
                if needs_quotes(*parent, *scope, name) {
                    write!(f, "\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
                } else {
                    f.write_str(name)
                }
            }
        }
    }
}

fn needs_quotes(parent: bool, scope: Scope, name: &str) -> bool {
    // `.5` is a number and `parent.span.x` an attribute of the span.
    let read_differently = scope == Scope::Unscoped
        && (name.starts_with(|c: char| c.is_ascii_digit())
            || (parent && (name.starts_with("span.") || name.starts_with("resource."))));
    name.is_empty()
        || read_differently
        || name.contains(['"', '\\'])
        || !name.chars().all(is_attribute_char)
}
