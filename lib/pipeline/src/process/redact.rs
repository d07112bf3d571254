//! What a worker remembers of redaction: keys and values repeat from span to span.

use std::borrow::Cow;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use spanloom_otlp::record::Value;
use spanloom_rules::{HIDDEN, Redactor};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What a worker remembers of decisions; both are emptied when they are full.
#[derive(Debug)]
pub(crate) struct Decisions {
    keys: HashMap<Box<str>, bool, RandomState>,
    /// Fingerprints of values with nothing to hide, where expressions are matched; the seed is secret.
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
        if !redactor.has_wildcards() {
            return redactor.hides_key(key);
        }
        if let Some(&hides) = self.keys.get(key) {
            return hides;
        }
        let hides = redactor.hides_key(key);
        if key.len() <= Self::MAX_KEY_BYTES {
            if self.keys.len() >= Self::MAX_KEYS {
                self.keys.clear();
            }
            self.keys.insert(key.into(), hides);
        }
        hides
    }

    /// The text with everything hidden that a rule matches; `None` if that is nothing.
    #[inline]
    pub(crate) fn hidden(&mut self, redactor: &Redactor, text: &str) -> Option<Cow<'static, str>> {
        match redactor.has_expressions() && text.len() <= Self::MAX_VALUE_BYTES {
            true => self.hidden_once(redactor, text),
            false => redactor.hidden(text),
        }
    }

    fn hidden_once(&mut self, redactor: &Redactor, text: &str) -> Option<Cow<'static, str>> {
        let fingerprint = xxh3_128_with_seed(text.as_bytes(), self.seed);
        if self.clean.contains(&fingerprint) {
            return None;
        }
        let hidden = redactor.hidden(text);
        if hidden.is_none() {
            if self.clean.len() >= Self::MAX_VALUES {
                self.clean.clear();
            }
            self.clean.insert(fingerprint);
        }
        hidden
    }

    /// What is done with a key and its value.
    pub(crate) fn key(&mut self, redactor: &Redactor, key: &str) -> KeyDecision {
        if self.hidden(redactor, key).is_some() {
            KeyDecision::HideBoth
        } else if self.hides_key(redactor, key) {
            KeyDecision::HideValue
        } else {
            KeyDecision::Keep
        }
    }

    /// The text that a number becomes, as it is written in decimal; `None` if nothing in it is hidden.
    #[inline]
    pub(crate) fn hidden_number<T>(
        &mut self,
        redactor: &Redactor,
        number: &Value<'_, T>,
    ) -> Option<Cow<'static, str>> {
        let least = redactor.number_digits()?;
        let has_enough = |digits: Option<u32>| digits.is_some_and(|log| log as usize + 1 >= least);
        let text = match *number {
            Value::Int(int) if has_enough(int.unsigned_abs().checked_ilog10()) || least == 1 => {
                int.to_string()
            }
            // A fraction is no number of anything, unless an expression says so.
            Value::Double(double) if least == 1 || (double.fract() == 0.0 && is_long(double)) => {
                double.to_string()
            }
            _ => return None,
        };
        self.hidden(redactor, &text)
    }

    /// Bytes with everything hidden that a rule matches in what is text of them; `None` if that is
    /// nothing.
    pub(crate) fn hidden_bytes(&mut self, redactor: &Redactor, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut after = None;
        let mut copied = 0;
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            let text = chunk.valid();
            if let Some(hidden) = self.hidden(redactor, text) {
                let after = after.get_or_insert_with(Vec::new);
                after.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
                after.extend_from_slice(hidden.as_bytes());
                copied = at + text.len();
            }
            at += text.len() + chunk.invalid().len();
        }
        let mut after = after?;
        after.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        Some(after)
    }
}

/// What is done with a key and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyDecision {
    /// Nothing.
    Keep,
    /// A rule names the key.
    HideValue,
    /// Something in the key itself is hidden.
    HideBoth,
}

/// What stands for the `n`th hidden key of a list: `***`, `***2` and so on.
pub(crate) fn hidden_key(n: usize) -> String {
    match n {
        1 => HIDDEN.to_owned(),
        n => format!("{HIDDEN}{n}"),
    }
}

/// Whether a double is long enough for any class of numbers.
fn is_long(double: f64) -> bool {
    (1e12..1e20).contains(&double.abs())
}

#[cfg(test)]
mod tests {
    use spanloom_rules::{KeyPattern, RuleSet, ValuePattern};

    use super::*;

    fn redactor(keys: &[&str], values: &[&str]) -> Redactor {
        let rules = RuleSet {
            redact_keys: keys.iter().map(|key| KeyPattern::of(key)).collect(),
            redact_values: values.iter().map(|text| ValuePattern::of(text)).collect(),
            ..RuleSet::default()
        };
        rules.compile().unwrap().redactor.unwrap()
    }

    #[test]
    fn what_is_remembered_is_what_was_decided() {
        let redactor = redactor(&["password", "*.token"], &["email"]);
        let mut decisions = Decisions::new();
        let long = "x".repeat(300) + " a@b.co";
        for _ in 0..2 {
            for key in ["password", "a.token", "token", ""] {
                let hides = redactor.hides_key(key);
                assert_eq!(decisions.hides_key(&redactor, key), hides, "{key}");
            }
            for text in ["a@b.co é", "nothing", "", &long] {
                let hidden = redactor.hidden(text);
                assert_eq!(decisions.hidden(&redactor, text), hidden, "{text}");
            }
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let redactor = redactor(&["x*"], &["email"]);
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
