//! What a worker remembers of redaction: keys and values repeat from span to span.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use spanloom_rules::Redactor;
use xxhash_rust::xxh3::xxh3_128_with_seed;

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
    pub(crate) fn hidden(&mut self, redactor: &Redactor, text: &str) -> Option<String> {
        if !redactor.has_values() || text.is_empty() {
            return None;
        }
        if text.len() > Self::MAX_VALUE_BYTES {
            return redactor.hidden(text);
        }
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
