//! Which queries are accepted, and what is said of the others.

use spanloom_traceql::{Verdict, parse_query};

/// The verdict on each line of `text`.
#[track_caller]
fn all(text: &str, expected: Option<Verdict>) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let result = parse_query(line).and_then(|query| query.check());
        let verdict = result.as_ref().err().map(|e| e.verdict());
        assert_eq!(verdict, expected, "{line}: {result:?}");
    }
}

#[test]
fn accepted() {
    all(
        r#"
        { }
        {}|{.b}|{.c}
        { .a } && { .b } || { .c }
        { .a } > { .b } >> { .c } ~ { .d }
        { .a } < { .b } << { .c }
        { .a } !> { .b } !< { .c } !>> { .d } !<< { .e } !~ { .f }
        { .a } &> { .b } &< { .c } &>> { .d } &<< { .e } &~ { .f }
        ({ .a } &>> { .b }) || ({ .a }) | select(status, name, nestedSetLeft)
        ({ .a } | count() > 2) >> ({ .b } | by(name))
        (({ .a } | { .b }) && ({ .c } | select(.d))) || ({ .e } | coalesce())
        { .a } | by(.b + 1) | avg(duration) > 1s | coalesce() | select(.c, resource."x y")
        by(name)
        count() != 0
        { } | sum(1 + .a * 2) <= -5
        { } | max(event:timeSinceStart) < 1h
        { 1 = nil || nil != "x" || (.a = 1) = nil }
        "#,
        None,
    );
    all(
        r#"
        { } | rate()
        {}|rate()by(.a,span.b,name,kind,status)
        { } | min_over_time(.a) by (name) with (exemplars = false)
        { } | histogram_over_time(span.size) > 1 | topk(3) = 5 | bottomk(1)
        { } | quantile_over_time(duration, .5, 0.99, 1)
        { .a } >> { .b } | count_over_time()
        { } | by(name) | count() > 2 | rate()
        { } | compare({ status = error })
        { } | compare({ status = error }, 5, 100, 200)
        { } | compare({ .a }, 5, 0, 0)
        ({ } | rate())
        (({ } | rate()) - 2 * 3) / (-1.5 + 1 + ({ } | rate() > 1s)) >= -1 | topk(1)
        2 - ({ } | rate()) with (sample = 0.1, most_recent = true) with (x = "y", z = 5ms)
        "#,
        None,
    );
}

