//! Trees of spans, also broken ones, and what is asked of them.

mod common;

use std::time::{Duration, Instant};

use common::owned::OwnedSpan;
use spanloom_traceql::{CompiledQuery, Trace};

/// `a<-b` is a span named a, whose parent is b; its id is the first letter.
fn spans(text: &str) -> Vec<OwnedSpan> {
    text.split_whitespace()
        .enumerate()
        .map(|(n, one)| {
            let (name, parent) = one.split_once("<-").unwrap_or((one, ""));
            OwnedSpan {
                name: name.to_owned(),
                start: n as u64,
                span_id: name.as_bytes().first().map_or(vec![], |id| vec![*id; 8]),
                parent: parent.as_bytes().first().map_or(vec![], |id| vec![*id; 8]),
                ..OwnedSpan::default()
            }
        })
        .collect()
}

/// The names of the spans that a query answers, in their order.
#[track_caller]
fn found(trace: &str, query: &str, expected: &str) {
    let spans = spans(trace);
    let query = CompiledQuery::new(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    let names = |spans: &[OwnedSpan]| {
        let sets = query.search(&Trace::new(spans));
        let names = sets
            .iter()
            .flat_map(|set| set.spans.iter().map(|s| spans[s.index].name.clone()));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&spans), expected, "{query} on {trace}");
    // The order in which spans come in makes no difference.
    let reversed: Vec<_> = spans.into_iter().rev().collect();
    assert_eq!(names(&reversed), expected, "{query} on {trace} reversed");
}

const TREE: &str = "a b<-a c<-a d<-b e<-b f<-c g<-f";

fn named(names: &str) -> String {
    format!("{{ name =~ \"[{names}]\" }}")
}

#[test]
fn relations() {
    let check = |left: &str, op: &str, right: &str, expected: &str| {
        found(
            TREE,
            &format!("{} {op} {}", named(left), named(right)),
            expected,
        );
    };
    check("a", ">", "a-z", "b c");
    check("bf", ">", "degc", "d e g");
    check("a", ">>", "a-z", "b c d e f g");
    check("c", ">>", "a-z", "f g");
    check("g", "<", "a-z", "f");
    check("g", "<<", "a-z", "a c f");
    check("b", "~", "a-z", "c");
    check("bc", "~", "a-z", "b c");
    check("ag", "~", "a-z", "");
    check("a", "!>", "a-z", "a d e f g");
    check("c", "!>>", "a-z", "a b c d e");
    check("g", "!<", "a-z", "a b c d e g");
    check("g", "!<<", "a-z", "b d e g");
    check("b", "!~", "a-z", "a b d e f g");
    check("z", "!~", "ab", "a b");
    check("a", "&>", "bg", "a b");
    check("ac", "&>>", "gd", "a c d g");
    check("g", "&<", "ac", "");
    check("g", "&<<", "ac", "a c g");
    check("b", "&~", "cf", "b c");
    check("a", "&&", "g", "a g");
    check("a", "&&", "z", "");
    check("a", "||", "z", "a");
}

#[test]
fn numbers_of_the_walk() {
    let check = |trace: &str, text: &str, expected: &str| found(trace, text, expected);
    check(
        TREE,
        "{ nestedSetLeft = 1 && nestedSetRight = 14 && nestedSetParent = -1 }",
        "a",
    );
    check(
        TREE,
        "{ nestedSetLeft = 2 && nestedSetRight = 7 && nestedSetParent = 1 }",
        "b",
    );
    check(
        TREE,
        "{ nestedSetLeft = 9 && nestedSetRight = 12 && nestedSetParent = 8 }",
        "f",
    );
    check(TREE, "{ span:childCount = 2 }", "a b");
    check("a b", "{ nestedSetLeft = 3 && nestedSetParent = -1 }", "b");
    check(
        "a x<-m y<-x",
        "{ nestedSetParent = 0 && nestedSetLeft = 0 }",
        "x y",
    );
}

