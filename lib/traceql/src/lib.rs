//! TraceQL spanset filters: the language of every filter in the document and of searches.
//!
//! One filter, `{ span.http.route = "/healthz" && status != error }`, goes through these steps:
//!
//! 1. the lexer cuts the text into tokens, each with its place;
//! 2. the parser makes an [`Expr`] of them ([`parse`]), of bounded depth;
//! 3. [`check`] refuses what cannot be meant: types that never meet, regular expressions that do
//!    not compile and, for filters on single spans ([`Mode::Span`]), what only a whole trace knows;
//! 4. [`Filter`] is the checked expression made ready to run: [`Filter::matches`] asks anything
//!    that is a [`Span`] and allocates nothing.
//!
//! [`Expr`] prints itself as TraceQL (`Display`), and what it prints parses to an equal expression.
//! Errors ([`Error`]) say where, what was found, what was expected and what to do.
//!
//! The meaning is that of Grafana Tempo, with these choices where Tempo's answers are wrong or vary:
//! integers and floats compare by value; a comparison with a value that is missing or of another
//! type is false, `!=` and `!~` included; on arrays, and on the events or links of a span, `=`,
//! `=~` and the orderings hold when any element matches, `!=` and `!~` when every element differs.
//!
//! Pipelines, structural operators and several spansets are refused with their place for now.

mod ast;
mod check;
mod check_query;
mod compile;
mod error;
mod eval;
mod field;
mod filter;
mod lexer;
mod literal;
mod parse_metrics;
mod parse_query;
mod parser;
mod print;
mod print_query;
mod query;
mod re2;
mod span;

pub use ast::{ArithOp, CompareOp, Expr, Literal, Node};
pub use check::{Mode, check};
pub use check_query::MAX_BY;
pub use error::{Error, ErrorKind, Position, Verdict};
pub use field::{Field, Intrinsic, Scope};
pub use filter::{Filter, Key};
pub use parse_query::parse_query;
pub use parser::{MAX_DEPTH, MAX_LENGTH, parse};
pub use query::{
    Aggregate, AggregateOp, Body, FieldRef, Form, Hint, MetricsExpr, MetricsFunction,
    MetricsPipeline, OverOp, Pipeline, Place, Query, Relation, ScalarExpr, ScalarFilter,
    SecondStage, SpansetExpr, SpansetOp, Stage,
};
pub use span::{Array, AttributeScope, ChildField, Kind, NoArray, Scalar, Span, Status, ValueRef};
