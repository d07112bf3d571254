//! The writer: sends frozen batches until ClickHouse has confirmed them.
//!
//! A batch is sent in rounds, all its tables at once. What failed is sent again in the next round,
//! the same bytes under the same token, so that ClickHouse drops what it already has. Three classes
//! of errors ([`Class`]) say how: repeat with growing pauses, cut the batch to find a bad row, or hold
//! it and call for help. A batch of which nothing is stored for certain is given up after a while, and
//! clients are told to retry; one that may be stored is repeated for much longer, since a client's
//! retry would come in another batch and be stored twice.

mod bisect;
mod history;
mod inserts;
mod metrics;

use futures_util::future::join_all;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use crate::access::Access;
use crate::block::{Frozen, TableId};
use crate::failure::{Class, Failure};
use crate::trouble::Trouble;

use self::bisect::Job;
pub use self::bisect::RefusedRows;
use self::history::Said;
pub use self::history::{BatchHistory, Piece};
pub use self::inserts::{Http, Inserts, SpanKey};
pub use self::metrics::{Label, WriterMetrics};

/// How the writer behaves.
#[derive(Debug, Clone)]
pub struct WriterConfig {
    /// The way to ClickHouse.
    pub access: Access,
    /// The database.
    pub database: String,
    /// How long one insert may take. ClickHouse is told the same, and a little less.
    pub insert_timeout: Duration,
    /// After this long a batch of which certainly nothing is stored is given up.
    pub give_up_after: Duration,
    /// After this long a batch is given up though it may be stored. It must stay inside the
    /// deduplication window's reach, see
    /// [`deduplication_window`](crate::schema::SchemaOptions::deduplication_window).
    pub keep_unknown_for: Duration,
    /// The pause after a first failure; it doubles with each.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Whether ClickHouse is to recognise what it has already; off only for control runs of tests.
    #[cfg(feature = "control-runs")]
    pub deduplicate: bool,
    /// How long the outcome of a batch is kept back; more than nothing only in control runs of tests.
    #[cfg(feature = "control-runs")]
    pub hold_outcomes: Duration,
}

impl WriterConfig {
    /// The defaults for a database at this place.
    pub fn new(access: impl Into<Access>, database: impl Into<String>) -> Self {
        Self {
            access: access.into(),
            database: database.into(),
            insert_timeout: Duration::from_secs(30),
            give_up_after: Duration::from_secs(5),
            keep_unknown_for: Duration::from_secs(600),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            #[cfg(feature = "control-runs")]
            deduplicate: true,
            #[cfg(feature = "control-runs")]
            hold_outcomes: Duration::ZERO,
        }
    }
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// All rows are stored.
    Stored,
    /// These spans were refused for good; everything else is stored.
    Partial(Vec<RefusedRows>),
    /// The batch is given up, and clients are told to retry: the reason.
    Unavailable(String),
}

/// Sends batches to one database, by default over ClickHouse's HTTP interface.
#[derive(Debug)]
pub struct Writer<I = Http> {
    inserts: I,
    config: WriterConfig,
    metrics: WriterMetrics,
    trouble: Trouble,
    /// Second of the last error log, counted from the writer's start.
    logged: AtomicU64,
    started: Instant,
}

/// How often an error that goes on is logged.
const LOG_EVERY_SECONDS: u64 = 30;

impl Writer {
    /// A writer; it connects with its first batch.
    pub fn new(config: WriterConfig) -> Self {
        Self::with_inserts(Http::new(&config), config)
    }
}

impl<I: Inserts> Writer<I> {
    /// A writer whose blocks go another way: for simulations.
    pub fn with_inserts(inserts: I, config: WriterConfig) -> Self {
        Self {
            inserts,
            config,
            metrics: WriterMetrics::default(),
            trouble: Trouble::default(),
            logged: AtomicU64::new(u64::MAX),
            started: Instant::now(),
        }
    }

    /// Adds the writer's metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// The writer's metrics.
    pub fn metrics(&self) -> &WriterMetrics {
        &self.metrics
    }

    /// What keeps ClickHouse from taking spans.
    pub fn trouble(&self) -> Trouble {
        self.trouble.clone()
    }

    /// Stores a batch. Ends when it is stored, or given up after the times in the configuration.
    pub async fn write(&self, frozen: Frozen) -> WriteOutcome {
        self.write_with(frozen, &()).await
    }

    /// The same for a batch with a history.
    pub async fn write_with(
        &self,
        mut frozen: Frozen,
        history: &impl BatchHistory,
    ) -> WriteOutcome {
        let in_flight = self
            .metrics
            .in_flight
            .get_or_create_owned(&metrics::EXPORTER);
        let in_flight = Raised::new(in_flight, true);
        let outcome = self.write_rounds(&mut frozen, history).await;
        #[cfg(feature = "control-runs")]
        tokio::time::sleep(self.config.hold_outcomes).await;
        drop(in_flight);
        self.count(&frozen, &outcome);
        outcome
    }

