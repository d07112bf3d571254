//! From YAML to a checked document.

use serde::Deserialize;
use serde_yaml::Value;

use crate::document::{API_VERSION, KIND, TracingPipeline};
use crate::errors::{DocumentError, DocumentErrors, Path, Problem};
use crate::locate::locate;
use crate::schema;
use crate::shape::misfits;
use crate::validate::validate;

/// The largest document.
pub const MAX_DOCUMENT_BYTES: usize = 256 << 10;
/// The most errors that are reported at once.
const MAX_ERRORS: usize = 50;

/// Reads one `TracingPipeline` from YAML and checks all of it.
///
/// # Errors
/// Everything that is wrong, with path, line and column.
pub fn parse_document(yaml: &str) -> Result<TracingPipeline, DocumentErrors> {
    if yaml.len() > MAX_DOCUMENT_BYTES {
        let problem = format!("the file has {} bytes", yaml.len());
        return Err(DocumentErrors::one(
            problem,
            format!("at most {MAX_DOCUMENT_BYTES} are allowed"),
        ));
    }
    let value = one_value(yaml)?;
    let mut problems = Vec::new();
    another_kind(&value, &mut problems);
    if problems.is_empty() {
        misfits(schema::document(), &value, &Path::default(), &mut problems);
    }
    if !problems.is_empty() {
        return Err(located(yaml, problems));
    }
    let document: TracingPipeline = serde_yaml::from_value(without_nulls(value))
        .map_err(|e| DocumentErrors::one(e.to_string(), ""))?;
    let problems = validate(&document);
    if problems.is_empty() {
        Ok(document)
    } else {
        Err(located(yaml, problems))
    }
}

/// The one document in the text; empty ones around it (a `---` too many) do not count.
fn one_value(yaml: &str) -> Result<Value, DocumentErrors> {
    let mut found = None;
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = Value::deserialize(document).map_err(|e| not_yaml(&e))?;
        if value.is_null() {
            continue;
        }
        if found.is_some() {
            let advice = "use one file for each TracingPipeline";
            return Err(DocumentErrors::one(
                "there is more than one YAML document",
                advice,
            ));
        }
        found = Some(value);
    }
    found.ok_or_else(|| {
        let advice = format!("start with apiVersion: {API_VERSION} and kind: {KIND}");
        DocumentErrors::one("the file is empty", advice)
    })
}

fn not_yaml(error: &serde_yaml::Error) -> DocumentErrors {
    let text = error.to_string();
    // The place has a field of its own.
    let problem = text.split(" at line ").next().unwrap_or(&text);
    DocumentErrors(vec![DocumentError {
        path: String::new(),
        at: error.location().map(|at| (at.line(), at.column())),
        problem: format!("invalid YAML: {problem}"),
        advice: String::new(),
    }])
}

/// What says that the document is not ours at all, so that its fields need no remarks.
fn another_kind(value: &Value, problems: &mut Vec<Problem>) {
    for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let found = value.get(field).and_then(Value::as_str);
        if let Some(found) = found.filter(|found| *found != wanted) {
            let text = format!("must be {wanted}, but is {found:?}");
            problems.push(Problem::new(Path::of(field), text, ""));
        }
    }
}

/// The value without fields that have none (`key:`): they count as left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Mapping(map) => Value::Mapping(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Sequence(list) => Value::Sequence(list.into_iter().map(without_nulls).collect()),
        value => value,
    }
}

fn located(yaml: &str, problems: Vec<Problem>) -> DocumentErrors {
    let more = problems.len().saturating_sub(MAX_ERRORS);
    let mut errors: Vec<_> = problems
        .into_iter()
        .take(MAX_ERRORS)
        .map(|problem| {
            let at = locate(yaml, &problem.path, problem.at_key);
            DocumentError::from_problem(problem, at)
        })
        .collect();
    errors.sort_by_key(|error| error.at.unwrap_or((usize::MAX, 0)));
    if more > 0 {
        let rest = DocumentErrors::one(format!("… and {more} more errors"), "");
        errors.extend(rest.0);
    }
    DocumentErrors(errors)
}
