//! A pipeline made ready to run, and its run over a trace.

use std::collections::HashMap;

use crate::ast::CompareOp;
use crate::compile::{Pred, compile};
use crate::error::{Error, ErrorKind};
use crate::eval;
use crate::query::{
    Aggregate, AggregateOp, Form, Pipeline, Relation, ScalarExpr, ScalarFilter, SpansetExpr,
    SpansetOp, Stage,
};
use crate::reading::{Number, Reading};
use crate::span::TraceSpan;
use crate::structure;
use crate::trace::Trace;
use crate::value::OwnedValue;

/// The most regular expressions in a query.
const MAX_REGEXES: usize = 256;

/// A pipeline, compiled.
#[derive(Debug)]
pub(crate) struct Stages(Vec<Run>);

#[derive(Debug)]
enum Run {
    Spansets(Spansets),
    Scalar(Scalars),
    By(Reading, String),
    Coalesce,
    Select,
}

#[derive(Debug)]
enum Spansets {
    Filter(Pred),
    Both(Box<Spansets>, Box<Spansets>),
    Either(Box<Spansets>, Box<Spansets>),
    Related(Relation, Form, Box<Spansets>, Box<Spansets>),
    Pipeline(Stages),
}

#[derive(Debug)]
struct Scalars {
    aggregate: AggregateOp,
    value: Option<Reading>,
    /// How the aggregate is written: the key of its result.
    text: String,
    op: CompareOp,
    number: Number,
}

/// Spans of a trace by their positions in order, and what is known of them all.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) positions: Vec<u32>,
    pub(crate) attributes: Vec<(String, OwnedValue)>,
}

impl Set {
    fn with(&self, positions: Vec<u32>) -> Option<Self> {
        (!positions.is_empty()).then(|| Self {
            positions,
            attributes: self.attributes.clone(),
        })
    }
}

impl Stages {
    /// Compiles a checked pipeline. `regexes` counts the regular expressions of the whole query.
    pub(crate) fn new(pipeline: &Pipeline, regexes: &mut usize) -> Result<Self, Error> {
        let stages = pipeline.stages.iter().map(|stage| {
            Ok(match stage {
                Stage::Spansets(expr) => Run::Spansets(Spansets::new(expr, regexes)?),
                Stage::Scalar(filter) => Run::Scalar(Scalars::new(filter)?),
                Stage::By(expr) => Run::By(Reading::new(expr)?, stage.to_string()),
                Stage::Coalesce => Run::Coalesce,
                Stage::Select(_) => Run::Select,
            })
        });
        Ok(Self(stages.collect::<Result<_, Error>>()?))
    }

    /// The spansets of a whole trace.
    pub(crate) fn run<S: TraceSpan>(&self, trace: &Trace<'_, S>) -> Vec<Set> {
        let all = Set {
            positions: trace.positions().collect(),
            attributes: Vec::new(),
        };
        self.sets(trace, all)
    }

    fn sets<S: TraceSpan>(&self, trace: &Trace<'_, S>, input: Set) -> Vec<Set> {
        let mut sets: Vec<Set> = Vec::new();
        sets.extend((!input.positions.is_empty()).then_some(input));
        for stage in &self.0 {
            if sets.is_empty() {
                break;
            }
            sets = match stage {
                Run::Spansets(spansets) => sets
                    .into_iter()
                    .flat_map(|set| spansets.sets(trace, set))
                    .collect(),
                Run::Scalar(scalars) => sets
                    .into_iter()
                    .filter_map(|set| scalars.keep(trace, set))
                    .collect(),
                Run::By(reading, text) => {
                    let groups = sets
                        .iter()
                        .flat_map(|set| grouped(trace, set, reading, text));
                    groups.collect()
                }
                Run::Coalesce => Set {
                    positions: Vec::new(),
                    attributes: Vec::new(),
                }
                .with(merged(&sets))
                .into_iter()
                .collect(),
                Run::Select => sets,
            };
        }
        sets
    }
}

