//! The accounts that this agent keeps of where spans went: gathered here by minute, stage and reason,
//! and written with the measures of a later batch.
//!
//! Each row is written by one batch, under the batch's token. When that batch is not stored its rows come
//! back here. A request counts once for each time that it was sent and its spans were looked at, except
//! that a repeat of one whose spans are stored or under way is not looked at.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Export, ExportOutcome};
use crate::clock::since_1970;
use crate::durable::History;
use crate::measure::{AccountRow, Measures};
use crate::tally::{Rejection, Tally};

/// Kinds of rows that are held at most: they wait while the store is away. About 100 bytes each.
const MAX_ROWS: usize = 2_048;

/// Whose accounts these are, and how soon they are written.
#[derive(Debug, Clone)]
pub struct AccountsConfig {
    /// The node of this agent; on a laptop the machine's name.
    pub node: String,
    /// This agent: its pod's name, or the machine's.
    pub agent: String,
    /// The next batch takes them when they are this old; a batch of their own when they are twice as
    /// old and no other came.
    pub age: Duration,
}

impl Default for AccountsConfig {
    fn default() -> Self {
        Self {
            node: String::new(),
            agent: String::new(),
            age: Duration::from_secs(5),
        }
    }
}

/// Where it was decided what becomes of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// Before its request was looked at.
    Receive,
    /// By a rule, or because the span is not valid.
    Process,
    /// By sampling.
    Sample,
    /// By the store.
    Store,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Process => "process",
            Self::Sample => "sample",
            Self::Store => "store",
        }
    }
}

/// What one batch or request adds to the accounts.
#[derive(Debug, Default)]
pub(crate) struct Postings(Vec<Posting>);

#[derive(Debug)]
struct Posting {
    stage: Stage,
    reason: &'static str,
    spans: u64,
    bytes: u64,
}

impl Postings {
    pub(crate) fn add(&mut self, stage: Stage, reason: &'static str, spans: u64, bytes: u64) {
        let same = |posting: &&mut Posting| posting.stage == stage && posting.reason == reason;
        match self.0.iter_mut().find(same) {
            Some(posting) => {
                posting.spans += spans;
                posting.bytes += bytes;
            }
            None => self.0.push(Posting {
                stage,
                reason,
                spans,
                bytes,
            }),
        }
    }

    /// A request's spans, each for its own reason. Their bytes are the request's, in proportion.
    pub(crate) fn request(&mut self, tally: &Tally, bytes: usize) {
        let (mut spans_left, mut bytes_left) = (tally.all(), bytes as u64);
        let mut part = |stage, reason, spans: u64| {
            if spans == 0 {
                return;
            }
            // The last part gets what is left, so that nothing is lost by rounding.
            let share = u128::from(bytes_left) * u128::from(spans) / u128::from(spans_left.max(1));
            let share = u64::try_from(share).unwrap_or(bytes_left).min(bytes_left);
            spans_left = spans_left.saturating_sub(spans);
            bytes_left -= share;
            self.add(stage, reason, spans, share);
        };
        part(
            Stage::Store,
            "stored",
            tally.kept.saturating_sub(tally.probes),
        );
        part(Stage::Sample, "head_sampling", tally.sampled_out);
        part(Stage::Process, "drop", tally.dropped);
        part(Stage::Process, "disabled", tally.disabled);
        for &why in Rejection::ALL {
            let (stage, reason) = match why {
                Rejection::Store => (Stage::Store, "refused"),
                _ => (Stage::Process, why.label()),
            };
            part(stage, reason, tally.rejected_for(why));
        }
    }

