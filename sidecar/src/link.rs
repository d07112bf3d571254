//! The way to a collector: the one of this node, and any of the cluster while that one does not answer.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderValue, Uri};
use spanloom_tls::{ClientTls, TlsError};
use tokio::time::Instant;

use crate::client::{CallError, Client};
use crate::metrics::Metrics;

/// How long the node's collector may be away before another one is asked: its restart takes less.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the node's collector is tried again meanwhile.
const RETURN_EVERY: Duration = Duration::from_secs(10);
/// How old the token that was read may be. The kubelet renews it long before it expires.
const TOKEN_AGE: Duration = Duration::from_secs(5);

/// Which collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one of this node.
    Node,
    /// Any of the cluster.
    Fallback,
}

/// A connection, and where it leads.
#[derive(Debug, Clone)]
pub struct Connected {
    /// The connection.
    pub client: Arc<Client>,
    /// Where it leads.
    pub which: Which,
}

/// Makes and keeps connections.
#[derive(Debug)]
pub struct Link {
    node: Target,
    fallback: Target,
    tls: RwLock<Option<ClientTls>>,
    token: Token,
    metrics: Metrics,
    /// Since when the node's collector is away, and when it was tried last.
    away: Mutex<Option<(Instant, Instant)>>,
}

#[derive(Debug)]
struct Target {
    uri: Option<Uri>,
    /// Held while it is connected, so that there is one connection.
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
}

impl Target {
    fn new(uri: Option<Uri>) -> Self {
        Self {
            uri,
            client: tokio::sync::Mutex::new(None),
        }
    }
}

impl Link {
    /// A way to these collectors, not connected yet, that proves this pod with the token in the file.
    pub fn new(
        node: Option<Uri>,
        fallback: Option<Uri>,
        token_file: Option<PathBuf>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: Target::new(node),
            fallback: Target::new(fallback),
            tls: RwLock::default(),
            token: Token {
                file: token_file,
                last: Mutex::default(),
            },
            metrics,
            away: Mutex::default(),
        })
    }

    /// Trusts the authorities of this bundle, for the next connections.
    ///
    /// # Errors
    /// When there is none in it; the last ones stay.
    pub fn trust(&self, pem: &[u8]) -> Result<(), TlsError> {
        let tls = ClientTls::with_ca_pem(pem, "the CA bundle")?;
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
        Ok(())
    }

    /// The value of the header that proves this pod.
    pub fn token(&self) -> Option<HeaderValue> {
        self.token.get()
    }

    /// A connection to the node's collector, or to another while that is away.
    ///
    /// # Errors
    /// [`CallError::NotSent`].
    pub async fn connected(&self) -> Result<Connected, CallError> {
        if self.is_tried() {
            match self.to(Which::Node).await {
                Ok(connected) => return Ok(connected),
                Err(error) if !self.has_waited() => return Err(error),
                Err(error) => tracing::debug!(%error, "the collector of this node is away"),
            }
        }
        self.to(Which::Fallback).await
    }

    /// A connection to this one.
    ///
    /// # Errors
    /// [`CallError::NotSent`].
    pub async fn to(&self, which: Which) -> Result<Connected, CallError> {
        let target = match which {
            Which::Node => &self.node,
            Which::Fallback => &self.fallback,
        };
        let mut known = target.client.lock().await;
        if let Some(client) = known.as_ref().filter(|client| !client.is_over()) {
            let client = Arc::clone(client);
            return Ok(Connected { client, which });
        }
        *known = None;
        let made = self.dial(target.uri.as_ref()).await;
        if which == Which::Node {
            self.note(made.is_ok());
        }
        match &made {
            Ok(_) => tracing::info!(?which, "connected to the collector"),
            Err(_) => {
                self.metrics.connection_failures.inc();
            }
        }
        let client = Arc::new(made?);
        *known = Some(Arc::clone(&client));
        Ok(Connected { client, which })
    }

    /// A connection that is not to be used again, such as one whose collector is leaving.
    pub async fn drop_connection(&self, connected: &Connected) {
        let target = match connected.which {
            Which::Node => &self.node,
            Which::Fallback => &self.fallback,
        };
        let mut known = target.client.lock().await;
        if known
            .as_ref()
            .is_some_and(|client| Arc::ptr_eq(client, &connected.client))
        {
            *known = None;
        }
    }

    async fn dial(&self, uri: Option<&Uri>) -> Result<Client, CallError> {
        let nowhere = || CallError::NotSent("no address of a collector is known".to_owned());
        let uri = uri.ok_or_else(nowhere)?;
        let tls = self
            .tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let untrusting = || CallError::NotSent("there are no CA certificates to trust".to_owned());
        Client::connect(uri, &tls.ok_or_else(untrusting)?).await
    }

    fn note(&self, is_there: bool) {
        let now = Instant::now();
        let mut away = self.away();
        *away = match (*away, is_there) {
            (_, true) => None,
            (None, false) => Some((now, now)),
            (Some((since, _)), false) => Some((since, now)),
        };
    }

    /// Whether the node's collector is to be tried now.
    fn is_tried(&self) -> bool {
        self.fallback.uri.is_none()
            || self.away().is_none_or(|(since, last)| {
                since.elapsed() < PATIENCE || last.elapsed() >= RETURN_EVERY
            })
    }

    fn has_waited(&self) -> bool {
        let waited = |(since, _): (Instant, Instant)| since.elapsed() >= PATIENCE;
        self.fallback.uri.is_some() && self.away().is_some_and(waited)
    }

    fn away(&self) -> MutexGuard<'_, Option<(Instant, Instant)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The projected token, read again now and then.
#[derive(Debug)]
struct Token {
    file: Option<PathBuf>,
    last: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Token {
    fn get(&self) -> Option<HeaderValue> {
        let file = self.file.as_ref()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, value)) = last.as_ref()
            && read.elapsed() < TOKEN_AGE
        {
            return Some(value.clone());
        }
        // A file that is being replaced has the last one's content for a moment longer.
        if let Ok(token) = std::fs::read_to_string(file)
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        {
            value.set_sensitive(true);
            *last = Some((Instant::now(), value));
        }
        last.as_ref().map(|(_, value)| value.clone())
    }
}
