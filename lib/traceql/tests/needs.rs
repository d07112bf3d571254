//! What a query says that it needs.

use spanloom_traceql::{Candidates, CompiledQuery, Needs, TraceFact};

fn needs(text: &str) -> Needs {
    let query = CompiledQuery::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    query.needs().clone()
}

fn shown(candidates: &Candidates) -> String {
    let list = |list: &[Candidates], op: &str| {
        format!("({})", list.iter().map(shown).collect::<Vec<_>>().join(op))
    };
    match candidates {
        Candidates::All => "all".to_owned(),
        Candidates::Exists(expr) => expr.to_string(),
        Candidates::And(parts) => list(parts, " and "),
        Candidates::Or(parts) => list(parts, " or "),
    }
}

#[test]
fn candidates() {
    let check =
        |text: &str, expected: &str| assert_eq!(shown(&needs(text).candidates), expected, "{text}");
    check("{ }", "all");
    check("{ .a = 1 }", "{ .a = 1 }");
    check("{ .a } | { .b }", "{ .a && .b }");
    check("{ .a } && { .b }", "({ .a } and { .b })");
    check("{ .a } || { .b }", "{ .a || .b }");
    check("{ .a } || { }", "all");
    check("{ .a } > { .b }", "({ .a } and { .b })");
    check("{ .a } >> { }", "{ .a }");
    check("{ .a } !>> { .b }", "{ .b }");
    check(
        "{ .a } &~ { .b } | { .c } | count() > 1",
        "({ .a } and { .b } and { .c })",
    );
    check(
        "({ .a } && { .b }) || ({ .c } > { .a })",
        "(({ .a } and { .b }) or ({ .c } and { .a }))",
    );
    check("{ .a } | by(.x) | count() > 2", "{ .a }");
    check("count() > 2", "all");
    check("{ .a } | rate()", "{ .a }");
    check(
        "({ .a } | rate()) / ({ .b } | rate())",
        "({ .a } or { .b })",
    );
    check("({ .a } | rate()) / ({ } | rate())", "all");
}

#[test]
fn what_is_read() {
    let fields = |text: &str| {
        let fields = needs(text).fields;
        fields
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        fields("{ .a = 1 && span.b + .a > 2 } | by(name) | select(.c, kind)"),
        ".a span.b name .c kind"
    );
    assert_eq!(
        fields("{ .a } | max_over_time(duration) by (.b, .a)"),
        ".a duration .b"
    );
    assert_eq!(fields("({ .a } | rate()) + ({ .b } | rate())"), ".a .b");
    let needs_of = needs("{ nestedSetParent < 0 && rootName = \"x\" } | avg(span:childCount) > 1");
    assert_eq!(
        needs_of.facts,
        [
            TraceFact::ChildCount,
            TraceFact::RootName,
            TraceFact::NestedSetParent
        ]
    );
    assert!(needs_of.child_counts() && needs_of.nested_sets() && !needs_of.structure);
    let structural = needs("{ event.a = 1 } || { link:spanID = \"x\" } > { }");
    assert!(structural.structure && structural.events && structural.links);
    assert!(!needs("{ .a } && { .b }").structure);
    let compare = needs("{ } | compare({ status = error })");
    assert!(compare.all_attributes && !compare.structure);
    assert!(!needs("{ } | rate()").all_attributes);
}
