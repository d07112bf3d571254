//! The syntax tree of one spanset filter.

use crate::error::Position;
use crate::field::Field;
use crate::span::{Kind, Status};

/// An expression and where it starts. Two expressions are equal when they say the same, wherever
/// they stand.
#[derive(Debug, Clone)]
pub struct Expr {
    /// What it says.
    pub node: Node,
    /// Where it starts; a comparison is at its operator.
    pub at: Position,
}

impl Expr {
    /// Calls `each` with every field in it, in reading order.
    pub(crate) fn for_each_field<'e>(&'e self, each: &mut dyn FnMut(&'e Field)) {
        match &self.node {
            Node::Literal(_) => {}
            Node::Field(field) => each(field),
            Node::Not(inner) | Node::Neg(inner) => inner.for_each_field(each),
            Node::And(list) | Node::Or(list) => list.iter().for_each(|e| e.for_each_field(each)),
            Node::Exists { value, .. } => value.for_each_field(each),
            Node::Compare { left, right, .. } | Node::Arith { left, right, .. } => {
                left.for_each_field(each);
                right.for_each_field(each);
            }
        }
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
    }
}

/// The forms of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// A constant.
    Literal(Literal),
    /// An attribute or an intrinsic.
    Field(Field),
    /// `! a`
    Not(Box<Expr>),
    /// `- a`
    Neg(Box<Expr>),
    /// `a && b && …`, two or more, none of them an `And`.
    And(Vec<Expr>),
    /// `a || b || …`, two or more, none of them an `Or`.
    Or(Vec<Expr>),
    /// `a = b` and its like.
    Compare {
        /// The operator.
        op: CompareOp,
        /// What stands before it.
        left: Box<Expr>,
        /// What stands behind it.
        right: Box<Expr>,
    },
    /// `a != nil`, or `a = nil` when negated.
    Exists {
        /// What is asked about.
        value: Box<Expr>,
        /// True for `= nil`.
        negated: bool,
    },
    /// `a + b` and its like.
    Arith {
        /// The operator.
        op: ArithOp,
        /// What stands before it.
        left: Box<Expr>,
        /// What stands behind it.
        right: Box<Expr>,
    },
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// Text.
    Str(String),
    /// An integer.
    Int(i64),
    /// A float, always finite.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A duration in nanoseconds.
    Duration(i64),
    /// A span's status.
    Status(Status),
    /// A span's kind.
    Kind(Kind),
    /// `nil` where it means nothing; `x = nil` is [`Node::Exists`]. The checker refuses it.
    Nil,
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `=~`
    Match,
    /// `!~`
    NotMatch,
}

impl CompareOp {
    /// The operator as it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Match => "=~",
            Self::NotMatch => "!~",
        }
    }

    /// True for `!=` and `!~`, which hold on many values only when they hold on each.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::Ne | Self::NotMatch)
    }

    /// True for `=~` and `!~`.
    pub fn is_regex(self) -> bool {
        matches!(self, Self::Match | Self::NotMatch)
    }
}

/// An arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArithOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`, towards zero between integers
    Div,
    /// `%`
    Mod,
    /// `^`, from the right
    Pow,
}

impl ArithOp {
    /// The operator as it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
        }
    }
}
