//! What is refused of drop filters and redaction rules.

mod common;

use common::{refused_spec, spec};
use spanloom_crds::parse_document;
use spanloom_rules::CLASSES;

#[test]
fn filters() {
    let drop = |filter: &str, expected: &str| {
        refused_spec(
            &format!("processing:\n  drop:\n    - '{filter}'"),
            &[&format!(
                "spec.processing.drop[0] (line 6, column 9): in the filter, {expected}"
            )],
        );
    };
    drop(
        "{ .a == 1 }",
        "line 1, column 7: expected a value, found `=` (equality is written with a single =)",
    );
    drop(
        "{ trace:duration > 1s }",
        "line 1, column 3: a filter on single spans cannot use",
    );
    drop(
        "{ rootName = \"x\" }",
        "line 1, column 3: a filter on single spans cannot use",
    );
    drop(
        "{ nestedSetParent < 0 }",
        "line 1, column 3: a filter on single spans cannot use",
    );
    drop(
        "{ span:childCount = 0 }",
        "line 1, column 3: a filter on single spans cannot use",
    );
    drop(
        "{ } | count() > 1",
        "line 1, column 5: only one spanset filter is supported here",
    );
    drop("span.a = 1", "line 1, column 1: expected `{`");
    refused_spec(
        "processing: {drop: ['{ .a=1 }', '{ .b=1 }', '{ .a = 1 }']}",
        &["spec.processing.drop[2] (line 4, column 47): this filter is given twice; remove one"],
    );
}

#[test]
fn redaction() {
    let one = |rules: &str, expected: &str| {
        refused_spec(
            &format!("processing: {{redact: {rules}}}"),
            &[&format!("spec.processing.redact{expected}")],
        );
    };
    one(
        "[{}]",
        "[0] (line 4, column 25): needs either keys or values; write",
    );
    one(
        "[{keys: [a], values: email}]",
        "[0] (line 4, column 25): needs either keys or values",
    );
    one("[{keys: []}]", "[0].keys (line 4, column 32): has no key");
    one(
        "[{keys: ['']}]",
        "[0].keys[0] (line 4, column 33): the key is empty",
    );
    one(
        "[{keys: [a, b]}, {keys: [b]}]",
        "[1].keys[0] (line 4, column 49): the key \"b\" is given twice",
    );
    one(
        "[{values: email}, {values: email}]",
        "[1].values (line 4, column 51): \"email\" is given twice",
    );
    let known: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
    let unknown = format!(
        "[0].values (line 4, column 34): unknown redaction class \"emails\"; known classes: {}; to \
            match the word itself, write the expression \"(emails)\"",
        known.join(", ")
    );
    one("[{values: emails}]", &unknown);
    one(
        "[{values: '('}]",
        "[0].values (line 4, column 34): the regular expression \"(\" does not compile: error: unclosed group",
    );
    one(
        "[{values: 'a*'}]",
        "[0].values (line 4, column 34): the regular expression \"a*\" matches empty text",
    );
    one(
        "[{values: ''}]",
        "[0].values (line 4, column 34): the regular expression \"\" matches empty text",
    );
    one(
        "[{values: '(a{1000}){1000}'}]",
        "[0].values (line 4, column 34): the regular expression \"(a{1000}){1000}\" needs more than 1024 KiB of memory; use",
    );
    one(
        "[{values: '\\b'}]",
        "[0].values (line 4, column 34): the regular expression \"\\\\b\" matches empty text",
    );
    one(
        &format!("[{{keys: [a]}}, {{keys: [b, {}]}}]", "k".repeat(257)),
        "[1].keys[1] (line 4, column 49): has 257 characters, more than 256; shorten it",
    );
    let many: Vec<_> = (0..65).map(|n| format!("{{values: 'x {n}'}}")).collect();
    one(
        &format!("[{}]", many.join(", ")),
        " (line 4, column 24): has 65 entries, more than 64; remove one",
    );
}

/// Alone each of them compiles.
#[test]
fn rules_that_are_too_large_together() {
    let rules: String = (0..20)
        .map(|n| format!("    - {{keys: [k{n}]}}\n    - {{values: '{n}\\w{{20}}x'}}\n"))
        .collect();
    let errors = parse_document(&spec(&format!("processing:\n  redact:\n{rules}"))).unwrap_err();
    let [error] = errors.0.as_slice() else {
        panic!("{errors}");
    };
    // Which one it is depends on how expressions are compiled; it stands on the line of its rule.
    let index = error.path.strip_prefix("spec.processing.redact[");
    let index = index.and_then(|rest| rest.strip_suffix("].values"));
    let index: usize = index.unwrap().parse().unwrap();
    assert_eq!((index % 2, error.at), (1, Some((6 + index, 18))), "{error}");
    let text = "the regular expressions up to this one need more than 8192 KiB of memory together";
    assert_eq!(error.problem, text);
    let filter = |n: usize| {
        format!(
            "    - '{{ {} }}'\n",
            vec![format!(".a =~ \"{n}\""); 30].join(" || ")
        )
    };
    let filters: String = (0..4).map(filter).collect();
    refused_spec(
        &format!("processing:\n  drop:\n{filters}"),
        &[
            "spec.processing.drop[2] (line 8, column 9): the drop filters up to this one have 90 regular expressions, more than 64; join",
        ],
    );
}
