//! What a trace is, whatever else is read of its spans: its spans in order, each once, its times and its
//! name. An answer about one trace and a list of many make it in the same way.
//!
//! A trace is called by one of its spans, never by parts of several: its root; of several the longest, then
//! the earliest. While no root is there, its entry span: of the spans whose parents are missing the longest,
//! then the earliest.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::trace::tree::{Node, Placed, Side, order};

/// A row of `spans`, with those of its columns that place it in its trace.
pub trait SpanRecord {
    /// The span's id.
    fn span_id(&self) -> [u8; 8];
    /// The parent's id; zeros for none.
    fn parent_span_id(&self) -> [u8; 8];
    /// The start in nanoseconds since 1970.
    fn start_ns(&self) -> i64;
    /// The duration in nanoseconds.
    fn duration_ns(&self) -> u64;
    /// The service's name.
    fn service(&self) -> &str;
    /// The span's name.
    fn name(&self) -> &str;
    /// The kind, by its number in the store.
    fn kind(&self) -> i8;
    /// The status, by its number in the store.
    fn status(&self) -> i8;

    /// Whether it names no parent.
    fn is_root(&self) -> bool {
        self.parent_span_id() == [0; 8]
    }

    /// The end, in nanoseconds since 1970.
    fn end_ns(&self) -> i64 {
        self.start_ns().saturating_add_unsigned(self.duration_ns())
    }

    /// What two copies of one span have in common. An id alone does not tell spans apart: a client and
    /// a server may share one.
    fn identity(&self) -> ([u8; 8], i8, &str) {
        (self.span_id(), self.kind(), self.service())
    }

    /// Whether the status is ERROR.
    fn is_error(&self) -> bool {
        self.status() == 2
    }

    /// Of two rows of one span, the one that ended last is kept: a span that was sent again was
    /// more complete then.
    fn supersedes(&self, other: &Self) -> bool {
        self.end_ns() > other.end_ns()
    }
}

/// A trace's spans, and what they say of it.
#[derive(Debug)]
pub struct Outline<R> {
    /// One row for each span.
    pub rows: Vec<R>,
    /// How many more there were of each: a client that repeats an export to another collector stores its
    /// spans twice.
    pub duplicates: Vec<u32>,
    /// The tree.
    pub order: Vec<Placed>,
    /// The services.
    pub services: Vec<String>,
    /// The first span's start.
    pub start_ns: i64,
    /// The last span's end.
    pub end_ns: i64,
    /// Spans with status ERROR.
    pub errors: usize,
    /// The service and the name of the span that names the trace; empty where there are no spans.
    pub name: (String, String),
    /// Whether that is not a root.
    pub root_missing: bool,
}

impl<R: SpanRecord> Outline<R> {
    /// The trace of these rows.
    pub fn of(rows: Vec<R>) -> Self {
        let (rows, duplicates) = unique(rows);
        let (services, order) = tree(&rows);
        let Name {
            service,
            operation,
            root_missing,
        } = Name::in_order(&rows, &order);
        Self {
            start_ns: rows.iter().map(R::start_ns).min().unwrap_or(0),
            end_ns: rows.iter().map(R::end_ns).max().unwrap_or(0),
            errors: rows.iter().filter(|row| row.is_error()).count(),
            name: (service, operation),
            rows,
            duplicates,
            order,
            services,
            root_missing,
        }
    }
}

/// What a trace is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// The service of the span that names it.
    pub service: String,
    /// The name of the same span.
    pub operation: String,
    /// Whether that is not a root.
    pub root_missing: bool,
}

impl Name {
    /// Of the trace of these rows, each of another span.
    pub fn of<R: SpanRecord>(rows: &[R]) -> Self {
        let (_, order) = tree(rows);
        Self::in_order(rows, &order)
    }

    fn in_order<R: SpanRecord>(rows: &[R], order: &[Placed]) -> Self {
        let named_by = named_by(rows, order);
        let (service, operation) = named_by.map_or(("", ""), |row| (row.service(), row.name()));
        Self {
            service: service.to_owned(),
            operation: operation.to_owned(),
            root_missing: !named_by.is_some_and(R::is_root),
        }
    }
}

/// The services of these rows, and the tree.
fn tree<R: SpanRecord>(rows: &[R]) -> (Vec<String>, Vec<Placed>) {
    let mut services: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let number = services.len();
        services.entry(row.service()).or_insert(number);
    }
    let nodes: Vec<Node> = rows
        .iter()
        .map(|row| Node {
            id: row.span_id(),
            parent: row.parent_span_id(),
            start_ns: row.start_ns(),
            service: services.get(row.service()).copied().unwrap_or(0),
            side: Side::of_kind(row.kind()),
        })
        .collect();
    let services = services.into_keys().map(str::to_owned).collect();
    (services, order(&nodes))
}

/// The span that names the trace; none where there are no spans.
fn named_by<'a, R: SpanRecord>(rows: &'a [R], order: &[Placed]) -> Option<&'a R> {
    let tops = order.iter().filter(|placed| placed.depth == 0);
    tops.filter_map(|placed| rows.get(placed.index))
        .max_by_key(|row| {
            (
                row.is_root(),
                row.duration_ns(),
                Reverse(row.start_ns()),
                row.service(),
                row.name(),
            )
        })
}

/// One row for each span, in the place of its first, and how many more there were of each.
pub fn unique<R: SpanRecord>(rows: Vec<R>) -> (Vec<R>, Vec<u32>) {
    // The places of the rows of each id: several where spans share it.
    let mut places = HashMap::with_capacity(rows.len());
    let of_rows: Vec<usize> = rows
        .iter()
        .map(|row| {
            let next = places.len();
            *places.entry(row.identity()).or_insert(next)
        })
        .collect();
    let mut merged: Vec<R> = Vec::with_capacity(places.len());
    let mut duplicates: Vec<u32> = vec![0; places.len()];
    drop(places);
    for (row, place) in rows.into_iter().zip(of_rows) {
        match (merged.get_mut(place), duplicates.get_mut(place)) {
            (Some(kept), Some(copies)) => {
                *copies = copies.saturating_add(1);
                if row.supersedes(kept) {
                    *kept = row;
                }
            }
            _ => merged.push(row),
        }
    }
    (merged, duplicates)
}
