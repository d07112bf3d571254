//! A model of ClickHouse: it takes blocks under tokens, drops what it has already, and fails in the ways that
//! the real one does. The writer with its retries and cuts is the real one.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clickhouse::error::Error;
use spanloom_store::block::TableId;
use spanloom_store::failure::{Class, Failure};
use spanloom_store::writer::{Inserts, SpanKey};
use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use crate::life::Life;
use crate::random::Random;
use crate::trace::Trace;

/// What a batch is, in every process that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// The span ids, in their order.
    pub(crate) spans: Vec<u64>,
    /// The spans that each row of the rates counts.
    pub(crate) rates: Vec<u64>,
    /// Spans that its accounts say are stored.
    pub(crate) accounts: u64,
}

/// How the store behaves, in cases of a thousand.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Nobody answers there.
    pub(crate) is_away: bool,
    /// All inserts fail with this error.
    pub(crate) code: Option<u32>,
    /// Connections that are refused.
    pub(crate) refused: u64,
    /// Connections that break, half of them after the insert was done.
    pub(crate) reset: u64,
    /// Answers that come after the writer's patience; the insert is done some time, or never.
    pub(crate) slow: u64,
    /// Errors that pass.
    pub(crate) errors: u64,
    /// The longest usual insert, in milliseconds.
    pub(crate) latency_ms: u64,
    /// So many rows of spans are too wide for one insert.
    pub(crate) widest: Option<usize>,
}

/// Errors that pass: memory, timeouts, too many queries or parts, replicas and shards.
const PASSING: [u32; 9] = [159, 202, 209, 210, 241, 242, 252, 285, 319];
/// An error of a row's value.
const BAD_ROW: &str =
    "Code: 27. DB::Exception: Cannot parse input (CANNOT_PARSE_INPUT_ASSERTION_FAILED)";
const TOO_WIDE: &str = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than 100). The \
    limit is controlled by 'max_partitions_per_insert_block' setting.";

#[derive(Debug, Default)]
struct Tables {
    weather: Weather,
    /// What was inserted: a hash of each block by its token.
    tokens: BTreeMap<String, u64>,
    batches: BTreeMap<u128, Arc<Made>>,
    /// How often each span is stored.
    spans: BTreeMap<u64, u64>,
    rates: u64,
    traces: u64,
    accounts: u64,
    /// Spans that cannot be stored.
    bad: BTreeSet<u64>,
}

/// The store that all processes of a run write to.
#[derive(Debug)]
pub(crate) struct Store {
    tables: Mutex<Tables>,
    trace: Arc<Trace>,
    /// It forgets tokens: for control runs.
    forgets: bool,
}

/// What is in the store in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub(crate) spans: BTreeMap<u64, u64>,
    pub(crate) rates: u64,
    pub(crate) traces: u64,
    pub(crate) accounts: u64,
    pub(crate) batches: BTreeMap<u128, Arc<Made>>,
    pub(crate) bad: BTreeSet<u64>,
}

