//! A filter that is ready to run.

use std::fmt;

use crate::ast::Expr;
use crate::check::{Mode, check};
use crate::compile::{Pred, compile};
use crate::error::Error;
use crate::eval;
use crate::field::{Field, Intrinsic, Scope};
use crate::parser::parse;
use crate::span::Span;

/// An attribute that a filter reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Where it looks.
    pub scope: Scope,
    /// The attribute's key.
    pub name: String,
}

/// A filter on single spans, compiled. `Display` prints it as TraceQL.
#[derive(Debug)]
pub struct Filter {
    expr: Expr,
    pred: Pred,
    regexes: usize,
    reads: Reads,
}

#[derive(Debug, Default)]
struct Reads {
    keys: Vec<Key>,
    events: bool,
    links: bool,
}

impl Filter {
    /// Parses, checks (as [`Mode::Span`]) and compiles one spanset filter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let expr = parse(text)?;
        check(&expr, Mode::Span)?;
        let (pred, regexes) = compile(&expr)?;
        let mut reads = Reads::default();
        expr.for_each_field(&mut |field| reads.field(field));
        reads.keys.sort();
        reads.keys.dedup();
        Ok(Self {
            expr,
            pred,
            regexes,
            reads,
        })
    }

    /// Whether the span matches. Allocates nothing.
    pub fn matches(&self, span: &impl Span) -> bool {
        eval::holds(&self.pred, span)
    }

    /// The expression that it was made of.
    pub fn expr(&self) -> &Expr {
        &self.expr
    }

    /// Every attribute that it reads, once each, in order.
    pub fn keys(&self) -> &[Key] {
        &self.reads.keys
    }

    /// How many regular expressions it holds.
    pub fn regexes(&self) -> usize {
        self.regexes
    }

    /// Whether it may ask for events ([`Span::any_child`]).
    pub fn may_need_events(&self) -> bool {
        self.reads.events
    }

    /// Whether it may ask for links ([`Span::any_child`]).
    pub fn may_need_links(&self) -> bool {
        self.reads.links
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expr.fmt(f)
    }
}

impl Reads {
    fn field(&mut self, field: &Field) {
        match field {
            Field::Attribute { scope, name, .. } => {
                self.events |= *scope == Scope::Event;
                self.links |= *scope == Scope::Link;
                let key = Key {
                    scope: *scope,
                    name: name.clone(),
                };
                if !self.keys.contains(&key) {
                    self.keys.push(key);
                }
            }
            Field::Intrinsic(Intrinsic::EventName | Intrinsic::EventTimeSinceStart) => {
                self.events = true;
            }
            Field::Intrinsic(Intrinsic::LinkTraceId | Intrinsic::LinkSpanId) => self.links = true,
            Field::Intrinsic(_) => {}
        }
    }
}
