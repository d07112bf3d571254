//! A batch that does not change any more, on its way into the store.
//!
//! # Tokens
//!
//! ClickHouse drops an insert whose token it knows, partition by partition, and does not look at the rows.
//! So a token must name the same rows whenever it is used, also when the batch was made again from its
//! records by another process that does not know how far the first one came. A table's token is the
//! batch's id and the table's name:
//!
//! * `spans` and `trace_index` are made from the records alone, row by row in their order. The random
//!   states of hash tables decide where a text is looked for, never its number.
//! * `red`, `red_hours`, `half_edges` and `accounts` are made from the batch's measures, in their order.
//! * `tags` has different rows when a batch is made again, since the tag cache leaves out what this process
//!   has stored. It is a set, which the table's engine merges, so rows too many are harmless; what has to
//!   be shown is that none is missing. A dropped insert means that the first attempt's rows are stored. A
//!   row that only the second attempt has was left out of the first either because its cache knew it, so
//!   another batch of that process had stored it before, or because its key has too many values, so it
//!   is not to be listed. A row that only the first attempt has is left out of the second because
//!   *its* cache knows it, or by the limits of a batch's catalogue, which are counted. Pieces of a cut batch are named by the numbers of their rows, which are not the
//!   same rows then: those of `tags` have a hash of their content in their tokens
//!   ([`bisect`](crate::writer)).

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;

use super::id::BatchId;
use super::measures::{HALF_EDGE_COLUMNS, RED_COLUMNS};
use super::out::Out;
use super::pool::{BlockPool, Parts, Press};
use super::{accounts, hours, spans, tags, traces};
use crate::schema::identifier;
use crate::writer::SpanKey;

/// The tables that a batch goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // their names say it
pub enum TableId {
    Spans,
    TraceIndex,
    Tags,
    Red,
    RedHours,
    HalfEdges,
    Accounts,
}

impl TableId {
    /// All of them: first the bundle of the spans, then that of the measures.
    pub const ALL: [Self; 7] = [
        Self::Spans,
        Self::TraceIndex,
        Self::Tags,
        Self::Red,
        Self::RedHours,
        Self::HalfEdges,
        Self::Accounts,
    ];

    /// The table's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::TraceIndex => "trace_index",
            Self::Tags => "tags",
            Self::Red => "red",
            Self::RedHours => "red_hours",
            Self::HalfEdges => "half_edges",
            Self::Accounts => "accounts",
        }
    }

    /// Its number, which never changes: cuts of batches are kept with it.
    pub fn number(self) -> u32 {
        match self {
            Self::Spans => 0,
            Self::TraceIndex => 1,
            Self::Tags => 2,
            Self::Red => 3,
            Self::HalfEdges => 4,
            Self::Accounts => 5,
            Self::RedHours => 6,
        }
    }

    /// The table with this number.
    pub fn numbered(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// The columns that a batch writes.
    pub fn columns(self) -> Vec<&'static str> {
        match self {
            Self::Spans => spans::column_names(),
            Self::TraceIndex => traces::COLUMNS.to_vec(),
            Self::Tags => tags::COLUMNS.to_vec(),
            Self::Red => RED_COLUMNS.to_vec(),
            Self::RedHours => hours::COLUMNS.to_vec(),
            Self::HalfEdges => HALF_EDGE_COLUMNS.to_vec(),
            Self::Accounts => accounts::COLUMNS.to_vec(),
        }
    }

    /// The statement that a batch's block is sent with.
    pub fn insert(self, database: &str) -> String {
        let columns: Vec<String> = self.columns().into_iter().map(identifier).collect();
        format!(
            "INSERT INTO {}.{} ({}) FORMAT Native",
            identifier(database),
            identifier(self.name()),
            columns.join(", ")
        )
    }
}

/// A batch's rows for one table.
#[derive(Debug)]
pub(crate) struct FrozenTable {
    pub(crate) id: TableId,
    pub(crate) rows: usize,
    pub(crate) token: String,
    /// The compressed Native block.
    pub(crate) body: Bytes,
}

/// A batch: for each table a compressed block and its token. Dropped, its memory goes back.
#[derive(Debug)]
pub struct Frozen {
    id: BatchId,
    pool: Arc<BlockPool>,
    parts: Option<Parts>,
    pub(crate) tables: Vec<FrozenTable>,
}

