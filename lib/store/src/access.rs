//! The way to ClickHouse while a program runs: a configuration may move the address, and files with the
//! credentials may change. Whoever sends asks for a client each time, so that neither needs a restart.

mod credentials;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clickhouse::Client;
use spanloom_tls::{ClientTls, TlsError};
use tokio::sync::watch;

use crate::connection::{self, Connection};

pub use self::credentials::{Credentials, PASSWORD_FILE, USER_FILE};

/// Why there is no way to ClickHouse.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The authorities that its certificate is checked against cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file with the credentials cannot be used.
    #[error("cannot read {}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
}

/// The address is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of ClickHouse is not known yet: the configuration has it")]
pub struct NotKnown;

/// The way to ClickHouse as it is now. Clones share it.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    place: watch::Sender<Option<Place>>,
    credentials: Credentials,
    ca_file: Option<PathBuf>,
}

/// An address that can be used.
#[derive(Clone)]
pub struct Place {
    url: String,
    tls: Option<ClientTls>,
    /// Keeps the connections to it.
    client: Client,
}

impl Place {
    fn new(url: String, tls: Option<ClientTls>) -> Self {
        let client = connection::client(tls.clone()).with_url(&url);
        Self { url, tls, client }
    }
}

impl Access {
    /// The way to `url`, which may be empty: then it is not known until [`Access::move_to`]. For `https`, the
    /// authorities of `ca_file` are trusted, a PEM bundle that is read again when it changes, or those of this
    /// machine.
    ///
    /// # Errors
    /// When the authorities cannot be used.
    pub fn new(
        url: &str,
        credentials: Credentials,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, AccessError> {
        let access = Self(Arc::new(Shared {
            place: watch::Sender::new(None),
            credentials,
            ca_file,
        }));
        if !url.is_empty() {
            let place = access.place(url)?;
            access.0.place.send_replace(Some(place));
        }
        Ok(access)
    }

    /// A place to move to; the present one where the address is the same.
    ///
    /// # Errors
    /// When the authorities cannot be used.
    pub fn place(&self, url: &str) -> Result<Place, AccessError> {
        if let Some(present) = self.present().filter(|present| present.url == url) {
            return Ok(present);
        }
        let tls = connection::tls(url, self.0.ca_file.as_deref())?;
        Ok(Place::new(url.to_owned(), tls))
    }

    /// From now on, everything is sent there.
    pub fn move_to(&self, place: Place) {
        self.0.place.send_if_modified(|present| {
            let is_other = present
                .as_ref()
                .is_none_or(|present| present.url != place.url);
            if is_other {
                tracing::info!(url = place.url, "ClickHouse's address was set");
                *present = Some(place);
            }
            is_other
        });
    }

    /// A client with the address and the credentials as they are now, and without a database.
    ///
    /// # Errors
    /// While the address is not known.
    pub fn client(&self) -> Result<Client, NotKnown> {
        let place = self.present().ok_or(NotKnown)?;
        let (user, password) = self.0.credentials.now();
        Ok(place.client.with_user(user).with_password(password))
    }

    /// Address and credentials as they are now.
    ///
    /// # Errors
    /// While the address is not known.
    pub fn connection(&self) -> Result<Connection, NotKnown> {
        let Place { url, tls, .. } = self.present().ok_or(NotKnown)?;
        let (user, password) = self.0.credentials.now();
        Ok(Connection {
            url,
            user,
            password,
            tls,
        })
    }

    /// Hears of each move from now on.
    pub fn moves(&self) -> Moves {
        Moves(self.0.place.subscribe())
    }

    fn present(&self) -> Option<Place> {
        self.0.place.borrow().clone()
    }
}

impl From<Connection> for Access {
    /// A way that stays as it is.
    fn from(connection: Connection) -> Self {
        let Connection {
            url,
            user,
            password,
            tls,
        } = connection;
        Self(Arc::new(Shared {
            place: watch::Sender::new(Some(Place::new(url, tls))),
            credentials: Credentials::fixed(user, password),
            ca_file: None,
        }))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("url", &self.present().map(|place| place.url))
            .finish_non_exhaustive()
    }
}

/// Hears when ClickHouse's address is another one.
pub struct Moves(watch::Receiver<Option<Place>>);

impl Moves {
    /// Waits for a move that was not heard of yet; for ever when there can be none any more.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(url: &str) -> Access {
        let credentials = Credentials::fixed("user".to_owned(), "a secret".to_owned());
        Access::new(url, credentials, Some("/no/such/ca.crt".into())).unwrap()
    }

    #[tokio::test]
    async fn an_address_may_come_later_and_move() {
        let access = access("");
        assert_eq!(access.client().err(), Some(NotKnown));
        let mut moves = access.moves();
        access.move_to(access.place("http://one:8123").unwrap());
        moves.next().await;
        let url = || access.connection().unwrap().url;
        assert_eq!(url(), "http://one:8123");
        // One that cannot be used moves nothing.
        assert!(access.place("https://two:8443").is_err());
        access.move_to(access.place("http://two:8123").unwrap());
        moves.next().await;
        assert_eq!(url(), "http://two:8123");
        access.move_to(access.place("http://two:8123").unwrap());
        assert!(!moves.0.has_changed().unwrap(), "it is where it was");
    }

    #[test]
    fn the_password_is_never_printed() {
        let printed = format!("{:?}", access("http://one:8123"));
        assert!(printed.contains("one:8123") && !printed.contains("secret"));
    }
}
