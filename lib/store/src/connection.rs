//! Where ClickHouse is.

use std::fmt;

/// Address and credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The HTTP interface, such as `http://127.0.0.1:8123`.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
}

impl Connection {
    /// A client without a database: the statements name theirs.
    pub fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default()
            .with_url(&self.url)
            .with_user(&self.user)
            .with_password(&self.password)
            .with_product_info("spanloom", env!("CARGO_PKG_VERSION"))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("url", &self.url)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