#[test]
fn below_a_missing_span() {
    let trace = "a b<-a x<-m y<-x z<-y w<-m";
    found(trace, "{ name = \"x\" } > { }", "y");
    found(trace, "{ name = \"x\" } >> { }", "y z");
    found(trace, "{ name = \"z\" } << { }", "x y");
    found(trace, "{ name = \"x\" } ~ { }", "w");
    found(trace, "{ name = \"a\" } >> { }", "b");
    found(trace, "{ name = \"a\" } !>> { }", "a x y z w");
    found(trace, "{ span:childCount = 1 }", "a x y");
    // The trace is named after its root, and without one after the span that starts it.
    found(trace, "{ rootName = \"a\" && name = \"z\" }", "z");
    found("x<-m y<-x", "{ rootName = \"x\" }", "x y");
    found("a b c<-a", "{ rootName = \"b\" }", "a b c");
}

#[test]
fn circles_are_cut_at_their_first_span() {
    let trace = "r a<-c b<-a c<-b d<-c s<-s";
    found(trace, "{ name = \"a\" } >> { }", "b c d");
    found(trace, "{ name = \"c\" } > { }", "d");
    found(trace, "{ name = \"d\" } << { }", "a b c");
    found(trace, "{ } < { }", "a b c");
    found(trace, "{ name = \"a\" } ~ { }", "d");
    found(trace, "{ nestedSetLeft > 0 }", "r");
    found("a<-b b<-a", "{ } > { }", "b");
}

#[test]
fn the_first_of_two_with_one_id_is_the_parent() {
    let trace = "r aa<-r ab<-r c<-a";
    found(trace, "{ name = \"aa\" } > { }", "c");
    found(trace, "{ name = \"ab\" } > { }", "");
    found(trace, "{ name = \"aa\" } ~ { }", "ab");
    found("aa ab<-a", "{ name = \"aa\" } > { }", "ab");
}

#[test]
fn pipelines() {
    found(
        TREE,
        "{ name =~ \"[b-z]\" } | { name != \"g\" }",
        "b c d e f",
    );
    found(TREE, "{ } | count() = 7", "a b c d e f g");
    found(TREE, "{ } | count() > 7", "");
    found(TREE, "{ } | by(nestedSetParent) | count() > 1", "b c d e");
    found(
        TREE,
        "{ } | by(name) | coalesce() | count() = 7",
        "a b c d e f g",
    );
    found(TREE, "({ } | count() > 1) > ({ name = \"b\" })", "b");
    found(TREE, "({ } | by(name)) >> ({ name = \"g\" })", "g");
    found(
        TREE,
        "({ name = \"a\" } | { name = \"b\" }) || ({ name = \"c\" })",
        "c",
    );
    found("", "{ }", "");
}

/// Not the square of the number of spans: that would take minutes.
#[test]
fn large_traces() {
    const SPANS: u64 = 100_000;
    let id = |n: u64| (n + 1).to_be_bytes().to_vec();
    let span = |n: u64, parent: Option<u64>| OwnedSpan {
        name: if n.is_multiple_of(2) { "even" } else { "odd" }.to_owned(),
        start: n,
        span_id: id(n),
        parent: parent.map(id).unwrap_or_default(),
        ..OwnedSpan::default()
    };
    let chain: Vec<_> = (0..SPANS).map(|n| span(n, n.checked_sub(1))).collect();
    let star: Vec<_> = (0..SPANS).map(|n| span(n, (n > 0).then_some(0))).collect();
    let circle: Vec<_> = (0..SPANS).map(|n| span(n, Some((n + 1) % SPANS))).collect();
    let started = Instant::now();
    for spans in [&chain, &star, &circle] {
        let trace = Trace::new(spans);
        for op in [">", ">>", "<", "<<", "~", "!>>", "!~", "&<<", "&>>", "&~"] {
            let text =
                format!("{{ name = \"even\" }} {op} {{ name = \"odd\" }} | by(name) | count() > 0");
            CompiledQuery::new(&text).unwrap().search(&trace);
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(100),
        "{:?}",
        started.elapsed()
    );
}
