//! Redaction: values of known keys, and text that looks like something to hide.

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use regex::{Regex, RegexBuilder};
use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::hir::Hir;

use crate::class::{Class, Finder, Traits};
use crate::error::{Collect, Place, Problem};
use crate::pattern::{
    KeyPattern, MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS, MAX_VALUES, ValuePattern, Wildcard,
};

/// What stands where something was hidden.
pub const HIDDEN: &str = "***";

/// The most memory of one compiled regular expression.
pub const MAX_REGEX_BYTES: usize = 1 << 20;
/// The most memory of all regular expressions of a rule set, compiled together.
pub const MAX_REGEXES_BYTES: usize = 8 << 20;
/// What matching with all of them may keep, for each thread.
const ANY_CACHE_BYTES: usize = 2 << 20;
/// What matching with one of them may keep, for each thread.
const REGEX_CACHE_BYTES: usize = 1 << 20;

/// Redaction rules, compiled.
#[derive(Debug)]
pub struct Redactor {
    exact: HashSet<Box<str>, RandomState>,
    wildcards: Vec<Wildcard>,
    values: Vec<ValueRule>,
    /// Matches whatever one of `values` matches, where there are several: most text needs no more
    /// than this.
    any_value: Option<meta::Regex>,
    number_digits: Option<usize>,
}

#[derive(Debug)]
struct ValueRule {
    regex: Regex,
    finder: Finder,
    /// The class that it is, if it is one.
    class: Option<&'static Class>,
}

impl Redactor {
    /// `None` when there are no rules.
    pub(crate) fn compile(
        keys: &[KeyPattern],
        values: &[ValuePattern],
        errors: &mut Collect,
    ) -> Option<Self> {
        let mut redactor = Self {
            exact: HashSet::default(),
            wildcards: Vec::new(),
            values: Vec::new(),
            any_value: None,
            number_digits: None,
        };
        redactor.keys(keys, errors);
        redactor.values(values, errors);
        let digits = |rule: &ValueRule| rule.class.map_or(Some(1), |class| class.number_digits);
        redactor.number_digits = redactor.values.iter().filter_map(digits).min();
        let none = redactor.exact.is_empty()
            && redactor.wildcards.is_empty()
            && redactor.values.is_empty();
        (!none).then_some(redactor)
    }

    fn keys(&mut self, keys: &[KeyPattern], errors: &mut Collect) {
        if let Err(problem) = Problem::if_too_many(keys.len(), MAX_KEYS) {
            errors.add(Place::Keys, problem);
            return;
        }
        let mut seen = HashSet::<_, RandomState>::default();
        for (n, key) in keys.iter().enumerate() {
            let text = key.text();
            let checked = match seen.insert(text) {
                _ if text.is_empty() => Err(Problem::EmptyKey),
                false => Err(Problem::Twice(format!("the key {text:?}"))),
                true => Problem::if_too_long(text, MAX_KEY_CHARS),
            };
            match (checked, Wildcard::of(text)) {
                (Err(problem), _) => errors.add(Place::Key(n), problem),
                (Ok(()), Some(wildcard)) => self.wildcards.push(wildcard),
                (Ok(()), None) => {
                    self.exact.insert(text.into());
                }
            }
        }
    }

    fn values(&mut self, values: &[ValuePattern], errors: &mut Collect) {
        if let Err(problem) = Problem::if_too_many(values.len(), MAX_VALUES) {
            errors.add(Place::Values, problem);
            return;
        }
        let mut seen = HashSet::<_, RandomState>::default();
        let mut places = Vec::with_capacity(values.len());
        let mut parsed = Vec::with_capacity(values.len());
        for (n, pattern) in values.iter().enumerate() {
            let text = pattern.text();
            let rule = match seen.insert(text) {
                false => Err(Problem::Twice(format!("{text:?}"))),
                true => rule(pattern),
            };
            match rule {
                Err(problem) => errors.add(Place::Value(n), problem),
                Ok((hir, rule)) => {
                    places.push(Place::Value(n));
                    parsed.push(hir);
                    self.values.push(rule);
                }
            }
        }
        if parsed.len() < 2 {
            return;
        }
        // By itself each compiles: together they can only be too large.
        match any_of(&parsed) {
            Ok(any) => self.any_value = Some(any),
            Err(_) => {
                let first = places.get(first_that_is_too_much(&parsed));
                let place = first.copied().unwrap_or(Place::Values);
                errors.add(place, Problem::LargeRegexes);
            }
        }
    }

    /// Whether keys are compared with patterns, so that a decision is worth remembering.
    #[inline]
    pub fn has_wildcards(&self) -> bool {
        !self.wildcards.is_empty()
    }

    /// Whether text is looked through at all.
    #[inline]
    pub fn has_values(&self) -> bool {
        !self.values.is_empty()
    }

