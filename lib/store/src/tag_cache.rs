//! What this process has already stored of the tag catalogue, so that it is not written again with
//! every batch.

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable};
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A key lists at most this many values a day; after that only the key itself.
const MAX_VALUES_PER_DAY: u32 = 1_000;

/// Keys whose values are counted at a time.
const MAX_COUNTED_KEYS: usize = 50_000;

/// Bytes that an entry of the sets takes.
const ENTRY_BYTES: usize = 12;

/// Counts of what the catalogue leaves out.
#[derive(Debug, Clone, Default)]
pub struct TagMetrics {
    /// Values not listed because their key has too many.
    pub high_cardinality: Counter,
    /// Keys and values not listed because a batch had too many of them.
    pub batch_full: Counter,
    /// Times that half of the cache was forgotten to stay in its memory.
    pub evictions: Counter,
}

/// Stored keys and values, as hashes. When full, the older half is forgotten and written again when
/// it is next seen, which the catalogue's table merges away.
#[derive(Debug)]
struct Seen {
    current: HashTable<u64>,
    previous: HashTable<u64>,
    values: HashMap<u64, u32, RandomState>,
}

/// The cache that all block builders of a process share.
#[derive(Debug)]
pub struct TagCache {
    pub(crate) state: RandomState,
    half: usize,
    seen: Mutex<Seen>,
    /// What is left out.
    pub metrics: TagMetrics,
}

/// What to do with a key or value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Write it.
    New,
    /// It is stored.
    Known,
    /// Do not write it: the key has too many values.
    TooMany,
}

impl TagCache {
    /// A cache that takes about `max_bytes`.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            state: RandomState::default(),
            half: (max_bytes / ENTRY_BYTES / 2).max(1),
            seen: Mutex::new(Seen {
                current: HashTable::new(),
                previous: HashTable::new(),
                values: HashMap::default(),
            }),
            metrics: TagMetrics::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for many at once, each by its hash, its key's hash and whether it has a value.
    pub(crate) fn check(&self, tags: impl Iterator<Item = (u64, u64, bool)>) -> Vec<Verdict> {
        let seen = self.lock();
        let known = |set: &HashTable<u64>, hash: u64| set.find(hash, |&h| h == hash).is_some();
        tags.map(|(hash, key, has_value)| {
            if known(&seen.current, hash) || known(&seen.previous, hash) {
                Verdict::Known
            } else if has_value
                && seen
                    .values
                    .get(&key)
                    .is_some_and(|&n| n >= MAX_VALUES_PER_DAY)
            {
                Verdict::TooMany
            } else {
                Verdict::New
            }
        })
        .collect()
    }

    /// Notes what is now stored: hash, key's hash and whether it has a value.
    pub(crate) fn stored(&self, tags: impl Iterator<Item = (u64, u64, bool)>) {
        let mut seen = self.lock();
        for (hash, key, has_value) in tags {
            if seen.current.find(hash, |&h| h == hash).is_some() {
                continue;
            }
            if seen.current.len() >= self.half {
                let full = std::mem::take(&mut seen.current);
                seen.previous = full;
                self.metrics.evictions.inc();
            }
            seen.current.insert_unique(hash, hash, |&hash| hash);
            if has_value {
                if seen.values.len() >= MAX_COUNTED_KEYS {
                    seen.values.clear();
                }
                *seen.values.entry(key).or_insert(0) += 1;
            }
        }
    }
}
