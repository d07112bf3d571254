//! Which requests were stored in the last minutes: a fingerprint of each, in a bounded number of bytes.
//!
//! Fingerprints of one time lie together, in tables of a size that the time before has shown to be
//! enough, and go together when they are old. When the memory is used up the oldest go before their time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The time that is remembered is cut into so many parts.
const PARTS: u32 = 20;
/// Fingerprints that lie together: a line of the processor's cache.
const LINE: usize = 8;
const LINE_BYTES: usize = LINE * size_of::<u64>();
/// A fingerprint lies in one of so many lines from its own on.
const REACH: usize = 8;
/// A table is full at this part of its places, in percent.
const FULL: usize = 85;
/// The smallest table: a page.
const MIN_LINES: usize = 64;

/// Fingerprints of the last minutes.
#[derive(Debug)]
pub(super) struct Window {
    ttl: Duration,
    max_bytes: usize,
    bytes: usize,
    /// The oldest first.
    generations: VecDeque<Generation>,
    /// When fingerprints last went before their time.
    shrunk: Option<Instant>,
}

#[derive(Debug)]
struct Generation {
    begun: Instant,
    last: Instant,
    len: usize,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    /// No fingerprint is 0.
    lines: Vec<[u64; LINE]>,
    len: usize,
}

impl Window {
    pub(super) fn new(ttl: Duration, max_bytes: usize) -> Self {
        Self {
            ttl,
            max_bytes,
            bytes: 0,
            generations: VecDeque::new(),
            shrunk: None,
        }
    }

    /// Fingerprints held.
    pub(super) fn len(&self) -> usize {
        self.generations
            .iter()
            .map(|generation| generation.len)
            .sum()
    }

    /// For how long a fingerprint is known, as things are.
    pub(super) fn covers(&self, now: Instant) -> Duration {
        let shrunk = self.shrunk.filter(|at| now.duration_since(*at) < self.ttl);
        match (shrunk, self.generations.front()) {
            (Some(_), Some(oldest)) => now.duration_since(oldest.begun).min(self.ttl),
            _ => self.ttl,
        }
    }

    /// Lets go of what is old.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(oldest) = self.generations.front() {
            if now.duration_since(oldest.last) < self.ttl {
                break;
            }
            self.drop_oldest();
        }
    }

    pub(super) fn contains(&self, key: u128) -> bool {
        let mut tables = self
            .generations
            .iter()
            .rev()
            .flat_map(|generation| &generation.tables);
        tables.any(|table| table.contains(key))
    }

    /// Remembers a request. Returns how many others went before their time.
    pub(super) fn insert(&mut self, key: u128, now: Instant) -> usize {
        let part = self.ttl / PARTS;
        let expected = match self.generations.back() {
            Some(newest) if now.duration_since(newest.begun) < part => None,
            Some(newest) => Some(newest.len),
            None => Some(0),
        };
        let mut evicted = 0;
        if let Some(expected) = expected {
            let lines = expected * 100 / (FULL * LINE) + 1;
            evicted += self.begin(lines, now);
        }
        if let Some(lines) = self.newest_is_full(key) {
            evicted += self.add_table(lines, now);
        }
        if let Some(newest) = self.generations.back_mut()
            && let Some(table) = newest.tables.iter_mut().find(|table| table.has_room(key))
        {
            table.insert(key);
            newest.len += 1;
            newest.last = now;
        }
        evicted
    }

    /// How many lines more the newest generation needs to take this one; `None` if none.
    fn newest_is_full(&self, key: u128) -> Option<usize> {
        let tables = &self.generations.back()?.tables;
        if tables.iter().any(|table| table.has_room(key)) {
            return None;
        }
        let all: usize = tables.iter().map(|table| table.lines.len()).sum();
        match tables.iter().all(Table::is_full) {
            true => Some(all),
            // Only here there is no room: a little more will do.
            false => Some(all / 8),
        }
    }

    fn begin(&mut self, lines: usize, now: Instant) -> usize {
        self.generations.push_back(Generation {
            begun: now,
            last: now,
            len: 0,
            tables: Vec::new(),
        });
        self.add_table(lines, now)
    }

    fn add_table(&mut self, lines: usize, now: Instant) -> usize {
        // One table is never most of what there is.
        let most = (self.max_bytes / LINE_BYTES / 8).max(1);
        let lines = lines.max(MIN_LINES).min(most);
        let mut evicted = 0;
        while self.bytes + lines * LINE_BYTES > self.max_bytes {
            let only = self.generations.len() < 2;
            evicted += self.drop_oldest();
            self.shrunk = Some(now);
            if only {
                self.generations.push_back(Generation {
                    begun: now,
                    last: now,
                    len: 0,
                    tables: Vec::new(),
                });
                break;
            }
        }
        if let Some(newest) = self.generations.back_mut() {
            newest.tables.push(Table::new(lines));
            self.bytes += lines * LINE_BYTES;
        }
        evicted
    }

    fn drop_oldest(&mut self) -> usize {
        let Some(oldest) = self.generations.pop_front() else {
            return 0;
        };
        let bytes: usize = oldest
            .tables
            .iter()
            .map(|table| table.lines.len() * LINE_BYTES)
            .sum();
        self.bytes -= bytes;
        oldest.len
    }
}

