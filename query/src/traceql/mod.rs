//! TraceQL over the store: what ClickHouse can narrow down, and what the evaluator decides.

pub mod condition;
mod load;
pub mod metrics;
pub mod plan;
pub mod rows;
pub mod search;
mod span;
pub mod watch;
