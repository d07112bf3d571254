//! What a rule set does, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

use spanloom_rules::{
    KeyPattern, Limits, MAX_FILTERS, MAX_KEYS, MAX_VALUES, Place, Problem, Redactor, RuleSet,
    ValuePattern,
};

fn rules(keys: &[&str], values: &[&str]) -> RuleSet {
    RuleSet {
        redact_keys: keys.iter().map(|key| KeyPattern::of(key)).collect(),
        redact_values: values.iter().map(|text| ValuePattern::of(text)).collect(),
        ..RuleSet::default()
    }
}

#[track_caller]
fn redactor(rules: &RuleSet) -> Redactor {
    let rules = rules.compile().unwrap_or_else(|e| panic!("{e}"));
    rules.redactor.unwrap()
}

#[test]
fn keys() {
    let keys = ["password", "*.password", "http.request.header.*", "a*z"];
    let redactor = redactor(&rules(&keys, &[]));
    let check = |key, hides| assert_eq!(redactor.hides_key(key), hides, "{key}");
    check("password", true);
    check("user.password", true);
    check("a.b.password", true);
    check("passwords", false);
    check("user.password.hint", false);
    check("xpassword", false);
    check("http.request.header.cookie", true);
    check("http.request.header", false);
    check("az", true);
    check("a\nz", true);
    check("abz", true);
    check("abzy", false);
    check("", false);
}

#[test]
fn values() {
    let check = |values: &[&str], text: &str, expect: &str| {
        let hidden = redactor(&rules(&[], values)).hidden(text);
        assert_eq!(hidden.as_deref().unwrap_or(text), expect, "{values:?}");
        assert_eq!(hidden.is_some(), text != expect, "{values:?}: {text}");
    };
    let email = ["email"];
    check(&email, "GET /users/ann@example.com/x", "GET /users/***/x");
    check(&email, "a@b.co, c.d+e@f-g.example.org", "***, ***");
    check(&email, "not@an", "not@an");
    check(&email, "", "");
    let card = ["creditCard"];
    check(
        &card,
        "card 4111 1111 1111 1111 declined",
        "card *** declined",
    );
    check(&card, "4111-1111-1111-1112", "4111-1111-1111-1112");
    check(&card, "0000000000000000", "0000000000000000");
    check(&["ipv4"], "from 10.1.2.3:80", "from ***:80");
    check(&["ipv4"], "version 999.1.2.3", "version 999.1.2.3");
    check(&["ipv4"], "999.1.2.3, 10.1.2.3!", "999.1.2.3, ***!");
    check(&["jwt"], "t=eyJhbGci.eyJzdWIi.c2ln!", "t=***!");
    check(&["credentials"], "Bearer abcdefgh1", "***");
    let regex = "(?i)secret-[0-9]+";
    check(&[regex], "x SECRET-12 y secret-3", "x *** y ***");
    check(&["email", regex], "secret-1 a@b.co é", "*** *** é");
    let long = "x".repeat(300);
    check(
        &["email", regex],
        &format!("{long} a@b.co"),
        &format!("{long} ***"),
    );
}

/// Each of these compiles by itself, and once did not with another beside it, or changed it.
#[test]
fn an_expression_means_the_same_beside_others() {
    let check = |values: &[&str], text: &str, expect: &str| {
        let hidden = redactor(&rules(&[], values)).hidden(text);
        assert_eq!(hidden.as_deref().unwrap_or(text), expect, "{values:?}");
    };
    check(
        &["a(?P<id>[0-9])", "b(?P<id>[0-9])"],
        "a1 b2 c3",
        "*** *** c3",
    );
    check(&["(?x) a [0-9] # a comment", "b[0-9]"], "a1 b2", "*** ***");
    check(&["b[0-9]", "(?x) a [0-9] # a comment"], "a1 b2", "*** ***");
    check(&["(?i)a", "(b)"], "A B a b", "*** B *** ***");
    check(&["(?s)a.", "b."], "a\nb\n", "***b\n");
    check(&["x|y", "(z)"], "xyz", "*********");
    // The second sees what the first left.
    check(&["(ab)", "a+"], "ab aab", "*** ******");
}

#[test]
fn no_rules_hide_nothing() {
    assert!(RuleSet::default().compile().unwrap().redactor.is_none());
}

#[track_caller]
fn refused(rules: &RuleSet, expected: &[(Place, &str)]) {
    let errors = rules.compile().expect_err("compiles");
    let found: Vec<_> = errors.0.iter().map(|error| error.place).collect();
    let places: Vec<_> = expected.iter().map(|(place, _)| *place).collect();
    assert_eq!(found, places, "{errors}");
    for (error, (_, text)) in errors.0.iter().zip(expected) {
        assert!(error.problem.to_string().contains(text), "{error}");
    }
    assert_eq!(errors.to_string().lines().count(), 1, "{errors}");
}

#[test]
fn bad_patterns_are_named() {
    let value =
        |text: &str, expect: &str| refused(&rules(&[], &[text]), &[(Place::Value(0), expect)]);
    value("(", "does not compile: error: unclosed group");
    value("(?x) # (\n (", "unclosed group");
    value("emails", "unknown redaction class \"emails\"");
    value("(a{1000}){1000}", "needs more than 1024 KiB");
    for empty in [
        "a*",
        "",
        "()",
        r"\b",
        "^",
        "$",
        "(?m)^|a",
        r"\b{start}",
        "a{0,3}",
    ] {
        value(empty, "matches empty text");
    }
    value(&"(x)".repeat(400), "has 1200 characters, more than 1024");
    let many = rules(&["", "a", "a"], &["email", "(", "email", "iban", "(x)"]);
    refused(
        &many,
        &[
            (Place::Key(0), "the key is empty"),
            (Place::Key(2), "the key \"a\" is given twice"),
            (Place::Value(1), "does not compile"),
            (Place::Value(2), "\"email\" is given twice"),
            (Place::Value(3), "unknown redaction class"),
        ],
    );
    refused(
        &rules(&[&"k".repeat(257)], &[]),
        &[(Place::Key(0), "has 257 characters, more than 256")],
    );
}

