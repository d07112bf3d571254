//! Series of numbers over time, made of spans as they come in, or of what was aggregated elsewhere.

mod cells;
mod compare;
mod plan;
mod series;
mod window;

use std::collections::{HashMap, HashSet};

use crate::compiled::CompiledQuery;
use crate::eval;
use crate::query::MetricsFunction;
use crate::span::{Span, TraceSpan};
use crate::stages::merged;
use crate::trace::{InTrace, Trace};
use crate::value::OwnedValue;

pub use cells::{Partial, log2_bucket};
pub(crate) use plan::Plan;
pub use window::{MAX_STEPS, Window, WindowError};

use cells::{Cells, bucket_end, quantile, quantiles};
use compare::{Compared, What};
use plan::{Leaf, Tree};
use series::{Labels, Line, NAME, by_labels, joined, second_stages, with_number, without_empty};

/// The most exemplars of a query.
pub const MAX_EXEMPLARS: usize = 100;
/// The label of a bucket's upper end.
const BUCKET: &str = "__bucket";
/// The label of a quantile.
const QUANTILE: &str = "p";

/// How much a query may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most series of each pipeline of the query; further ones are left out.
    pub series: usize,
    /// The most counts of each `compare`: one for each step of each value of an attribute; further values are left
    /// out. Only the most frequent are answered, but which they are is known in the end.
    pub compared: usize,
    /// The most exemplars, unless the query says how many it wants. At most [`MAX_EXEMPLARS`].
    pub exemplars: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            series: 10_000,
            compared: 4_000_000,
            exemplars: MAX_EXEMPLARS,
        }
    }
}

/// A span as an example of what a sample is made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// `trace:id`, `span:id` and what tells the span: plain values ([`OwnedValue::plain`]).
    pub labels: Vec<(String, OwnedValue)>,
    /// What it adds: its own value in the unit of the series; where the function takes no field, the value of
    /// the sample that it is part of. An exemplar that is added from elsewhere has not a number there.
    pub value: f64,
    /// When the span starts, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// A finished series.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its labels, with plain values ([`OwnedValue::plain`]): what it is made by as the query writes it, `p`
    /// for a quantile, `__bucket` for a bucket of a histogram, `__meta_type` for a comparison; `__name__`
    /// where it is made by nothing.
    pub labels: Vec<(String, OwnedValue)>,
    /// When each sample is, in milliseconds since 1970, and its value. Durations are in seconds.
    pub samples: Vec<(i64, f64)>,
    /// Examples, in the order of time.
    pub exemplars: Vec<Exemplar>,
}

/// What a query of metrics answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The series in the order of their labels; those without a sample are left out.
    pub series: Vec<Series>,
    /// Why there may be more.
    pub truncated: Option<Truncated>,
}

/// Why an answer does not have everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Truncated {
    /// More series than allowed.
    #[error("only the first {0} series were kept")]
    Series(usize),
    /// More values of attributes than `compare` may count.
    #[error("only the first {0} values of attributes were compared")]
    Values(usize),
}

/// The number of a pipeline of a query, as in [`CompiledQuery::leaves`].
pub type LeafIndex = usize;

/// The run of a query of metrics: traces are observed in any order, then it is finished.
#[derive(Debug)]
pub struct Metrics<'q> {
    plan: Option<&'q Plan>,
    window: Window,
    series: usize,
    /// The most values that `compare` counts.
    compared: usize,
    exemplars: usize,
    leaves: Vec<Run>,
    /// The traces that have an exemplar.
    exemplary: HashSet<Vec<u8>>,
    truncated: bool,
    is_compared_in_part: bool,
}

/// What is known of one leaf.
#[derive(Debug, Default)]
struct Run {
    groups: HashMap<Vec<OwnedValue>, Group>,
    compared: Compared,
    series: usize,
}

#[derive(Debug)]
struct Group {
    cells: Cells,
    /// With the step of each.
    exemplars: Vec<(Exemplar, usize)>,
}