    async fn write_rounds(&self, frozen: &mut Frozen, history: &impl BatchHistory) -> WriteOutcome {
        let tables = std::mem::take(&mut frozen.tables);
        let frozen = &*frozen;
        let known = history.pieces();
        let rows_of = |table| known.iter().filter(move |piece| piece.table == table);
        let mut jobs: Vec<Job> = tables
            .into_iter()
            .map(|table| {
                let rows = rows_of(table.id).map(|piece| piece.rows.clone()).collect();
                Job::resumed(frozen, table, rows)
            })
            .collect();
        let said = Said::new(history, &jobs);
        let start = Instant::now();
        let mut pause = self.config.first_pause;
        let mut is_doubtful = history.may_be_forgotten();
        loop {
            let failures = match is_doubtful {
                true => match self.look_up(frozen, &mut jobs).await {
                    Ok(()) => {
                        is_doubtful = false;
                        continue;
                    }
                    Err(failure) => vec![failure],
                },
                false => self.round(frozen, &mut jobs, &said).await,
            };
            if failures.is_empty() {
                return self.finished(frozen, jobs);
            }
            let Some(worst) = worst(failures) else {
                return self.finished(frozen, jobs);
            };
            self.trouble.failed(&worst);
            let touched = jobs.iter().any(Job::touched);
            let limit = match touched {
                true => self.config.keep_unknown_for,
                false => self.config.give_up_after,
            };
            if start.elapsed() + pause >= limit {
                return self.give_up(touched, &worst);
            }
            self.log(&worst);
            let fault = worst.class == Class::Fault;
            let held = Raised::new(self.metrics.held_batches.clone(), fault);
            tokio::time::sleep(pause.mul_f64(self.inserts.jitter())).await;
            drop(held);
            pause = (pause * 2).min(self.config.longest_pause);
        }
    }

