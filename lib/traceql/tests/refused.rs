//! What is refused, and what the error says.

#![allow(clippy::expect_used)] // the helpers are tests too

use spanloom_traceql::{ErrorKind, Filter, MAX_LENGTH, Mode, check, parse};

/// The error's text holds each of `parts`, and is one line.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = Filter::parse(text).expect_err(text).to_string();
    for part in parts {
        assert!(error.contains(part), "{text}: {part:?} is not in: {error}");
    }
    assert!(!error.contains('\n'), "{text}: {error}");
}

#[test]
fn syntax() {
    let at = |text: &str, column: u32, part: &str| {
        refused(text, &[&format!("line 1, column {column}: "), part]);
    };
    at("", 1, "expected `{`, found the end");
    at("foo", 1, "expected `{`, found `foo`");
    at("{ .a == 1 }", 7, "a single =");
    at(
        "{ .a = 1 ",
        10,
        "expected an operator or `}`, found the end",
    );
    at("{ .a = 1 }}", 11, "expected the end, found `}`");
    at("{ .a = }", 8, "expected a value, found `}`");
    at("{ .a 1 }", 6, "expected an operator or `}`, found `1`");
    at("{ = 1 }", 3, "expected a value");
    at("{ (.a = 1 }", 11, "expected an operator or `)`");
    at("{ .a = 1) }", 9, "expected an operator or `}`, found `)`");
    at("{ status = failed }", 12, "strings need quotes: \"failed\"");
    at("{ service.name = \"x\" }", 3, "resource.service");
    at("{ .a = 1 and .b = 2 }", 10, "\"and\" is written &&");
    at("{ .a = 1 or .b = 2 }", 10, "\"or\" is written ||");
    at("{ .a = 1 & .b = 2 }", 10, "\"and\" is written &&");
    at("{ .a = 1 | .b = 2 }", 10, "\"or\" is written ||");
    at("{ span:nope = 1 }", 8, "known here: span:name, span:status");
    at("{ foo:id = 1 }", 3, "span:, trace:, event:");
    at("{ span: id = 1 }", 8, "expected an intrinsic");
    at(
        "{ . = 1 }",
        4,
        "expected the key of an attribute, found ` `",
    );
    at("{ span. = 1 }", 8, "expected the key of an attribute");
    at("{ span.", 8, "found the end");
    at("{ .a = 'x' }", 8, "double quotes");
    at("{ .a = \"x }", 8, "a double quote at the end");
    at("{ .a = `x }", 8, "a backquote at the end");
    at("{ .a = \"\\q\" }", 9, "escapes");
    at("{ .a = \"\\u12\" }", 9, "escapes");
    at("{ .a = \"\\ud800\" }", 9, "escapes");
    at("{ .a = \"\\xff\" }", 8, "valid UTF-8");
    at("{ .a = \"x\ny\" }", 10, "before the end of the line");
    at(
        "{ span.\"a = 1 }",
        8,
        "a double quote at the end of this key",
    );
    at("{ span.\"a\\n\" = 1 }", 10, "quoted key");
    at("{ .a = 5x }", 9, "a unit of duration");
    at("{ .a = 1h5 }", 11, "a unit of duration");
    at("{ .a = 300y }", 8, "below 292 years");
    at("{ .a = 9223372036854775808 }", 8, "fits 64 bits");
    at("{ .a = 99999999999999999999 }", 8, "fits 64 bits");
    at("{ .a = 1e999 }", 8, "fits 64 bits");
    at("{ żółć = 1 }", 3, "`żółć`");
    at("{ \"żółć\" == 1 }", 11, "single =");
    at("{ nil }", 3, "nil can only be compared");
    at("{ .a > nil }", 8, "nil can only be compared");
    at("{ .a + nil = 1 }", 8, "nil can only be compared");
    at("{ nil = nil }", 3, "nil can only be compared");
    at("{ .a = 1 /* b }", 10, "expected `*/`");
    refused("{\n  .a = 1 &&\n  .b == 2\n}", &["line 3, column 7: "]);
}

#[test]
fn one_filter_only() {
    let only = |text: &str, column: u32| {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.kind, ErrorKind::Unsupported, "{text}: {error}");
        assert_eq!(error.at.column, column, "{text}: {error}");
        assert!(
            error
                .to_string()
                .contains("only one spanset filter is supported here")
        );
    };
    only("{ } | count() > 1", 5);
    only("{ } | rate()", 5);
    only("{ } > { }", 5);
    only("{ } >> { }", 5);
    only("{ } << { }", 5);
    only("{ } ~ { }", 5);
    only("{ } && { }", 5);
    only("{ } || { }", 5);
    only("{ } !>> { }", 5);
    only("{ } &>> { }", 5);
    only("{ } { }", 5);
    only("{ } with (most_recent=true)", 5);
    only("({ })", 1);
}