impl<'q> Metrics<'q> {
    /// Starts a run. A query that is no query of metrics answers nothing.
    pub fn new(query: &'q CompiledQuery, window: Window, limits: Limits) -> Self {
        let plan = query.plan();
        let asked = plan
            .and_then(|plan| plan.exemplars)
            .unwrap_or(limits.exemplars);
        let count = plan.map_or(0, |plan| plan.leaves.len());
        Self {
            plan,
            window,
            series: limits.series,
            // A value takes about as much as some counts.
            compared: limits.compared / window.steps().saturating_add(16),
            exemplars: if window.is_instant() {
                0
            } else {
                asked.min(MAX_EXEMPLARS)
            },
            leaves: (0..count).map(|_| Run::default()).collect(),
            exemplary: HashSet::new(),
            truncated: false,
            is_compared_in_part: false,
        }
    }

    /// Adds the spans of a trace that match and start within the window.
    pub fn observe<S: TraceSpan>(&mut self, trace: &Trace<'_, S>) {
        self.observe_what(trace, What::All);
    }

    /// Adds of the spans of a trace for `compare` what only the trace says of them, where all else is counted elsewhere
    /// ([`Self::observe_compared`]).
    pub fn observe_facts<S: TraceSpan>(&mut self, trace: &Trace<'_, S>) {
        self.observe_what(trace, What::Facts);
    }

    fn observe_what<S: TraceSpan>(&mut self, trace: &Trace<'_, S>, what: What) {
        let Some(plan) = self.plan else {
            return;
        };
        for (n, leaf) in plan.leaves.iter().enumerate() {
            let mut wants_exemplar = true;
            for position in merged(&leaf.stages.run(trace)) {
                let span = trace.in_trace(position);
                if let Some(step) = self.window.step_of(span.span().start_ns()) {
                    wants_exemplar &=
                        !self.observe_span((n, leaf), what, &span, step, wants_exemplar);
                }
            }
        }
    }

    /// Says whether the span became an exemplar.
    fn observe_span<S: TraceSpan>(
        &mut self,
        (n, leaf): (LeafIndex, &Leaf),
        what: What,
        span: &InTrace<'_, S>,
        step: usize,
        wants_exemplar: bool,
    ) -> bool {
        let steps = self.window.steps();
        let Some(run) = self.leaves.get_mut(n) else {
            return false;
        };
        let extrapolates = self.plan.is_some_and(|plan| plan.extrapolates);
        let weight = if extrapolates {
            span.span().weight()
        } else {
            1.0
        };
        if let (MetricsFunction::Compare { window, .. }, Some(selection)) =
            (&leaf.pipeline.function, &leaf.selection)
        {
            let selected =
                in_window(span.span().start_ns(), *window) && eval::holds(selection, span);
            let at = (step, steps);
            let room = run
                .compared
                .add(span, what, selected, at, weight, self.compared);
            self.is_compared_in_part |= !room;
            return false;
        }
        let mut numbers = Vec::new();
        if let Some(value) = &leaf.value {
            value.numbers(span, &mut |number| numbers.push(number));
            if numbers.is_empty() {
                return false;
            }
        }
        let key = leaf
            .by
            .iter()
            .map(|(_, reading)| reading.owned(span))
            .collect();
        let Some(group) = run.group(leaf, key, steps, self.series) else {
            self.truncated = true;
            return false;
        };
        let scale = leaf.scale();
        let before = group.cells.series();
        if leaf.value.is_none() {
            group.cells.add((step, steps), None, weight, scale);
        }
        for number in &numbers {
            group.cells.add((step, steps), Some(*number), weight, scale);
        }
        let id = span.trace_id();
        let is_exemplar =
            wants_exemplar && self.exemplary.len() < self.exemplars && !self.exemplary.contains(id);
        if is_exemplar {
            self.exemplary.insert(id.to_vec());
            let number = numbers.first().map(|number| number.float());
            group
                .exemplars
                .push((exemplar(span, number.map_or(f64::NAN, |x| x / scale)), step));
        }
        run.series += if leaf.is_histogram() {
            group.cells.series() - before
        } else {
            0
        };
        is_exemplar
    }

