//! How full a server's volume is.

use clickhouse::{Client, Row};
use serde::Deserialize;

#[derive(Row, Deserialize)]
struct Used {
    percent: u8,
}

/// The part of the fullest local disk that is used, in percent.
///
/// # Errors
/// When the server cannot be asked.
pub async fn used_percent(client: &Client) -> Result<u8, clickhouse::error::Error> {
    let sql = "SELECT toUInt8(ifNull(max(100 * (1 - free_space / total_space)), 0)) AS percent \
               FROM system.disks WHERE total_space > 0 AND is_remote = 0";
    let used = client.query_raw(sql).fetch_one::<Used>().await?;
    Ok(used.percent)
}
