//! The values of one series while spans come in: one cell for each step.

use std::collections::BTreeMap;

use crate::query::{MetricsFunction, OverOp};
use crate::reading::Number;

/// What a function keeps of each series.
#[derive(Debug, Clone)]
pub(crate) enum Cells {
    Count(Vec<f64>),
    Least(Vec<f64>),
    Greatest(Vec<f64>),
    Sum(Vec<Sum>),
    Average(Vec<(Sum, f64)>),
    /// By the exponent of two that a value is not above.
    Buckets(BTreeMap<i32, Vec<f64>>),
}

/// A sum of floats that loses nothing to rounding that matters (Neumaier's variant of Kahan's).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    total: f64,
    lost: f64,
    any: bool,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        let total = self.total + value;
        self.lost += if !total.is_finite() {
            0.0
        } else if self.total.abs() >= value.abs() {
            (self.total - total) + value
        } else {
            (value - total) + self.total
        };
        self.total = total;
        self.any = true;
    }

    /// The sum; not a number without any value.
    fn value(self) -> f64 {
        if self.any {
            self.total + self.lost
        } else {
            f64::NAN
        }
    }
}

/// What was aggregated elsewhere, for one step of one series. Values of fields that are durations are in
/// nanoseconds. A query that [extrapolates](crate::CompiledQuery::extrapolates) takes each span as many times as
/// its [weight](crate::TraceSpan::weight) says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Partial {
    /// So many spans: for `rate` and `count_over_time`.
    Count(f64),
    /// A minimum, maximum or sum: for the functions of these names.
    Value(f64),
    /// A sum of so many values: for `avg_over_time`.
    Average {
        /// The sum.
        sum: f64,
        /// How many values it is of.
        count: f64,
    },
    /// So many values above 2^(`exponent` - 1) and not above 2^`exponent`: for `quantile_over_time` and
    /// `histogram_over_time`. [`log2_bucket`] tells the exponent.
    Bucket {
        /// The power of two that they are not above.
        exponent: i32,
        /// How many they are.
        count: f64,
    },
}

/// The exponent of the least power of two that `value` is not above; none where it is not above 0. As in
/// Tempo, integers and nanoseconds below 2 are in no bucket: ask only for those from 2 on.
#[allow(clippy::cast_possible_truncation)] // exponents of floats are small
pub fn log2_bucket(value: f64) -> Option<i32> {
    if !(value > 0.0 && value.is_finite()) {
        return None;
    }
    // The logarithm may be off by its last bit: corrected by what is exact.
    let mut exponent = value.log2().ceil() as i32;
    while power(exponent) < value {
        exponent += 1;
    }
    while power(exponent - 1) >= value {
        exponent -= 1;
    }
    Some(exponent)
}

fn power(exponent: i32) -> f64 {
    2f64.powi(exponent)
}

fn bucket_of(number: Number) -> Option<i32> {
    match number {
        Number::Int(n) if n < 2 => None,
        // Above 2^53 a float may round up to the next power.
        Number::Int(n) => i32::try_from(64 - (n - 1).leading_zeros()).ok(),
        Number::Float(x) => log2_bucket(x),
    }
}

impl Cells {
    pub(crate) fn new(function: &MetricsFunction, steps: usize) -> Self {
        let nan = || vec![f64::NAN; steps];
        match function {
            MetricsFunction::Rate { .. }
            | MetricsFunction::Count { .. }
            | MetricsFunction::Compare { .. } => Self::Count(vec![0.0; steps]),
            MetricsFunction::Quantile { .. } => Self::Buckets(BTreeMap::new()),
            MetricsFunction::Over { op, .. } => match op {
                OverOp::Min => Self::Least(nan()),
                OverOp::Max => Self::Greatest(nan()),
                OverOp::Sum => Self::Sum(vec![Sum::default(); steps]),
                OverOp::Avg => Self::Average(vec![(Sum::default(), 0.0); steps]),
                OverOp::Histogram => Self::Buckets(BTreeMap::new()),
            },
        }
    }

    /// Adds one span, or one number of it, as often as `weight` says; `scale` nanoseconds are a second.
    pub(crate) fn add(
        &mut self,
        (step, steps): (usize, usize),
        number: Option<Number>,
        weight: f64,
        scale: f64,
    ) {
        let count = weight;
        match (&mut *self, number) {
            (Self::Buckets(_), Some(number)) => {
                if let Some(exponent) = bucket_of(number) {
                    self.merge(step, steps, Partial::Bucket { exponent, count }, scale);
                }
            }
            (Self::Average(_), Some(number)) => {
                let sum = number.float() * weight;
                self.merge(step, steps, Partial::Average { sum, count }, scale);
            }
            (Self::Sum(_), Some(number)) => {
                let sum = number.float() * weight;
                self.merge(step, steps, Partial::Value(sum), scale);
            }
            (_, Some(number)) => self.merge(step, steps, Partial::Value(number.float()), scale),
            (_, None) => self.merge(step, steps, Partial::Count(count), scale),
        }
    }