    /// Adds spans that were aggregated elsewhere: those of one step, whose fields that series are made by
    /// have these values. `by` has one value for each such field, [`OwnedValue::Nil`] where it is missing; a
    /// duration is [`OwnedValue::Duration`].
    pub fn observe_aggregate(
        &mut self,
        leaf: LeafIndex,
        by: Vec<OwnedValue>,
        step: usize,
        partial: Partial,
    ) {
        let steps = self.window.steps();
        let known = self.plan.and_then(|plan| plan.leaves.get(leaf));
        let (Some(known), Some(run)) = (known, self.leaves.get_mut(leaf)) else {
            return;
        };
        if step >= steps || by.len() != known.by.len() {
            return;
        }
        match run.group(known, by, steps, self.series) {
            Some(group) => group.cells.merge(step, steps, partial, known.scale()),
            None => self.truncated = true,
        }
    }

    /// Adds spans that were counted elsewhere for `compare`: those of one step with a value of an attribute.
    /// `label` is the attribute as TraceQL writes it, with its scope.
    pub fn observe_compared(
        &mut self,
        leaf: LeafIndex,
        selected: bool,
        (label, value): (String, OwnedValue),
        step: usize,
        count: f64,
    ) {
        let steps = self.window.steps();
        if let Some(run) = self.leaves.get_mut(leaf)
            && step < steps
        {
            let at = (step, steps);
            let room = run
                .compared
                .count(selected, label, value, at, count, self.compared);
            self.is_compared_in_part |= !room;
        }
    }

    /// Adds to the totals of an attribute in one step spans of which [`Self::observe_compared`] was not told, since more
    /// frequent values fill the answer.
    pub fn observe_compared_rest(
        &mut self,
        leaf: LeafIndex,
        selected: bool,
        label: &str,
        step: usize,
        count: f64,
    ) {
        let steps = self.window.steps();
        if let Some(run) = self.leaves.get_mut(leaf)
            && step < steps
        {
            run.compared
                .count_rest(selected, label, (step, steps), count);
        }
    }

    /// Adds an exemplar of spans that were aggregated elsewhere, if there is room for it; `by` as in
    /// [`Self::observe_aggregate`], whose samples have to be there already.
    pub fn observe_exemplar(
        &mut self,
        leaf: LeafIndex,
        by: &[OwnedValue],
        step: usize,
        exemplar: Exemplar,
    ) {
        if self.exemplary.len() >= self.exemplars {
            return;
        }
        let id = exemplar.labels.iter().find(|(name, _)| name == "trace:id");
        let id = id
            .map(|(_, id)| id.to_string().into_bytes())
            .unwrap_or_default();
        let group = self
            .leaves
            .get_mut(leaf)
            .and_then(|run| run.groups.get_mut(by));
        if let Some(group) = group
            && self.exemplary.insert(id)
        {
            group.exemplars.push((exemplar, step));
        }
    }

    /// Makes the series.
    pub fn finish(self) -> Finished {
        let Some(plan) = self.plan else {
            return Finished {
                series: Vec::new(),
                truncated: None,
            };
        };
        let leaves: Vec<Vec<Line>> = plan
            .leaves
            .iter()
            .zip(&self.leaves)
            .map(|(leaf, run)| second_stages(self.lines(leaf, run), &leaf.pipeline.second))
            .collect();
        let mut lines = match calculated(&plan.tree, &leaves) {
            Side::Lines(lines) => second_stages(lines, &plan.second),
            Side::Number(_) => Vec::new(),
        };
        lines = without_empty(lines);
        lines.sort_by(|l, r| by_labels(&l.labels, &r.labels));
        let truncated = match (self.truncated, self.is_compared_in_part) {
            (true, _) => Some(Truncated::Series(self.series)),
            (false, true) => Some(Truncated::Values(self.compared)),
            (false, false) => None,
        };
        Finished {
            series: lines.into_iter().map(|line| self.series_of(line)).collect(),
            truncated,
        }
    }

