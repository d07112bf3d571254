//! TraceQL over the store: what ClickHouse can narrow down, and what the evaluator decides.

pub mod condition;
mod load;
pub mod metrics;
pub mod plan;
pub mod rows;
pub mod search;
mod span;
pub mod watch;

use spanloom_traceql::{Field, Scope};

/// An attribute as TraceQL writes it.
pub(crate) fn attribute(scope: Scope, key: &str) -> String {
    let field = Field::Attribute {
        parent: false,
        scope,
        name: key.to_owned(),
    };
    field.to_string()
}
