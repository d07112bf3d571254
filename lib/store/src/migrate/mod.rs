//! Migrations: make a database what this version needs.
//!
//! A migration is SQL text in `migrations/`, a file for a single node and one for a cluster, that never
//! changes once it has landed. ClickHouse has no transactions and no locks for this, so each step may run twice and on two
//! machines at once. A version table says what has run, and in its comment whose database it is: a second
//! pipeline is refused, so that two documents do not pull one schema to and fro.

mod steps;
pub mod system_logs;
mod template;

use clickhouse::Client;
use serde::Deserialize;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::failure::{Class, Failure};
use crate::schema::tables::schema_migrations;
use crate::schema::{SchemaOptions, Table, literal, tables};

pub use steps::{Migration, checksum, migrations, statements};

/// Why the database is not ready.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// ClickHouse did not answer in time.
    #[error(
        "ClickHouse at {url} did not respond within {waited:?}: {reason}; check that it is running \
         and that the address is correct"
    )]
    Away {
        /// Where it should be.
        url: String,
        /// How long we waited.
        waited: Duration,
        /// The last error.
        reason: String,
    },
    /// What answers has a certificate that is not trusted.
    #[error(
        "the certificate of ClickHouse at {url} is not trusted: {reason}; check the address and the CA \
         certificate (storage.external.tls.caSecret)"
    )]
    Untrusted {
        /// Where it should be.
        url: String,
        /// What is wrong with the certificate.
        reason: String,
    },
    /// ClickHouse refused a statement.
    #[error("ClickHouse refused to {what}: {reason}")]
    Refused {
        /// What the statement was for.
        what: String,
        /// Its answer.
        reason: String,
    },
    /// The database belongs to another pipeline.
    #[error(
        "database {database} belongs to pipeline {owner:?}, not to {pipeline:?}; use a different \
         database for this pipeline"
    )]
    OtherPipeline {
        /// The database.
        database: String,
        /// Whose it is.
        owner: String,
        /// Who asked.
        pipeline: String,
    },
    /// A migration is not what it was when it ran.
    #[error(
        "migration {version} of database {database} was applied with checksum {found}, but this \
         version has {expected}; use the version that created the database, or another database"
    )]
    Changed {
        /// The database.
        database: String,
        /// The migration.
        version: u32,
        /// The checksum in the version table.
        found: String,
        /// The checksum now.
        expected: String,
    },
    /// A later version changed the database in a way that this one cannot work with.
    #[error(
        "database {database} is at schema version {found}, which requires support for version \
         {needs}, but this program supports up to {known}; use a later version"
    )]
    TooNew {
        /// The database.
        database: String,
        /// Its version.
        found: u32,
        /// What a program must know.
        needs: u32,
        /// The highest that we know.
        known: u32,
    },
    /// A table lacks columns, or has them with other types.
    #[error("table {table} does not match the expected schema: {problems}")]
    Columns {
        /// The table.
        table: String,
        /// Which columns, and what is wrong with them.
        problems: String,
    },
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Migrations that ran now.
    pub applied: Vec<u32>,
    /// Tables that were given the present retention.
    pub ttl_changed: Vec<String>,
}

/// How long to wait for ClickHouse at first, and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateOptions {
    /// The pipeline that the database belongs to.
    pub pipeline: String,
    /// How long ClickHouse may be away.
    pub patience: Duration,
}

#[derive(Debug, clickhouse::Row, Deserialize)]
struct Applied {
    version: u32,
    needs: u32,
    checksum: String,
    pipeline: String,
}

#[derive(Debug, clickhouse::Row, Deserialize)]
struct NameAndType {
    name: String,
    r#type: String,
}

/// Codes that say that another migrator was quicker.
const RACES: [u32; 5] = [57, 82, 253, 517, 609];

/// What the comment of the version table begins with; the pipeline's name follows.
const OWNER: &str = "of pipeline ";

struct Run<'a> {
    client: Client,
    options: &'a SchemaOptions,
    migrate: &'a MigrateOptions,
}

/// Brings a database to the present schema and retention.
pub async fn run(
    connection: &Connection,
    options: &SchemaOptions,
    migrate: &MigrateOptions,
) -> Result<Report, MigrateError> {
    let run = Run {
        client: connection.client(),
        options,
        migrate,
    };
    run.wait_for_clickhouse(&connection.url).await?;
    run.execute("create the database", &options.create_database())
        .await?;
    run.version_table().await?;
    run.claim().await?;
    let mut report = Report {
        applied: run.apply().await?,
        ttl_changed: Vec::new(),
    };
    for table in tables() {
        run.check_columns(&table).await?;
        if run.update_ttl(&table).await? {
            report.ttl_changed.push(table.name.to_string());
        }
    }
    tracing::info!(
        database = options.database,
        ?report,
        "the database is ready"
    );
    Ok(report)
}

