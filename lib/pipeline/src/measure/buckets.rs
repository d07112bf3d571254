//! The bucket of a duration: key `k` holds durations in `(2 ms · 2^((k-1)/8), 2 ms · 2^(k/8)]`.
//!
//! Neighbouring bounds differ by 2^(1/8), 9 %, so a percentile read from the buckets errs by less
//! than 5 %. The bounds contain 2, 4, 8 ... ms, which dashboards of other tools use.

use std::sync::LazyLock;

/// The lowest key: up to 1 ns.
pub const MIN_KEY: i16 = -168;
/// The highest key; longer durations (24 days and more) are counted here too.
pub const MAX_KEY: i16 = 240;

/// The bound of key 0, in nanoseconds.
const UNIT_NS: u128 = 2_000_000;
/// Buckets between a bound and its double.
const PER_DOUBLING: i32 = 8;
pub(super) const KEYS: usize = (MAX_KEY - MIN_KEY) as usize + 1;

struct Table {
    /// The upper bounds, rounded down to whole nanoseconds, which changes no integer's bucket.
    bounds: [u64; KEYS],
    /// By the number of leading zero bits of a duration: where to begin the search.
    start: [u16; 65],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut bounds = [0; KEYS];
    for (key, bound) in (i32::from(MIN_KEY)..).zip(bounds.iter_mut()) {
        *bound = bound_ns(key);
    }
    let mut start = [0; 65];
    for (zeros, start) in start.iter_mut().enumerate() {
        let least = if zeros == 64 { 0 } else { 1u64 << (63 - zeros) };
        // KEYS fits in 16 bits.
        *start = bounds.partition_point(|&bound| bound < least).min(KEYS - 1) as u16;
    }
    Table { bounds, start }
});

/// `floor(2 ms · 2^(key/8))` in nanoseconds, with 63 bits behind the point on the way.
fn bound_ns(key: i32) -> u64 {
    let (whole, eighths) = (key.div_euclid(PER_DOUBLING), key.rem_euclid(PER_DOUBLING));
    // 2^(eighths/8) by repeated square roots of numbers with 63 binary places.
    let one = 1u128 << 63;
    let root = |x: u128| (x << 63).isqrt();
    let half = root(2 * one);
    let quarter = root(half);
    let eighth = root(quarter);
    let mut factor = one;
    for (bit, power) in [(4, half), (2, quarter), (1, eighth)] {
        if eighths & bit != 0 {
            factor = (factor * power) >> 63;
        }
    }
    let product = UNIT_NS * factor; // 21 + 64 bits
    let shift = 63 - whole;
    // A key in range keeps the shift between 33 and 84.
    u64::try_from(product >> shift).unwrap_or(u64::MAX)
}

/// The upper bound of a key's bucket in nanoseconds, rounded down; keys out of range are clamped.
pub fn upper_bound_ns(key: i16) -> u64 {
    let index = (key.clamp(MIN_KEY, MAX_KEY) - MIN_KEY) as usize;
    TABLE.bounds.get(index).copied().unwrap_or(u64::MAX)
}

/// The key of the bucket that holds a duration.
#[inline]
pub fn key_of(duration_ns: u64) -> i16 {
    let table = &*TABLE;
    let mut index = table.start[duration_ns.leading_zeros() as usize] as usize;
    while index < KEYS - 1 && table.bounds[index] < duration_ns {
        index += 1;
    }
    MIN_KEY + index as i16
}

/// How many durations fell into each bucket: a count for every key between the lowest and the highest seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    first: i16,
    counts: Vec<u32>,
}

impl Counts {
    /// Counts one in the bucket of this key; gives the bytes that it took more for that.
    #[inline]
    pub fn add(&mut self, key: i16) -> usize {
        self.add_many(key, 1)
    }

    /// Counts so many.
    #[inline]
    fn add_many(&mut self, key: i16, more: u32) -> usize {
        let at = usize::try_from(i32::from(key) - i32::from(self.first));
        match at.ok().and_then(|at| self.counts.get_mut(at)) {
            // A batch has far fewer spans than 2^32: its rows bound them.
            Some(count) => {
                *count = count.saturating_add(more);
                0
            }
            None => self.add_outside(key.clamp(MIN_KEY, MAX_KEY), more),
        }
    }