impl Frozen {
    pub(super) fn new(id: BatchId, pool: Arc<BlockPool>, parts: Parts) -> Self {
        let mut press = pool.press();
        let mut tables = Vec::with_capacity(TableId::ALL.len());
        for table in TableId::ALL {
            let rows = parts.rows(table);
            if rows == 0 {
                continue;
            }
            tables.push(FrozenTable {
                id: table,
                rows,
                token: format!("{id}-{}", table.name()),
                body: parts.body(table, 0..rows, &mut press),
            });
        }
        pool.put_press(press);
        Self {
            id,
            pool,
            parts: Some(parts),
            tables,
        }
    }

    /// The batch's id.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// Spans in the batch.
    pub fn spans(&self) -> usize {
        self.parts().map_or(0, |parts| parts.spans.rows.len())
    }

    /// The batch's spans, in their order.
    pub fn span_keys(&self) -> Vec<SpanKey> {
        let rows = self.parts().map(|parts| parts.spans.rows.iter());
        let key = |row: &spans::Row| SpanKey {
            trace_id: row.trace_id,
            span_id: row.span_id,
            start_ns: row.time,
        };
        rows.into_iter().flatten().map(key).collect()
    }

    /// Memory that the batch uses.
    pub fn bytes(&self) -> usize {
        self.parts().map_or(0, Parts::bytes)
            + self
                .tables
                .iter()
                .map(|table| table.body.len())
                .sum::<usize>()
    }

    /// The token of a table's insert; `None` when the batch has no rows for it.
    pub fn token(&self, id: TableId) -> Option<&str> {
        Some(&self.table(id)?.token)
    }

    /// The compressed Native block of a table; `None` when the batch has no rows for it.
    pub fn body(&self, id: TableId) -> Option<&[u8]> {
        Some(&self.table(id)?.body)
    }

    /// The compressed bytes for all tables.
    pub fn compressed_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.body.len()).sum()
    }

    fn table(&self, id: TableId) -> Option<&FrozenTable> {
        self.tables.iter().find(|table| table.id == id)
    }

    fn parts(&self) -> Option<&Parts> {
        self.parts.as_ref()
    }

    /// Some rows of a table as a compressed block, for inserts of less than the whole.
    pub(crate) fn body_of(&self, id: TableId, rows: Range<usize>) -> Bytes {
        self.parts().map_or_else(Bytes::new, |parts| {
            let mut press = self.pool.press();
            let body = parts.body(id, rows, &mut press);
            self.pool.put_press(press);
            body
        })
    }

    /// The catalogue's rows are stored: they need not be written again.
    pub fn tags_are_stored(&self) {
        if let Some(parts) = self.parts() {
            let rows = parts.tags.rows.iter();
            let tags = rows.map(|tag| (tag.hash, tag.key_hash, tag.has_value()));
            self.pool.tags().stored(tags);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            self.pool.put(parts);
        }
    }
}

impl Parts {
    fn rows(&self, id: TableId) -> usize {
        match id {
            TableId::Spans => self.spans.rows.len(),
            TableId::TraceIndex => self.traces.len(),
            TableId::Tags => self.tags.rows.len(),
            TableId::Red => self.measures.red_rows(),
            TableId::RedHours => self.measures.red_hours_rows(),
            TableId::HalfEdges => self.measures.half_edge_rows(),
            TableId::Accounts => self.measures.account_rows(),
        }
    }

    fn body(&self, id: TableId, rows: Range<usize>, press: &mut Press) -> Bytes {
        // More than it takes: what is not written costs nothing, and growing would copy it.
        let mut body = match id {
            TableId::Spans => {
                let per_row = self.spans.bytes() / self.spans.rows.len().max(1);
                Vec::with_capacity(per_row * rows.len() / 2)
            }
            _ => Vec::new(),
        };
        let mut out = Out::compressed(&mut press.pending, &mut press.compressor, &mut body);
        match id {
            TableId::Spans => self.spans.write(rows, &mut out),
            TableId::TraceIndex => self.traces.write(&self.spans, rows, out.buffer()),
            TableId::Tags => self.tags.write(rows, out.buffer()),
            TableId::Red => self.measures.write_red(rows, out.buffer()),
            TableId::RedHours => self.measures.write_red_hours(rows, out.buffer()),
            TableId::HalfEdges => self.measures.write_half_edges(rows, out.buffer()),
            TableId::Accounts => self.measures.write_accounts(rows, out.buffer()),
        }
        out.end();
        Bytes::from(body)
    }
}
