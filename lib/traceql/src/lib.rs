//! TraceQL: the language of searches, of metrics, and of every filter in the document.
//!
//! A query goes through these steps:
//!
//! 1. the lexer cuts the text into tokens, each with its place;
//! 2. the parser makes a tree of them, of bounded depth: [`parse_query`] a [`Query`], [`parse`] the [`Expr`]
//!    of one spanset filter;
//! 3. [`Query::check`] and [`check`] refuse what cannot be meant: types that never meet, regular expressions
//!    that do not compile and, for filters on single spans ([`Mode::Span`]), what only a whole trace knows;
//! 4. [`CompiledQuery`] is a checked query made ready to run: [`CompiledQuery::search`] takes a [`Trace`] of
//!    spans that are [`TraceSpan`]s, [`Metrics`] makes series of them, and [`CompiledQuery::needs`] says what
//!    has to be known of them. [`Filter`] is a checked expression made ready: [`Filter::matches`] asks
//!    anything that is a [`Span`] and allocates nothing.
//!
//! One evaluator gives both their meaning. Queries and expressions print themselves as TraceQL (`Display`),
//! and what they print parses to an equal tree. Errors ([`Error`]) say where, what was found, what was
//! expected and what to do.
//!
//! The meaning is that of Grafana Tempo, with these choices where Tempo's answers are wrong or vary:
//! - integers and floats compare by value;
//! - a comparison with a value that is missing or of another type is false, `!=` and `!~` included; on
//!   arrays, and on the events or links of a span, `=`, `=~` and the orderings hold when any element matches,
//!   `!=` and `!~` when every element differs;
//! - a span without a number is left out of sums, averages, minima and maxima, as if it were not there;
//! - structural operators work below a missing span too; siblings are spans that name the same parent;
//! - answers are the same every time, and do not depend on the order in which spans come in.

mod ast;
mod check;
mod check_query;
mod compile;
mod compiled;
mod error;
mod eval;
mod field;
mod filter;
mod lenient;
mod lexer;
mod literal;
mod metrics;
mod needs;
mod parse_metrics;
mod parse_query;
mod parser;
mod print;
mod print_query;
mod query;
mod re2;
mod reading;
mod shown;
mod span;
mod stages;
mod structure;
mod trace;
mod value;

pub use ast::{ArithOp, CompareOp, Expr, Literal, Node};
pub use check::{Mode, check};
pub use check_query::MAX_BY;
pub use compiled::{CompiledQuery, Leaf, Matched, Spanset};
pub use error::{Error, ErrorKind, Position, Verdict};
pub use field::{Field, Intrinsic, Scope};
pub use filter::{Filter, Key};
pub use lenient::parse_lenient;
pub use metrics::{
    Exemplar, Finished, LeafIndex, Limits, MAX_EXEMPLARS, MAX_STEPS, Metrics, Partial, Series,
    Truncated, Window, WindowError, log2_bucket,
};
pub use needs::{Candidates, Needs};
pub use parse_query::parse_query;
pub use parser::{MAX_DEPTH, MAX_LENGTH, parse};
pub use query::{
    Aggregate, AggregateOp, Body, FieldRef, Form, Hint, MetricsExpr, MetricsFunction,
    MetricsPipeline, OverOp, Pipeline, Place, Query, Relation, ScalarExpr, ScalarFilter,
    SecondStage, SpansetExpr, SpansetOp, Stage,
};
pub use span::{
    Array, AttributeScope, ChildField, Kind, NoArray, Scalar, Span, Status, TraceFact, TraceSpan,
    ValueRef,
};
pub use trace::Trace;
pub use value::OwnedValue;
