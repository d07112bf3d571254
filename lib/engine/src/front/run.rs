//! Statements on their way through the engine: a slot to run in, a connection, the settings, the
//! statement, and its end when the client has gone.

use std::ffi::OsString;
use std::io::PipeWriter;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::StatusCode;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::error::{ChError, code};
use super::spool::Spool;
use super::statement::Statement;
use crate::ffi::{Chdb, Connection, Finished};

/// What the name of every query of ours begins with, in its `log_comment`.
pub(crate) const MARK: &str = "spanloom-query-";

/// A request's data goes into one block, so that it becomes visible whole or not at all, and not
/// through the queue of asynchronous inserts, that would answer for others' data.
const INSERT_SETTINGS: &str = "async_insert=0, max_insert_threads=1, \
    max_insert_block_size=1000000000, max_insert_block_size_bytes=0, \
    min_insert_block_size_rows=1000000000, min_insert_block_size_bytes=0";

/// Slots that statements which only read leave free: slow queries must not keep inserts out.
const NOT_FOR_READING: u32 = 2;

/// A place to run in.
pub(crate) struct Slot {
    _reader: Option<OwnedSemaphorePermit>,
    _slot: OwnedSemaphorePermit,
}

/// The engine and the slots in it.
pub(crate) struct Runner {
    chdb: &'static Chdb,
    /// The same for every connection: where the data is.
    arguments: Vec<OsString>,
    slots: Arc<Semaphore>,
    /// How many of them may read.
    readers: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    patience: Duration,
    max_execution: Duration,
    pub(crate) slot_count: u32,
}

/// One statement to run.
pub(crate) struct Job {
    /// What to run.
    pub(crate) statement: Statement,
    /// Set on the connection before it.
    pub(crate) settings: Vec<(String, String)>,
    /// Values of `{name:Type}`, escaped as over HTTP.
    pub(crate) parameters: Vec<(String, String)>,
    /// The current database.
    pub(crate) database: Option<String>,
    /// What rows are written in.
    pub(crate) format: String,
    /// What it can be killed by.
    pub(crate) id: String,
    /// Nothing may be written.
    pub(crate) readonly: bool,
    /// The data of an `INSERT`.
    pub(crate) data: Option<Spool>,
    /// Where rows are written to.
    pub(crate) output: PipeWriter,
}

impl Runner {
    /// A runner with so many slots.
    pub(crate) fn new(
        chdb: &'static Chdb,
        arguments: Vec<OsString>,
        slots: u32,
        max_execution: Duration,
    ) -> Runner {
        Runner {
            chdb,
            arguments,
            slots: Arc::new(Semaphore::new(slots as usize)),
            readers: Arc::new(Semaphore::new(
                slots.saturating_sub(NOT_FOR_READING).max(1) as usize
            )),
            waiting: AtomicUsize::new(0),
            max_waiting: 256,
            patience: Duration::from_secs(60),
            max_execution,
            slot_count: slots,
        }
    }

    /// Waits for a slot, in a queue that has an end.
    pub(crate) async fn slot(&self, reads: bool) -> Result<Slot, ChError> {
        let full = |what| {
            ChError::new(code::TOO_MANY_SIMULTANEOUS_QUERIES, what)
                .with_status(StatusCode::SERVICE_UNAVAILABLE)
        };
        let mut slot = pin!(self.take_slot(reads));
        let taken = match slot.as_mut().now_or_never() {
            Some(taken) => Ok(taken),
            None => {
                let _place = Place::take(&self.waiting);
                if self.waiting.load(Ordering::Relaxed) > self.max_waiting {
                    return Err(full("Too many simultaneous queries: the queue is full"));
                }
                tokio::time::timeout(self.patience, slot).await
            }
        };
        match taken {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(full("the engine is stopping")),
            Err(_) => Err(full("Too many simultaneous queries: no slot came free")),
        }
    }

    async fn take_slot(&self, reads: bool) -> Result<Slot, AcquireError> {
        let reader = match reads {
            true => Some(self.readers.clone().acquire_owned().await?),
            false => None,
        };
        let slot = self.slots.clone().acquire_owned().await?;
        Ok(Slot {
            _reader: reader,
            _slot: slot,
        })
    }

