//! Each class hides every valid instance, whatever stands beside it, and little else.

#![allow(clippy::unwrap_used, clippy::expect_used)] // all of this is a test

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use proptest::prelude::*;
use spanloom_rules::{CLASSES, Redactor, RuleSet, ValuePattern};

/// Rules with these classes and expressions, compiled once.
fn redactor(values: &[&str]) -> &'static Redactor {
    static COMPILED: Mutex<BTreeMap<String, &'static Redactor>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.entry(values.join("\n")).or_insert_with(|| {
        let rules = RuleSet {
            redact_values: values.iter().map(|text| ValuePattern::of(text)).collect(),
            ..RuleSet::default()
        };
        Box::leak(Box::new(rules.compile().unwrap().redactor.unwrap()))
    })
}

fn all() -> &'static Redactor {
    redactor(&CLASSES.iter().map(|class| class.name).collect::<Vec<_>>())
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

/// An issuer's prefix and a length of its numbers.
fn card_of(prefix: &str, len: usize, rest: &[u8]) -> String {
    let mut number = prefix.to_owned();
    let missing = len - 1 - prefix.len();
    number.extend(
        rest.iter()
            .take(missing)
            .map(|digit| char::from(b'0' + digit % 10)),
    );
    let valid = |last: &u8| {
        let mut sum = 0;
        for (place, byte) in number.bytes().chain([b'0' + last]).rev().enumerate() {
            let digit = u32::from(byte - b'0') * if place % 2 == 1 { 2 } else { 1 };
            sum += digit / 10 + digit % 10;
        }
        sum % 10 == 0
    };
    let last = (0..10).find(valid).unwrap();
    number.push(char::from(b'0' + last));
    number
}

fn card() -> impl Strategy<Value = String> {
    const CARDS: &[(&str, usize)] = &[
        ("4", 13),
        ("4", 16),
        ("4", 19),
        ("51", 16),
        ("55", 16),
        ("2221", 16),
        ("2720", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("65", 19),
        ("3528", 16),
        ("3589", 19),
        ("305", 14),
        ("36", 14),
        ("62", 17),
        ("5018", 13),
        ("6763", 18),
        ("8171", 16),
        ("2200", 16),
    ];
    let separator =
        prop::sample::select(&["", "", " ", "  ", "-", ".", "\u{a0}", " -", "\u{202f}"][..]);
    let rest = prop::collection::vec(0..10_u8, 20);
    let cuts = prop::collection::vec((separator, prop::bool::ANY), 20);
    (prop::sample::select(CARDS), rest, cuts).prop_map(|((prefix, len), rest, cuts)| {
        let number = card_of(prefix, len, &rest);
        let last = number.len() - 1;
        let pieces = number.chars().zip(cuts).enumerate();
        let written = pieces.map(|(at, (digit, (separator, cut)))| match cut && at < last {
            true => format!("{digit}{separator}"),
            false => digit.to_string(),
        });
        written.collect()
    })
}

/// What may stand beside an instance.
fn neighbour() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "",
        " ",
        "x ",
        "é",
        ", ",
        ": ",
        "\n",
        "(",
        "\"",
        "order 7 ",
        " 12/29",
        " 1229 ",
        "123 ",
        " 01 ",
        "7-x ",
        "{\"a\":\"",
        "\"}",
        "***",
        "|",
        "; ",
        "4 ",
        "=",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 0..3).prop_map(|pieces| pieces.concat())
}

/// Neighbours that leave a digit apart from the instance.
fn apart(before: &str, after: &str) -> (String, String) {
    let before = match before.ends_with(|c: char| c.is_ascii_digit()) {
        true => format!("{before} "),
        false => before.to_owned(),
    };
    let after = match after.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!(" {after}"),
        false => after.to_owned(),
    };
    (before, after)
}

fn email() -> impl Strategy<Value = String> {
    let local = "[a-zA-Z0-9][a-zA-Z0-9._+\\-]{0,8}|jörg|\"a b\"|o'neil|имя";
    let at = prop::sample::select(&["@", "%40", "%2540", "\\u0040", "&#64;"][..]);
    let domain = "([a-z0-9][a-z0-9\\-]{0,6}|exämple|пример)(\\.[a-z0-9]{1,5}){0,2}\\.(com|example|рф|xn--p1ai)";
    (local, at, domain).prop_map(|(local, at, domain)| format!("{local}{at}{domain}"))
}

