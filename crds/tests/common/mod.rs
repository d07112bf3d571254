//! Documents that are refused.

use spanloom_crds::parse_document;

/// Exactly these errors, a line each; a line of `expected` may leave out the end of its error.
#[track_caller]
pub fn refused(yaml: &str, expected: &[&str]) {
    let errors = match parse_document(yaml) {
        Ok(document) => panic!("{yaml}\nis read as {document:?}"),
        Err(errors) => errors.to_string(),
    };
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{yaml}\n{errors}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(expected),
            "{yaml}\nexpected: {expected}\n   found: {line}"
        );
    }
}

/// The document with this `spec`, whose first line is line 4.
pub fn spec(yaml: &str) -> String {
    let indented: String = yaml.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nspec:\n{indented}")
}

/// Exactly these errors, in the document with this `spec`.
#[track_caller]
pub fn refused_spec(yaml: &str, expected: &[&str]) {
    refused(&spec(yaml), expected);
}
