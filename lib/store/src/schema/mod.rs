//! What is in the database after the last migration, as definitions.
//!
//! [`tables()`] are plain data. Migrations are text of their own; a database that they made is compared
//! with the definitions, by a test in all details and by each start in its columns. [`SchemaOptions`]
//! renders definitions to SQL: a benchmark that wants another sort key, id or index changes a [`Table`]
//! and renders that.

pub mod promoted;
pub mod render;
pub mod rollup;
pub mod spans;
pub mod table;
pub mod tables;
pub mod views;

use std::time::Duration;

pub use render::{identifier, literal};
pub use table::{Column, Engine, Index, Object, Table};

/// What differs from one installation to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaOptions {
    /// The database, our own.
    pub database: String,
    /// The name of the ClickHouse cluster; `None` for a single node.
    pub cluster: Option<String>,
    /// How long spans, measures and catalogue live.
    pub retention: Duration,
    /// How long half-edges live; at least some minutes more than the spans of a trace are apart.
    pub half_edges_ttl: Duration,
    /// How many inserts a table remembers by their tokens. It must exceed writers × batches per
    /// second × the longest outage after which a writer still repeats an insert: two writers with
    /// five batches a second each, and ten minutes, are 6,000. The server pays for it: on a single
    /// node about 200 bytes of memory and of a log file for each insert (4 MB a table at 20,000),
    /// on a cluster a node in Keeper for each.
    pub deduplication_window: u32,
}

impl Default for SchemaOptions {
    fn default() -> Self {
        Self {
            database: "spanloom".to_owned(),
            cluster: None,
            retention: Duration::from_secs(7 * 24 * 3600),
            half_edges_ttl: Duration::from_secs(2 * 3600),
            deduplication_window: 20_000,
        }
    }
}

/// All tables that hold data.
pub fn tables() -> Vec<Table> {
    vec![
        spans::spans(),
        tables::trace_index(),
        tables::tags(),
        tables::red(),
        tables::red_hours(),
        tables::half_edges(),
        tables::edges(),
        tables::accounts(),
    ]
}

/// Everything a database holds but the version table, in an order that can be created.
pub fn objects(options: &SchemaOptions) -> Vec<Object> {
    let mut objects: Vec<Object> = tables().into_iter().map(Object::Table).collect();
    objects.push(Object::View(views::otel_traces(options)));
    objects.push(Object::View(views::otel_traces_trace_id_ts(options)));
    objects.push(Object::Rollup(rollup::edges_rollup(options)));
    objects.push(Object::Feed(rollup::red_hours_feed(options)));
    objects
}