impl Store {
    pub(crate) fn new(trace: Arc<Trace>, forgets: bool) -> Arc<Self> {
        Arc::new(Self {
            tables: Mutex::default(),
            trace,
            forgets,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_widest(&self, widest: Option<usize>) {
        self.lock().weather.widest = widest;
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.trace.note(format_args!("store {weather:?}"));
        self.lock().weather = weather;
    }

    /// A span of which no row can be stored.
    pub(crate) fn refuse(&self, span: u64) {
        self.lock().bad.insert(span);
    }

    /// A batch was frozen. One id is one batch, in every process.
    pub(crate) fn made(&self, id: u128, made: Made) {
        self.trace.note(format_args!("made {id:032x} {made:?}"));
        let made = Arc::new(made);
        let known = self.lock().batches.insert(id, Arc::clone(&made));
        // Accounts are not made again.
        if let Some(known) = known
            && (&known.spans, &known.rates) != (&made.spans, &made.rates)
        {
            self.trace.violation(format!(
                "batch {id:032x} was {known:?} and is made again as {made:?}"
            ));
        }
    }

    /// What a batch is, as it was made last.
    fn batch(&self, token: &str) -> Option<Arc<Made>> {
        let (id, _) = parse(token)?;
        self.lock().batches.get(&id).cloned()
    }

    pub(crate) fn contents(&self) -> Contents {
        let tables = self.lock();
        Contents {
            spans: tables.spans.clone(),
            rates: tables.rates,
            traces: tables.traces,
            accounts: tables.accounts,
            batches: tables.batches.clone(),
            bad: tables.bad.clone(),
        }
    }

    /// Inserts a block, or says why not in ClickHouse's words.
    fn apply(&self, table: TableId, token: &str, body: &Bytes, made: &Made) -> Result<(), String> {
        let mut tables = self.lock();
        let tables = &mut *tables;
        let hash = xxh3_64(body);
        if let Some(known) = tables.tokens.get(token).filter(|_| !self.forgets) {
            let is_fixed = matches!(table, TableId::Spans | TableId::TraceIndex);
            if is_fixed && *known != hash {
                self.trace
                    .note(format_args!("another block under the token {token}"));
            }
            return Ok(());
        }
        let Some((_, rows)) = parse(token) else {
            self.trace
                .violation(format!("a token is no batch's: {token}"));
            return Ok(());
        };
        let all = 0..usize::MAX;
        match table {
            TableId::Spans => {
                let spans = within(&made.spans, rows.unwrap_or(all));
                if tables
                    .weather
                    .widest
                    .is_some_and(|widest| spans.len() > widest)
                {
                    return Err(TOO_WIDE.to_owned());
                }
                if spans.iter().any(|span| tables.bad.contains(span)) {
                    return Err(BAD_ROW.to_owned());
                }
                for span in spans {
                    *tables.spans.entry(*span).or_default() += 1;
                }
            }
            TableId::Red => {
                tables.rates += within(&made.rates, rows.unwrap_or(all)).iter().sum::<u64>()
            }
            TableId::Accounts => tables.accounts += made.accounts,
            // Each span is a trace of its own.
            TableId::TraceIndex => {
                tables.traces += within(&made.spans, rows.unwrap_or(all)).len() as u64;
            }
            TableId::RedHours | TableId::Tags | TableId::HalfEdges => {}
        }
        tables.tokens.insert(token.to_owned(), hash);
        Ok(())
    }
}

fn within(all: &[u64], rows: Range<usize>) -> &[u64] {
    all.get(rows.start..rows.end.min(all.len()))
        .unwrap_or_default()
}

/// The batch and the rows that a token names: `id-table`, or `id-table:from-to` and perhaps a hash.
fn parse(token: &str) -> Option<(u128, Option<Range<usize>>)> {
    let (id, rest) = token.split_once('-')?;
    let id = u128::from_str_radix(id, 16).ok()?;
    let rows = match rest.split(':').nth(1) {
        None => None,
        Some(rows) => {
            let (from, to) = rows.split_once('-')?;
            Some(from.parse().ok()?..to.parse().ok()?)
        }
    };
    Some((id, rows))
}

/// What becomes of an insert.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Done,
    Refused,
    Code {
        code: u32,
        is_done: bool,
    },
    Reset {
        is_done: bool,
    },
    /// Done so much later than the writer waits.
    Slow {
        done_after_ms: Option<u64>,
    },
}

/// A process's way to the store.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) store: Arc<Store>,
    pub(crate) life: Arc<Life>,
    pub(crate) random: Mutex<Random>,
    /// How long the writer waits for an answer.
    pub(crate) patience: Duration,
}

impl Way {
    fn random(&self) -> MutexGuard<'_, Random> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fate(&self) -> (Fate, Duration, Duration) {
        let weather = self.store.lock().weather.clone();
        let mut random = self.random();
        let random = &mut *random;
        let there = random.millis(0, weather.latency_ms);
        let back = random.millis(0, weather.latency_ms / 2);
        let half = random.chance(500);
        let patience = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        let fate = if weather.is_away || random.chance(weather.refused) {
            Fate::Refused
        } else if let Some(code) = weather.code {
            Fate::Code {
                code,
                is_done: false,
            }
        } else if random.chance(weather.reset) {
            Fate::Reset { is_done: half }
        } else if random.chance(weather.slow) {
            let after = random.between(0, 3 * patience);
            Fate::Slow {
                done_after_ms: half.then_some(after),
            }
        } else if random.chance(weather.errors) {
            let code = random.pick(&PASSING).unwrap_or(241);
            // Of these nothing is done.
            let is_early = matches!(code, 202 | 252);
            Fate::Code {
                code,
                is_done: half && !is_early,
            }
        } else {
            Fate::Done
        };
        (fate, there, back)
    }

