//! Where ClickHouse is, and the way there.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use spanloom_tls::{ClientTls, Connector, TlsError};

/// How long an idle connection is kept: less than the 3 s after which ClickHouse closes it by
/// default.
const IDLE: Duration = Duration::from_secs(2);

/// Address and credentials.
#[derive(Clone)]
pub struct Connection {
    /// The HTTP interface, such as `http://127.0.0.1:8123` or `https://clickhouse:8443`.
    pub url: String,
    /// The user.
    pub user: String,
    /// The password; may be empty.
    pub password: String,
    /// Whom to trust, for a URL with `https`: see [`tls`].
    pub tls: Option<ClientTls>,
}

impl Connection {
    /// A client without a database: the statements name theirs.
    pub fn client(&self) -> clickhouse::Client {
        client(self.tls.clone())
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

/// Whom to trust on the way to `url`: nobody needs to be for `http`; for `https` the authorities of
/// `ca_file`, a PEM bundle that is read again when it changes, or this machine's where none is
/// named.
///
/// # Errors
/// When the file cannot be used.
pub fn tls(url: &str, ca_file: Option<&Path>) -> Result<Option<ClientTls>, TlsError> {
    let secure = url
        .get(..8)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    match (secure, ca_file) {
        (false, _) => Ok(None),
        (true, Some(path)) => ClientTls::with_ca_file(path).map(Some),
        (true, None) => ClientTls::with_system_authorities().map(Some),
    }
}

/// A client of ClickHouse that speaks `http`, and `https` with what [`tls`] gave. URL, user and the
/// rest are still to be set.
pub fn client(tls: Option<ClientTls>) -> clickhouse::Client {
    let http = legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .build(Connector::new(tls));
    clickhouse::Client::with_http_client(http)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_needs_authorities() {
        let nowhere = Some(Path::new("/no/such/ca.crt"));
        for url in ["http://127.0.0.1:8123", "", "clickhouse"] {
            assert!(tls(url, nowhere).unwrap().is_none(), "{url}");
        }
        for url in ["https://clickhouse:8443", "HTTPS://clickhouse:8443"] {
            let error = tls(url, nowhere).unwrap_err().to_string();
            assert!(error.contains("/no/such/ca.crt"), "{error}");
        }
    }
}