impl Run<'_> {
    async fn wait_for_clickhouse(&self, url: &str) -> Result<(), MigrateError> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let Err(error) = self.client.query_raw("SELECT 1").execute().await else {
                return Ok(());
            };
            let failure = Failure::of(&error);
            let refused = failure.class == Class::Fault;
            if refused {
                return Err(refusal("authenticate", failure));
            }
            let (url, reason) = (url.to_owned(), failure.message);
            // Waiting would not help; a certificate that is being replaced is seen by the next start.
            if spanloom_tls::is_untrusted(&error) {
                return Err(MigrateError::Untrusted { url, reason });
            }
            let waited = start.elapsed();
            if waited + pause > self.migrate.patience {
                return Err(MigrateError::Away {
                    url,
                    waited,
                    reason,
                });
            }
            let seconds = waited.as_secs();
            tracing::info!(url, seconds, reason, "waiting for ClickHouse");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// Runs a statement that may run twice; again if it met another migrator.
    async fn execute(&self, what: &str, sql: &str) -> Result<(), MigrateError> {
        let mut races = 0;
        loop {
            let Err(error) = self.client.query_raw(sql).execute().await else {
                return Ok(());
            };
            let failure = Failure::of(&error);
            races += 1;
            if races > 5 || !failure.code.is_some_and(|code| RACES.contains(&code)) {
                return Err(refusal(what, failure));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn rows<T>(&self, what: &str, sql: &str) -> Result<Vec<T>, MigrateError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let rows = self.client.query_raw(sql).fetch_all::<T>().await;
        rows.map_err(|error| refusal(what, Failure::of(&error)))
    }

    /// Makes the version table, or gives it what it lacks: it is not under migrations itself. It says in
    /// its comment who made it.
    async fn version_table(&self) -> Result<(), MigrateError> {
        let table = schema_migrations();
        let comment = format!("{OWNER}{}", self.migrate.pipeline);
        for mut statement in self.options.create_table(&table) {
            statement.push_str(&format!("\nCOMMENT {}", literal(&comment)));
            self.execute("create the version table", &statement).await?;
        }
        for column in self.missing(&table).await? {
            if let Some(statement) = self.options.add_column(&table, &column) {
                self.execute("update the version table", &statement).await?;
            }
        }
        Ok(())
    }

    /// The version table, the pipeline that came first at its head.
    async fn applied(&self) -> Result<Vec<Applied>, MigrateError> {
        let sql = format!(
            "SELECT version, max(needs) AS needs, argMin(checksum, applied_at) AS checksum, pipeline FROM {} \
             GROUP BY version, pipeline ORDER BY min(applied_at), pipeline",
            self.options.qualified("schema_migrations")
        );
        self.rows("read the version table", &sql).await
    }

    async fn note(
        &self,
        (version, needs): (u32, u32),
        name: &str,
        checksum: &str,
    ) -> Result<(), MigrateError> {
        let sql = format!(
            "INSERT INTO {} (version, needs, name, checksum, pipeline) \
             SELECT {version}, {needs}, {}, {}, {}",
            self.options.qualified("schema_migrations"),
            literal(name),
            literal(checksum),
            literal(&self.migrate.pipeline),
        );
        self.execute("write the version table", &sql).await
    }

    /// Whose the version table is, by its comment: of two that come at once, one creates it. An earlier
    /// version wrote none.
    async fn creator(&self) -> Result<Option<String>, MigrateError> {
        let sql = format!(
            "SELECT comment FROM system.tables WHERE database = {} AND name = 'schema_migrations'",
            literal(&self.options.database),
        );
        let what = "read the owner of the version table";
        let comments: Vec<String> = self.rows(what, &sql).await?;
        let creator = comments
            .iter()
            .find_map(|comment| comment.strip_prefix(OWNER));
        Ok(creator.map(str::to_owned))
    }

    /// Makes the database ours, unless it is another's: its rows tell, and before there are any, who
    /// created their table. (A replica that joins later may have it from somebody else.)
    async fn claim(&self) -> Result<(), MigrateError> {
        let rows = self.applied().await?;
        let owner = match rows.first() {
            Some(first) => Some(first.pipeline.clone()),
            None => self.creator().await?,
        };
        if let Some(owner) = owner.filter(|owner| *owner != self.migrate.pipeline) {
            return Err(MigrateError::OtherPipeline {
                database: self.options.database.clone(),
                owner,
                pipeline: self.migrate.pipeline.clone(),
            });
        }
        if rows.is_empty() {
            self.note((0, 0), "claim", "").await?;
        }
        Ok(())
    }

    async fn apply(&self) -> Result<Vec<u32>, MigrateError> {
        let applied = self.applied().await?;
        let all = migrations(self.options);
        let known = all.last().map_or(0, |migration| migration.version);
        let found = applied.iter().map(|row| row.version).max().unwrap_or(0);
        if found > known {
            let needs = applied.iter().map(|row| row.needs).max().unwrap_or(found);
            if needs > known {
                return Err(MigrateError::TooNew {
                    database: self.options.database.clone(),
                    found,
                    needs,
                    known,
                });
            }
            tracing::warn!(
                database = self.options.database,
                found,
                known,
                "the database was migrated by a later version that is compatible with this one"
            );
        }
        let mut ran = Vec::new();
        for migration in all {
            let expected = checksum(self.options, migration.version);
            let row = applied.iter().find(|row| row.version == migration.version);
            match row {
                Some(row) if row.checksum == expected => continue,
                Some(row) => {
                    return Err(MigrateError::Changed {
                        database: self.options.database.clone(),
                        version: migration.version,
                        found: row.checksum.clone(),
                        expected,
                    });
                }
                None => {}
            }
            let what = format!("apply migration {} ({})", migration.version, migration.name);
            for statement in &migration.statements {
                self.execute(&what, statement).await?;
            }
            let version = (migration.version, migration.needs);
            self.note(version, migration.name, &expected).await?;
            ran.push(migration.version);
        }
        Ok(ran)
    }

    /// The columns that a table has.
    async fn columns(&self, table: &Table) -> Result<Vec<NameAndType>, MigrateError> {
        let sql = format!(
            "SELECT name, type FROM system.columns WHERE database = {} AND table = {}",
            literal(&self.options.database),
            literal(&table.name)
        );
        let what = format!("describe table {}", table.name);
        self.rows(&what, &sql).await
    }

    /// The columns of its definition that a table lacks.
    async fn missing(&self, table: &Table) -> Result<Vec<String>, MigrateError> {
        let present = self.columns(table).await?;
        let wanted = table.columns.iter().map(|column| column.name.to_string());
        Ok(wanted
            .filter(|name| present.iter().all(|found| found.name != *name))
            .collect())
    }

    async fn check_columns(&self, table: &Table) -> Result<(), MigrateError> {
        let present = self.columns(table).await?;
        let mut problems = Vec::new();
        for column in &table.columns {
            match present.iter().find(|found| found.name == column.name) {
                None => problems.push(format!("column {} is missing", column.name)),
                Some(found) if found.r#type != column.ty => problems.push(format!(
                    "column {} is {} instead of {}",
                    column.name, found.r#type, column.ty
                )),
                Some(_) => {}
            }
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(MigrateError::Columns {
                table: self.options.qualified(&table.name),
                problems: problems.join(", "),
            }),
        }
    }

    /// Gives a table the present retention; `true` if it had another.
    async fn update_ttl(&self, table: &Table) -> Result<bool, MigrateError> {
        let (Some(ttl), Some(modify)) = (&table.ttl, self.options.modify_ttl(table)) else {
            return Ok(false);
        };
        let sql = format!(
            "SELECT engine_full FROM system.tables WHERE database = {} AND name = {}",
            literal(&self.options.database),
            literal(&self.options.table_with_rows(table))
        );
        let what = format!("read the retention of table {}", table.name);
        let engines: Vec<String> = self.rows(&what, &sql).await?;
        let wanted = format!(" TTL {}", self.options.ttl_expression(ttl));
        if engines.iter().all(|engine| engine.contains(&wanted)) {
            return Ok(false);
        }
        let what = format!("change the retention of table {}", table.name);
        self.execute(&what, &modify).await?;
        Ok(true)
    }
}

fn refusal(what: &str, failure: Failure) -> MigrateError {
    MigrateError::Refused {
        what: what.to_owned(),
        reason: failure.message,
    }
}