    /// Whether the value of this key is hidden.
    #[inline]
    pub fn hides_key(&self, key: &str) -> bool {
        self.exact.contains(key) || self.wildcards.iter().any(|pattern| pattern.matches(key))
    }

    /// From how many digits on a number is looked at, as it is written in decimal; `None`: never.
    #[inline]
    pub fn number_digits(&self) -> Option<usize> {
        self.number_digits
    }

    /// Whether a rule may match something in this text. It is seen at a glance.
    #[inline]
    pub fn may_hide(&self, text: &str) -> bool {
        if self.values.is_empty() {
            return false;
        }
        let traits = Traits::of(text);
        self.values.iter().any(|rule| rule.may_match(&traits))
    }

    /// The text with everything hidden that a rule matches, one rule after the other; `None` if that
    /// changes nothing.
    pub fn hidden(&self, text: &str) -> Option<String> {
        let traits = Traits::of(text);
        if !self.values.iter().any(|rule| rule.may_match(&traits)) {
            return None;
        }
        let may_match = match (&self.any_value, self.values.as_slice()) {
            (Some(any), _) => any.is_match(text),
            (None, [rule]) => rule.regex.is_match(text),
            (None, _) => return None,
        };
        if !may_match {
            return None;
        }
        let mut changed = None;
        // What is hidden leaves a text with less than it had.
        for rule in self.values.iter().filter(|rule| rule.may_match(&traits)) {
            let before = changed.as_deref().unwrap_or(text);
            if let Some(after) = rule.hidden(before) {
                changed = Some(after);
            }
        }
        changed
    }
}

impl ValueRule {
    fn may_match(&self, traits: &Traits) -> bool {
        self.class.is_none_or(|class| class.may_be_in(traits))
    }

    fn hidden(&self, text: &str) -> Option<String> {
        let mut after = String::new();
        let mut copied = 0;
        for found in self.finder.find(&self.regex, text) {
            after.push_str(text.get(copied..found.start).unwrap_or_default());
            after.push_str(HIDDEN);
            copied = found.end;
        }
        if copied == 0 {
            return None;
        }
        after.push_str(text.get(copied..).unwrap_or_default());
        (after != text).then_some(after)
    }
}

/// One pattern by itself, and its expression.
fn rule(pattern: &ValuePattern) -> Result<(Hir, ValueRule), Problem> {
    let (source, finder, class) = match pattern {
        ValuePattern::Class(name) => match Class::of_name(name) {
            Some(class) => (class.expression, class.finder, Some(class)),
            None => return Err(Problem::UnknownClass(name.clone())),
        },
        ValuePattern::Regex(source) => {
            Problem::if_too_long(source, MAX_VALUE_CHARS)?;
            (source.as_str(), Finder::Matches, None)
        }
    };
    let regex = RegexBuilder::new(source)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(REGEX_CACHE_BYTES)
        .build()
        .map_err(|error| problem_of(source, &error))?;
    let hir = regex_syntax::parse(source)
        .map_err(|error| problem_of(source, &regex::Error::Syntax(error.to_string())))?;
    // Asking whether it matches "" is not enough: `\b` does not, and matches beside each word.
    if hir.properties().minimum_len() == Some(0) {
        return Err(Problem::MatchesEmpty(source.to_owned()));
    }
    let rule = ValueRule {
        regex,
        finder,
        class,
    };
    Ok((hir, rule))
}

/// Matches whatever one of the expressions matches. They are joined as trees, not as text: groups,
/// flags and comments of one cannot change another.
fn any_of(expressions: &[Hir]) -> Result<meta::Regex, Box<meta::BuildError>> {
    let config = meta::Config::new()
        .nfa_size_limit(Some(MAX_REGEXES_BYTES))
        .hybrid_cache_capacity(ANY_CACHE_BYTES)
        .which_captures(WhichCaptures::None);
    meta::Regex::builder()
        .configure(config)
        .build_from_hir(&Hir::alternation(expressions.to_vec()))
        .map_err(Box::new)
}

/// The index of the first expression that does not fit with those before it.
fn first_that_is_too_much(expressions: &[Hir]) -> usize {
    // Each more only adds to the size.
    let (mut fits, mut fails) = (0, expressions.len());
    while fails - fits > 1 {
        let middle = usize::midpoint(fits, fails);
        match any_of(expressions.get(..middle).unwrap_or_default()) {
            Ok(_) => fits = middle,
            Err(_) => fails = middle,
        }
    }
    fits
}

fn problem_of(source: &str, error: &regex::Error) -> Problem {
    if let regex::Error::CompiledTooBig(_) = error {
        return Problem::LargeRegex(source.to_owned());
    }
    // The last line of a syntax error says what is wrong; the others draw it.
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim();
    Problem::Regex {
        expression: source.to_owned(),
        reason: reason.to_owned(),
    }
}
