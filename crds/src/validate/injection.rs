//! Whether the selectors of `injection` are ones that Kubernetes takes: the webhook configuration holds those
//! of all pipelines, and one that is not valid would hold up the others.

use crate::document::{
    Injection, LabelSelector, LabelSelectorOperator as Operator, LabelSelectorRequirement,
};
use crate::errors::Path;
use crate::validate::Problems;
use crate::validate::cluster::metadata_keys;

/// The longest selector: all pipelines' are in one object, which etcd takes up to 1.5 MiB.
const MAX_BYTES: usize = 4 << 10;
/// The longest value of a label.
const MAX_VALUE: usize = 63;

pub(super) fn injection(injection: &Injection, path: &Path, problems: &mut Problems) {
    for (field, given) in [
        ("namespaceSelector", &injection.namespace_selector),
        ("podSelector", &injection.pod_selector),
    ] {
        if let Some(given) = given {
            selector(given, &path.key(field), problems);
        }
    }
}

fn selector(selector: &LabelSelector, path: &Path, problems: &mut Problems) {
    let bytes = length(selector);
    if bytes > MAX_BYTES {
        let text = format!("has {bytes} bytes of keys and values");
        problems.add(
            path.clone(),
            text,
            format!("at most {MAX_BYTES} are allowed"),
        );
    }
    let labels = path.key("matchLabels");
    metadata_keys(&selector.match_labels, &labels, problems);
    for (key, text) in &selector.match_labels {
        value(text, labels.key(key), problems);
    }
    for (n, requirement) in selector.match_expressions.iter().enumerate() {
        let path = path.key("matchExpressions").index(n);
        expression(requirement, &path, problems);
    }
}

/// The bytes of a selector's keys and values.
fn length(selector: &LabelSelector) -> usize {
    let labels = selector.match_labels.iter();
    let labels: usize = labels.map(|(key, value)| key.len() + value.len()).sum();
    let expressions = selector.match_expressions.iter();
    let of = |requirement: &LabelSelectorRequirement| {
        let values: usize = requirement.values.iter().map(String::len).sum();
        requirement.key.len() + values
    };
    labels + expressions.map(of).sum::<usize>()
}

fn expression(requirement: &LabelSelectorRequirement, path: &Path, problems: &mut Problems) {
    let LabelSelectorRequirement {
        key,
        operator,
        values,
    } = requirement;
    let alone = [(key.clone(), String::new())].into();
    metadata_keys(&alone, path, problems);
    let given = path.key("values");
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            let text = "requires values with the operators In and NotIn";
            problems.add(path.clone(), text, "list at least one value");
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            let text = "is not allowed with the operators Exists and DoesNotExist";
            problems.add(given, text, "remove it");
        }
        _ => {
            for (n, text) in values.iter().enumerate() {
                value(text, given.index(n), problems);
            }
        }
    }
}

fn value(value: &str, path: Path, problems: &mut Problems) {
    let outer = |c: char| c.is_ascii_alphanumeric();
    let is_valid = value.is_empty()
        || value.len() <= MAX_VALUE
            && value.chars().all(|c| outer(c) || "-_.".contains(c))
            && value.starts_with(outer)
            && value.ends_with(outer);
    if !is_valid {
        let advice = "use at most 63 letters, digits, -, _ and .";
        problems.add(
            path,
            format!("{value:?} is not a valid label value"),
            advice,
        );
    }
}
