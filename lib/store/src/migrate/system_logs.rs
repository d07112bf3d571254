//! The logs that a server keeps of itself. A managed server has only two of them, for some days each; an
//! existing volume still holds what earlier configurations wrote.

use clickhouse::Row;
use serde::Deserialize;

use super::{MigrateError, refusal};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::schema::identifier;

/// The logs that stay. The server's configuration gives them a TTL.
const KEPT: [&str; 2] = ["query_log", "part_log"];

#[derive(Row, Deserialize)]
struct Name {
    name: String,
}

/// Drops the other logs' tables, and what the server set aside (`query_log_0`) when a log got another
/// definition. Gives their names. Only for a server that is ours alone.
///
/// # Errors
/// When the server refuses; nothing of ours is missing then.
pub async fn drop_left(connection: &Connection) -> Result<Vec<String>, MigrateError> {
    let client = connection.client();
    let failed = |error| refusal("drop old system logs", Failure::of(&error));
    let kept = KEPT.map(|name| format!("'{name}'")).join(", ");
    let sql = format!(
        "SELECT name FROM system.tables WHERE database = 'system' AND engine LIKE '%MergeTree' \
         AND match(name, '_log(_[0-9]+)?$') AND name NOT IN ({kept}) ORDER BY name"
    );
    let names = client.query_raw(&sql).fetch_all::<Name>().await;
    let names = names.map_err(failed)?.into_iter().map(|row| row.name);
    let names: Vec<_> = names.collect();
    for name in &names {
        let sql = format!(
            "DROP TABLE IF EXISTS system.{} SYNC SETTINGS max_table_size_to_drop = 0",
            identifier(name)
        );
        client.query_raw(&sql).execute().await.map_err(failed)?;
    }
    Ok(names)
}