    /// Adds the counts of another; gives the bytes that it took more for that.
    pub(crate) fn add_all(&mut self, other: &Self) -> usize {
        let counts = (other.first..).zip(&other.counts);
        let counts = counts.filter(|&(_, &count)| count > 0);
        counts.map(|(key, &count)| self.add_many(key, count)).sum()
    }

    /// The counts of a bucket and those that follow it.
    pub(crate) fn parts(&self) -> (i16, &[u32]) {
        (self.first, &self.counts)
    }

    /// What [`Self::parts`] gave; none when a bucket is out of range, or nothing was counted.
    pub(crate) fn from_parts(first: i16, counts: Vec<u32>) -> Option<Self> {
        let last = i64::from(first) + i64::try_from(counts.len()).ok()? - 1;
        let known = first >= MIN_KEY && last <= i64::from(MAX_KEY);
        let any = counts.iter().any(|&count| count > 0);
        (known && any).then_some(Self { first, counts })
    }

    /// How many durations were counted.
    pub(crate) fn sum(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    #[cold]
    fn add_outside(&mut self, key: i16, more: u32) -> usize {
        let before = self.counts.len();
        if self.counts.is_empty() {
            self.first = key;
        }
        if key < self.first {
            let missing = self.first.abs_diff(key);
            self.first = key;
            self.counts
                .splice(0..0, std::iter::repeat_n(0, usize::from(missing)));
        }
        let at = usize::from(key.abs_diff(self.first));
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(at) {
            *count = count.saturating_add(more);
        }
        (self.counts.len() - before) * size_of::<u32>()
    }

    /// The buckets that are not empty, by ascending key.
    pub fn iter(&self) -> impl Iterator<Item = (i16, u64)> {
        (self.first..)
            .zip(&self.counts)
            .filter(|&(_, &count)| count > 0)
            .map(|(key, &count)| (key, u64::from(count)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, with floating point.
    fn slow(duration_ns: u64) -> i16 {
        let mut key = MIN_KEY;
        while key < MAX_KEY {
            let bound = 2e6 * 2f64.powf(f64::from(key) / 8.0);
            if duration_ns as f64 <= bound {
                break;
            }
            key += 1;
        }
        key
    }

    #[test]
    fn known_keys() {
        let check = |ns: u64, key: i16| assert_eq!(key_of(ns), key, "{ns} ns");
        check(0, MIN_KEY);
        check(1, -167);
        check(2_000_000, 0);
        check(2_000_001, 1);
        check(1_999_999, 0);
        check(1_000_000, -8);
        check(1_000_001, -7);
        check(4_000_000, 8);
        check(4_000_001, 9);
        check(2_181_015, 1); // 2e6 · 2^(1/8) = 2,181,015.46
        check(2_181_016, 2);
        check(2_048_000_000, 80); // 2 ms · 2^10
        check(u64::MAX, MAX_KEY);
    }

    #[test]
    fn counts_reach_from_one_end_to_the_other() {
        let mut counts = Counts::default();
        assert_eq!(counts.iter().next(), None);
        let keys = [0, 3, 0, -2, MAX_KEY, MIN_KEY, MAX_KEY, 1];
        let bytes: usize = keys.iter().map(|&key| counts.add(key)).sum();
        assert_eq!(bytes, KEYS * size_of::<u32>());
        let expect = [(MIN_KEY, 1), (-2, 1), (0, 2), (1, 1), (3, 1), (MAX_KEY, 2)];
        assert!(counts.iter().eq(expect), "{counts:?}");
    }

    #[test]
    fn bounds_rise_by_an_eighth_of_a_doubling() {
        for key in 0..MAX_KEY {
            let ratio = upper_bound_ns(key + 1) as f64 / upper_bound_ns(key) as f64;
            assert!((ratio - 2f64.powf(0.125)).abs() < 1e-6, "{key}: {ratio}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bits in 0u32..50, low in any::<u64>()) {
            let duration = (1u64 << bits) | (low & ((1u64 << bits) - 1));
            // Floating point may be off by one at the bound itself.
            let near = [duration.saturating_sub(1), duration, duration + 1].map(slow);
            prop_assert!(near.contains(&key_of(duration)), "{duration}: {} {near:?}", key_of(duration));
        }

        #[test]
        fn lies_within_its_bounds(duration in any::<u64>()) {
            let key = key_of(duration);
            prop_assert!(key == MAX_KEY || duration <= upper_bound_ns(key));
            prop_assert!(key == MIN_KEY || duration > upper_bound_ns(key - 1));
        }
    }
}
