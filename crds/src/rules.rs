//! The rules of a document as a rule set, and where in the document each of them stands.

use spanloom_rules::{KeyPattern, Limits, Place, RuleSet, ValuePattern};

use crate::document::Processing;
use crate::errors::{Path, Problem};

/// The rule set that the document asks for, defaults filled in.
pub(crate) fn rule_set(processing: &Processing) -> RuleSet {
    let redact = || processing.redact.iter();
    let keys = redact().flat_map(|rule| rule.keys.iter().flatten());
    let values = redact().filter_map(|rule| rule.values.as_deref());
    let default = Limits::default();
    let limit = |given: Option<u64>, default: usize| match given {
        // What is too large for this machine is too large for the rules as well.
        Some(given) => usize::try_from(given).unwrap_or(usize::MAX),
        None => default,
    };
    let limits = &processing.limits;
    let value_bytes = limits.attribute_value_bytes.as_ref();
    RuleSet {
        drop: processing.drop.clone(),
        redact_keys: keys.map(|key| KeyPattern::of(key)).collect(),
        redact_values: values.map(ValuePattern::of).collect(),
        limits: Limits {
            attributes: limit(limits.attributes_per_span, default.attributes),
            events: limit(limits.events_per_span, default.events),
            links: limit(limits.links_per_span, default.links),
            value_bytes: limit(
                value_bytes.and_then(|size| size.bytes()),
                default.value_bytes,
            ),
        },
    }
}

/// Everything that is wrong with the rules: they are compiled as every agent compiles them.
pub(crate) fn problems(processing: &Processing) -> Vec<Problem> {
    let Err(errors) = rule_set(processing).compile() else {
        return Vec::new();
    };
    let problem = |error: spanloom_rules::RuleError| {
        let path = path_of(processing, error.place);
        Problem::new(path, error.problem.to_string(), error.problem.advice())
    };
    errors.0.into_iter().map(problem).collect()
}

/// Where a rule stands in the document.
fn path_of(processing: &Processing, place: Place) -> Path {
    let path = Path::of("spec.processing");
    let redact = path.key("redact");
    let rules = || processing.redact.iter().enumerate();
    match place {
        Place::Filters => path.key("drop"),
        Place::Filter(n) => path.key("drop").index(n),
        Place::Keys | Place::Values => redact,
        Place::Key(wanted) => rules()
            .flat_map(|(rule, given)| {
                let keys = given.keys.iter().flatten().enumerate();
                keys.map(move |(key, _)| (rule, key))
            })
            .nth(wanted)
            .map_or(redact.clone(), |(rule, key)| {
                redact.index(rule).key("keys").index(key)
            }),
        Place::Value(wanted) => rules()
            .filter(|(_, given)| given.values.is_some())
            .nth(wanted)
            .map_or(redact.clone(), |(rule, _)| redact.index(rule).key("values")),
        Place::Limit(field) => path.key("limits").key(field),
    }
}