    /// Adds what was aggregated elsewhere. What does not fit the function is left out.
    pub(crate) fn merge(&mut self, step: usize, steps: usize, partial: Partial, scale: f64) {
        match (self, partial) {
            (Self::Count(cells), Partial::Count(count)) => {
                if let Some(cell) = cells.get_mut(step) {
                    *cell += count;
                }
            }
            (Self::Least(cells), Partial::Value(value)) if !value.is_nan() => {
                if let Some(cell) = cells.get_mut(step) {
                    *cell = cell.min(value / scale);
                }
            }
            (Self::Greatest(cells), Partial::Value(value)) if !value.is_nan() => {
                if let Some(cell) = cells.get_mut(step) {
                    *cell = cell.max(value / scale);
                }
            }
            (Self::Sum(cells), Partial::Value(value)) if !value.is_nan() => {
                if let Some(cell) = cells.get_mut(step) {
                    cell.add(value / scale);
                }
            }
            (Self::Average(cells), Partial::Average { sum, count }) if !sum.is_nan() => {
                if let Some((cell, total)) = cells.get_mut(step)
                    && count > 0.0
                {
                    cell.add(sum / scale);
                    *total += count;
                }
            }
            (Self::Buckets(buckets), Partial::Bucket { exponent, count }) if step < steps => {
                let cells = buckets.entry(exponent).or_insert_with(|| vec![0.0; steps]);
                if let Some(cell) = cells.get_mut(step) {
                    *cell += count;
                }
            }
            _ => {}
        }
    }

    /// How many series it makes.
    pub(crate) fn series(&self) -> usize {
        match self {
            Self::Buckets(buckets) => buckets.len(),
            _ => 1,
        }
    }

    /// One value for each step; nothing for buckets, and not a number where there is none. `seconds` is what
    /// counts are divided by.
    pub(crate) fn values(&self, seconds: f64) -> Vec<f64> {
        match self {
            Self::Count(cells) => cells.iter().map(|count| count / seconds).collect(),
            Self::Least(cells) | Self::Greatest(cells) => cells.clone(),
            Self::Sum(cells) => cells.iter().map(|sum| sum.value()).collect(),
            Self::Average(cells) => cells
                .iter()
                .map(|(sum, count)| sum.value() / count)
                .collect(),
            Self::Buckets(_) => Vec::new(),
        }
    }
}

/// The quantile `q` of each step, with the value between two powers of two by the share of the values that
/// are below. A step without values has 0, as in Tempo.
pub(crate) fn quantiles(
    buckets: &BTreeMap<i32, Vec<f64>>,
    q: f64,
    steps: usize,
    scale: f64,
) -> Vec<f64> {
    let of_step = |step: usize| {
        let counts = buckets.iter().filter_map(move |(exponent, cells)| {
            cells
                .get(step)
                .filter(|count| **count > 0.0)
                .map(|count| (*exponent, *count))
        });
        quantile(&counts.collect::<Vec<_>>(), q) / scale
    };
    (0..steps).map(of_step).collect()
}

/// The quantile of values that are counted by their buckets, in order.
pub(crate) fn quantile(buckets: &[(i32, f64)], q: f64) -> f64 {
    let total: f64 = buckets.iter().map(|(_, count)| count).sum();
    // Rounded up, so that few values are not lost; at least the first one.
    let wanted = (q * total).ceil().max(1.0);
    let mut below = 0.0;
    let mut before: Option<i32> = None;
    for (exponent, count) in buckets {
        if below + count > wanted {
            let share = (wanted - below) / count;
            let least = f64::from(before.unwrap_or(exponent - 1));
            return 2f64.powf(least + (f64::from(*exponent) - least) * share);
        }
        below += count;
        before = Some(*exponent);
    }
    before.map_or(0.0, power)
}

/// The bucket's upper end.
pub(crate) fn bucket_end(exponent: i32, scale: f64) -> f64 {
    power(exponent) / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets() {
        for (value, exponent) in [
            (1.0, 0),
            (1.5, 1),
            (2.0, 1),
            (2.1, 2),
            (1024.0, 10),
            (1025.0, 11),
            (0.5, -1),
            (0.3, -1),
        ] {
            assert_eq!(log2_bucket(value), Some(exponent), "{value}");
        }
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(log2_bucket(value), None);
        }
        assert_eq!(bucket_of(Number::Int(1)), None);
        assert_eq!(bucket_of(Number::Int(2)), Some(1));
        assert_eq!(bucket_of(Number::Int((1 << 60) + 1)), Some(61));
        assert_eq!(bucket_of(Number::Int(i64::MAX)), Some(63));
    }

    #[test]
    fn quantiles_lie_between_powers_of_two() {
        assert!((quantile(&[(3, 4.0)], 1.0) - 8.0).abs() < 1e-9);
        assert!((quantile(&[(3, 4.0)], 0.5) - 2f64.powf(2.5)).abs() < 1e-9);
        assert!((quantile(&[(1, 2.0), (5, 2.0)], 0.5) - 2.0).abs() < 1e-9);
        assert!((quantile(&[(1, 2.0), (5, 2.0)], 0.75) - 2f64.powf(3.0)).abs() < 1e-9);
        assert!((quantile(&[(1, 3.0)], 0.0) - 2f64.powf(1.0 / 3.0)).abs() < 1e-9);
        assert!(quantile(&[], 0.5).abs() < 1e-9);
    }

    #[test]
    fn sums_lose_nothing() {
        let mut sum = Sum::default();
        for value in [1e100, 1.0, -1e100] {
            sum.add(value);
        }
        assert!((sum.value() - 1.0).abs() < 1e-9);
    }
}