    /// Inserts what the tables still lack. The spans of a batch that may be sent again are last: so where all of
    /// them are, everything is ([`look_up`](Self::look_up)).
    async fn round(
        &self,
        frozen: &Frozen,
        jobs: &mut [Job],
        said: &Said<'_, impl BatchHistory>,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        let stages: &[fn(TableId) -> bool] = match said.is_kept() {
            true => &[
                |table| table != TableId::Spans,
                |table| table == TableId::Spans,
            ],
            false => &[|_| true],
        };
        for is_in in stages {
            let jobs = jobs.iter_mut().filter(|job| is_in(job.id));
            let round = jobs.map(|job| self.work_on(frozen, job, said));
            failures.extend(join_all(round).await.into_iter().flatten());
            if !failures.is_empty() {
                break;
            }
        }
        failures
    }

    /// Looks for the spans of a batch that the server may have and not know by its tokens any more. Where all
    /// are, all other tables have theirs. Where some are, only the rest of the spans is inserted, and all of the
    /// other tables: it may be that a client repeated a request to another collector, and nothing of the batch is
    /// stored.
    async fn look_up(&self, frozen: &Frozen, jobs: &mut [Job]) -> Result<(), Failure> {
        let keys = frozen.span_keys();
        let found = match self.inserts.look_up(&keys).await {
            Ok(found) => found,
            Err(failure) if failure.class == Class::Fault => {
                tracing::warn!(
                    reason = failure.message,
                    "cannot look for a batch that was sent long ago; if it is stored, it is stored again"
                );
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        self.metrics.looked_up.inc();
        if found.is_empty() {
            return Ok(());
        }
        let missing = runs(keys.iter().map(|key| !found.contains(key)));
        tracing::info!(
            spans = keys.len(),
            stored = found.len(),
            "spans of a batch that was sent long ago are stored already"
        );
        for job in jobs {
            match job.id {
                _ if missing.is_empty() => job.skip(),
                TableId::Spans if missing.len() <= MOST_RUNS => job.only(frozen, &missing),
                _ => {}
            }
        }
        Ok(())
    }

    /// Inserts what a table still lacks, until all is in or something fails.
    async fn work_on(
        &self,
        frozen: &Frozen,
        job: &mut Job,
        said: &Said<'_, impl BatchHistory>,
    ) -> Option<Failure> {
        loop {
            if let Err(failure) = said.say(job).await {
                return Some(failure);
            }
            let piece = job.next()?;
            if job.is_cut() {
                self.metrics.bisect_inserts.inc();
            }
            let inserted = self.insert(job.id, &piece.token, piece.body.clone());
            let mut failure = match inserted.await {
                Ok(()) => {
                    job.done();
                    continue;
                }
                Err(failure) => failure,
            };
            let label = [("class", failure.class.label())];
            self.metrics.failures.get_or_create(&label).inc();
            if failure.class == Class::TooWide && job.cut(frozen) {
                continue;
            }
            if failure.class == Class::BadRows {
                if job.bad_rows(frozen, &failure) {
                    continue;
                }
                failure.class = Class::Fault;
            }
            if !failure.absent {
                job.uncertain();
            }
            failure.message = format!("insert into {}: {}", job.id.name(), failure.message);
            return Some(failure);
        }
    }

    async fn insert(&self, id: TableId, token: &str, body: bytes::Bytes) -> Result<(), Failure> {
        #[cfg(feature = "control-runs")]
        let token = &match self.config.deduplicate {
            true => token.to_owned(),
            false => format!("{token}-{}", rand::random::<u64>()),
        };
        let start = Instant::now();
        self.inserts.insert(id, token, body).await?;
        let label = [("table", id.name())];
        let seconds = self.metrics.insert_seconds.get_or_create_owned(&label);
        seconds.observe(start.elapsed().as_secs_f64());
        Ok(())
    }

    fn finished(&self, frozen: &Frozen, jobs: Vec<Job>) -> WriteOutcome {
        if let Some(trouble) = self.trouble.over() {
            tracing::info!(was = %trouble, "ClickHouse takes inserts again");
        }
        let mut refused_spans = Vec::new();
        for job in jobs {
            let rows: usize = job.refused.iter().map(|refused| refused.range.len()).sum();
            if rows > 0 {
                let label = [("table", job.id.name())];
                let refused = self.metrics.refused_rows.get_or_create_owned(&label);
                refused.inc_by(rows as u64);
                let reason = job.refused.first().map_or("", |refused| &refused.reason);
                tracing::warn!(
                    table = job.id.name(),
                    rows,
                    reason,
                    "ClickHouse rejected rows \
                    permanently"
                );
            }
            match job.id {
                TableId::Spans => refused_spans = job.refused,
                TableId::Tags if rows == 0 => frozen.tags_are_stored(),
                _ => {}
            }
        }
        if refused_spans.is_empty() {
            return WriteOutcome::Stored;
        }
        refused_spans.sort_by_key(|refused| refused.range.start);
        WriteOutcome::Partial(refused_spans)
    }

    fn give_up(&self, touched: bool, failure: &Failure) -> WriteOutcome {
        let reason = failure.message.as_str();
        if touched {
            self.metrics.uncertain_batches.inc();
            tracing::error!(
                reason,
                "giving up a batch that may have been stored in part or completely"
            );
        }
        WriteOutcome::Unavailable(failure.message.clone())
    }

    fn count(&self, frozen: &Frozen, outcome: &WriteOutcome) {
        let spans = frozen.spans() as u64;
        let refused = match outcome {
            WriteOutcome::Stored => 0,
            WriteOutcome::Partial(refused) => refused.iter().map(|r| r.range.len() as u64).sum(),
            WriteOutcome::Unavailable(_) => spans,
        };
        let sent = self
            .metrics
            .sent_spans
            .get_or_create_owned(&metrics::EXPORTER);
        sent.inc_by(spans.saturating_sub(refused));
        let failed = self
            .metrics
            .send_failed_spans
            .get_or_create_owned(&metrics::EXPORTER);
        failed.inc_by(refused);
    }

    /// Logs an error that goes on, now and then.
    fn log(&self, failure: &Failure) {
        let now = self.started.elapsed().as_secs();
        let last = self.logged.load(Ordering::Relaxed);
        if last != u64::MAX && now < last.saturating_add(LOG_EVERY_SECONDS) {
            return;
        }
        let swap = self
            .logged
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed);
        if swap.is_err() {
            return; // another batch logs it
        }
        let (code, reason) = (failure.code, failure.message.as_str());
        match failure.class {
            Class::Fault => tracing::error!(
                code,
                reason,
                "ClickHouse rejects all inserts; batches are held until its schema or the \
                 credentials are fixed"
            ),
            _ => tracing::warn!(code, reason, "an insert failed; retrying"),
        }
    }
}

/// Of more stretches of spans that are not there, none is inserted by itself.
const MOST_RUNS: usize = 64;

/// Where the values are true, as ranges.
fn runs(values: impl Iterator<Item = bool>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, value) in values.enumerate() {
        match runs.last_mut() {
            _ if !value => {}
            Some(last) if last.end == at => last.end = at + 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// A gauge that is one higher while this lives, also when the future it is in is dropped.
struct Raised(Option<Gauge>);

impl Raised {
    fn new(gauge: Gauge, raise: bool) -> Self {
        if raise {
            gauge.inc();
        }
        Self(raise.then_some(gauge))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
    }
}

/// A fault before anything else: it is the one that needs people.
fn worst(failures: Vec<Failure>) -> Option<Failure> {
    failures
        .into_iter()
        .max_by_key(|failure| failure.class == Class::Fault)
}
