//! Which positions were seen, and which must have been there.

use std::collections::BTreeMap;

/// Positions of a process: the upper half of a position counts how often the log was opened.
const EPOCH_SHIFT: u32 = 32;

/// The first position that a process may give to a record when `last` was the highest before. Positions that
/// an earlier process gave, and that a crash took away, are never given again.
pub(crate) fn next_epoch(last: u64) -> u64 {
    ((last >> EPOCH_SHIFT) + 1) << EPOCH_SHIFT
}

fn epoch(position: u64) -> u64 {
    position >> EPOCH_SHIFT
}

/// Positions that were seen, as ranges, and the bounds between which all must be.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// From the first of a range to its last.
    ranges: BTreeMap<u64, u64>,
    /// By epoch: the lowest and the highest position that must have been there.
    bounds: BTreeMap<u64, (u64, u64)>,
    oldest: Option<u64>,
}

impl Positions {
    /// A segment begins with `first`, and its writer knew that `previous` was written before. On a full disk
    /// some records are written before their turn (`is_early`): those before them may follow, or never.
    pub(crate) fn segment(&mut self, first: u64, previous: u64, is_early: bool) {
        // `first` may be the lower one, of a record that others did not wait for.
        let low = first.max(previous.saturating_add(1));
        let oldest = *self.oldest.get_or_insert(low);
        self.bounds.entry(epoch(low)).or_insert((low, 0));
        // What lies before the oldest segment was stored and is gone.
        if previous >= oldest && !is_early {
            self.must_have(previous);
        }
    }

    fn must_have(&mut self, position: u64) {
        let bounds = self
            .bounds
            .entry(epoch(position))
            .or_insert((position, position));
        bounds.1 = bounds.1.max(position);
    }

    /// Returns false for a position that was seen before. Those below one that is not `is_early` must have been
    /// there.
    pub(crate) fn insert(&mut self, position: u64, is_early: bool) -> bool {
        let below = self.ranges.range(..=position).next_back();
        let below = below.map(|(start, end)| (*start, *end));
        if below.is_some_and(|(_, end)| end >= position) {
            return false;
        }
        if !is_early {
            self.must_have(position);
        }
        let joins_above = position
            .checked_add(1)
            .and_then(|next| self.ranges.remove(&next));
        let end = joins_above.unwrap_or(position);
        match below {
            Some((start, last)) if last.checked_add(1) == Some(position) => {
                self.ranges.insert(start, end)
            }
            _ => self.ranges.insert(position, end),
        };
        true
    }

    /// The highest position that was seen, or 0.
    pub(crate) fn highest(&self) -> u64 {
        self.ranges.values().next_back().copied().unwrap_or(0)
    }

    /// The highest position that was seen and below which all must have been there, or 0.
    pub(crate) fn highest_in_order(&self) -> u64 {
        let bounds = self.bounds.values().map(|(_, high)| *high);
        bounds.max().unwrap_or(0).min(self.highest())
    }

    /// The positions that must have been there and were not seen: where each gap begins, and its length.
    pub(crate) fn missing(&self) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        for (low, high) in self.bounds.values() {
            let below = self.ranges.range(..*low).next_back();
            let mut next = below.map_or(*low, |(_, end)| end.saturating_add(1).max(*low));
            for (start, end) in self.ranges.range(*low..=(*high).max(*low)) {
                if *start > next {
                    missing.push((next, start - next));
                }
                next = next.max(end.saturating_add(1));
            }
            if *high >= next {
                missing.push((next, high - next + 1));
            }
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(segments: &[(u64, u64)], seen: &[u64], expected: &[(u64, u64)]) {
        let mut positions = Positions::default();
        for (first, previous) in segments {
            positions.segment(*first, *previous, false);
        }
        for position in seen {
            assert!(positions.insert(*position, false));
            assert!(!positions.insert(*position, false));
        }
        assert_eq!(positions.missing(), expected, "{segments:?} {seen:?}");
    }

    #[test]
    fn gaps_are_what_must_have_been_there() {
        check(&[], &[], &[]);
        check(&[(5, 4)], &[5, 6, 7], &[]);
        check(&[(5, 4)], &[5, 7], &[(6, 1)]);
        check(&[(5, 4)], &[7, 5], &[(6, 1)]);
        check(&[(5, 4)], &[6, 7], &[(5, 1)]);
        // The second segment's writer knew of 7.
        check(&[(5, 4), (8, 7)], &[5, 8], &[(6, 2)]);
        // Nothing of the second one was written.
        check(&[(5, 4), (8, 7)], &[5, 6, 7], &[]);
        // Another process begins another epoch.
        let second = next_epoch(7);
        check(&[(5, 4), (second, 7)], &[5, 6, 7, second], &[]);
        check(&[(5, 4), (second, 7)], &[5, 6, second], &[(7, 1)]);
        // What was written before its turn, in a segment that is gone, is not missing.
        check(&[(5, 8)], &[5, 6, 9], &[]);
        check(&[(9, 8)], &[9, 7, 8, 10], &[]);
        // A segment between is lost.
        check(&[(5, 4), (20, 19)], &[5, 6, 20], &[(7, 13)]);
    }

    #[test]
    fn nothing_follows_from_what_was_written_before_its_turn() {
        let mut positions = Positions::default();
        positions.segment(5, 4, false);
        assert!(positions.insert(5, false));
        positions.segment(8, 5, true);
        assert!(positions.insert(8, true) && positions.insert(9, true));
        assert_eq!(positions.missing(), []);
        assert_eq!((positions.highest(), positions.highest_in_order()), (9, 5));
        // They came in the end, but for one; the next segment knows of all.
        assert!(positions.insert(6, true));
        assert_eq!(positions.missing(), []);
        positions.segment(10, 9, false);
        assert_eq!(positions.missing(), [(7, 1)]);
    }

    #[test]
    fn an_epoch_begins_above_all_positions_of_the_last() {
        assert_eq!(next_epoch(0), 1 << 32);
        assert_eq!(next_epoch((1 << 32) + 5), 2 << 32);
    }
}
