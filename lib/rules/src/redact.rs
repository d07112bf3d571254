//! Redaction: values of known keys, and text that looks like something to hide.

use std::borrow::Cow;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashSet;
use regex::{Regex, RegexBuilder};
use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::hir::Hir;

use crate::class::{Class, Finder};
use crate::error::{Collect, Place, Problem};
use crate::pattern::{
    KeyPattern, MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS, MAX_VALUES, ValuePattern, Wildcard,
};
use crate::scan::Traits;

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
    /// Matches whatever one of the expressions among `values` matches, where there are several: most
    /// text needs no more than this.
    any_expression: Option<meta::Regex>,
    has_expressions: bool,
    /// No rule matches text that has fewer.
    least_bytes: usize,
    /// The combinations of traits that text has that some rule may match.
    may_match: u32,
    number_digits: Option<usize>,
}

#[derive(Debug)]
enum ValueRule {
    Class(&'static Class, Option<Regex>),
    Expression(Regex),
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
            any_expression: None,
            has_expressions: false,
            least_bytes: usize::MAX,
            may_match: 0,
            number_digits: None,
        };
        redactor.keys(keys, errors);
        redactor.values(values, errors);
        let digits = |rule: &ValueRule| match rule {
            ValueRule::Class(class, _) => class.number_digits,
            ValueRule::Expression(_) => Some(1),
        };
        redactor.number_digits = redactor.values.iter().filter_map(digits).min();
        for rule in &redactor.values {
            let (least_bytes, combinations) = match rule {
                ValueRule::Class(class, _) => (class.least_bytes, class.needs.combinations()),
                ValueRule::Expression(_) => (1, u32::MAX),
            };
            redactor.least_bytes = redactor.least_bytes.min(least_bytes);
            redactor.may_match |= combinations;
        }
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
        let mut places = Vec::new();
        let mut expressions = Vec::new();
        for (n, pattern) in values.iter().enumerate() {
            let text = pattern.text();
            let rule = match seen.insert(text) {
                false => Err(Problem::Twice(format!("{text:?}"))),
                true => rule(pattern),
            };
            match rule {
                Err(problem) => errors.add(Place::Value(n), problem),
                Ok((rule, expression)) => {
                    self.values.push(rule);
                    if let Some(expression) = expression {
                        places.push(Place::Value(n));
                        expressions.push(expression);
                    }
                }
            }
        }
        self.has_expressions = !expressions.is_empty();
        if expressions.len() < 2 {
            return;
        }
        // By itself each compiles: together they can only be too large.
        match any_of(&expressions) {
            Ok(any) => self.any_expression = Some(any),
            Err(_) => {
                let first = places.get(first_that_is_too_much(&expressions));
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

    /// Whether some rule is a regular expression, so that it is worth remembering which text matches
    /// none. Classes are found more quickly than that.
    #[inline]
    pub fn has_expressions(&self) -> bool {
        self.has_expressions
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

    /// The text with everything hidden that a rule matches, one rule after the other; `None` if that
    /// changes nothing.
    #[inline]
    pub fn hidden(&self, text: &str) -> Option<Cow<'static, str>> {
        if text.len() < self.least_bytes {
            return None;
        }
        let traits = Traits::of(text);
        match traits.is_in(self.may_match) {
            true => self.hidden_with(text, traits),
            false => None,
        }
    }

    fn hidden_with(&self, text: &str, traits: Traits) -> Option<Cow<'static, str>> {
        let mut changed: Option<Cow<'static, str>> = None;
        // Whether some expression matches the text as it is now: asked once, not for each expression.
        let mut matches = None;
        // What is hidden leaves a text with less than it had.
        for rule in self
            .values
            .iter()
            .filter(|rule| rule.may_match(traits, text.len()))
        {
            let before = changed.as_deref().unwrap_or(text);
            if let (ValueRule::Expression(_), Some(any)) = (rule, &self.any_expression)
                && !*matches.get_or_insert_with(|| any.is_match(before))
            {
                continue;
            }
            if let Some(after) = rule.hidden(before) {
                changed = Some(after);
                matches = None;
            }
        }
        changed
    }
}

impl ValueRule {
    #[inline]
    fn may_match(&self, traits: Traits, bytes: usize) -> bool {
        match self {
            Self::Class(class, _) => class.may_be_in(traits, bytes),
            Self::Expression(_) => true,
        }
    }

    fn hidden(&self, text: &str) -> Option<Cow<'static, str>> {
        let mut after = String::new();
        let mut all = false;
        let mut copied = 0;
        let mut hide = |found: Range<usize>| {
            if found == (0..text.len()) {
                all = true;
                return;
            }
            after.push_str(text.get(copied..found.start).unwrap_or_default());
            after.push_str(HIDDEN);
            copied = found.end;
        };
        match self {
            Self::Class(class, regex) => match (&class.finder, regex) {
                (Finder::Scan(find), _) => find(text, &mut hide),
                (Finder::Match(expression), Some(regex)) => expression.find(regex, text, &mut hide),
                (Finder::Match(_), None) => {}
            },
            Self::Expression(regex) => {
                regex.find_iter(text).for_each(|found| hide(found.range()));
            }
        }
        if all {
            return (text != HIDDEN).then_some(Cow::Borrowed(HIDDEN));
        }
        if copied == 0 {
            return None;
        }
        after.push_str(text.get(copied..).unwrap_or_default());
        (after != text).then_some(Cow::Owned(after))
    }
}

/// One pattern by itself, and its expression if it is one.
fn rule(pattern: &ValuePattern) -> Result<(ValueRule, Option<Hir>), Problem> {
    let source = match pattern {
        ValuePattern::Class(name) => {
            let Some(class) = Class::of_name(name) else {
                return Err(Problem::UnknownClass(name.clone()));
            };
            let regex = match &class.finder {
                Finder::Scan(_) => None,
                Finder::Match(expression) => Some(compile(expression.source)?),
            };
            return Ok((ValueRule::Class(class, regex), None));
        }
        ValuePattern::Regex(source) => source,
    };
    Problem::if_too_long(source, MAX_VALUE_CHARS)?;
    let regex = compile(source)?;
    let hir = regex_syntax::parse(source)
        .map_err(|error| problem_of(source, &regex::Error::Syntax(error.to_string())))?;
    // Asking whether it matches "" is not enough: `\b` does not, and matches beside each word.
    if hir.properties().minimum_len() == Some(0) {
        return Err(Problem::MatchesEmpty(source.to_owned()));
    }
    Ok((ValueRule::Expression(regex), Some(hir)))
}

fn compile(source: &str) -> Result<Regex, Problem> {
    RegexBuilder::new(source)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(REGEX_CACHE_BYTES)
        .build()
        .map_err(|error| problem_of(source, &error))
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
