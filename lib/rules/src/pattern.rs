//! What a redaction rule names: attribute keys, and text.

use serde::{Deserialize, Serialize};

use crate::class::Class;

/// The most keys in a rule set.
pub const MAX_KEYS: usize = 4_096;
/// The longest key, in characters.
pub const MAX_KEY_CHARS: usize = 256;
/// The most classes and expressions in a rule set.
pub const MAX_VALUES: usize = 64;
/// The longest expression, in characters.
pub const MAX_VALUE_CHARS: usize = 1_024;

/// An attribute's key, or many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyPattern {
    /// This very key.
    Exact(String),
    /// `*` in it stands for any text.
    Wildcard(String),
}

impl KeyPattern {
    /// The pattern that this text is in a pipeline's spec.
    pub fn of(text: &str) -> Self {
        if text.contains('*') {
            Self::Wildcard(text.to_owned())
        } else {
            Self::Exact(text.to_owned())
        }
    }

    /// The pattern as it is written in a pipeline's spec.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Wildcard(text) => text,
        }
    }
}

/// Text that is hidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValuePattern {
    /// The class of this name ([`CLASSES`](crate::CLASSES)).
    Class(String),
    /// What this regular expression matches; the rest of the text stays.
    Regex(String),
}

impl ValuePattern {
    /// The pattern that this text is in a pipeline's spec. A single word is the name of a class: as
    /// an expression it would hide that very word, and a misspelt class would pass unseen.
    pub fn of(text: &str) -> Self {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if Class::of_name(text).is_some() || (!text.is_empty() && text.chars().all(is_word)) {
            Self::Class(text.to_owned())
        } else {
            Self::Regex(text.to_owned())
        }
    }

    /// The pattern as it is written in a pipeline's spec.
    pub fn text(&self) -> &str {
        match self {
            Self::Class(text) | Self::Regex(text) => text,
        }
    }
}

/// A key with `*` for any text, ready to be compared.
#[derive(Debug)]
pub(crate) struct Wildcard {
    prefix: Box<str>,
    /// What stands between two `*`, in order.
    inner: Box<[Box<str>]>,
    suffix: Box<str>,
}

impl Wildcard {
    /// `None` when the text has no `*`.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let (prefix, rest) = text.split_once('*')?;
        let (inner, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = inner.split('*').filter(|part| !part.is_empty());
        Some(Self {
            prefix: prefix.into(),
            inner: inner.map(Box::from).collect(),
            suffix: suffix.into(),
        })
    }

    pub(crate) fn matches(&self, key: &str) -> bool {
        let rest = key
            .strip_prefix(&*self.prefix)
            .and_then(|rest| rest.strip_suffix(&*self.suffix));
        let Some(mut rest) = rest else {
            return false;
        };
        // The first place of each part leaves the most room for the parts behind it.
        for part in &self.inner {
            match rest.split_once(&**part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_word_is_a_class() {
        let check = |text: &str, is_class: bool| {
            let found = matches!(ValuePattern::of(text), ValuePattern::Class(_));
            assert_eq!(found, is_class, "{text:?}");
        };
        check("email", true);
        check("emails", true);
        check("credit-card", true);
        check("", false);
        check("(email)", false);
        check("a b", false);
        check("é", false);
    }

    proptest! {
        #[test]
        fn a_wildcard_matches_as_its_expression_does(
            pattern in r"[ab.\n]{0,3}(\*[ab.é]{0,2}){1,4}",
            key in r"[ab.é\n]{0,10}",
        ) {
            let parts: Vec<_> = pattern.split('*').map(regex::escape).collect();
            let expression = regex::Regex::new(&format!("(?s)^{}$", parts.join(".*"))).unwrap();
            let wildcard = Wildcard::of(&pattern).unwrap();
            prop_assert_eq!(wildcard.matches(&key), expression.is_match(&key));
        }
    }
}
