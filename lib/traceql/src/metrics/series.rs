//! What is done with finished series: second stages, and arithmetic between them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Exemplar;
use crate::ast::{ArithOp, CompareOp};
use crate::eval;
use crate::query::SecondStage;
use crate::span::Scalar;
use crate::value::OwnedValue;

/// The label of a series that is made by nothing.
pub(crate) const NAME: &str = "__name__";

/// Labels and their values, in the order of the query.
pub(crate) type Labels = Vec<(String, OwnedValue)>;

/// A series with one value for each step; not a number where there is none.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<f64>,
    pub(crate) exemplars: Vec<Exemplar>,
    /// The step of each exemplar.
    pub(crate) steps: Vec<usize>,
}

/// By the values of the labels first, so that series of equal value stand by what tells them apart.
pub(crate) fn by_labels(left: &Labels, right: &Labels) -> Ordering {
    let key = |labels: &Labels| -> Vec<(OwnedValue, String)> {
        labels
            .iter()
            .map(|(name, value)| (value.clone(), name.clone()))
            .collect()
    };
    key(left).cmp(&key(right))
}

pub(crate) fn second_stages(mut lines: Vec<Line>, stages: &[SecondStage]) -> Vec<Line> {
    for stage in stages {
        lines = match stage {
            SecondStage::TopK(limit, _) => extreme(lines, *limit, true),
            SecondStage::BottomK(limit, _) => extreme(lines, *limit, false),
            SecondStage::Compare(op, value) => compared(lines, *op, *value),
        };
    }
    lines
}

/// At each step the greatest or smallest values. Of equal ones those with the first labels are the greatest,
/// and those with the last labels the smallest, as in Tempo.
fn extreme(mut lines: Vec<Line>, limit: i64, greatest: bool) -> Vec<Line> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if lines.len() <= limit {
        return lines;
    }
    lines.sort_by(|l, r| by_labels(&l.labels, &r.labels));
    let steps = lines
        .iter()
        .map(|line| line.values.len())
        .max()
        .unwrap_or(0);
    let mut kept = vec![vec![false; steps]; lines.len()];
    for step in 0..steps {
        let mut values: Vec<(usize, f64)> = lines
            .iter()
            .enumerate()
            .filter_map(|(n, line)| Some((n, *line.values.get(step)?)))
            .filter(|(_, value)| !value.is_nan())
            .collect();
        values.sort_by(|(ln, l), (rn, r)| r.total_cmp(l).then(ln.cmp(rn)));
        if !greatest {
            values.reverse();
        }
        for (n, _) in values.into_iter().take(limit) {
            if let Some(keep) = kept.get_mut(n).and_then(|steps| steps.get_mut(step)) {
                *keep = true;
            }
        }
    }
    for (line, kept) in lines.iter_mut().zip(&kept) {
        for (value, keep) in line.values.iter_mut().zip(kept) {
            if !keep {
                *value = f64::NAN;
            }
        }
    }
    without_empty(lines)
}

fn compared(mut lines: Vec<Line>, op: CompareOp, with: f64) -> Vec<Line> {
    let holds =
        |value: f64| eval::compare(op, Scalar::Float(value), Scalar::Float(with)) == Some(true);
    for line in &mut lines {
        for value in &mut line.values {
            if value.is_nan() || !holds(*value) {
                *value = f64::NAN;
            }
        }
    }
    without_empty(lines)
}

/// The lines that have a value, with the exemplars of steps that have one.
pub(crate) fn without_empty(mut lines: Vec<Line>) -> Vec<Line> {
    lines.retain(|line| line.values.iter().any(|value| !value.is_nan()));
    for line in &mut lines {
        let has_value = |step: &usize| line.values.get(*step).is_some_and(|value| !value.is_nan());
        let keep: Vec<bool> = line.steps.iter().map(has_value).collect();
        let mut of_exemplars = keep.iter();
        line.exemplars
            .retain(|_| of_exemplars.next() == Some(&true));
        let mut of_steps = keep.iter();
        line.steps.retain(|_| of_steps.next() == Some(&true));
    }
    lines
}

fn calculated(op: ArithOp, left: f64, right: f64) -> f64 {
    match op {
        ArithOp::Add => left + right,
        ArithOp::Sub => left - right,
        ArithOp::Mul => left * right,
        ArithOp::Div if right == 0.0 => f64::NAN,
        ArithOp::Div => left / right,
        ArithOp::Mod | ArithOp::Pow => f64::NAN,
    }
}

/// Each value and a constant.
pub(crate) fn with_number(
    mut lines: Vec<Line>,
    op: ArithOp,
    number: f64,
    number_first: bool,
) -> Vec<Line> {
    for value in lines.iter_mut().flat_map(|line| &mut line.values) {
        *value = match number_first {
            true => calculated(op, number, *value),
            false => calculated(op, *value, number),
        };
    }
    lines
}

/// The labels without the name, which says nothing of what a series is about.
fn key(labels: &Labels) -> Labels {
    let mut key: Labels = labels
        .iter()
        .filter(|(name, _)| name != NAME)
        .cloned()
        .collect();
    key.sort();
    key
}

/// Series of both sides with equal labels; one without labels meets each of the other side. A missing value
/// counts as 0 where the other side has one, as in Tempo.
pub(crate) fn joined(op: ArithOp, left: Vec<Line>, right: Vec<Line>) -> Vec<Line> {
    let sides = [left, right].map(|lines| {
        let keyed = lines.into_iter().map(|line| (key(&line.labels), line));
        keyed.collect::<BTreeMap<_, _>>()
    });
    let [left, right] = &sides;
    let lone = Labels::new();
    let keys = if right.contains_key(&lone) {
        left.keys()
    } else {
        right.keys()
    };
    let lines = keys.filter_map(|key| {
        let left = left.get(key).or_else(|| left.get(&lone))?;
        let right = right.get(key).or_else(|| right.get(&lone))?;
        let zero = |value: f64| if value.is_nan() { 0.0 } else { value };
        let values = left.values.iter().zip(&right.values);
        Some(Line {
            labels: merged(op, &left.labels, &right.labels),
            values: values
                .map(|(l, r)| calculated(op, zero(*l), zero(*r)))
                .collect(),
            exemplars: [&left.exemplars[..], &right.exemplars[..]].concat(),
            steps: [&left.steps[..], &right.steps[..]].concat(),
        })
    });
    lines.collect()
}

/// The labels of both; their names become one where both have one.
fn merged(op: ArithOp, left: &Labels, right: &Labels) -> Labels {
    let name = |labels: &Labels| {
        let name = labels.iter().find(|(name, _)| name == NAME);
        name.map(|(_, value)| value.to_string())
    };
    let mut labels = Labels::new();
    if let (Some(left), Some(right)) = (name(left), name(right)) {
        let both = format!("({left} {} {right})", op.symbol());
        labels.push((NAME.to_owned(), OwnedValue::Str(both)));
    }
    for (name, value) in left.iter().chain(right) {
        if name != NAME && !labels.iter().any(|(known, _)| known == name) {
            labels.push((name.clone(), value.clone()));
        }
    }
    labels
}
