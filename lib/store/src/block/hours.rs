//! The rows of `red_hours` that go with a batch: those of `red`, by the hour.
//!
//! The collector makes them, and no materialised view: ClickHouse names what a view inserts by the view's UUID
//! until the server starts again, and by its name after that (26.7). So a batch that is sent again to a server
//! that was restarted, or to another replica, would count twice in its hours.

use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;
use spanloom_otlp::record::StatusCode;

use super::dictionary::Dictionary;
use super::measures::Red;
use super::native;
use crate::schema::spans::KIND;

const HOUR_SECONDS: u32 = 3600;

/// What rows of one hour have in common: the hour, and the numbers of service, name and kind.
type Key = (u32, u32, u32, u8);

#[derive(Debug)]
struct Hour {
    key: Key,
    count: u64,
    errors: u64,
    /// Wraps, like sums of `UInt64` in ClickHouse.
    sum: u64,
    total: u128,
    least: u64,
    greatest: u64,
    /// By ascending key.
    buckets: Vec<(i16, u64)>,
}

/// Hours, in the order in which they came first.
#[derive(Debug, Default)]
pub(super) struct Hours {
    rows: Vec<Hour>,
    index: HashMap<Key, usize, RandomState>,
    buckets: usize,
}

impl Hours {
    pub(super) fn add(&mut self, red: &Red, buckets: &[(i16, u64)]) {
        let hour = red.minute - red.minute % HOUR_SECONDS;
        let key = (hour, red.service, red.name, red.kind);
        let row = *self.index.entry(key).or_insert(self.rows.len());
        if row == self.rows.len() {
            self.rows.push(Hour {
                key,
                count: 0,
                errors: 0,
                sum: 0,
                total: 0,
                least: u64::MAX,
                greatest: 0,
                buckets: Vec::new(),
            });
        }
        let Some(hour) = self.rows.get_mut(row) else {
            return; // never: it was pushed
        };
        hour.count += red.count;
        if red.status == StatusCode::Error as u8 {
            hour.errors += red.count;
        }
        hour.sum = hour.sum.wrapping_add(red.sum);
        hour.total += u128::from(red.sum);
        hour.least = hour.least.min(red.least);
        hour.greatest = hour.greatest.max(red.greatest);
        let before = hour.buckets.len();
        for &(bucket, count) in buckets {
            match hour.buckets.binary_search_by_key(&bucket, |known| known.0) {
                Ok(at) => {
                    if let Some(known) = hour.buckets.get_mut(at) {
                        known.1 += count;
                    }
                }
                Err(at) => hour.buckets.insert(at, (bucket, count)),
            }
        }
        self.buckets += hour.buckets.len() - before;
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Memory that the rows use, at least.
    pub(super) fn bytes(&self) -> usize {
        self.rows.len() * (size_of::<Hour>() + size_of::<(Key, usize)>())
            + self.buckets * size_of::<(i16, u64)>()
    }

    /// Memory that is kept when they are cleared.
    pub(super) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Hour>() + self.index.capacity() * size_of::<(Key, usize)>()
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.index.clear();
        self.buckets = 0;
    }

    pub(super) fn write(&self, range: Range<usize>, texts: &Dictionary, out: &mut Vec<u8>) {
        let rows = self.rows.get(range).unwrap_or_default();
        native::block(out, COLUMNS.len(), rows.len());
        native::column(out, "hour", "DateTime");
        native::all(out, rows.iter().map(|hour| hour.key.0));
        texts.write_column(out, "service", rows.iter().map(|hour| hour.key.1));
        texts.write_column(out, "name", rows.iter().map(|hour| hour.key.2));
        native::column(out, "kind", KIND);
        native::all(out, rows.iter().map(|hour| hour.key.3));
        native::column(out, "count", "UInt64");
        native::all(out, rows.iter().map(|hour| hour.count));
        native::column(out, "error_count", "UInt64");
        native::all(out, rows.iter().map(|hour| hour.errors));
        native::column(out, "duration_sum_ns", "UInt64");
        native::all(out, rows.iter().map(|hour| hour.sum));
        native::column(out, "buckets", "Map(Int16, UInt64)");
        let mut end = 0;
        let ends = rows.iter().map(|hour| {
            end += hour.buckets.len();
            end
        });
        native::offsets(out, 0, ends);
        for hour in rows {
            native::all(out, hour.buckets.iter().map(|bucket| bucket.0));
        }
        for hour in rows {
            native::all(out, hour.buckets.iter().map(|bucket| bucket.1));
        }
        native::column(out, "duration_total_ns", "UInt128");
        native::all(out, rows.iter().map(|hour| hour.total));
        native::column(out, "duration_min_ns", "UInt64");
        native::all(out, rows.iter().map(|hour| hour.least));
        native::column(out, "duration_max_ns", "UInt64");
        native::all(out, rows.iter().map(|hour| hour.greatest));
    }
}

/// The columns that [`Hours::write`] writes.
pub(super) const COLUMNS: [&str; 11] = [
    "hour",
    "service",
    "name",
    "kind",
    "count",
    "error_count",
    "duration_sum_ns",
    "buckets",
    "duration_total_ns",
    "duration_min_ns",
    "duration_max_ns",
];
