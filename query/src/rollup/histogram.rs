//! Quantiles from the rollups' bucket counts.
//!
//! Bucket `k` counts durations in (base·2^((k-1)/8), base·2^(k/8)]. A quantile is told as the value
//! in its bucket whose relative distance to both bounds is the same, so it errs by at most 4.34 %:
//! `(2^(1/8) - 1) / (2^(1/8) + 1)`. Interpolating inside the bucket would err by up to 9 % when the
//! values crowd at one bound. Where all values are in one bucket their mean is told, which is the value
//! itself of a single one. Nothing is told below the least value or above the greatest.

/// The base of RED buckets: 2 ms.
pub const RED_BASE_NS: f64 = 2e6;

/// The base of edge buckets: 100 ms.
pub const EDGE_BASE_NS: f64 = 1e8;

/// Merged bucket counts.
#[derive(Debug, Clone)]
pub struct Histogram {
    base_ns: f64,
    /// In the order of their keys.
    buckets: Vec<(i16, u64)>,
    count: u64,
    /// The mean of the values, where their sum is known.
    mean_ns: Option<u64>,
    least_ns: u64,
    greatest_ns: u64,
}

impl Histogram {
    /// Takes merged counts, in any order.
    pub fn new(base_ns: f64, mut buckets: Vec<(i16, u64)>) -> Self {
        buckets.sort_unstable();
        let count = buckets
            .iter()
            .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        Self {
            base_ns,
            buckets,
            count,
            mean_ns: None,
            least_ns: 0,
            greatest_ns: u64::MAX,
        }
    }

    /// With the least and the greatest of all values; 0 and the greatest number where they are unknown.
    pub fn with_range(mut self, least_ns: u64, greatest_ns: u64) -> Self {
        (self.least_ns, self.greatest_ns) = (least_ns, greatest_ns);
        self
    }

    /// With the sum of all values; one that saturated is no help.
    pub fn with_sum(mut self, sum_ns: u64) -> Self {
        self.mean_ns = match sum_ns {
            u64::MAX => None,
            sum => sum.checked_div(self.count),
        };
        self
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The `q`-quantile in nanoseconds; 0 when nothing was counted.
    pub fn quantile(&self, q: f64) -> u64 {
        // Counts and ranks need no more than a double's 53 bits, and the result is cut to whole
        // nanoseconds.
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        #[expect(clippy::cast_sign_loss)]
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count.max(1));
        let mut below = 0_u64;
        for (key, count) in &self.buckets {
            below = below.saturating_add(*count);
            if below >= rank {
                let told = match self.mean_ns {
                    Some(mean) if *count == self.count => mean,
                    _ => self.middle(*key),
                };
                return told.max(self.least_ns).min(self.greatest_ns);
            }
        }
        0
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn middle(&self, key: i16) -> u64 {
        let high = self.base_ns * (f64::from(key) / 8.0).exp2();
        let low = self.base_ns * (f64::from(key - 1) / 8.0).exp2();
        (2.0 * low * high / (low + high)).round() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the pipeline does it.
    fn key(duration_ns: u64, base_ns: f64) -> i16 {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let key = (8.0 * (duration_ns.max(1) as f64 / base_ns).log2()).ceil() as i16;
        key.clamp(-168, 240)
    }

    #[test]
    fn edges() {
        assert_eq!(Histogram::new(RED_BASE_NS, vec![]).quantile(0.5), 0);
        assert_eq!(Histogram::new(RED_BASE_NS, vec![(3, 0)]).count(), 0);
        assert_eq!(
            Histogram::new(RED_BASE_NS, vec![(-168, 1)]).quantile(0.99),
            1
        );
        let one = Histogram::new(RED_BASE_NS, vec![(0, 0), (3, 4)]).with_sum(10_000_003);
        assert_eq!(
            (one.quantile(0.5), one.quantile(0.99)),
            (2_500_000, 2_500_000)
        );
        let full = Histogram::new(RED_BASE_NS, vec![(0, 4)]).with_sum(u64::MAX);
        assert!(full.quantile(0.5) < 2_000_001);
        let unsorted = Histogram::new(RED_BASE_NS, vec![(8, 1), (0, 99)]);
        assert!(unsorted.quantile(0.99) < 2_000_000);
        assert!(unsorted.quantile(1.0) > 3_600_000);
    }

    proptest! {
        #[test]
        fn errs_by_five_percent_at_most(
            mut durations in prop::collection::vec(1_000_u64..100_000_000_000, 1..300),
            q in 0.01_f64..=1.0,
            edges in any::<bool>(),
        ) {
            let base = if edges { EDGE_BASE_NS } else { RED_BASE_NS };
            let buckets = durations.iter().map(|ns| (key(*ns, base), 1)).collect();
            durations.sort_unstable();
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
            #[expect(clippy::cast_sign_loss)]
            let rank = (durations.len() as f64 * q).ceil() as usize;
            #[expect(clippy::cast_precision_loss)]
            let exact = durations[rank.max(1) - 1] as f64;
            let range = (durations[0], durations[durations.len() - 1]);
            let told = Histogram::new(base, buckets).with_range(range.0, range.1).quantile(q);
            prop_assert!(range.0 <= told && told <= range.1, "{told} is not in {range:?}");
            #[expect(clippy::cast_precision_loss)]
            let told = told as f64;
            prop_assert!((told - exact).abs() <= exact * 0.05 + 1.0, "{told} for {exact}");
        }
    }
}