    fn series_of(&self, line: Line) -> Series {
        let plain = |(name, value): (String, OwnedValue)| (name, value.plain());
        let samples = line
            .values
            .iter()
            .enumerate()
            .filter(|(_, value)| !value.is_nan());
        let samples = samples.map(|(step, value)| (self.window.timestamp_ms(step), *value));
        let mut exemplars: Vec<Exemplar> = line
            .exemplars
            .into_iter()
            .zip(line.steps)
            .map(|(exemplar, step)| Exemplar {
                value: match exemplar.value.is_nan() {
                    true => line.values.get(step).copied().unwrap_or(f64::NAN),
                    false => exemplar.value,
                },
                ..exemplar
            })
            .collect();
        exemplars.sort_by_key(|exemplar| exemplar.timestamp_ms);
        Series {
            samples: samples.collect(),
            labels: line.labels.into_iter().map(plain).collect(),
            exemplars,
        }
    }

    /// The series of one leaf.
    fn lines(&self, leaf: &Leaf, run: &Run) -> Vec<Line> {
        let steps = self.window.steps();
        let function = &leaf.pipeline.function;
        if let MetricsFunction::Compare { top, .. } = function {
            return run
                .compared
                .lines(usize::try_from(*top).unwrap_or(usize::MAX), steps);
        }
        let seconds = match function {
            MetricsFunction::Rate { .. } => self.window.step_seconds(),
            _ => 1.0,
        };
        let mut groups: Vec<(&Vec<OwnedValue>, &Group)> = run.groups.iter().collect();
        groups.sort_by_key(|(values, _)| *values);
        let none = Group {
            cells: Cells::new(function, steps),
            exemplars: Vec::new(),
        };
        // Without anything to be made by there is one series, also of no spans.
        let no_values = Vec::new();
        if leaf.by.is_empty() && groups.is_empty() {
            groups.push((&no_values, &none));
        }
        let mut lines = Vec::new();
        for (values, group) in groups {
            let Cells::Buckets(buckets) = &group.cells else {
                let labels = labels(leaf, values, true);
                lines.push(line(labels, group.cells.values(seconds), &group.exemplars));
                continue;
            };
            let scale = leaf.scale();
            if let Some(qs) = leaf.quantiles() {
                if buckets.is_empty() {
                    continue;
                }
                let whole: Vec<(i32, f64)> = buckets
                    .iter()
                    .map(|(exponent, cells)| (*exponent, cells.iter().sum()))
                    .collect();
                let overall: Vec<f64> = qs.iter().map(|q| quantile(&whole, *q) / scale).collect();
                for (n, q) in qs.iter().enumerate() {
                    let mut labels = labels(leaf, values, false);
                    labels.push((QUANTILE.to_owned(), OwnedValue::Float(*q)));
                    let of_this = group
                        .exemplars
                        .iter()
                        .filter(|e| nearest(&overall, e.0.value) == n);
                    let of_this: Vec<_> = of_this.cloned().collect();
                    let values = quantiles(buckets, *q, steps, scale);
                    lines.push(line(labels, values, &of_this));
                }
            } else {
                for (exponent, cells) in buckets {
                    let mut labels = labels(leaf, values, false);
                    let end = bucket_end(*exponent, scale);
                    labels.push((BUCKET.to_owned(), OwnedValue::Float(end)));
                    let of_this = group.exemplars.iter().filter(|exemplar| {
                        log2_bucket(exemplar.0.value * scale) == Some(*exponent)
                    });
                    let of_this: Vec<_> = of_this.cloned().collect();
                    let values = Cells::Count(cells.clone()).values(1.0);
                    lines.push(line(labels, values, &of_this));
                }
            }
        }
        lines
    }
}