#[test]
fn no_traceql() {
    all(
        r#"
        { } |
        | { }
        { } { }
        ({ .a }
        { .a } & { .b }
        { .a } && .b
        { .a } = { .b }
        { .a } + { .b }
        ({ .a } | count() > 1) > { .b }
        ({ .a } | count() > 1) > ({ .b }) | { .c }
        { } | count()
        { } | count() + 1
        { } | count(1) > 1
        { } | sum() > 1
        { } | sum(.a, .b) > 1
        { } | count() > 1 > 2
        { } | count() > { }
        { } | count() > "x"
        { } | count() =~ 1
        { } | by()
        { } | by(.a, .b)
        { } | coalesce(.a)
        { } | select(.a + 1)
        { } | select(.a,)
        coalesce()
        { } | rate
        rate()
        { } | rate(.a)
        { } | rate() by
        { } | rate() by (1)
        { } | rate() | rate()
        { } | rate() | { .a }
        { } | rate() + 1
        { } | sum_over_time()
        { } | sum_over_time(.a + 1)
        { } | sum_over_time(1)
        { } | quantile_over_time(duration)
        { } | quantile_over_time(duration, -1)
        { } | quantile_over_time(duration, 1s)
        { } | compare(.a)
        { } | compare({ .a }, 1, 2)
        { } | compare({ .a }, 1.5)
        { } | rate() | topk()
        { } | rate() | topk(1.5)
        { } | rate() | topk(-1)
        ({ } | rate()) ^ 2
        ({ } | rate()) + 1s
        ({ } | rate()) + 1 / 0
        ({ } | rate()) + count()
        (({ } | rate()) > 5) + 1
        5 > ({ } | rate())
        1 + 2
        { } with
        { } with ()
        { } with (a)
        { } with (a = .b)
        { } with (1 = 2)
        { childCount = 1 }
        { .a =~ nil }
        { .a = 1.5d }
        { .a = 1h1d }
        { .a = 1 } /* no end
        "#,
        Some(Verdict::ParseError),
    );
}

#[test]
fn not_meant() {
    all(
        r#"
        { .a } && { name }
        ({ 1 } | count() > 1)
        { } | by("x")
        { } | sum(name) > 1
        { } | avg(3) > 1
        { } | max(status) > 1
        { } | count() > 1 | { 1 + 1 }
        { } | rate() | topk(0)
        ({ } | rate() | bottomk(0)) + 1
        { } | quantile_over_time(duration, 1.5)
        { } | sum_over_time(name)
        { } | compare({ 1 })
        { } | compare({ .a }, 0)
        { } | compare({ .a }, 1, 2, 1)
        { } | compare({ .a }, 1, 0, 1)
        { } | compare({ .a }) > 1
        ({ } | compare({ .a })) * 2
        ({ } | compare({ .a }) | topk(1))
        { rootName = nil }
        { .a =~ "(" }
        "#,
        Some(Verdict::Invalid),
    );
}

#[test]
fn not_supported() {
    all(
        r#"
        { parent.a = 1 }
        { } | by(parent.a)
        { } | select(parent.span.a)
        { } | avg(parent.a) > 1
        { } | rate() by (parent.a)
        { } | sum_over_time(parent.a)
        { } | count() > count()
        { } | count() * 2 > 1
        { } | 2 < count()
        { } | count() > 1 + 1
        3 = 2
        ({ } | count()) > 2
        ({ } | count()) + ({ .a } | sum(.b)) > 2 * ({ } | count())
        { } | rate() by (.a, .b, .c, .d, .e, .f)
        { } | avg_over_time(.x) by (.a, .b, .c, .d, .e)
        { } | histogram_over_time(.x) by (.a, .b, .c, .d, .e)
        "#,
        Some(Verdict::Unsupported),
    );
}

#[test]
fn errors_say_where() {
    let at = |text: &str, line: u32, column: u32, part: &str| {
        let error = parse_query(text).and_then(|query| query.check());
        let error = error.expect_err(text);
        assert_eq!((error.at.line, error.at.column), (line, column), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    };
    at("foo", 1, 1, "expected `{`, `(` or a stage");
    at("{ } | count()", 1, 14, "expected a comparison");
    at("{ } |\n  topk(3)", 2, 3, "expected `{`, `(` or a stage");
    at("{ } | rate() by ()", 1, 18, "an attribute or an intrinsic");
    at("{ .a } >\n\n", 3, 1, "found the end");
    at("{ .a } > 5", 1, 10, "fits the operator");
    at("{ .a } = { .b }", 1, 8, "another operator");
    at("{ } | rate() == 5", 1, 15, "expected");
    at("{ } | sum(name) > 1", 1, 11, "which is a string");
    at("({ .a } | { .b }) && { .c }", 1, 22, "parentheses too");
    at("{ } | rate() by (name, parent.x)", 1, 24, "not supported");
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [
        ("(", ")"),
        ("({ } | ", ")"),
        ("({ } > ", ")"),
        ("-", ""),
        ("({ } | count() + ", ")"),
        ("1 ^ ", ""),
    ] {
        for (levels, inner) in [
            (30, "{ .a }"),
            (99, "{ .a }"),
            (3_000, "{ .a }"),
            (10_000, "1"),
        ] {
            let text = format!("{}{inner}{}", open.repeat(levels), close.repeat(levels));
            let Ok(query) = parse_query(&text) else {
                continue;
            };
            let printed = query.to_string();
            let again = parse_query(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
            assert_eq!(again, query);
            let _ = query.check();
        }
    }
    let chain = |n: usize| format!("{{ .a }}{}", " > { .b }".repeat(n));
    let deep = parse_query(&chain(99)).expect("as deep as filters");
    parse_query(&deep.to_string()).expect("its text nests no deeper");
    assert!(parse_query(&chain(100)).is_err());
    assert!(parse_query(&chain(10_000)).is_err());
    let stages = vec!["{ .a }"; 10_000].join(" | ");
    parse_query(&stages).expect("stages are a list");
}

#[test]
fn hints_of_queries() {
    let hint = |query: &str| {
        let checked = parse_query(query).and_then(|query| query.check());
        let hint = checked.err().and_then(|error| error.hint);
        hint.unwrap_or_else(|| panic!("{query} has no hint"))
    };
    assert!(hint("{ } | topk(3)").contains("| rate() | topk(3)"));
    assert!(hint("{ parent.x = 1 }").contains("{ span.a = 1 } > { span.b = 2 }"));
}
