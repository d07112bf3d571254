//! Asking ClickHouse: within limits, counted, and with its errors sorted.

use std::time::{Duration, Instant};

use clickhouse::query::RowCursor;
use clickhouse::{Client, RowOwned, RowRead};
use serde::de::{Deserialize, Deserializer, Visitor};
use spanloom_program::causes;
use spanloom_store::access::{Access, AccessError, Credentials, NotKnown};
use tokio::sync::Semaphore;

use crate::config::{ClickHouseConfig, Limits};
use crate::metrics::{Metrics, QueryLabels};
use crate::problem::{Problem, ProblemKind};
use crate::sql::Sql;
use crate::tally;

/// How much later than ClickHouse's own limit we give up, so that its error is the one that is
/// seen.
const GRACE: Duration = Duration::from_secs(2);

/// Health checks and the operator's probes at once.
const CHECKS_MAX: usize = 4;

/// Why a query has no result.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// ClickHouse stopped the query at its time limit, or did not answer in time.
    #[error("query timed out after {0:?}")]
    Timeout(Duration),
    /// The query wanted more memory than it may have.
    #[error("query exceeded its memory limit of {0} bytes")]
    Memory(u64),
    /// What the query found is more than one query may bring back.
    #[error("query exceeded its limit of {0} bytes of results")]
    Result(usize),
    /// All slots were taken until the request's time was over.
    #[error("too many concurrent queries")]
    Overloaded,
    /// ClickHouse is away, refuses us, or has no schema yet.
    #[error("ClickHouse is unavailable: {0}")]
    Unavailable(String),
    /// The query or its rows are not what we think: a fault of ours.
    #[error("ClickHouse refused the query: {0}")]
    Failed(String),
}

impl DbError {
    /// Whether the query was cut off by a limit: what it gave until then is an answer.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Memory(_) | Self::Result(_))
    }

    /// The class of the error, for the metric and the log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Memory(_) => "memory",
            Self::Result(_) => "result",
            Self::Overloaded => "overloaded",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Timeout(limit) => Self::new(
                ProblemKind::Timeout,
                format!(
                    "query timed out after {} s; try a shorter time range, or filter by service or \
                     operation",
                    limit.as_secs_f64()
                ),
            ),
            DbError::Memory(bytes) => Self::new(
                ProblemKind::TooMuchMemory,
                format!(
                    "query exceeded its memory limit of {} MiB; try a shorter time range, or \
                     filter by service or operation",
                    bytes >> 20
                ),
            ),
            DbError::Result(bytes) => Self::new(
                ProblemKind::TooMuchMemory,
                format!(
                    "query found more than its limit of {} MiB; try a shorter time range, or give a \
                     service or an operation",
                    bytes >> 20
                ),
            ),
            DbError::Overloaded => Self::new(
                ProblemKind::Overloaded,
                "too many concurrent queries; try again",
            ),
            DbError::Unavailable(reason) => {
                tracing::warn!(reason, "ClickHouse is unavailable");
                Self::new(
                    ProblemKind::Unavailable,
                    "ClickHouse is unavailable; try again",
                )
            }
            DbError::Failed(reason) => {
                tracing::error!(reason, "a query failed");
                Self::new(
                    ProblemKind::Internal,
                    "the query failed; see the log of the query \
                                                  service",
                )
            }
        }
    }
}

/// The time that one request has for all of its queries.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    begun: Instant,
    limit: Duration,
}

impl Deadline {
    /// The end of the first part of what is left: of one in so many.
    pub fn part(self, one_in: u32) -> Self {
        Self {
            begun: Instant::now(),
            limit: self.left().unwrap_or_default() / one_in.max(1),
        }
    }

    fn left(self) -> Result<Duration, DbError> {
        let left = self.limit.saturating_sub(self.begun.elapsed());
        if left.is_zero() {
            Err(DbError::Timeout(self.limit))
        } else {
            Ok(left)
        }
    }
}

/// The way to ClickHouse.
#[derive(Debug)]
pub struct Db {
    access: Access,
    database: String,
    slots: Semaphore,
    /// Health checks have slots of their own: slow queries of people must not take the pod out of its
    /// Service.
    check_slots: Semaphore,
    limits: Limits,
    metrics: Metrics,
}

impl Db {
    /// A way to the server of `config`; nothing is sent yet.
    ///
    /// # Errors
    /// When the credentials, or the authorities to trust, cannot be read.
    pub fn new(
        config: &ClickHouseConfig,
        limits: Limits,
        metrics: Metrics,
    ) -> Result<Self, AccessError> {
        let credentials = match &config.credentials_dir {
            Some(folder) => Credentials::in_folder(folder.clone())?,
            None => Credentials::fixed(config.user.clone(), config.password.clone()),
        };
        Ok(Self {
            access: Access::new(&config.url, credentials, config.ca_file.clone())?,
            database: config.database.clone(),
            slots: Semaphore::new(limits.concurrent_queries),
            check_slots: Semaphore::new(CHECKS_MAX),
            limits,
            metrics,
        })
    }