fn ipv4() -> impl Strategy<Value = String> {
    prop::array::uniform4(prop::num::u8::ANY)
        .prop_map(|parts| parts.map(|part| part.to_string()).join("."))
}

fn credentials() -> impl Strategy<Value = (String, String)> {
    let word = prop::sample::select(&["Bearer", "bearer", "BASIC", "Basic"][..]);
    let blank = prop::sample::select(&[" ", "  ", "%20", "+", "%2520", "\u{a0}"][..]);
    let token = "[A-Za-z0-9._~/\\-]{8,40}={0,2}";
    let scheme = "postgres|https|amqp\\+ssl";
    prop_oneof![
        (word, blank, token)
            .prop_map(|(word, blank, token)| (format!("{word}{blank}{token}"), token)),
        (scheme, "[a-z]{0,5}:[a-zA-Z0-9!$&*+,;=:@%]{3,12}").prop_map(|(scheme, secret)| {
            (format!("{scheme}://{secret}@db.internal:5432/x"), secret)
        }),
        "[a-z]{2,5}%3A[a-zA-Z0-9!$*+,;=]{3,12}"
            .prop_map(|secret| { (format!("to=https%3A%2F%2F{secret}%40db%2Fx"), secret) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_card_is_hidden(
        cards in prop::collection::vec(card(), 1..3),
        before in neighbour(),
        after in neighbour(),
        between in prop::sample::select(&[" ", "  ", ", ", "x", "-", "/"][..]),
    ) {
        let (before, after) = apart(&before, &after);
        let text = format!("{before}{}{after}", cards.join(between));
        let hidden = redactor(&["creditCard"]).hidden(&text).unwrap_or_default();
        for card in cards {
            prop_assert!(!digits(&hidden).contains(&digits(&card)), "{text}: {hidden}");
        }
    }

    #[test]
    fn a_digit_beside_a_card_makes_it_another_number(card in card(), digit in 0..10_u8) {
        let card = digits(&card);
        for text in [format!("{digit}{card}"), format!("{card}{digit}")] {
            let other = redactor(&["creditCard"]).hidden(&text);
            // Unless that is a card itself.
            prop_assert!(other.is_none_or(|hidden| hidden == "***"), "{text}");
        }
    }

    #[test]
    fn every_address_is_hidden(mail in email(), before in neighbour(), after in neighbour()) {
        let text = format!("{before} {mail} {after}");
        let hidden = redactor(&["email"]).hidden(&text).unwrap_or_default();
        prop_assert!(!hidden.contains(&mail), "{text}: {hidden}");
        let (local, _) = mail.split_at(mail.find(['@', '%', '\\', '&']).unwrap());
        prop_assert!(local.len() < 2 || before.contains(local) || after.contains(local)
            || !hidden.contains(local), "{text}: {hidden}");
    }

    #[test]
    fn every_ipv4_address_is_hidden(ip in ipv4(), before in neighbour(), after in neighbour()) {
        let (before, after) = apart(&before, &after);
        let text = format!("{before}{ip}{after}");
        let hidden = redactor(&["ipv4"]).hidden(&text).unwrap_or_default();
        prop_assert!(!hidden.contains(&ip), "{text}: {hidden}");
    }

    #[test]
    fn what_has_another_number_of_parts_is_no_ipv4_address(parts in prop::collection::vec(0..256_u32, 1..9)) {
        let text = parts.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        let hidden = redactor(&["ipv4"]).hidden(&text);
        prop_assert_eq!(hidden.is_some(), parts.len() == 4, "{}", text);
    }

    #[test]
    fn every_token_is_hidden(
        token in "eyJ[A-Za-z0-9_\\-]{1,30}\\.eyJ[A-Za-z0-9_\\-]{1,30}\\.[A-Za-z0-9_\\-]{0,30}",
        before in neighbour(),
        after in neighbour(),
    ) {
        let text = format!("{before}{token} {after}");
        let hidden = redactor(&["jwt"]).hidden(&text).unwrap_or_default();
        prop_assert!(!hidden.contains(&token), "{text}: {hidden}");
    }

    #[test]
    fn all_credentials_are_hidden(
        (text, secret) in credentials(),
        before in neighbour(),
        after in neighbour(),
    ) {
        let text = format!("{before}{text} {after}");
        let hidden = redactor(&["credentials"]).hidden(&text).unwrap_or_default();
        prop_assert!(!hidden.contains(&secret), "{text}: {hidden}");
    }

    /// Classes beside others and beside expressions find what each finds alone.
    #[test]
    fn rules_do_not_hinder_each_other(
        pieces in prop::collection::vec(prop_oneof![
            card(), email(), ipv4(), neighbour(), credentials().prop_map(|(text, _)| text), ".*",
        ], 0..4),
    ) {
        let text = pieces.concat();
        for class in CLASSES {
            let hidden = redactor(&[class.name]).hidden(&text);
            let beside = redactor(&["(never\u{1}there)", class.name, "(nor\u{1}here)"]);
            prop_assert_eq!(&hidden, &beside.hidden(&text), "{}", class.name);
            prop_assert!(hidden.is_none() || all().hidden(&text).is_some(), "{}", class.name);
        }
    }
}

#[test]
fn cases_from_the_field() {
    let check = |text: &str, expect: &str| {
        let hidden = all().hidden(text);
        assert_eq!(hidden.as_deref().unwrap_or(text), expect);
    };
    check("4111111111111111 12/29", "*** 12/29");
    check("4111 1111 1111 1111 12/29", "*** 12/29");
    check("order 7 4111111111111111", "order 7 ***");
    check("4111111111111111-01", "***-01");
    check("4111111111111111 5555555555554444", "*** ***");
    check("4111\u{a0}1111\u{a0}1111\u{a0}1111", "***");
    check("3782 822463 10005", "***");
    check(
        "{\"pan\":\"4111111111111111\",\"exp\":\"1229\"}",
        "{\"pan\":\"***\",\"exp\":\"1229\"}",
    );
    check("q=ann%40example.com&x=1", "q=***&x=1");
    check("mail to (ann@exämple.de)", "mail to (***)");
    check("Bearer%20abcdefgh12345", "***");
    check("postgres://u:hunter2@db/x", "postgres://***@db/x");
    check(
        "{\"url\":\"http://shop\",\"to\":\"ann at b\"}",
        "{\"url\":\"http://shop\",\"to\":\"ann at b\"}",
    );
    check("client 10.1.2.3, 10.4.5.6.", "client ***, ***.");
    check("v1.2.3.4.5 and 300.1.2.3", "v1.2.3.4.5 and 300.1.2.3");
}

/// Numbers from a generator that gives the same ones each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % bound
    }
}

#[test]
fn little_else_is_hidden() {
    const COUNT: u64 = 20_000;
    let redactor = all();
    let mut numbers = Numbers(7);
    let mut check = |what: &str, make: &mut dyn FnMut(&mut Numbers) -> String| {
        let hidden = (0..COUNT).filter(|_| redactor.hidden(&make(&mut numbers)).is_some());
        let hidden = hidden.count() as u64;
        assert!(hidden * 1000 <= COUNT, "{what}: {hidden} of {COUNT}");
    };
    check("snowflakes since 2020", &mut |numbers| {
        let (epoch, from) = (1_288_834_974_657_u64, 1_577_836_800_000_u64);
        let time = from - epoch + numbers.below(400_000_000_000);
        ((time << 22) | numbers.below(1 << 22)).to_string()
    });
    check("order numbers", &mut |numbers| {
        let digits = 1 + numbers.below(12) as u32;
        format!("order {}", numbers.below(10_u64.pow(digits)))
    });
    check("nanoseconds of today", &mut |numbers| {
        (1_790_000_000_000_000_000 + numbers.below(10_000_000_000_000_000)).to_string()
    });
    check("microseconds and milliseconds", &mut |numbers| {
        let micros = 1_790_000_000_000_000 + numbers.below(10_000_000_000_000);
        match numbers.below(2) {
            0 => micros.to_string(),
            _ => (micros / 1000).to_string(),
        }
    });
    check("versions", &mut |numbers| {
        let mut part = || numbers.below(300);
        match part() % 4 {
            0 => format!("v{}.{}.{}", part(), part(), part()),
            1 => format!("{}.{}.{}-rc.{}", part(), part(), part(), part()),
            2 => format!("{}.{}.{}.{}.{}", part(), part(), part(), part(), part()),
            _ => format!("Chrome/{}.0.{}.{}", part(), 1000 + part(), part()),
        }
    });
    check("dates and times", &mut |numbers| {
        let mut two = |bound| numbers.below(bound) + 1;
        format!(
            "2026-{:02}-{:02} {:02}.{:02}.{:02}.{:06}",
            two(12),
            two(28),
            two(23),
            two(59),
            two(59),
            two(999_999)
        )
    });
}
