//! What is printed, and that it parses to the same again.

use proptest::prelude::*;
use spanloom_traceql::{MAX_LENGTH, Mode, check, parse};

#[track_caller]
fn prints(text: &str, expected: &str) {
    let expr = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let printed = expr.to_string();
    assert_eq!(printed, expected);
    let again = parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(again, expr, "{text} → {printed}");
    assert_eq!(again.to_string(), printed);
}

#[test]
fn printed() {
    prints("{}", "{ }");
    prints("{true}", "{ }");
    prints("{false}", "{ false }");
    prints("{.a=1}", "{ .a = 1 }");
    prints("{ span:name =`x` }", "{ name = \"x\" }");
    prints("{ trace:duration>1m30s }", "{ traceDuration > 1m30s }");
    prints("{ 90061s > 1.5ms }", "{ 25h1m1s > 1ms500us }");
    prints("{ 0s = 0ns }", "{ 0s = 0s }");
    prints(
        "{ trace:rootService = \"a\" }",
        "{ rootServiceName = \"a\" }",
    );
    prints("{ span:childCount=1 }", "{ span:childCount = 1 }");
    prints("{ nil != .a }", "{ .a != nil }");
    prints("{ .a = nil }", "{ .a = nil }");
    prints("{ .\"a b\".c = 1 }", "{ .\"a b.c\" = 1 }");
    prints("{ span.\"a\" = 1 }", "{ span.a = 1 }");
    prints("{ .\"5\" = .5 }", "{ .\"5\" = 0.5 }");
    prints("{ span.5 = 1 }", "{ span.5 = 1 }");
    prints("{ span.\"\" = 1 }", "{ span.\"\" = 1 }");
    prints("{ span.\"\\\"\\\\\" = 1 }", "{ span.\"\\\"\\\\\" = 1 }");
    prints("{ parent.span.a = 1 }", "{ parent.span.a = 1 }");
    prints("{ parent.\"span.a\" = 1 }", "{ parent.\"span.a\" = 1 }");
    prints("{ (.a && .b) && (.c && .d) }", "{ .a && .b && .c && .d }");
    prints("{ .a || .b && .c }", "{ (.a || .b) && .c }");
    prints("{ .a || (.b && .c) }", "{ .a || (.b && .c) }");
    prints("{ .a = 1 && !(.b = 2) }", "{ .a = 1 && !(.b = 2) }");
    prints("{ !.a = true }", "{ !.a = true }");
    prints("{ !(.a = true) }", "{ !(.a = true) }");
    prints("{ -.a * 2 = 1 }", "{ -(.a * 2) = 1 }");
    prints("{ (-.a) * 2 = 1 }", "{ (-.a) * 2 = 1 }");
    prints("{ -.a + 2 = 1 }", "{ (-.a) + 2 = 1 }");
    prints("{ 1 - 2 - 3 = 4 }", "{ (1 - 2) - 3 = 4 }");
    prints("{ 2 ^ 3 ^ 4 = 1 }", "{ 2 ^ (3 ^ 4) = 1 }");
    prints("{ 1 < 2 = true }", "{ (1 < 2) = true }");
    prints("{ - -1 = 1 }", "{ -(-1) = 1 }");
    prints("{ !!.a }", "{ !(!.a) }");
    prints(
        "{ minInt = -9223372036854775808 }",
        "{ -9223372036854775808 = -9223372036854775808 }",
    );
    prints("{ -minInt = 1 }", "{ --9223372036854775808 = 1 }");
    prints("{ minInt ^ 2 = 1 }", "{ -9223372036854775808 ^ 2 = 1 }");
    prints("{ 1e300 = 1e-7 }", "{ 1e300 = 1e-7 }");
    prints("{ 1. = 1 }", "{ 1.0 = 1 }");
    prints(
        "{ .a = \"x\\n\\\"\\u0007\" }",
        "{ .a = \"x\\n\\\"\\u0007\" }",
    );
    prints(
        "{ kind = server || status = error }",
        "{ kind = server || status = error }",
    );
    prints("{ link:traceID = \"x\" }", "{ link:traceID = \"x\" }");
    prints("{ nil > 1 }", "{ nil > 1 }");
}

#[test]
fn deep_trees_survive() {
    let chain = |op: &str| format!("{{ 1{} = 1 }}", format!(" {op} 1").repeat(98));
    for text in [
        chain("^"),
        chain("-"),
        format!("{{ {}.a }}", "!".repeat(99)),
        format!("{{ .a{} }}", " && .a || .a".repeat(49)),
    ] {
        assert!(parse(&text).is_ok(), "{text}");
        survives(&text);
    }
}

/// Text that is often a filter: words of the language in any order.
fn words() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "(",
        ")",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "^",
        "=",
        "!=",
        "<",
        "<=",
        ">",
        ">=",
        "=~",
        "!~",
        ".a",
        ".b.c",
        "span.a",
        "resource.\"x y\"",
        "event.n",
        "link.m",
        "name",
        "duration",
        "status",
        "kind",
        "trace:id",
        "event:name",
        "rootName",
        "parent.a",
        "1",
        "2.5",
        "1h3ms",
        "true",
        "nil",
        "error",
        "client",
        "\"t\"",
        "`t.*`",
        "minInt",
        "|",
        "5x",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 0..24)
        .prop_map(|words| format!("{{ {} }}", words.join(" ")))
}

/// A filter: values, then operators between them.
fn filters() -> impl Strategy<Value = String> {
    const VALUES: &[&str] = &[
        ".a",
        "span.b",
        "resource.service.name",
        "event.n",
        "1",
        "-2",
        "2.5",
        "1h3ms",
        "true",
        "\"t\"",
        "name",
        "status",
        "error",
        "nil",
        "9223372036854775807",
        "-9223372036854775808",
    ];
    const OPERATORS: &[&str] = &[
        "&&", "||", "+", "-", "*", "/", "%", "^", "=", "!=", "<", ">=", "=~", "!~",
    ];
    let value = prop::sample::select(VALUES).prop_map(str::to_owned);
    let tree = value.prop_recursive(6, 48, 2, |inner| {
        prop_oneof![
            (
                inner.clone(),
                prop::sample::select(OPERATORS),
                inner.clone()
            )
                .prop_map(|(l, op, r)| format!("{l} {op} {r}")),
            inner.clone().prop_map(|e| format!("({e})")),
            inner.clone().prop_map(|e| format!("!{e}")),
            inner.prop_map(|e| format!("- {e}")),
        ]
    });
    tree.prop_map(|e| format!("{{ {e} }}"))
}

fn survives(text: &str) {
    let Ok(expr) = parse(text) else { return };
    let printed = expr.to_string();
    match parse(&printed) {
        Ok(again) => assert_eq!(again, expr, "{text} → {printed}"),
        // Only what was near the limits may grow over them by its parentheses.
        Err(e) => assert!(
            text.len() > 150 || printed.len() > MAX_LENGTH,
            "{printed}: {e}"
        ),
    }
    for mode in [Mode::Span, Mode::Trace] {
        let _ = check(&expr, mode);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_filter_prints_and_parses_again(text in filters()) {
        prop_assert!(parse(&text).is_ok(), "{}", text);
        survives(&text);
    }

    #[test]
    fn any_words_are_survived(text in words()) {
        survives(&text);
    }

    #[test]
    fn any_text_is_survived(text in "\\PC*") {
        survives(&text);
        survives(&format!("{{ {text} }}"));
    }
}
