//! The rows of `accounts` that go with a batch: what became of spans.

use std::ops::Range;

use super::dictionary::Dictionary;
use super::native;

/// Spans that came to the same end in the same minute.
#[derive(Debug, Clone, Copy)]
pub struct AccountRow<'a> {
    /// Start of the minute, seconds since the Unix epoch.
    pub minute: u32,
    /// The node of the agent.
    pub node: &'a str,
    /// The agent that tells it.
    pub agent: &'a str,
    /// How far the spans came on their way.
    pub stage: &'a str,
    /// What became of them there.
    pub reason: &'a str,
    /// Number of spans.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct Account {
    minute: u32,
    node: u32,
    agent: u32,
    stage: u32,
    reason: u32,
    spans: u64,
    bytes: u64,
}

/// The rows, and the texts in them.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    texts: Dictionary,
    rows: Vec<Account>,
}

impl Accounts {
    pub(crate) fn push(&mut self, row: &AccountRow<'_>) {
        let mut text = |text: &str| self.texts.intern(text.as_bytes());
        self.rows.push(Account {
            minute: row.minute,
            node: text(row.node),
            agent: text(row.agent),
            stage: text(row.stage),
            reason: text(row.reason),
            spans: row.spans,
            bytes: row.bytes,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.texts.bytes() + self.rows.len() * size_of::<Account>()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.texts.capacity() + self.rows.capacity() * size_of::<Account>()
    }

    pub(crate) fn clear(&mut self) {
        self.texts.clear();
        self.rows.clear();
    }

    /// Appends a Native block of these rows.
    pub(crate) fn write(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let rows = self.rows.get(range).unwrap_or_default();
        let text = |out: &mut Vec<u8>, name: &str, of: fn(&Account) -> u32| {
            self.texts.write_column(out, name, rows.iter().map(of));
        };
        native::block(out, COLUMNS.len(), rows.len());
        native::column(out, "minute", "DateTime");
        native::all(out, rows.iter().map(|account| account.minute));
        text(out, "node", |account| account.node);
        text(out, "agent", |account| account.agent);
        text(out, "stage", |account| account.stage);
        text(out, "reason", |account| account.reason);
        native::column(out, "spans", "UInt64");
        native::all(out, rows.iter().map(|account| account.spans));
        native::column(out, "bytes", "UInt64");
        native::all(out, rows.iter().map(|account| account.bytes));
    }
}

/// The columns that [`Accounts::write`] writes.
pub(crate) const COLUMNS: [&str; 7] = [
    "minute", "node", "agent", "stage", "reason", "spans", "bytes",
];
