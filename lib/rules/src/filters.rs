//! Drop filters, compiled.

use std::collections::HashSet;

use spanloom_traceql::Filter;

use crate::error::{Collect, Place, Problem};

/// The most drop filters in a rule set.
pub const MAX_FILTERS: usize = 64;
/// The longest filter, in characters.
pub const MAX_FILTER_CHARS: usize = 4_096;
/// The most regular expressions in all filters of a rule set; each may need 512 KiB.
pub const MAX_FILTER_REGEXES: usize = 64;

/// Compiles each filter as one on single spans: what only a whole trace knows is refused.
pub(crate) fn compile(texts: &[String], errors: &mut Collect) -> Vec<Filter> {
    if let Err(problem) = Problem::if_too_many(texts.len(), MAX_FILTERS) {
        errors.add(Place::Filters, problem);
        return Vec::new();
    }
    let mut filters = Vec::with_capacity(texts.len());
    let mut seen = HashSet::new();
    let mut regexes = 0;
    for (n, text) in texts.iter().enumerate() {
        match filter(text, &mut seen, &mut regexes) {
            Ok(filter) => filters.push(filter),
            Err(problem) => errors.add(Place::Filter(n), problem),
        }
    }
    filters
}

fn filter(text: &str, seen: &mut HashSet<String>, regexes: &mut usize) -> Result<Filter, Problem> {
    Problem::if_too_long(text, MAX_FILTER_CHARS)?;
    let filter = Filter::parse(text)?;
    if !seen.insert(filter.to_string()) {
        return Err(Problem::Twice("this filter".to_owned()));
    }
    let before = *regexes;
    *regexes += filter.regexes();
    // One error is enough, at the filter that is the first too many.
    if before <= MAX_FILTER_REGEXES && *regexes > MAX_FILTER_REGEXES {
        return Err(Problem::FilterRegexes {
            found: *regexes,
            max: MAX_FILTER_REGEXES,
        });
    }
    Ok(filter)
}