#[test]
fn what_is_too_much_together_is_refused_at_the_first_that_is() {
    let expressions: Vec<_> = (0..20).map(|n| format!(r"{n}\w{{20}}x")).collect();
    let all: Vec<_> = expressions.iter().map(String::as_str).collect();
    rules(&[], &all[..1]).compile().expect("fits by itself");
    let errors = rules(&[], &all).compile().unwrap_err();
    let [error] = errors.0.as_slice() else {
        panic!("{errors}");
    };
    assert_eq!(error.problem, Problem::LargeRegexes);
    let Place::Value(first) = error.place else {
        panic!("{error}");
    };
    assert!((2..20).contains(&first), "{error}");
    rules(&[], &all[..first]).compile().expect("these fit");
    rules(&[], &all[..=first])
        .compile()
        .expect_err("these do not");
}

#[test]
fn there_are_bounds() {
    let names = |n: usize| (0..n).map(|n| format!("k{n}*")).collect::<Vec<_>>();
    fn texts(names: &[String]) -> Vec<&str> {
        names.iter().map(String::as_str).collect()
    }
    let keys = names(MAX_KEYS + 1);
    refused(
        &rules(&texts(&keys), &[]),
        &[(Place::Keys, "has 4097 entries, more than 4096")],
    );
    redactor(&rules(&texts(&keys)[1..], &[]));
    let values = names(MAX_VALUES + 1);
    refused(
        &rules(&[], &texts(&values)),
        &[(Place::Values, "has 65 entries, more than 64")],
    );
    redactor(&rules(&[], &texts(&values)[1..]));
    let drop = |drop: Vec<String>| RuleSet {
        drop,
        ..RuleSet::default()
    };
    let filters = |n: usize| (0..n).map(|n| format!("{{ .a = {n} }}")).collect();
    refused(
        &drop(filters(MAX_FILTERS + 1)),
        &[(Place::Filters, "has 65 entries, more than 64")],
    );
    assert_eq!(drop(filters(MAX_FILTERS)).compile().unwrap().drop.len(), 64);
    let regexes = |n: usize| {
        let parts: Vec<_> = (0..n).map(|n| format!(".a =~ `{n}`")).collect();
        format!("{{ {} }}", parts.join(" || "))
    };
    let three = |last| drop(vec![regexes(32), regexes(31), regexes(last)]);
    three(1).compile().expect("64 in all");
    refused(
        &three(2),
        &[(
            Place::Filter(2),
            "have 65 regular expressions, more than 64",
        )],
    );
    refused(
        &drop(vec![format!("{{ .a = \"{}\" }}", "x".repeat(4_096))]),
        &[(Place::Filter(0), "characters, more than 4096")],
    );
    let limits = |limits: Limits| RuleSet {
        limits,
        ..RuleSet::default()
    };
    let default = Limits::default();
    for count in [0, 65_537, usize::MAX] {
        refused(
            &limits(Limits {
                attributes: count,
                events: count,
                links: count,
                ..default
            }),
            &[
                (Place::Limit("attributesPerSpan"), "must be from 1 to 65536"),
                (Place::Limit("eventsPerSpan"), "must be from 1 to 65536"),
                (Place::Limit("linksPerSpan"), "must be from 1 to 65536"),
            ],
        );
    }
    for value_bytes in [0, (16 << 20) + 1] {
        refused(
            &limits(Limits {
                value_bytes,
                ..default
            }),
            &[(Place::Limit("attributeValueBytes"), "from 1 byte to 16Mi")],
        );
    }
}

#[test]
fn filters_on_single_spans_refuse_what_only_a_whole_trace_knows() {
    for field in [
        "trace:duration > 1s",
        "traceDuration > 1s",
        "trace:rootName = `x`",
        "rootName = `x`",
        "trace:rootService = `x`",
        "rootServiceName = `x`",
        "nestedSetLeft = 1",
        "nestedSetRight = 1",
        "nestedSetParent < 0",
        "span:childCount = 0",
        "childCount = 0",
    ] {
        let rules = RuleSet {
            drop: vec![format!("{{ name = `a` && {field} }}")],
            ..RuleSet::default()
        };
        refused(
            &rules,
            &[(
                Place::Filter(0),
                "line 1, column 17: a filter on single spans cannot use properties of the whole \
                 trace",
            )],
        );
    }
}

/// What collectors of earlier versions read and write.
#[test]
fn the_written_form_is_kept() {
    let rules = RuleSet {
        drop: vec!["{ }".to_owned()],
        limits: Limits {
            attributes: 1,
            events: 2,
            links: 3,
            value_bytes: 4,
        },
        ..rules(&["a", "*.b"], &["email", "[0-9]"])
    };
    let text = r#"{"drop":["{ }"],"redact_keys":[{"Exact":"a"},{"Wildcard":"*.b"}],"redact_values":[{"Class":"email"},{"Regex":"[0-9]"}],"limits":{"attributes_per_span":1,"events_per_span":2,"links_per_span":3,"attribute_value_bytes":4}}"#;
    assert_eq!(serde_json::to_string(&rules).unwrap(), text);
    assert_eq!(serde_json::from_str::<RuleSet>(text).unwrap(), rules);
}