impl Table {
    fn new(lines: usize) -> Self {
        Self {
            lines: vec![[0; LINE]; lines],
            len: 0,
        }
    }

    /// The lines in which a fingerprint may lie, and what it is there.
    fn place(&self, key: u128) -> (impl Iterator<Item = usize> + use<>, u64) {
        let count = self.lines.len();
        let high = key >> 64;
        let first = ((high * count as u128) >> 64) as usize;
        let print = (key as u64).max(1);
        (
            (0..REACH).map(move |step| (first + step) % count.max(1)),
            print,
        )
    }

    fn contains(&self, key: u128) -> bool {
        let (lines, print) = self.place(key);
        for at in lines {
            let Some(line) = self.lines.get(at) else {
                return false;
            };
            if line.contains(&print) {
                return true;
            }
            // It would lie here if it were not there.
            if line.contains(&0) {
                return false;
            }
        }
        false
    }

    fn is_full(&self) -> bool {
        self.len * 100 >= self.lines.len() * LINE * FULL
    }

    fn has_room(&self, key: u128) -> bool {
        let (mut lines, _) = self.place(key);
        !self.is_full() && lines.any(|at| self.lines.get(at).is_some_and(|line| line.contains(&0)))
    }

    fn insert(&mut self, key: u128) {
        let (lines, print) = self.place(key);
        for at in lines {
            let line = self.lines.get_mut(at);
            let free = line.and_then(|line| line.iter_mut().find(|place| **place == 0));
            if let Some(place) = free {
                *place = print;
                self.len += 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(600);

    /// Spread like a hash.
    fn key(n: u64) -> u128 {
        let mix = |n: u64| {
            let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            n ^ (n >> 31)
        };
        u128::from(mix(n + 1)) << 64 | u128::from(mix(n + 0x9e37_79b9_7f4a_7c15))
    }

    /// So many requests a second for a time, from `first` on.
    fn run(window: &mut Window, start: Instant, first: u64, rate: u64, seconds: u64) -> usize {
        let mut evicted = 0;
        for n in 0..rate * seconds {
            let now = start + Duration::from_micros(n * 1_000_000 / rate);
            window.expire(now);
            evicted += window.insert(key(first + n), now);
            assert!(window.bytes <= window.max_bytes);
        }
        evicted
    }

    #[test]
    fn ten_minutes_of_many_requests_fit() {
        let mut window = Window::new(MINUTES, 40_000_000);
        let start = Instant::now();
        // More than ten minutes, so that old ones go while new ones come.
        assert_eq!(run(&mut window, start, 0, 5_000, 900), 0);
        let now = start + Duration::from_secs(900);
        assert_eq!(window.covers(now), MINUTES);
        let known = |n: u64| window.contains(key(n));
        assert!(
            (1_500_000..4_500_000).step_by(97).all(known),
            "the last ten minutes"
        );
        assert!(!(5_000_000..6_000_000).step_by(97).any(known));
        assert!(
            !(0..1_200_000).step_by(97).any(known),
            "what is old is gone"
        );
    }

    #[test]
    fn beyond_that_the_window_shrinks_and_says_so() {
        let mut window = Window::new(MINUTES, 200_000);
        let start = Instant::now();
        assert!(run(&mut window, start, 0, 100, 900) > 0);
        let now = start + Duration::from_secs(900);
        let covers = window.covers(now);
        assert!(
            covers < MINUTES && covers > Duration::from_secs(60),
            "{covers:?}"
        );
        let last = 100 * (900 - covers.as_secs());
        assert!((last + 100..90_000).all(|n| window.contains(key(n))));
        // Later, when less came, it covers all of it again.
        let calm = now + MINUTES + MINUTES;
        window.expire(calm);
        assert_eq!((window.covers(calm), window.len()), (MINUTES, 0));
        assert_eq!(window.bytes, 0);
    }

    #[test]
    fn a_burst_is_remembered_whatever_came_before() {
        let mut window = Window::new(MINUTES, 4_000_000);
        let start = Instant::now();
        run(&mut window, start, 0, 1, 60);
        run(
            &mut window,
            start + Duration::from_secs(60),
            1_000,
            100_000,
            1,
        );
        assert!((1_000..101_000).all(|n| window.contains(key(n))));
        assert_eq!(window.len(), 100_060);
    }
}