    /// The client for a query that begins now.
    fn client(&self) -> Result<Client, NotKnown> {
        let memory = self.limits.query_memory_bytes.to_string();
        let client = self.access.client()?;
        Ok(client
            .with_database(&self.database)
            .with_product_info("spanloom-query", env!("CARGO_PKG_VERSION"))
            // Reads and settings only, whatever the text says.
            .with_setting("readonly", "2")
            // A request whose client goes away is dropped, and closes its connection: the result is not needed.
            .with_setting("cancel_http_readonly_queries_on_client_close", "1")
            .with_setting("max_memory_usage", memory))
    }

    /// The deadline of a request that begins now.
    pub fn deadline(&self) -> Deadline {
        Deadline {
            begun: Instant::now(),
            limit: self.limits.query_timeout,
        }
    }

    /// All rows of a query whose LIMIT bounds them. `name` is for the metric.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn rows<T>(
        &self,
        name: &'static str,
        sql: &Sql,
        deadline: Deadline,
    ) -> Result<Vec<T>, DbError>
    where
        T: RowOwned + RowRead,
    {
        self.collected(&self.slots, name, sql, deadline).await
    }

    /// As [`Self::rows`], for a health check or a probe: it does not wait for the queries of people.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn check<T>(
        &self,
        name: &'static str,
        sql: &Sql,
        deadline: Deadline,
    ) -> Result<Vec<T>, DbError>
    where
        T: RowOwned + RowRead,
    {
        self.collected(&self.check_slots, name, sql, deadline).await
    }

    async fn collected<T>(
        &self,
        slots: &Semaphore,
        name: &'static str,
        sql: &Sql,
        deadline: Deadline,
    ) -> Result<Vec<T>, DbError>
    where
        T: RowOwned + RowRead,
    {
        let mut rows = Vec::new();
        let take = |row| {
            rows.push(row);
            Flow::More
        };
        let read = Read {
            name,
            sql,
            most: Some(self.limits.result_bytes),
            is_checked: true,
        };
        self.counted(slots, read, deadline, take).await?;
        Ok(rows)
    }

    /// Gives each row of a query to `take`, which says whether it wants more. The size of the result is not
    /// limited: `take` bounds what is kept.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn each<T>(
        &self,
        name: &'static str,
        sql: &Sql,
        deadline: Deadline,
        take: impl FnMut(T) -> Flow,
    ) -> Result<(), DbError>
    where
        T: RowOwned + RowRead,
    {
        let read = Read {
            name,
            sql,
            most: None,
            is_checked: true,
        };
        self.counted(&self.slots, read, deadline, take).await
    }

    /// As [`Self::each`], for wide rows: a third of the time to read them is to check the types of their columns. So
    /// these are checked in debug builds only, and the columns of the query have to be in the order of the row's fields.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn each_wide<T>(
        &self,
        name: &'static str,
        sql: &Sql,
        deadline: Deadline,
        take: impl FnMut(T) -> Flow,
    ) -> Result<(), DbError>
    where
        T: RowOwned + RowRead,
    {
        let read = Read {
            name,
            sql,
            most: None,
            is_checked: cfg!(debug_assertions),
        };
        self.counted(&self.slots, read, deadline, take).await
    }

    async fn counted<T>(
        &self,
        slots: &Semaphore,
        read: Read<'_>,
        deadline: Deadline,
        take: impl FnMut(T) -> Flow,
    ) -> Result<(), DbError>
    where
        T: RowOwned + RowRead,
    {
        let begun = Instant::now();
        let name = read.name;
        let result = self.run(slots, read, deadline, take).await;
        let outcome = result.as_ref().map_or_else(DbError::label, |()| "ok");
        self.metrics.queried(
            &QueryLabels {
                query: name,
                outcome,
            },
            begun.elapsed(),
        );
        if matches!(result, Err(DbError::Overloaded)) {
            self.metrics.refuse();
        }
        result
    }

    async fn run<T>(
        &self,
        slots: &Semaphore,
        read: Read<'_>,
        deadline: Deadline,
        take: impl FnMut(T) -> Flow,
    ) -> Result<(), DbError>
    where
        T: RowOwned + RowRead,
    {
        let slot = tokio::time::timeout(deadline.left()?, slots.acquire());
        let _slot = slot
            .await
            .map_err(|_| DbError::Overloaded)?
            .map_err(|_| DbError::Overloaded)?;
        let _running = self.metrics.running();
        let left = deadline.left()?;
        let client = self
            .client()
            .map_err(|error| DbError::Unavailable(error.to_string()))?
            .with_validation(read.is_checked);
        let mut query = read.sql.query(&client).with_setting(
            "max_execution_time",
            format!("{:.3}", left.as_secs_f64().max(0.001)),
        );
        if let Some(most) = read.most {
            query = query.with_setting("max_result_bytes", most.to_string());
        }
        let read = async {
            tally::sent();
            let mut cursor: RowCursor<T> = query.fetch()?;
            let read = read_rows(&mut cursor, take).await;
            tally::received(&cursor);
            read
        };
        match tokio::time::timeout(left + GRACE, read).await {
            Ok(result) => result.map_err(|error| self.classify(error, deadline)),
            Err(_) => Err(DbError::Timeout(deadline.limit)),
        }
    }

    fn classify(&self, error: clickhouse::error::Error, deadline: Deadline) -> DbError {
        use clickhouse::error::Error;
        match error {
            Error::Network(_) => DbError::Unavailable(causes(&error)),
            Error::TimedOut => DbError::Timeout(deadline.limit),
            Error::BadResponse(text) => match exception_code(&text) {
                // TIMEOUT_EXCEEDED, TOO_SLOW
                Some(159 | 160) => DbError::Timeout(deadline.limit),
                // MEMORY_LIMIT_EXCEEDED
                Some(241) => DbError::Memory(self.limits.query_memory_bytes),
                // TOO_MANY_ROWS_OR_BYTES
                Some(396) => DbError::Result(self.limits.result_bytes),
                // UNKNOWN_TABLE, UNKNOWN_DATABASE: not migrated yet. TOO_MANY_SIMULTANEOUS_QUERIES,
                // NETWORK_ERROR, SOCKET_TIMEOUT, QUERY_WAS_CANCELLED (it is shutting down),
                // AUTHENTICATION_FAILED (credentials are being renewed), and a proxy's own page.
                Some(60 | 81 | 202 | 209 | 210 | 394 | 516) | None => DbError::Unavailable(text),
                Some(_) => DbError::Failed(text),
            },
            error => DbError::Failed(causes(&error)),
        }
    }

    /// Whether ClickHouse answers at all, and has our tables.
    ///
    /// # Errors
    /// See [`DbError`].
    pub async fn ping(&self) -> Result<(), DbError> {
        const LIMIT: Duration = Duration::from_secs(3);
        let deadline = Deadline {
            begun: Instant::now(),
            limit: LIMIT,
        };
        let sql = Sql::new("SELECT toUInt8(1) FROM spans LIMIT 0");
        self.check::<u8>("ping", &sql, deadline).await.map(drop)
    }
}