/// One set for each value, in the order of each value's first span.
fn grouped<S: TraceSpan>(
    trace: &Trace<'_, S>,
    set: &Set,
    reading: &Reading,
    text: &str,
) -> Vec<Set> {
    let mut groups: Vec<Set> = Vec::new();
    let mut known: HashMap<OwnedValue, usize> = HashMap::new();
    for position in &set.positions {
        let value = reading.owned(&trace.in_trace(*position));
        let group = *known.entry(value).or_insert_with_key(|value| {
            let mut attributes = set.attributes.clone();
            attributes.push((text.to_owned(), value.clone().plain()));
            groups.push(Set {
                positions: Vec::new(),
                attributes,
            });
            groups.len() - 1
        });
        if let Some(group) = groups.get_mut(group) {
            group.positions.push(*position);
        }
    }
    groups
}

/// The positions in any of the sets, in order.
pub(crate) fn merged(sets: &[Set]) -> Vec<u32> {
    if let [one] = sets {
        return one.positions.clone();
    }
    let mut positions: Vec<u32> = sets
        .iter()
        .flat_map(|set| set.positions.iter().copied())
        .collect();
    positions.sort_unstable();
    positions.dedup();
    positions
}

impl Spansets {
    fn new(expr: &SpansetExpr, regexes: &mut usize) -> Result<Self, Error> {
        Ok(match expr {
            SpansetExpr::Filter(expr) => {
                let (pred, own) = compile(expr)?;
                *regexes += own;
                if *regexes > MAX_REGEXES {
                    let expected = format!("a query has at most {MAX_REGEXES} regular expressions");
                    return Err(Error::new(ErrorKind::TooLarge, expr.at, expected, "more"));
                }
                Self::Filter(pred)
            }
            SpansetExpr::Pipeline(pipeline) => Self::Pipeline(Stages::new(pipeline, regexes)?),
            SpansetExpr::Op { op, left, right } => {
                let left = Box::new(Self::new(left, regexes)?);
                let right = Box::new(Self::new(right, regexes)?);
                match op {
                    SpansetOp::And => Self::Both(left, right),
                    SpansetOp::Or => Self::Either(left, right),
                    SpansetOp::Structural(relation, form) => {
                        Self::Related(*relation, *form, left, right)
                    }
                }
            }
        })
    }

    fn sets<S: TraceSpan>(&self, trace: &Trace<'_, S>, input: Set) -> Vec<Set> {
        match self {
            Self::Filter(Pred::Const(true)) => vec![input],
            Self::Filter(pred) => {
                let mut set = input;
                set.positions
                    .retain(|p| eval::holds(pred, &trace.in_trace(*p)));
                if set.positions.is_empty() {
                    Vec::new()
                } else {
                    vec![set]
                }
            }
            Self::Pipeline(stages) => stages.sets(trace, input),
            Self::Both(left, right) | Self::Either(left, right) => {
                let mut sets = left.sets(trace, input.clone());
                let right = right.sets(trace, input.clone());
                let both = matches!(self, Self::Both(..));
                if both && (sets.is_empty() || right.is_empty()) {
                    return Vec::new();
                }
                sets.extend(right);
                input.with(merged(&sets)).into_iter().collect()
            }
            // Several spansets on a side count as one: which of them a relation is to makes no difference.
            Self::Related(relation, form, left, right) => {
                let right = merged(&right.sets(trace, input.clone()));
                if right.is_empty() {
                    return Vec::new();
                }
                let left = merged(&left.sets(trace, input.clone()));
                let related = structure::related(trace, *relation, *form, &left, &right);
                input.with(related).into_iter().collect()
            }
        }
    }
}