    /// The insert is done after a time, whether its sender lives or not.
    async fn done(
        &self,
        table: TableId,
        token: &str,
        body: &Bytes,
        after: Duration,
    ) -> Result<(), String> {
        let store = Arc::clone(&self.store);
        let (token, body) = (token.to_owned(), body.clone());
        let Some(made) = store.batch(&token) else {
            store
                .trace
                .violation(format!("no batch was made for {token}"));
            return Ok(());
        };
        let work = async move {
            sleep(after).await;
            let result = store.apply(table, &token, &body, &made);
            store
                .trace
                .note(format_args!("store {token} {}", result.is_ok()));
            result
        };
        match tokio::spawn(work).await {
            Ok(result) => result,
            Err(error) => {
                self.store
                    .trace
                    .violation(format!("the model failed: {error}"));
                Ok(())
            }
        }
    }
}

fn passing(absent: bool, message: &str) -> Failure {
    Failure {
        class: Class::Retry,
        code: None,
        absent,
        message: message.to_owned(),
    }
}

fn said(text: String) -> Failure {
    Failure::of(&Error::BadResponse(text))
}

impl Inserts for Way {
    async fn insert(&self, table: TableId, token: &str, body: Bytes) -> Result<(), Failure> {
        if !self.life.is_alive() {
            return Err(passing(true, "this process is dead"));
        }
        // Nothing checks hours, and another insert would make other runs of the seeds that are kept.
        if table == TableId::RedHours {
            return Ok(());
        }
        let (fate, there, back) = self.fate();
        self.store
            .trace
            .note(format_args!("insert {token} {fate:?}"));
        match fate {
            Fate::Refused => {
                sleep(back).await;
                Err(passing(true, "connection refused"))
            }
            Fate::Done => {
                let result = self.done(table, token, &body, there).await;
                sleep(back).await;
                result.map_err(said)
            }
            Fate::Code { code, is_done } => {
                if is_done {
                    let _ = self.done(table, token, &body, there).await;
                }
                sleep(back).await;
                Err(said(format!(
                    "Code: {code}. DB::Exception: as the seed has it"
                )))
            }
            Fate::Reset { is_done } => {
                if is_done {
                    let _ = self.done(table, token, &body, there).await;
                }
                Err(passing(false, "connection reset"))
            }
            Fate::Slow { done_after_ms } => {
                let patience = sleep(self.patience);
                if let Some(after) = done_after_ms {
                    let after = Duration::from_millis(after);
                    let done = self.done(table, token, &body, after);
                    tokio::select! {
                        biased;
                        _ = done => sleep(self.patience.saturating_sub(after)).await,
                        () = patience => {}
                    }
                } else {
                    patience.await;
                }
                Err(Failure::of(&Error::TimedOut))
            }
        }
    }

    async fn look_up(&self, spans: &[SpanKey]) -> Result<HashSet<SpanKey>, Failure> {
        if !self.life.is_alive() {
            return Err(passing(true, "this process is dead"));
        }
        let (fate, there, back) = self.fate();
        sleep(there + back).await;
        self.store
            .trace
            .note(format_args!("look up {} {fate:?}", spans.len()));
        match fate {
            Fate::Done => {
                let tables = self.store.lock();
                let is_there =
                    |key: &&SpanKey| tables.spans.contains_key(&u64::from_be_bytes(key.span_id));
                Ok(spans.iter().filter(is_there).copied().collect())
            }
            Fate::Code { code, .. } => Err(said(format!(
                "Code: {code}. DB::Exception: as the seed has it"
            ))),
            _ => Err(passing(true, "no answer")),
        }
    }

    fn jitter(&self) -> f64 {
        0.5 + self.random().between(0, 500) as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_batches_and_rows() {
        let id = 0xab_u128;
        let check = |token: String, rows: Option<Range<usize>>| {
            assert_eq!(parse(&token), Some((id, rows)), "{token}");
        };
        check(format!("{id:032x}-spans"), None);
        check(format!("{id:032x}-trace_index:0-12"), Some(0..12));
        check(format!("{id:032x}-tags:3-4:00ff"), Some(3..4));
        assert_eq!(parse("no token"), None);
    }
}