    /// Lets nothing new in, ends what runs, and waits for it.
    pub(crate) async fn stop(&self, patience: Duration) {
        let all = self.slots.clone().acquire_many_owned(self.slot_count);
        let kill = async {
            loop {
                self.kill(MARK).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ended = tokio::time::timeout(patience, async {
            tokio::select! {
                _ = all => {}
                () = kill => {}
            }
        });
        if ended.await.is_err() {
            tracing::warn!("queries did not end in {patience:?}; stopping without them");
        }
        self.readers.close();
        self.slots.close();
    }

    /// Opens a connection.
    pub(crate) fn connect(&self) -> Result<Connection, ChError> {
        self.chdb
            .connect(&self.arguments)
            .map_err(|e| ChError::new(code::LOGICAL_ERROR, e.to_string()))
    }

    /// Asks the engine to end the queries whose name begins so.
    async fn kill(&self, id: &str) {
        // ASYNC always: SYNC hangs.
        let sql = format!(
            "KILL QUERY WHERE startsWith(Settings['log_comment'], '{id}') ASYNC FORMAT Null"
        );
        let chdb = self.chdb;
        let arguments = self.arguments.clone();
        let killed = tokio::task::spawn_blocking(move || {
            let mut connection = chdb.connect(&arguments).map_err(|e| e.to_string())?;
            connection.query(sql.as_bytes(), "Null", &[]).map(|_| ())
        });
        if let Ok(Err(error)) = killed.await {
            tracing::warn!("a query could not be killed: {error}");
        }
    }

    /// Kills a query until it has ended: right after its start it cannot be seen yet.
    pub(crate) async fn kill_until_ended(&self, id: &str, ended: &CancellationToken) {
        while !ended.is_cancelled() {
            self.kill(id).await;
            let pause = Duration::from_millis(100);
            if tokio::time::timeout(pause, ended.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    /// Runs a statement on a connection of its own.
    pub(crate) fn run(&self, job: &Job) -> Result<Finished, ChError> {
        let mut connection = self.connect()?;
        if let Some(database) = &job.database {
            use_database(&mut connection, database)?;
        }
        set(&mut connection, &self.settings(job))?;
        if job.readonly {
            set(&mut connection, &[("readonly".to_owned(), "2".to_owned())])?;
        }
        execute(&mut connection, job)
    }

    /// The settings of a statement: ours, then the request's, that win, then its name.
    pub(crate) fn settings(&self, job: &Job) -> Vec<(String, String)> {
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut all = vec![
            // The embedded engine would take `1 + 1` for a query; a server does not.
            pair("implicit_select", "0".to_owned()),
            pair(
                "max_execution_time",
                self.max_execution.as_secs().to_string(),
            ),
        ];
        let mut name = job.id.clone();
        for (setting, value) in &job.settings {
            if setting == "log_comment" {
                name = format!("{name} {value}");
            } else {
                all.push((setting.clone(), value.clone()));
            }
        }
        all.push(pair("log_comment", name));
        all
    }
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl Place<'_> {
    fn take(count: &AtomicUsize) -> Place<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Place(count)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Makes a database the current one.
pub(crate) fn use_database(connection: &mut Connection, database: &str) -> Result<(), ChError> {
    let quoted = database.replace('\\', "\\\\").replace('`', "\\`");
    command(connection, &format!("USE `{quoted}`"))
}

/// Sets settings; their names were checked, their values are quoted here.
pub(crate) fn set(
    connection: &mut Connection,
    settings: &[(String, String)],
) -> Result<(), ChError> {
    let list: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name} = {}", quoted(value)))
        .collect();
    command(connection, &format!("SET {}", list.join(", ")))
}

/// A string literal.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn command(connection: &mut Connection, sql: &str) -> Result<(), ChError> {
    connection
        .query(sql.as_bytes(), "Null", &[])
        .map(|_| ())
        .map_err(ChError::from_engine)
}

/// Runs the statement itself.
pub(crate) fn execute(connection: &mut Connection, job: &Job) -> Result<Finished, ChError> {
    let mut sql = Vec::new();
    match &job.statement {
        Statement::Empty => return Err(ChError::new(code::SYNTAX_ERROR, "Empty query")),
        Statement::Command { text, .. } => sql.extend_from_slice(text),
        Statement::Output { head, tail, .. } => {
            sql.extend_from_slice(head);
            // On a line of its own: the head may end in a comment.
            let target = format!(
                "\nINTO OUTFILE '/proc/self/fd/{}' APPEND FORMAT {} ",
                job.output.as_raw_fd(),
                job.format,
            );
            sql.extend_from_slice(target.as_bytes());
            sql.extend_from_slice(tail);
        }
        Statement::Insert {
            head,
            settings,
            format,
            ..
        } => {
            let data = job
                .data
                .as_ref()
                .ok_or_else(|| ChError::new(code::LOGICAL_ERROR, "an INSERT has lost its data"))?;
            sql.extend_from_slice(head);
            sql.extend_from_slice(format!("\nFROM INFILE '{}' SETTINGS ", data.path()).as_bytes());
            if !settings.is_empty() {
                sql.extend_from_slice(settings);
                sql.extend_from_slice(b"\n, ");
            }
            sql.extend_from_slice(format!("{INSERT_SETTINGS} FORMAT {format}").as_bytes());
        }
    }
    connection
        .query(&sql, "TabSeparated", &job.parameters)
        .map_err(ChError::from_engine)
}
