//! Redaction: values of known keys, and text that looks like something to hide.
//!
//! Keys and values repeat from span to span, so what was decided about one is remembered per
//! worker.

use std::borrow::Cow;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use regex::{Captures, Regex};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::rules::{ProcessingError, Redaction, ValueClass, ValuePattern};

/// What stands where something was hidden.
pub(crate) const HIDDEN: &str = "***";

/// Redaction rules, compiled.
#[derive(Debug)]
pub(crate) struct Redactor {
    exact: HashSet<Box<str>, RandomState>,
    wildcards: Vec<Regex>,
    values: Vec<ValueRule>,
    /// Matches whatever one of `values` matches: most text needs no more than this.
    any_value: Option<Regex>,
}

#[derive(Debug)]
struct ValueRule {
    regex: Regex,
    /// A further check of what matched.
    valid: fn(&str) -> bool,
}

impl Redactor {
    /// `None` when there are no rules.
    pub(crate) fn compile(rules: &[Redaction]) -> Result<Option<Self>, ProcessingError> {
        let mut redactor = Self {
            exact: HashSet::default(),
            wildcards: Vec::new(),
            values: Vec::new(),
            any_value: None,
        };
        let mut sources = Vec::new();
        for rule in rules {
            match rule {
                Redaction::Keys(keys) => keys.iter().try_for_each(|key| redactor.key(key))?,
                Redaction::Values(pattern) => {
                    let (source, valid) = source(pattern);
                    let regex = compile(source)?;
                    if regex.is_match("") {
                        return Err(ProcessingError::MatchesEmpty(source.to_owned()));
                    }
                    redactor.values.push(ValueRule { regex, valid });
                    sources.push(format!("(?:{source})"));
                }
            }
        }
        match sources.as_slice() {
            [] => {}
            [_] => redactor.any_value = redactor.values.first().map(|rule| rule.regex.clone()),
            _ => redactor.any_value = Some(compile(&sources.join("|"))?),
        }
        let none = redactor.exact.is_empty()
            && redactor.wildcards.is_empty()
            && redactor.values.is_empty();
        Ok((!none).then_some(redactor))
    }

    fn key(&mut self, key: &str) -> Result<(), ProcessingError> {
        if key.contains('*') {
            let parts: Vec<_> = key.split('*').map(regex::escape).collect();
            self.wildcards
                .push(compile(&format!("(?s)^{}$", parts.join(".*")))?);
        } else {
            self.exact.insert(key.into());
        }
        Ok(())
    }

    fn decide_key(&self, key: &str) -> bool {
        self.exact.contains(key) || self.wildcards.iter().any(|pattern| pattern.is_match(key))
    }

    /// The text with everything hidden that a rule matches; `None` if that is nothing.
    fn decide_value(&self, text: &str) -> Option<String> {
        if !self.any_value.as_ref()?.is_match(text) {
            return None;
        }
        let mut changed = None;
        for rule in &self.values {
            let before = changed.as_deref().unwrap_or(text);
            let hide = |found: &Captures<'_>| match found.get(0).map_or("", |m| m.as_str()) {
                found if (rule.valid)(found) => HIDDEN.to_owned(),
                other => other.to_owned(),
            };
            if let Cow::Owned(after) = rule.regex.replace_all(before, hide)
                && after != before
            {
                changed = Some(after);
            }
        }
        changed
    }
}

fn compile(pattern: &str) -> Result<Regex, ProcessingError> {
    Regex::new(pattern).map_err(|error| ProcessingError::Regex {
        pattern: pattern.to_owned(),
        error: Box::new(error),
    })
}

fn source(pattern: &ValuePattern) -> (&str, fn(&str) -> bool) {
    match pattern {
        ValuePattern::Regex(source) => (source, |_| true),
        ValuePattern::Class(ValueClass::Email) => (
            r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9][A-Za-z0-9\-]*(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}",
            |_| true,
        ),
        ValuePattern::Class(ValueClass::CreditCard) => (r"[0-9](?:[ \-]?[0-9]){12,18}", luhn),
        ValuePattern::Class(ValueClass::Ipv4) => (r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}", ipv4),
        ValuePattern::Class(ValueClass::Jwt) => (
            r"eyJ[A-Za-z0-9_\-]+\.eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
            |_| true,
        ),
        ValuePattern::Class(ValueClass::Credentials) => {
            (r"(?i:bearer|basic) +[A-Za-z0-9._~+/=\-]{8,}", |_| true)
        }
    }
}

/// The check digit of payment cards.
fn luhn(number: &str) -> bool {
    let digits = number
        .bytes()
        .rev()
        .filter(u8::is_ascii_digit)
        .map(|byte| u32::from(byte - b'0'));
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| {
            if place % 2 == 1 {
                doubled(digit)
            } else {
                digit
            }
        })
        .sum();
    sum > 0 && sum.is_multiple_of(10)
}

fn ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

/// What a worker remembers of decisions; both are emptied when they are full.
#[derive(Debug)]
pub(crate) struct Decisions {
    keys: HashMap<Box<str>, bool, RandomState>,
    /// Fingerprints of values with nothing to hide; the seed is secret.
    clean: HashSet<u128, RandomState>,
    seed: u64,
}