impl Run {
    /// The group of these values; none where there are too many.
    fn group(
        &mut self,
        leaf: &Leaf,
        by: Vec<OwnedValue>,
        steps: usize,
        limit: usize,
    ) -> Option<&mut Group> {
        if !self.groups.contains_key(&by) {
            if self.series >= limit {
                return None;
            }
            self.series += 1;
        }
        Some(self.groups.entry(by).or_insert_with(|| Group {
            cells: Cells::new(&leaf.pipeline.function, steps),
            exemplars: Vec::new(),
        }))
    }
}

fn line(labels: Labels, values: Vec<f64>, of_group: &[(Exemplar, usize)]) -> Line {
    let (exemplars, steps) = of_group.iter().cloned().unzip();
    Line {
        labels,
        values,
        exemplars,
        steps,
    }
}

/// Whether `compare` may select a span that starts then.
fn in_window(start_ns: u64, window: Option<(i64, i64)>) -> bool {
    window.is_none_or(|(from, to)| {
        let start = i64::try_from(start_ns).unwrap_or(i64::MAX);
        start >= from && start < to
    })
}

fn exemplar<S: TraceSpan>(span: &InTrace<'_, S>, value: f64) -> Exemplar {
    let id = |id: &[u8]| OwnedValue::of(crate::Scalar::Id(id));
    let text = |text: &str| OwnedValue::Str(text.to_owned());
    let start_ns = span.span().start_ns();
    Exemplar {
        labels: vec![
            ("trace:id".to_owned(), id(span.trace_id())),
            ("span:id".to_owned(), id(span.span_id())),
            ("name".to_owned(), text(span.name())),
            (
                "resource.service.name".to_owned(),
                text(span.span().service_name()),
            ),
        ],
        value,
        timestamp_ms: i64::try_from(start_ns / 1_000_000).unwrap_or(i64::MAX),
    }
}

/// The labels of what a group is made by: missing ones are left out, unless all are missing and there is no
/// other label.
fn labels(leaf: &Leaf, values: &[OwnedValue], alone: bool) -> Labels {
    let named = leaf
        .by
        .iter()
        .map(|(name, _)| name.clone())
        .zip(values.iter().cloned());
    let labels: Labels = named
        .filter(|(_, value)| *value != OwnedValue::Nil)
        .collect();
    if !alone || !labels.is_empty() {
        return labels;
    }
    match leaf.by.first() {
        Some((name, _)) => vec![(name.clone(), OwnedValue::Nil)],
        None => {
            let name = leaf.pipeline.function.name();
            vec![(NAME.to_owned(), OwnedValue::Str(name.to_owned()))]
        }
    }
}

/// The index of the value that is nearest.
fn nearest(values: &[f64], value: f64) -> usize {
    let distance = |n: &f64| (n - value).abs();
    let order = values
        .iter()
        .enumerate()
        .min_by(|(_, l), (_, r)| distance(l).total_cmp(&distance(r)));
    order.map_or(0, |(n, _)| n)
}

/// A side of an operator.
enum Side {
    Lines(Vec<Line>),
    Number(f64),
}

fn calculated(tree: &Tree, leaves: &[Vec<Line>]) -> Side {
    match tree {
        Tree::Leaf(n) => Side::Lines(leaves.get(*n).cloned().unwrap_or_default()),
        Tree::Number(number) => Side::Number(*number),
        Tree::Arith(op, left, right) => match (calculated(left, leaves), calculated(right, leaves))
        {
            (Side::Lines(left), Side::Lines(right)) => Side::Lines(joined(*op, left, right)),
            (Side::Lines(lines), Side::Number(number)) => {
                Side::Lines(with_number(lines, *op, number, false))
            }
            (Side::Number(number), Side::Lines(lines)) => {
                Side::Lines(with_number(lines, *op, number, true))
            }
            (Side::Number(_), Side::Number(_)) => Side::Number(f64::NAN),
        },
    }
}
