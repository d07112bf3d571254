//! `compare()`: how often each value of each attribute occurs, in a selection of spans and in the rest.

use std::collections::BTreeMap;

use super::series::Line;
use crate::field::{Field, Scope};
use crate::span::{AttributeScope, Scalar, Span, TraceFact, TraceSpan, ValueRef};
use crate::trace::InTrace;
use crate::value::OwnedValue;

/// The label that says what a series is about.
const META_TYPE: &str = "__meta_type";

/// Counts by attribute, then by value.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    baseline: Counts,
    selection: Counts,
    /// How many different values there are.
    values: usize,
}

#[derive(Debug, Default)]
struct Counts(BTreeMap<String, Values>);

/// The values of an attribute.
#[derive(Debug, Default)]
struct Values {
    /// Counts of each, by step.
    known: BTreeMap<OwnedValue, Vec<f64>>,
    /// Counts of those that are not frequent enough to be known here, by step; empty where there are none.
    rest: Vec<f64>,
}

/// What of a span is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Everything.
    All,
    /// What only its whole trace says.
    Facts,
}

impl Compared {
    /// Counts what is compared of a span, as often as `weight` says. Says whether there was room for all of its values.
    pub(crate) fn add<S: TraceSpan>(
        &mut self,
        span: &InTrace<'_, S>,
        what: What,
        selected: bool,
        at: (usize, usize),
        weight: f64,
        limit: usize,
    ) -> bool {
        let mut room = true;
        let mut count = |label, value| {
            room &= self.count(selected, label, value, at, weight, limit);
        };
        if what == What::All {
            each_label(span, &mut count);
        }
        each_fact(span, &mut count);
        room
    }

    fn counts(&mut self, selected: bool) -> &mut Counts {
        match selected {
            true => &mut self.selection,
            false => &mut self.baseline,
        }
    }

    /// Counts spans with a value; says whether there was room for it.
    pub(crate) fn count(
        &mut self,
        selected: bool,
        label: String,
        value: OwnedValue,
        (step, steps): (usize, usize),
        count: f64,
        limit: usize,
    ) -> bool {
        let number = self.values;
        let counts = &mut self.counts(selected).0;
        let values = counts.get(&label);
        let is_new = !values.is_some_and(|values| values.known.contains_key(&value));
        if is_new && number >= limit {
            return false;
        }
        let values = counts.entry(label).or_default();
        let cells = values.known.entry(value);
        let cells = cells.or_insert_with(|| vec![0.0; steps]);
        if let Some(cell) = cells.get_mut(step) {
            *cell += count;
        }
        self.values += usize::from(is_new);
        true
    }

    /// Counts spans with values that are less frequent than those that are answered, of an attribute that has some.
    pub(crate) fn count_rest(
        &mut self,
        selected: bool,
        label: &str,
        (step, steps): (usize, usize),
        count: f64,
    ) {
        if let Some(values) = self.counts(selected).0.get_mut(label) {
            values.rest.resize(steps, 0.0);
            if let Some(cell) = values.rest.get_mut(step) {
                *cell += count;
            }
        }
    }

    /// The `top` most frequent values of each attribute, those of equal number by their order, and the totals.
    pub(crate) fn lines(&self, top: usize, steps: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        for (counts, name) in [(&self.baseline, "baseline"), (&self.selection, "selection")] {
            for (label, values) in &counts.0 {
                let mut order: Vec<(f64, &OwnedValue, &Vec<f64>)> = values
                    .known
                    .iter()
                    .map(|(value, cells)| (cells.iter().sum(), value, cells))
                    .collect();
                order.sort_by(|l, r| r.0.total_cmp(&l.0).then(l.1.cmp(r.1)));
                let mut totals = vec![0.0; steps];
                for cells in values.known.values().chain([&values.rest]) {
                    for (total, count) in totals.iter_mut().zip(cells) {
                        *total += count;
                    }
                }
                for (_, value, cells) in order.into_iter().take(top) {
                    lines.push(line(name.to_owned(), label, value.clone(), cells));
                }
                lines.push(line(
                    format!("{name}_total"),
                    label,
                    OwnedValue::Nil,
                    &totals,
                ));
            }
        }
        lines
    }
}

fn line(meta: String, label: &str, value: OwnedValue, counts: &[f64]) -> Line {
    Line {
        labels: vec![
            (META_TYPE.to_owned(), OwnedValue::Str(meta)),
            (label.to_owned(), value),
        ],
        values: counts.to_vec(),
        exemplars: Vec::new(),
        steps: Vec::new(),
    }
}

/// Calls `each` with the label and value of what is compared of a span by itself: attributes, and intrinsics of which
/// many spans have the same. An array counts as a value of its own that is not shown.
fn each_label<S: TraceSpan>(span: &InTrace<'_, S>, each: &mut dyn FnMut(String, OwnedValue)) {
    let mut intrinsic =
        |label: &str, scalar: Scalar<'_>| each(label.to_owned(), OwnedValue::of(scalar));
    intrinsic("name", Scalar::Str(span.name()));
    intrinsic("kind", Scalar::Kind(span.kind()));
    intrinsic("status", Scalar::Status(span.status()));
    intrinsic("statusMessage", Scalar::Str(span.status_message()));
    intrinsic("instrumentation:name", Scalar::Str(span.scope_name()));
    intrinsic("instrumentation:version", Scalar::Str(span.scope_version()));
    for (of, scope) in [
        (AttributeScope::Span, Scope::Span),
        (AttributeScope::Resource, Scope::Resource),
        (AttributeScope::Instrumentation, Scope::Instrumentation),
    ] {
        span.span().for_each_attribute(of, &mut |key, value| {
            let value = match value {
                ValueRef::One(Scalar::Other) => return,
                ValueRef::One(scalar) => OwnedValue::of(scalar),
                ValueRef::Array(_) => OwnedValue::Nil,
            };
            let name = key.to_owned();
            let field = Field::Attribute {
                parent: false,
                scope,
                name,
            };
            each(field.to_string(), value);
        });
    }
}

/// The same for what its trace says.
fn each_fact<S: TraceSpan>(span: &InTrace<'_, S>, each: &mut dyn FnMut(String, OwnedValue)) {
    for (label, fact) in [
        ("rootName", TraceFact::RootName),
        ("rootServiceName", TraceFact::RootService),
        ("span:childCount", TraceFact::ChildCount),
    ] {
        if let Some(scalar) = span.trace_fact(fact) {
            each(label.to_owned(), OwnedValue::of(scalar));
        }
    }
}
