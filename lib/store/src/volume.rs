//! How full a server's volumes are.

use clickhouse::{Client, Row};
use serde::Deserialize;

/// The fullest local disk of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Row, Deserialize)]
pub struct Volume {
    /// The part of it that is used, in percent.
    pub used_percent: u8,
    /// Bytes that are free.
    pub free_bytes: u64,
}

/// The fullest local disk; none of a server that has only remote ones.
///
/// # Errors
/// When the server cannot be asked.
pub async fn fullest(client: &Client) -> Result<Option<Volume>, clickhouse::error::Error> {
    let sql = "SELECT toUInt8(100 * (1 - free_space / total_space)) AS used_percent, \
               free_space AS free_bytes FROM system.disks WHERE total_space > 0 AND is_remote = 0 \
               ORDER BY free_space / total_space LIMIT 1";
    client.query_raw(sql).fetch_optional::<Volume>().await
}