/// A query to read.
struct Read<'a> {
    /// For the metric.
    name: &'static str,
    sql: &'a Sql,
    /// The most bytes of its result.
    most: Option<usize>,
    /// Whether the types of its columns are checked.
    is_checked: bool,
}

/// What a reader of rows says after each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    More,
    /// The rest is not wanted.
    Enough,
}

async fn read_rows<T>(
    cursor: &mut RowCursor<T>,
    mut take: impl FnMut(T) -> Flow,
) -> clickhouse::error::Result<()>
where
    T: RowOwned + RowRead,
{
    while let Some(row) = cursor.next().await? {
        if take(row) == Flow::Enough {
            break;
        }
    }
    Ok(())
}

/// The number in `Code: 60. DB::Exception: …`.
fn exception_code(text: &str) -> Option<u32> {
    let digits = text.split_once("Code: ")?.1;
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Text of a row. Other writers may have put bytes that are not UTF-8 into the tables; one such
/// span must not keep a whole trace from being read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Lossy;
        impl Visitor<'_> for Lossy {
            type Value = Text;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Text, E> {
                Ok(Text(String::from_utf8(bytes).unwrap_or_else(|error| {
                    String::from_utf8_lossy(error.as_bytes()).into_owned()
                })))
            }
        }
        deserializer.deserialize_byte_buf(Lossy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<u32>) {
        assert_eq!(exception_code(text), expect, "{text}");
    }

    #[test]
    fn exception_codes() {
        check(
            "Code: 60. DB::Exception: Unknown table (UNKNOWN_TABLE)",
            Some(60),
        );
        check(
            "Code: 33. DB::Exception: Code: 34. DB::Exception: x",
            Some(33),
        );
        check("Code: 159", Some(159));
        check("Code: x", None);
        check("502 Bad Gateway", None);
        check("", None);
    }
}