#[test]
fn types() {
    let at = |text: &str, column: u32, part: &str| {
        refused(text, &[&format!("line 1, column {column}: "), part]);
        assert_eq!(
            Filter::parse(text).unwrap_err().kind,
            ErrorKind::Type,
            "{text}"
        );
    };
    at("{ duration = \"1s\" }", 12, "are written without quotes");
    at("{ kind = \"server\" }", 8, "are written without quotes");
    at("{ status = \"error\" }", 10, "are written without quotes");
    at("{ status = server }", 10, "a status and a kind");
    at("{ name > 3 }", 8, "strings are written in quotes");
    at("{ name = 3 }", 8, "strings are written in quotes");
    at("{ .a && 1 }", 9, "`&&` takes booleans");
    at("{ .a || \"x\" }", 9, "`||` takes booleans");
    at("{ !name }", 4, "`!` takes booleans");
    at("{ -\"x\" = 1 }", 4, "`-` takes numbers");
    at("{ -name = 1 }", 4, "`-` takes numbers");
    at("{ .a + \"x\" = 1 }", 8, "`+` takes numbers");
    at("{ true + 1 = 1 }", 3, "`+` takes numbers");
    at("{ .a =~ 1 }", 9, "`=~` takes strings");
    at("{ duration =~ \"x\" }", 3, "`=~` takes strings");
    at("{ .a =~ .b }", 9, "a regular expression in quotes");
    at("{ status > ok }", 10, "`>` takes numbers");
    at("{ kind < client }", 8, "`<` takes numbers");
    at("{ .a >= true }", 6, "`>=` takes numbers");
    at("{ 1 }", 3, "a filter must be a boolean");
    at("{ \"x\" }", 3, "a filter must be a boolean");
    at("{ name }", 3, "a filter must be a boolean");
    at("{ .a + 1 }", 6, "a filter must be a boolean");
    at("{ 1 = nil }", 3, "only a field can be nil");
    at("{ name = nil }", 3, "this is never nil");
    at("{ nil = status }", 9, "this is never nil");
    at("{ resource.service.name = nil }", 3, "this is never nil");
}

#[test]
fn whole_trace() {
    let whole = |text: &str, column: u32| {
        let error = Filter::parse(text).expect_err(text);
        assert_eq!(error.kind, ErrorKind::WholeTrace, "{text}: {error}");
        assert_eq!(error.at.column, column, "{text}: {error}");
        check(&parse(text).unwrap(), Mode::Trace).expect("a search may ask it");
    };
    whole("{ trace:duration > 1s }", 3);
    whole("{ traceDuration > 1s }", 3);
    whole("{ kind = server && trace:rootName = \"x\" }", 20);
    whole("{ rootName != nil }", 3);
    whole("{ trace:rootService = \"x\" }", 3);
    whole("{ rootServiceName =~ \"x\" }", 3);
    whole("{ nestedSetLeft = 1 }", 3);
    whole("{ nestedSetRight = 1 }", 3);
    whole("{ nestedSetParent < 0 }", 3);
    whole("{ span:childCount = 3 }", 3);
    whole("{ !(1 + childCount = 3) }", 9);
}

#[test]
fn parent_scope() {
    for text in [
        "{ parent.a = 1 }",
        "{ parent.span.a = 1 }",
        "{ parent.resource.a = 1 }",
        "{ parent = 1 }",
    ] {
        refused(
            text,
            &["line 1, column 3: fields of the parent span are not supported"],
        );
        let kind = check(&parse(text).unwrap(), Mode::Trace).unwrap_err().kind;
        assert_eq!(kind, ErrorKind::Unsupported);
    }
}

#[test]
fn regexes() {
    let wrong = |text: &str, part: &str| {
        refused(text, &[part]);
        assert_eq!(
            Filter::parse(text).unwrap_err().kind,
            ErrorKind::Regex,
            "{text}"
        );
    };
    wrong("{ .a =~ \"(\" }", "unclosed group");
    wrong("{ .a !~ \"a)(b\" }", "unopened group");
    wrong("{ .a =~ \"[\" }", "unclosed character class");
    wrong("{ .a =~ `(a{1000}){1000}` }", "it needs more than 512 KiB");
    let many = vec![".a =~ \"x\""; 65].join(" || ");
    refused(
        &format!("{{ {many} }}"),
        &["at most 64 regular expressions"],
    );
}

#[test]
fn sizes() {
    let deep = |n: usize| format!("{{ {}.a{} }}", "(".repeat(n), " )".repeat(n));
    Filter::parse(&deep(90)).expect("90 levels");
    refused(&deep(202), &["at most 100 levels deep"]);
    refused(&deep(20_000), &["at most 100 levels deep"]);
    refused(&deep(100_000), &["at most 131072 bytes"]);
    refused(
        &format!("{{ {}.a }}", "!".repeat(60_000)),
        &["at most 100 levels deep"],
    );
    refused(
        &format!("{{ {}.a = 1 }}", "- ".repeat(30_000)),
        &["at most 100 levels deep"],
    );
    refused(
        &format!("{{ 1{} = 1 }}", " ^ 1".repeat(15_000)),
        &["at most 100 levels deep"],
    );
    refused(
        &format!("{{ 1{} = 1 }}", "+1".repeat(30_000)),
        &["at most 100 levels deep"],
    );
    refused(
        &format!("{{ .a{} }}", " && .a || .a".repeat(100)),
        &["at most 100 levels deep"],
    );
    let long = format!("{{ .a = 0{} }}", " || .a = 1".repeat(6_000));
    assert!(long.len() < MAX_LENGTH);
    Filter::parse(&long).expect("a long chain is one level");
    refused(
        &"x".repeat(MAX_LENGTH + 1),
        &["at most 131072 bytes, found 131073 bytes"],
    );
    refused(&format!("{{ .a = 1 {} }}", "x".repeat(60_000)), &["…"]);
    refused(
        "{ event.a + event.b + link.c = 1 }",
        &["line 1, column 23: a comparison has at most 2 fields of events and links"],
    );
}
