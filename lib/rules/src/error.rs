//! What can be wrong with a rule set, and where.

use std::fmt;

use crate::class::CLASSES;
use crate::limits::MAX_COUNT;
use crate::redact::{MAX_REGEX_BYTES, MAX_REGEXES_BYTES};

/// A place in a [`RuleSet`](crate::RuleSet).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// All drop filters.
    Filters,
    /// The drop filter of this index.
    Filter(usize),
    /// All keys.
    Keys,
    /// The key of this index.
    Key(usize),
    /// All classes and expressions.
    Values,
    /// The class or expression of this index.
    Value(usize),
    /// The limit of this name.
    Limit(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filters => f.write_str("the drop filters"),
            Self::Filter(n) => write!(f, "drop filter {}", n + 1),
            Self::Keys => f.write_str("the redact keys"),
            Self::Key(n) => write!(f, "redact key {}", n + 1),
            Self::Values => f.write_str("the redact values"),
            Self::Value(n) => write!(f, "redact value {}", n + 1),
            Self::Limit(name) => write!(f, "limit {name}"),
        }
    }
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There are more rules of a kind than are allowed.
    #[error("has {found} entries, more than {max}")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        max: usize,
    },
    /// The text is longer than is allowed.
    #[error("has {found} characters, more than {max}")]
    TooLong {
        /// How long it is.
        found: usize,
        /// How long it may be.
        max: usize,
    },
    /// An equal rule is there already.
    #[error("{0} is given twice")]
    Twice(String),
    /// It is not a filter on single spans.
    #[error("in the filter, {0}")]
    Filter(#[from] spanloom_traceql::Error),
    /// The drop filters have more regular expressions than are allowed, from this one on.
    #[error("the drop filters up to this one have {found} regular expressions, more than {max}")]
    FilterRegexes {
        /// How many they have.
        found: usize,
        /// How many they may have.
        max: usize,
    },
    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// There is no class of this name.
    #[error("unknown redaction class {0:?}")]
    UnknownClass(String),
    /// The regular expression does not compile.
    #[error("the regular expression {expression:?} does not compile: {reason}")]
    Regex {
        /// The expression.
        expression: String,
        /// What is wrong with it, in one line.
        reason: String,
    },
    /// The regular expression is too large by itself.
    #[error("the regular expression {0:?} needs more than {size} KiB of memory", size = MAX_REGEX_BYTES >> 10)]
    LargeRegex(String),
    /// The regular expressions are too large together, from this one on.
    #[error(
        "the regular expressions up to this one need more than {size} KiB of memory together",
        size = MAX_REGEXES_BYTES >> 10
    )]
    LargeRegexes,
    /// The regular expression would hide something between any two characters.
    #[error("the regular expression {0:?} matches empty text")]
    MatchesEmpty(String),
    /// A count is out of range.
    #[error("must be from 1 to {MAX_COUNT}, but is {0}")]
    Count(usize),
    /// A length of values is out of range.
    #[error("must be from 1 byte to 16Mi, but is {0} bytes")]
    ValueBytes(usize),
}

impl Problem {
    pub(crate) fn if_too_many(found: usize, max: usize) -> Result<(), Self> {
        if found > max {
            return Err(Self::TooMany { found, max });
        }
        Ok(())
    }

    pub(crate) fn if_too_long(text: &str, max: usize) -> Result<(), Self> {
        let found = text.chars().count();
        if found > max {
            return Err(Self::TooLong { found, max });
        }
        Ok(())
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        let advice = match self {
            Self::TooMany { .. } | Self::Twice(_) => "remove one",
            Self::TooLong { .. } => "shorten it",
            Self::Filter(_) => "write a TraceQL filter such as { span.http.route = \"/healthz\" }",
            Self::FilterRegexes { .. } => "join expressions on the same field with |",
            Self::EmptyKey => "remove it",
            Self::UnknownClass(word) => {
                let known: Vec<_> = CLASSES.iter().map(|class| class.name).collect();
                return format!(
                    "known classes: {}; to match the word itself, write the expression \
                     \"({word})\"",
                    known.join(", ")
                );
            }
            Self::Regex { .. } => "a backslash needs single quotes in YAML: '\\d+'",
            Self::LargeRegex(_) | Self::LargeRegexes => {
                "use smaller repetitions, and ASCII classes such as [0-9] instead of \\d"
            }
            Self::MatchesEmpty(_) => "it would match everywhere; require at least one character",
            Self::Count(_) => "omit it for the default, 128",
            Self::ValueBytes(_) => "omit it for the default, 8Ki",
        };
        advice.to_owned()
    }
}

/// Something wrong with a rule. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}; {}", problem.advice())]
pub struct RuleError {
    /// Which rule.
    pub place: Place,
    /// What is wrong with it.
    pub problem: Problem,
}

/// Everything that is wrong with a rule set, never empty. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct RuleErrors(pub Vec<RuleError>);

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// Errors as they are found.
#[derive(Debug, Default)]
pub(crate) struct Collect(pub(crate) Vec<RuleError>);

impl Collect {
    pub(crate) fn add(&mut self, place: Place, problem: Problem) {
        self.0.push(RuleError { place, problem });
    }
}
