//! Whole queries print as text that parses to the same query again.

use proptest::prelude::*;
use proptest::sample::select;
use spanloom_traceql::{MAX_LENGTH, parse_query};

#[track_caller]
fn prints(text: &str, expected: &str) {
    let query = parse_query(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let printed = query.to_string();
    assert_eq!(printed, expected);
    let again = parse_query(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(again, query, "{text} → {printed}");
    assert_eq!(again.to_string(), printed);
}

#[test]
fn printed() {
    prints("{}", "{ }");
    prints("{.a}|{.b}", "{ .a } | { .b }");
    prints("({.a})", "{ .a }");
    prints("{.a}>{.b}>{.c}", "{ .a } > { .b } > { .c }");
    prints("{.a}>({.b}>{.c})", "{ .a } > ({ .b } > { .c })");
    prints("{.a}&&{.b}!~{.c}", "{ .a } && { .b } !~ { .c }");
    prints("({.a}&&{.b})&>>{.c}", "({ .a } && { .b }) &>> { .c }");
    prints("{.a}||({.b}&&{.c})", "{ .a } || ({ .b } && { .c })");
    prints("({.a}|{.b})>({.c})", "({ .a } | { .b }) > ({ .c })");
    prints(
        "(({.a})||({.b}|count()>1))<({.c})",
        "(({ .a }) || ({ .b } | count() > 1)) < ({ .c })",
    );
    prints(
        "{}|by(.a +1)|count()>=2|coalesce()",
        "{ } | by(.a + 1) | count() >= 2 | coalesce()",
    );
    prints("by(span:name)", "by(name)");
    prints("{}|avg((.a))>-1.50", "{ } | avg(.a) > -1.5");
    prints("{}|max(duration)<1500ms", "{ } | max(duration) < 1s500ms");
    prints(
        "{}|select(.a,resource.\"b c\")",
        "{ } | select(.a, resource.\"b c\")",
    );
    prints(
        "{}|1+2*count()^2^3-(4-5)=6",
        "{ } | 1 + 2 * count() ^ 2 ^ 3 - (4 - 5) = 6",
    );
    prints("({}|count())*2>1", "({ } | count()) * 2 > 1");
    prints(
        "{}|rate()by(.a,name)with(sample=true)",
        "{ } | rate() by (.a, name) with (sample=true)",
    );
    prints("({}|rate())", "{ } | rate()");
    prints("{}|rate()>1h|topk(3)", "{ } | rate() > 3600.0 | topk(3)");
    prints("({}|rate())>5|topk(3)", "({ } | rate()) > 5.0 | topk(3)");
    prints("({}|rate()>5)|topk(3)", "({ } | rate() > 5.0) | topk(3)");
    prints(
        "({}|rate())+2*3-(1/({}|rate()))",
        "({ } | rate()) + 6.0 - 1.0 / ({ } | rate())",
    );
    prints("(({}|rate())-1)*-2", "(({ } | rate()) - 1.0) * -2.0");
    prints(
        "{}|quantile_over_time(duration,.5,1)",
        "{ } | quantile_over_time(duration, 0.5, 1.0)",
    );
    prints("{}|compare({.a})", "{ } | compare({ .a }, 10)");
    prints("{}|compare({.a},3,0,0)", "{ } | compare({ .a }, 3)");
    prints("{}|compare({.a},3,4,5)", "{ } | compare({ .a }, 3, 4, 5)");
    prints("{} with(a=1) with(b=-2,c=`x`)", "{ } with (b=-2, c=\"x\")");
}

fn fields() -> impl Strategy<Value = String> {
    const FIELDS: &[&str] = &[
        ".a",
        "span.b",
        "resource.service.name",
        "event.n",
        "link.\"x y\"",
        "instrumentation.z",
        "name",
        "duration",
        "status",
        "trace:duration",
        "nestedSetParent",
        "span:childCount",
        "event:name",
        "parent.a",
    ];
    select(FIELDS).prop_map(str::to_owned)
}

fn expressions() -> impl Strategy<Value = String> {
    const VALUES: &[&str] = &[
        "1", "-2", "2.5", "1h3ms", "true", "\"t\"", "error", "client", "nil", "minInt",
    ];
    const OPERATORS: &[&str] = &[
        "&&", "||", "+", "-", "*", "/", "%", "^", "=", "!=", "<", ">=", "=~", "!~",
    ];
    let leaf = prop_oneof![fields(), select(VALUES).prop_map(str::to_owned)];
    leaf.prop_recursive(4, 16, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(OPERATORS), inner.clone())
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("!{e}")),
            inner.prop_map(|e| format!("- {e}")),
        ]
    })
}

fn spansets() -> impl Strategy<Value = String> {
    const OPERATORS: &[&str] = &[
        "&&", "||", ">", "<", ">>", "<<", "~", "!>", "!<", "!>>", "!<<", "!~", "&>", "&<", "&>>",
        "&<<", "&~",
    ];
    let filter = prop_oneof![
        1 => Just("{}".to_owned()),
        4 => expressions().prop_map(|e| format!("{{{e}}}")),
    ];
    filter.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), select(OPERATORS), inner.clone())
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.prop_map(|e| format!("({e})")),
        ]
    })
}

fn aggregates() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("count()".to_owned()),
        (select(vec!["avg", "min", "max", "sum"]), expressions())
            .prop_map(|(op, e)| format!("{op}({e})")),
    ]
}

