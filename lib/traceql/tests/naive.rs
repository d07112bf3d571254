//! The evaluator agrees with a second one that takes every operator at its word.

#![allow(clippy::unwrap_used)] // the helpers are tests too

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;

use common::arbitrary::{conditions, filters, numbers, traces};
use common::naive::Naive;
use common::owned::OwnedSpan;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use spanloom_traceql::{Body, Candidates, CompiledQuery, Filter, Trace, parse_query};

/// Spansets as sets of indexes, sorted.
type Sets = Vec<BTreeSet<usize>>;

/// The answers of both as sets of indexes, sorted: nothing where the query is refused.
fn answers(text: &str, spans: &[OwnedSpan]) -> Option<(Sets, Sets)> {
    let query = parse_query(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let Body::Search(pipeline) = &query.body else {
        panic!("{text} is no search");
    };
    let mut expected = Naive::new(spans).search(pipeline);
    let compiled = CompiledQuery::of(query.clone()).ok()?;
    let trace = Trace::new(spans);
    let mut got: Sets = Vec::new();
    for set in compiled.search(&trace) {
        let order: Vec<usize> = set.spans.iter().map(|span| span.index).collect();
        let position = |index: &usize| trace.in_order().position(|i| i == *index);
        assert!(
            order.is_sorted_by_key(position),
            "{text}: spans are in order"
        );
        got.push(order.into_iter().collect());
    }
    if !got.is_empty() {
        let candidates = &compiled.needs().candidates;
        assert!(
            may_match(candidates, spans),
            "{text} matches but for {candidates:?}"
        );
    }
    got.sort();
    expected.sort();
    Some((got, expected))
}

/// Whether the conditions without which a trace cannot match hold.
fn may_match(candidates: &Candidates, spans: &[OwnedSpan]) -> bool {
    match candidates {
        Candidates::All => true,
        Candidates::Exists(expr) => {
            let query = parse_query(&expr.to_string()).unwrap();
            let Body::Search(pipeline) = &query.body else {
                return false;
            };
            !Naive::new(spans).search(pipeline).is_empty()
        }
        Candidates::And(list) => list.iter().all(|c| may_match(c, spans)),
        Candidates::Or(list) => list.iter().any(|c| may_match(c, spans)),
    }
}

/// Both agree on `cases` queries; a fifth of them at least answer something.
#[track_caller]
fn agrees(what: &str, cases: u32, queries: BoxedStrategy<String>) {
    let (tried, filled) = (Cell::new(0u32), Cell::new(0u32));
    // The same cases in each run: how many answer something is not left to chance.
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::with_cases(cases), random);
    let result = runner.run(&(traces(), queries), |(spans, text)| {
        if let Some((got, expected)) = answers(&text, &spans) {
            prop_assert_eq!(&got, &expected, "{}", text);
            tried.set(tried.get() + 1);
            filled.set(filled.get() + u32::from(!got.is_empty()));
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{what}: {e}"));
    let (tried, filled) = (tried.get(), filled.get());
    assert!(
        tried * 2 > cases,
        "{what}: only {tried} of {cases} queries were accepted"
    );
    assert!(
        filled * 5 >= tried,
        "{what}: only {filled} of {tried} queries answered something"
    );
}

const CASES: u32 = 120;

#[test]
fn spanset_operators() {
    for op in [
        "&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>",
        "&<<", "&~",
    ] {
        // Few spans stand in a relation: some filters match all of them.
        let side = || prop_oneof![4 => filters(), 1 => Just("{ }".to_owned())];
        let queries = (side(), side()).prop_map(move |(l, r)| format!("{l} {op} {r}"));
        agrees(op, CASES, queries.boxed());
    }
}

#[test]
fn comparisons() {
    for op in ["=", "!=", "<", "<=", ">", ">="] {
        // Few numbers are equal unless they are few.
        let few = || {
            select(vec![
                ".n",
                ".m",
                "event.n",
                "span:childCount",
                "1",
                "0",
                "duration",
            ])
        };
        let left = prop_oneof![1 => numbers(), 3 => few().prop_map(str::to_owned)];
        let right = prop_oneof![1 => numbers(), 3 => few().prop_map(str::to_owned)];
        let queries = (left, right).prop_map(move |(l, r)| format!("{{ {l} {op} {r} }}"));
        agrees(op, CASES, queries.boxed());
    }
    let texts = || {
        select(vec![
            ".s",
            "name",
            ".zone",
            "event:name",
            ".tags",
            "resource.zone",
        ])
    };
    for op in ["=", "!=", "<", "<=", ">", ">="] {
        let pair = prop_oneof![
            1 => (texts(), select(vec!["x", "a", "b", "e", "p", "r1"])),
            3 => select(vec![(".s", "x"), ("name", "a"), (".zone", "s1"), ("event:name", "e"), (".tags", "p")]),
        ];
        let queries = pair.prop_map(move |(l, r)| format!("{{ {l} {op} \"{r}\" }}"));
        agrees(op, CASES, queries.boxed());
    }
    for op in ["=~", "!~"] {
        let right = select(vec!["x", "a|b|x", ".*", "[p-z].*", "e", "r1"]);
        let queries = (texts(), right).prop_map(move |(l, r)| format!("{{ {l} {op} \"{r}\" }}"));
        agrees(op, CASES, queries.boxed());
    }
}

#[test]
fn arithmetic() {
    for op in ["+", "-", "*", "/", "%", "^"] {
        let operand = || {
            select(vec![
                ".n",
                ".m",
                "event.n",
                "2",
                "0.5",
                "3",
                "span:childCount",
            ])
        };
        let queries = (
            operand(),
            operand(),
            select(vec!["<", ">=", "!=", "<="]),
            -1i64..4,
        )
            .prop_map(move |(l, r, compare, n)| format!("{{ {l} {op} {r} {compare} {n} }}"));
        agrees(op, CASES, queries.boxed());
    }
    let negated = (numbers(), -2i64..3).prop_map(|(e, n)| format!("{{ -({e}) <= {n} }}"));
    agrees("unary -", CASES, negated.boxed());
}

#[test]
fn logic() {
    for op in ["&&", "||"] {
        let queries =
            (conditions(), conditions()).prop_map(move |(l, r)| format!("{{ ({l}) {op} ({r}) }}"));
        agrees(op, CASES * 2, queries.boxed());
    }
    agrees(
        "!",
        CASES,
        conditions().prop_map(|e| format!("{{ !({e}) }}")).boxed(),
    );
    let exists = |op: &'static str| {
        let field = select(vec![
            ".n",
            ".s",
            "event.n",
            "link.n",
            "span.zone",
            "resource.zone",
            ".n / .m",
        ]);
        field
            .prop_map(move |field| format!("{{ {field} {op} nil }}"))
            .boxed()
    };
    agrees("= nil", CASES, exists("="));
    agrees("!= nil", CASES, exists("!="));
}

#[test]
fn stages() {
    for aggregate in ["avg", "min", "max", "sum"] {
        let value = select(vec![
            ".n",
            ".m",
            "duration",
            "event.n",
            "event:timeSinceStart",
            ".n + .m",
            "-.m",
        ]);
        let queries = (
            filters(),
            value,
            select(vec!["<", ">", ">=", "!=", "="]),
            -1i64..3,
        )
            .prop_map(move |(filter, value, op, n)| {
                format!("{filter} | {aggregate}({value}) {op} {n}")
            });
        agrees(aggregate, CASES, queries.boxed());
    }
    let count = (filters(), select(vec!["<", ">", "<=", "=", "!="]), 1i64..5)
        .prop_map(|(filter, op, n)| format!("{filter} | count() {op} {n}"));
    agrees("count", CASES, count.boxed());
    let by = || {
        select(vec![
            "name",
            ".n",
            ".tags",
            "kind",
            "event.n",
            ".zone",
            ".b",
            "span:childCount",
            ".n > 0",
        ])
    };
    let groups = (filters(), by(), filters(), 0i64..3).prop_map(|(filter, by, other, n)| {
        format!("{filter} | by({by}) | {other} | count() > {n}")
    });
    agrees("by", CASES, groups.boxed());
    let coalesce = (filters(), by(), 1i64..4)
        .prop_map(|(filter, by, n)| format!("{filter} | by({by}) | coalesce() | count() >= {n}"));
    agrees("coalesce", CASES, coalesce.boxed());
    let select = (filters(), filters()).prop_map(|(l, r)| format!("{l} | select(.n, name) | {r}"));
    agrees("select", CASES, select.boxed());
}

#[test]
fn everything_together() {
    let op = || {
        select(vec![
            "&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<",
            "&>>", "&<<", "&~",
        ])
    };
    let spansets = filters().prop_recursive(3, 8, 2, move |inner| {
        (inner.clone(), op(), inner).prop_map(|(l, op, r)| format!("({l}) {op} ({r})"))
    });
    let stage = prop_oneof![
        spansets.clone(),
        select(vec![
            "count() > 1",
            "avg(.n) >= 0",
            "max(duration) > 1s",
            "by(name)",
            "by(.n)",
            "coalesce()"
        ])
        .prop_map(str::to_owned),
    ];
    let pipelines =
        (spansets.clone(), prop::collection::vec(stage, 0..3)).prop_map(|(first, rest)| {
            std::iter::once(first)
                .chain(rest)
                .collect::<Vec<_>>()
                .join(" | ")
        });
    let queries = prop_oneof![
        3 => pipelines.clone(),
        1 => (pipelines.clone(), op(), pipelines).prop_map(|(l, op, r)| format!("({l}) {op} ({r})")),
    ];
    agrees("everything", 1_200, queries.boxed());
}

/// A filter on single spans is the filter of a query where nothing asks the trace.
#[test]
fn filters_on_single_spans() {
    let mut runner = TestRunner::new(ProptestConfig::with_cases(1_000));
    let tried = Cell::new(0u32);
    let result = runner.run(&(traces(), conditions()), |(spans, condition)| {
        let text = format!("{{ {condition} }}");
        let Ok(filter) = Filter::parse(&text) else {
            return Ok(());
        };
        tried.set(tried.get() + 1);
        let single: BTreeSet<usize> = (0..spans.len())
            .filter(|i| filter.matches(&spans[*i]))
            .collect();
        let (got, _) = answers(&text, &spans).unwrap();
        prop_assert_eq!(
            single,
            got.into_iter().flatten().collect::<BTreeSet<_>>(),
            "{}",
            text
        );
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    assert!(tried.get() > 300, "only {} were filters", tried.get());
}
