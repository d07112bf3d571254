//! The trace index's rows: one for each trace in a batch.

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::ops::Range;

use super::dictionary::hash;
use super::native;
use super::spans::{Row, SpanColumns};

const NS_PER_DAY: i64 = 86_400_000_000_000;

/// The day of a time as `Date` holds it.
#[inline]
pub(crate) fn day(time_ns: i64) -> u16 {
    u16::try_from(time_ns / NS_PER_DAY).unwrap_or(u16::MAX)
}

#[derive(Debug, Clone, Copy)]
struct Trace {
    id: [u8; 16],
    start: i64,
    end: i64,
    /// Service, name and start of the first root span, as numbers in the spans' dictionaries.
    root: Option<(u32, u32, i64)>,
    spans: u64,
    errors: u64,
}

/// The traces of a batch.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    state: RandomState,
    table: HashTable<u32>,
    rows: Vec<Trace>,
    last: usize,
}

const ERROR: u8 = spanloom_otlp::record::StatusCode::Error as u8;

impl Traces {
    #[inline]
    pub(crate) fn add(&mut self, row: &Row, service: u32) {
        let end = row.time.saturating_add_unsigned(row.duration_ns);
        let number = match self.rows.get(self.last) {
            Some(trace) if trace.id == row.trace_id => self.last,
            _ => self.find_or_add(row, end),
        };
        self.last = number;
        let Some(trace) = self.rows.get_mut(number) else {
            return;
        };
        trace.start = trace.start.min(row.time);
        trace.end = trace.end.max(end);
        trace.spans += 1;
        trace.errors += u64::from(row.status == ERROR);
        let earlier = trace.root.is_none_or(|(_, _, start)| row.time < start);
        if row.parent_span_id == [0; 8] && earlier {
            trace.root = Some((service, row.name, row.time));
        }
    }

    fn find_or_add(&mut self, row: &Row, end: i64) -> usize {
        let hash_of = |state: &RandomState, id: &[u8; 16]| hash(state, id);
        let hash = hash_of(&self.state, &row.trace_id);
        let rows = &self.rows;
        let found = self.table.find(hash, |&number| {
            rows.get(number as usize)
                .is_some_and(|trace| trace.id == row.trace_id)
        });
        if let Some(&number) = found {
            return number as usize;
        }
        let number = self.rows.len();
        self.rows.push(Trace {
            id: row.trace_id,
            start: row.time,
            end,
            root: None,
            spans: 0,
            errors: 0,
        });
        let (rows, state) = (&self.rows, &self.state);
        self.table.insert_unique(hash, number as u32, |&number| {
            rows.get(number as usize)
                .map_or(0, |trace| hash_of(state, &trace.id))
        });
        number
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.rows.clear();
        self.last = 0;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.rows.len() * (size_of::<Trace>() + 8)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity() * size_of::<Trace>() + self.table.capacity() * 5
    }

    /// Appends a Native block of these rows.
    pub(crate) fn write(&self, spans: &SpanColumns, range: Range<usize>, out: &mut Vec<u8>) {
        let rows = self.rows.get(range).unwrap_or_default();
        native::block(out, COLUMNS.len(), rows.len());
        native::column(out, "day", "Date");
        native::all(out, rows.iter().map(|trace| day(trace.start)));
        native::column(out, "trace_id", "FixedString(16)");
        native::all(out, rows.iter().map(|trace| trace.id));
        native::column(out, "start", "DateTime64(9)");
        native::all(out, rows.iter().map(|trace| trace.start));
        native::column(out, "end", "DateTime64(9)");
        native::all(out, rows.iter().map(|trace| trace.end));
        native::column(out, "root_service", "String");
        for trace in rows {
            let service = trace.root.map_or(0, |(service, _, _)| service);
            native::string(out, spans.services.get(service));
        }
        native::column(out, "root_name", "String");
        for trace in rows {
            let name = trace.root.map_or(0, |(_, name, _)| name);
            native::string(out, spans.names.get(name));
        }
        native::column(out, "span_count", "UInt64");
        native::all(out, rows.iter().map(|trace| trace.spans));
        native::column(out, "error_count", "UInt64");
        native::all(out, rows.iter().map(|trace| trace.errors));
    }
}

/// The columns that [`Traces::write`] writes.
pub(crate) const COLUMNS: [&str; 8] = [
    "day",
    "trace_id",
    "start",
    "end",
    "root_service",
    "root_name",
    "span_count",
    "error_count",
];
