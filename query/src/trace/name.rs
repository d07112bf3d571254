//! What a trace is called: by one of its spans, never by parts of several.
//!
//! Its root; of several the longest, then the earliest. While no root is there, its entry span: of the
//! spans whose parents are missing the longest, then the earliest. Lists choose in the same way, in SQL
//! ([`crate::search::summary`]).

use std::cmp::Reverse;

use crate::trace::rows::SpanRow;
use crate::trace::tree::Placed;

/// The span that names the trace; none where there are no spans.
pub fn of<'a>(rows: &'a [SpanRow], order: &[Placed]) -> Option<&'a SpanRow> {
    let tops = order.iter().filter(|placed| placed.depth == 0);
    tops.filter_map(|placed| rows.get(placed.index))
        .max_by_key(|row| {
            (
                row.is_root(),
                row.duration_ns,
                Reverse(row.start_ns),
                row.service(),
                row.name(),
            )
        })
}