impl Scalars {
    fn new(filter: &ScalarFilter) -> Result<Self, Error> {
        let (ScalarExpr::Aggregate(aggregate), ScalarExpr::Number(literal)) =
            (&filter.left, &filter.right)
        else {
            let expected = "only an aggregate compared with a number is supported";
            let found = format!("`{filter}`");
            return Err(Error::new(
                ErrorKind::Unsupported,
                filter.at.0,
                expected,
                found,
            ));
        };
        let Aggregate { op, value, .. } = aggregate;
        let number = match literal {
            crate::Literal::Float(x) => Number::Float(*x),
            crate::Literal::Int(n) | crate::Literal::Duration(n) => Number::Int(*n),
            _ => Number::Float(f64::NAN),
        };
        Ok(Self {
            aggregate: *op,
            value: value.as_ref().map(Reading::new).transpose()?,
            text: aggregate.to_string(),
            op: filter.op,
            number,
        })
    }

    /// The set with its aggregate, if the comparison holds. A set without a number has none.
    fn keep<S: TraceSpan>(&self, trace: &Trace<'_, S>, mut set: Set) -> Option<Set> {
        let result = match &self.value {
            None => Number::Int(i64::try_from(set.positions.len()).unwrap_or(i64::MAX)),
            Some(reading) => {
                let mut total = Total::default();
                for position in &set.positions {
                    reading.numbers(&trace.in_trace(*position), &mut |n| total.add(n));
                }
                let is_duration = reading.is_duration;
                total.result(self.aggregate, is_duration)?
            }
        };
        if eval::compare(self.op, result.scalar(), self.number.scalar()) != Some(true) {
            return None;
        }
        let is_duration = self
            .value
            .as_ref()
            .is_some_and(|reading| reading.is_duration);
        let value = OwnedValue::of_field(result.scalar(), is_duration);
        set.attributes.push((self.text.clone(), value.plain()));
        Some(set)
    }
}

/// Numbers on the way to an aggregate.
#[derive(Debug, Default)]
struct Total {
    count: u64,
    /// The sum of the integers; exact, since a trace has far fewer than 2^63 spans.
    ints: i128,
    floats: Option<f64>,
    least: Option<Number>,
    greatest: Option<Number>,
}

fn is(op: CompareOp, left: Number, right: Number) -> bool {
    eval::compare(op, left.scalar(), right.scalar()) == Some(true)
}

impl Total {
    fn add(&mut self, number: Number) {
        self.count += 1;
        match number {
            Number::Int(n) => self.ints += i128::from(n),
            Number::Float(x) => *self.floats.get_or_insert(0.0) += x,
        }
        if self
            .least
            .is_none_or(|least| is(CompareOp::Lt, number, least))
        {
            self.least = Some(number);
        }
        if self
            .greatest
            .is_none_or(|greatest| is(CompareOp::Gt, number, greatest))
        {
            self.greatest = Some(number);
        }
    }

    /// An average of durations is a whole number of nanoseconds; any other is a float.
    #[allow(clippy::cast_precision_loss)] // floats have no more to give
    fn result(&self, op: AggregateOp, is_duration: bool) -> Option<Number> {
        if self.count == 0 {
            return None;
        }
        let sum = match self.floats {
            None => match i64::try_from(self.ints) {
                Ok(sum) => Number::Int(sum),
                Err(_) => Number::Float(self.ints as f64),
            },
            Some(floats) => Number::Float(self.ints as f64 + floats),
        };
        match op {
            AggregateOp::Count => i64::try_from(self.count).ok().map(Number::Int),
            AggregateOp::Sum => Some(sum),
            AggregateOp::Min => self.least,
            AggregateOp::Max => self.greatest,
            AggregateOp::Avg if is_duration && self.floats.is_none() => {
                let average = self.ints / i128::from(self.count);
                i64::try_from(average).ok().map(Number::Int)
            }
            AggregateOp::Avg => match self.floats {
                None => Some(Number::Float(self.ints as f64 / self.count as f64)),
                Some(_) => Some(Number::Float(sum.float() / self.count as f64)),
            },
        }
    }
}