    /// All spans of a request, for one reason.
    pub(crate) fn whole(
        &mut self,
        stage: Stage,
        reason: &'static str,
        tally: &Tally,
        bytes: usize,
    ) {
        let spans = tally.all().saturating_sub(tally.probes);
        if spans > 0 {
            self.add(stage, reason, spans, bytes as u64);
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    minute: u32,
    node: Arc<str>,
    agent: Arc<str>,
    stage: Cow<'static, str>,
    reason: Cow<'static, str>,
}

#[derive(Debug, Default)]
struct Sums {
    spans: u64,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Books {
    sums: HashMap<Key, Sums, RandomState>,
    /// When the first of them came.
    since: Option<Instant>,
}

/// Rows that no batch has taken yet.
#[derive(Debug)]
pub(crate) struct Accounts {
    node: Arc<str>,
    agent: Arc<str>,
    age: Duration,
    books: Mutex<Books>,
    /// Told when the first row comes.
    begun: Notify,
    left_out: Counter,
    lost: Counter,
}

impl Accounts {
    pub(crate) fn new(config: &AccountsConfig) -> Arc<Self> {
        Arc::new(Self {
            node: config.node.as_str().into(),
            agent: config.agent.as_str().into(),
            age: config.age,
            books: Mutex::default(),
            begun: Notify::new(),
            left_out: Counter::default(),
            lost: Counter::default(),
        })
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanloom_accounts_left_out_spans",
            "Spans missing in the accounts because too many different rows were waiting to be \
             written",
            self.left_out.clone(),
        );
        registry.register(
            "spanloom_accounts_lost_spans",
            "Spans missing in the accounts because the store was unavailable when the collector \
             stopped",
            self.lost.clone(),
        );
    }

    /// Adds to the accounts of this minute.
    pub(crate) fn post(&self, postings: &Postings) {
        if postings.0.is_empty() {
            return;
        }
        let minute = this_minute();
        let rows = postings.0.iter().map(|posting| AccountRow {
            minute,
            node: Arc::clone(&self.node),
            agent: Arc::clone(&self.agent),
            stage: posting.stage.label().into(),
            reason: posting.reason.into(),
            spans: posting.spans,
            bytes: posting.bytes,
        });
        self.add(rows);
    }

    /// A request was refused before its spans were looked at, when so many bytes of it were known.
    pub(crate) fn refused(&self, reason: &'static str, bytes: usize) {
        let mut postings = Postings::default();
        postings.add(Stage::Receive, reason, 0, bytes as u64);
        self.post(&postings);
    }

    /// The batch that took these rows is not stored.
    pub(crate) fn put_back(&self, rows: Vec<AccountRow>) {
        self.add(rows.into_iter());
    }

    /// What the next batch takes along: all, if it is old enough.
    pub(crate) fn take_due(&self) -> Vec<AccountRow> {
        let mut books = self.lock();
        match books.since {
            Some(since) if since.elapsed() >= self.age => take(&mut books),
            _ => Vec::new(),
        }
    }

    fn take_all(&self) -> Vec<AccountRow> {
        take(&mut self.lock())
    }

    fn add(&self, rows: impl Iterator<Item = AccountRow>) {
        let mut books = self.lock();
        let mut some = false;
        for row in rows {
            some = true;
            let key = Key {
                minute: row.minute,
                node: row.node,
                agent: row.agent,
                stage: row.stage,
                reason: row.reason,
            };
            if books.sums.len() >= MAX_ROWS && !books.sums.contains_key(&key) {
                self.left_out.inc_by(row.spans);
                continue;
            }
            let sums = books.sums.entry(key).or_default();
            sums.spans += row.spans;
            sums.bytes += row.bytes;
        }
        if some && books.since.is_none() {
            books.since = Some(Instant::now());
            self.begun.notify_one();
        }
    }

    /// Resolves when rows wait for which no batch has come.
    async fn overdue(&self) {
        loop {
            let since = self.lock().since;
            match since {
                None => self.begun.notified().await,
                Some(since) => {
                    let due = since + self.age * 2;
                    if Instant::now() >= due {
                        return;
                    }
                    tokio::time::sleep_until(due).await;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(books: &mut Books) -> Vec<AccountRow> {
    books.since = None;
    let rows = books.sums.drain().map(|(key, sums)| AccountRow {
        minute: key.minute,
        node: key.node,
        agent: key.agent,
        stage: key.stage,
        reason: key.reason,
        spans: sums.spans,
        bytes: sums.bytes,
    });
    rows.collect()
}

fn this_minute() -> u32 {
    u32::try_from(since_1970().as_secs() / 60 * 60).unwrap_or(u32::MAX)
}

/// Writes what no batch of spans takes along, until it is told to stop, and then the rest.
pub(crate) async fn write_overdue<B, E>(
    accounts: Arc<Accounts>,
    make_batch: Arc<dyn Fn() -> B + Send + Sync>,
    export: Arc<E>,
    stop: CancellationToken,
    abort: CancellationToken,
) where
    B: Batch,
    E: Export<Frozen = B::Frozen>,
{
    loop {
        let stopping = tokio::select! {
            biased;
            () = accounts.overdue() => false,
            () = stop.cancelled() => true,
        };
        let rows = accounts.take_all();
        if !rows.is_empty() {
            let measures = Measures {
                accounts: rows.clone(),
                ..Measures::default()
            };
            let frozen = make_batch().seal(measures)();
            let history = History::default();
            let outcome = tokio::select! {
                biased;
                outcome = export.export(frozen, &history) => outcome,
                () = abort.cancelled() => ExportOutcome::Unavailable(String::new()),
            };
            if let ExportOutcome::Unavailable(_) = outcome {
                accounts.put_back(rows);
            }
        }
        if stopping {
            let left: u64 = accounts.take_all().iter().map(|row| row.spans).sum();
            if left > 0 {
                accounts.lost.inc_by(left);
                tracing::warn!(spans = left, "the accounts of these spans were not written");
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
