//! Rule sets made at random.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

use proptest::prelude::*;
use spanloom_rules::{RuleSet, ValuePattern};

/// Expressions of pieces that once changed, or broke, the expressions beside them.
fn expression() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "a",
        "b+",
        "[0-9]",
        "(?P<id>a)",
        "(?<id>b)",
        "(c)",
        "(?i)",
        "(?x)",
        "(?s-u)",
        "(?m)^",
        "# note",
        "\n",
        " ",
        "|",
        "(?:a|b)",
        ".",
        r"\w{2}",
        r"\b",
        "x{1,3}",
        "[a",
        "(",
        ")",
        r"\",
        "é",
        "(?-x)",
        "(?x: a # b\n)",
        "$",
        "*",
        "***",
    ];
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(PIECES), 1..5).prop_map(|p| p.concat()),
        1 => prop::sample::select(&["email", "ipv4", "creditCard", "jwt", "credentials"][..])
            .prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "a",
        "A",
        "b",
        "bb",
        "c",
        "x",
        "1",
        "22",
        " ",
        "\n",
        "é",
        "# note",
        "***",
        "a@b.co",
        "10.0.0.1",
        "4111 1111 1111 1111",
        "Bearer abcdefgh",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|p| p.concat())
}

fn set(values: &[ValuePattern]) -> RuleSet {
    RuleSet {
        redact_values: values.to_vec(),
        ..RuleSet::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// What compiles alone compiles together, and hides what the rules hide one after the other.
    #[test]
    fn a_set_is_its_rules_one_by_one(
        expressions in prop::collection::btree_set(expression(), 0..6),
        texts in prop::collection::vec(text(), 1..6),
    ) {
        let mut alone = Vec::new();
        let mut good = Vec::new();
        for expression in &expressions {
            let pattern = ValuePattern::of(expression);
            if let Ok(rules) = set(std::slice::from_ref(&pattern)).compile() {
                alone.push(rules.redactor.unwrap());
                good.push(pattern);
            }
        }
        let all: Vec<_> = expressions.iter().map(|text| ValuePattern::of(text)).collect();
        prop_assert_eq!(set(&all).compile().is_ok(), good.len() == all.len());
        let together = set(&good).compile();
        prop_assert!(together.is_ok(), "{:?}: {:?}", good, together.err());
        let together = together.unwrap().redactor;
        for text in &texts {
            let mut one_by_one = text.clone();
            for redactor in &alone {
                one_by_one = redactor.hidden(&one_by_one).map_or(one_by_one, String::from);
            }
            let hidden = together.as_ref().and_then(|redactor| redactor.hidden(text).map(String::from));
            prop_assert_eq!(hidden.unwrap_or(text.clone()), one_by_one, "{:?}", good);
        }
    }

    /// No rule hides the empty text between characters: something is always taken for it.
    #[test]
    fn what_is_hidden_was_there(expression in expression(), text in text()) {
        if let Ok(rules) = set(&[ValuePattern::of(&expression)]).compile() {
            let hidden = rules.redactor.unwrap().hidden(&text).map_or(text.clone(), String::from);
            let stars = hidden.matches("***").count();
            prop_assert!(stars <= text.chars().count(), "{}: {}", expression, hidden);
        }
    }
}
