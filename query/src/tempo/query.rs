//! Queries and their values, as Tempo's API has them.

use serde_json::{Value as Json, json};
use spanloom_traceql::{CompiledQuery, Field, Intrinsic, OwnedValue};

use crate::problem::Problem;
use crate::tempo::json::double;

/// Compiles a query.
///
/// # Errors
/// With the place and what was expected there.
pub fn compile(text: &str) -> Result<CompiledQuery, Problem> {
    CompiledQuery::new(text)
        .map_err(|error| Problem::parameter("", format!("invalid TraceQL query: {error}")))
}

/// Whether a query reads or selects the spans' names.
pub fn reads_name(query: &CompiledQuery) -> bool {
    let name = Field::Intrinsic(Intrinsic::Name);
    query.needs().fields.contains(&name)
}

/// A value of an attribute or a label.
pub fn value_json(value: &OwnedValue) -> Json {
    match value {
        OwnedValue::Int(number) => json!({"intValue": number.to_string()}),
        OwnedValue::Float(number) => json!({"doubleValue": double(*number)}),
        OwnedValue::Bool(value) => json!({"boolValue": value}),
        OwnedValue::Array(values) => {
            let values: Vec<_> = values.iter().map(value_json).collect();
            json!({"arrayValue": {"values": values}})
        }
        text => json!({"stringValue": text.to_string()}),
    }
}