fn scalars() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        aggregates(),
        select(vec!["1", "-2", "2.5", "-1s"]).prop_map(str::to_owned)
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (
                inner.clone(),
                select(vec!["+", "-", "*", "/", "%", "^"]),
                inner.clone()
            )
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.prop_map(|e| format!("({e})")),
        ]
    })
}

fn stages() -> impl Strategy<Value = String> {
    let scalar = (scalars(), select(vec!["=", "!=", "<", ">="]), scalars());
    let list = prop::collection::vec(fields(), 1..3).prop_map(|f| f.join(", "));
    prop_oneof![
        3 => spansets(),
        2 => scalar.prop_map(|(l, op, r)| format!("{l} {op} {r}")),
        1 => expressions().prop_map(|e| format!("by({e})")),
        1 => list.prop_map(|f| format!("select({f})")),
        1 => Just("coalesce()".to_owned()),
    ]
}

fn pipelines() -> impl Strategy<Value = String> {
    let stages = (spansets(), prop::collection::vec(stages(), 0..3));
    let plain = stages.prop_map(|(first, rest)| {
        std::iter::once(first)
            .chain(rest)
            .collect::<Vec<_>>()
            .join(" | ")
    });
    plain.prop_recursive(2, 8, 2, |inner| {
        (
            inner.clone(),
            select(vec!["&&", "||", ">>", "!~", "&<"]),
            inner,
        )
            .prop_map(|(l, op, r)| format!("({l}) {op} ({r})"))
    })
}

fn metrics() -> impl Strategy<Value = String> {
    let function = prop_oneof![
        Just("rate()".to_owned()),
        Just("count_over_time()".to_owned()),
        fields().prop_map(|f| format!("sum_over_time({f})")),
        fields().prop_map(|f| format!("histogram_over_time({f})")),
        fields().prop_map(|f| format!("quantile_over_time({f}, 0.5, 1)")),
        expressions().prop_map(|e| format!("compare({{ {e} }}, 5)")),
    ];
    let by = prop::collection::vec(fields(), 0..3);
    let second = prop::collection::vec(
        select(vec![
            " | topk(3)",
            " | bottomk(2)",
            " > 5",
            " != -1.5 * 2",
            " <= 3ms",
        ]),
        0..3,
    );
    let leaf = (spansets(), function, by, second).prop_map(|(spans, function, by, second)| {
        let by = match by.as_slice() {
            [] => String::new(),
            by if !function.starts_with("compare") => format!(" by ({})", by.join(", ")),
            _ => String::new(),
        };
        format!("{spans} | {function}{by}{}", second.concat())
    });
    let leaf = leaf.boxed();
    let wrapped = leaf.clone().prop_map(|leaf| format!("({leaf})"));
    let math = wrapped.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (
                inner.clone(),
                select(vec!["+", "-", "*", "/"]),
                inner.clone()
            )
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            (inner.clone(), select(vec!["+ 1", "* -2.5", "/ (3 - 1)"]))
                .prop_map(|(l, op)| format!("{l} {op}")),
            inner.clone().prop_map(|e| format!("2 - {e}")),
            inner.prop_map(|e| format!("({e})")),
        ]
    });
    prop_oneof![leaf, math]
}

fn queries() -> impl Strategy<Value = String> {
    let hints = select(vec![
        "",
        "",
        " with (sample=0.5)",
        " with (a=true, b=\"c\") with (d=1s)",
    ]);
    (prop_oneof![pipelines(), metrics()], hints).prop_map(|(query, hints)| query + hints)
}

fn survives(text: &str) -> bool {
    let Ok(query) = parse_query(text) else {
        return false;
    };
    let printed = query.to_string();
    match parse_query(&printed) {
        Ok(again) => {
            assert_eq!(again, query, "{text} → {printed}");
            assert_eq!(again.to_string(), printed);
        }
        Err(e) => assert!(printed.len() > MAX_LENGTH, "{text} → {printed}: {e}"),
    }
    let _ = query.check();
    true
}

#[test]
fn any_query_prints_and_parses_again() {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3_000));
    let accepted = std::cell::Cell::new(0);
    let result = runner.run(&queries(), |text| {
        accepted.set(accepted.get() + u32::from(survives(&text)));
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    assert!(
        accepted.get() > 1_500,
        "only {} were queries",
        accepted.get()
    );
}

/// Words of the language in any order.
fn words() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "(",
        ")",
        "|",
        "&&",
        "||",
        ">",
        ">>",
        "!~",
        "&<",
        "+",
        "-",
        "*",
        "^",
        "=",
        ",",
        "{ .a }",
        "{ }",
        "count()",
        "avg(.a)",
        "by",
        "by(name)",
        "coalesce()",
        "select(.a)",
        "rate()",
        "sum_over_time(.a)",
        "compare({ .a })",
        "topk(3)",
        "1",
        "2.5",
        "1s",
        "with (a=1)",
        "nil",
        ".a",
        "name",
        "\"x\"",
    ];
    prop::collection::vec(select(WORDS), 0..16).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_words_are_survived(text in words()) {
        survives(&text);
    }

    #[test]
    fn any_text_is_survived(text in "\\PC*") {
        survives(&text);
        survives(&format!("{{ }} | {text}"));
    }
}