impl Decisions {
    const MAX_KEYS: usize = 4096;
    /// Longer keys are unlikely to come again.
    const MAX_KEY_BYTES: usize = 256;
    const MAX_VALUES: usize = 65_536;
    const MAX_VALUE_BYTES: usize = 256;

    pub(crate) fn new() -> Self {
        Self {
            keys: HashMap::default(),
            clean: HashSet::default(),
            seed: rand::random(),
        }
    }

    /// Whether the value of this key is hidden.
    pub(crate) fn hides_key(&mut self, redactor: &Redactor, key: &str) -> bool {
        if redactor.wildcards.is_empty() {
            return redactor.exact.contains(key);
        }
        if let Some(&hides) = self.keys.get(key) {
            return hides;
        }
        let hides = redactor.decide_key(key);
        if key.len() <= Self::MAX_KEY_BYTES {
            if self.keys.len() >= Self::MAX_KEYS {
                self.keys.clear();
            }
            self.keys.insert(key.into(), hides);
        }
        hides
    }

    /// The text with everything hidden that a rule matches; `None` if that is nothing.
    pub(crate) fn hidden(&mut self, redactor: &Redactor, text: &str) -> Option<String> {
        if redactor.values.is_empty() || text.is_empty() {
            return None;
        }
        if text.len() > Self::MAX_VALUE_BYTES {
            return redactor.decide_value(text);
        }
        let fingerprint = xxh3_128_with_seed(text.as_bytes(), self.seed);
        if self.clean.contains(&fingerprint) {
            return None;
        }
        let hidden = redactor.decide_value(text);
        if hidden.is_none() {
            if self.clean.len() >= Self::MAX_VALUES {
                self.clean.clear();
            }
            self.clean.insert(fingerprint);
        }
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let keys = ["password", "*.password", "http.request.header.*", "a*z"];
        let rules = [Redaction::Keys(keys.map(String::from).to_vec())];
        let redactor = Redactor::compile(&rules).unwrap().unwrap();
        let mut decisions = Decisions::new();
        let mut check = |key, hides| {
            for _ in 0..2 {
                assert_eq!(decisions.hides_key(&redactor, key), hides, "{key}");
            }
        };
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
        let class = |class| vec![Redaction::Values(ValuePattern::Class(class))];
        let check = |rules: &[Redaction], text: &str, expect: &str| {
            let redactor = Redactor::compile(rules).unwrap().unwrap();
            let mut decisions = Decisions::new();
            for _ in 0..2 {
                let hidden = decisions.hidden(&redactor, text);
                assert_eq!(hidden.as_deref().unwrap_or(text), expect);
                assert_eq!(hidden.is_some(), text != expect);
            }
        };
        let email = class(ValueClass::Email);
        check(&email, "GET /users/ann@example.com/x", "GET /users/***/x");
        check(&email, "a@b.co, c.d+e@f-g.example.org", "***, ***");
        check(&email, "not@an", "not@an");
        check(&email, "", "");
        let card = class(ValueClass::CreditCard);
        check(
            &card,
            "card 4111 1111 1111 1111 declined",
            "card *** declined",
        );
        check(&card, "4111-1111-1111-1112", "4111-1111-1111-1112");
        check(&card, "0000000000000000", "0000000000000000");
        let ip = class(ValueClass::Ipv4);
        check(&ip, "from 10.1.2.3:80", "from ***:80");
        check(&ip, "version 999.1.2.3", "version 999.1.2.3");
        check(
            &class(ValueClass::Jwt),
            "t=eyJhbGci.eyJzdWIi.c2ln!",
            "t=***!",
        );
        check(&class(ValueClass::Credentials), "Bearer abcdefgh1", "***");
        let regex = vec![Redaction::Values(ValuePattern::Regex(
            "(?i)secret-[0-9]+".into(),
        ))];
        check(&regex, "x SECRET-12 y secret-3", "x *** y ***");
        let both = [email, regex].concat();
        check(&both, "secret-1 a@b.co é", "*** *** é");
        let long = "x".repeat(300) + " a@b.co";
        check(
            &both,
            &long,
            &(" ".to_owned() + "***").replacen(' ', &("x".repeat(300) + " "), 1),
        );
    }

    #[test]
    fn bad_rules_are_named() {
        let check = |pattern: &str, expect: &str| {
            let rules = [Redaction::Values(ValuePattern::Regex(pattern.into()))];
            let error = Redactor::compile(&rules).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("(", "\"(\" is invalid");
        check("a*", "matches the empty text");
        assert!(Redactor::compile(&[]).unwrap().is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let rules = [
            Redaction::Keys(vec!["x*".into()]),
            Redaction::Values(ValuePattern::Class(ValueClass::Email)),
        ];
        let redactor = Redactor::compile(&rules).unwrap().unwrap();
        let mut decisions = Decisions::new();
        for i in 0..70_000 {
            let text = format!("k{i}");
            assert!(!decisions.hides_key(&redactor, &text));
            assert_eq!(decisions.hidden(&redactor, &text), None);
        }
        assert!(decisions.keys.len() <= Decisions::MAX_KEYS);
        assert!(decisions.clean.len() <= Decisions::MAX_VALUES);
    }
}
