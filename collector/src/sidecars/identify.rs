//! Sidecars are known by the token that they show, and by what the API server says of its pod.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use spanloom_pipeline::{Caller, Identify, Identity};
use tokio::sync::watch;

use super::keys::Keys;
use super::token::{Claims, Issuer, TokenError};

/// How long a call waits for a pod that is not known yet, or for keys.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tokens whose signature was checked, at most; when there are as many, all are forgotten.
const MAX_TOKENS: usize = 4_096;

/// Finds a token's pod.
pub(crate) trait PodsByToken: fmt::Debug + Send + Sync + 'static {
    /// The pod that the claims are of: [`Identity::Unsure`] while it is not known, [`Identity::Refused`] where
    /// the API server says something else of it.
    fn find(&self, claims: &Claims) -> Identity;

    /// Changes when a pod does.
    fn changes(&self) -> watch::Receiver<()>;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Tokens whose signature was checked.
#[derive(Debug, Default)]
struct Checked {
    /// With the keys of then.
    by: Option<Arc<Issuer>>,
    claims: HashMap<Box<str>, Claims>,
}

impl Checked {
    /// What this token was found to say; none for one that is new or has expired.
    fn known(&mut self, issuer: &Arc<Issuer>, token: &str, now: u64) -> Option<Claims> {
        if !self.is_by(issuer) || self.claims.len() >= MAX_TOKENS {
            self.claims.clear();
            self.by = Some(Arc::clone(issuer));
        }
        let claims = self.claims.get(token)?;
        (claims.expires > now).then(|| claims.clone())
    }

    fn note(&mut self, issuer: &Arc<Issuer>, token: &str, claims: &Claims) {
        if self.is_by(issuer) {
            self.claims.insert(token.into(), claims.clone());
        }
    }

    fn is_by(&self, issuer: &Arc<Issuer>) -> bool {
        self.by.as_ref().is_some_and(|by| Arc::ptr_eq(by, issuer))
    }
}

/// Identifies sidecars.
#[derive(Debug)]
pub(crate) struct Tokens {
    keys: Arc<Keys>,
    pods: Arc<dyn PodsByToken>,
    checked: Mutex<Checked>,
    refused: Family<Reason, Counter>,
}

impl Tokens {
    pub(super) fn new(keys: Arc<Keys>, pods: Arc<dyn PodsByToken>) -> Arc<Self> {
        Arc::new(Self {
            keys,
            pods,
            checked: Mutex::default(),
            refused: Family::default(),
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanloom_sidecars_refused_calls",
            "Calls of sidecars refused because of their token or pod, by reason",
            self.refused.clone(),
        );
    }

    fn identity(&self, headers: &HeaderMap) -> Identity {
        match self.claims(headers) {
            Ok(claims) => self.pods.find(&claims),
            // The API server may have a new key.
            Err(TokenError::UnknownKey) => {
                self.keys.want();
                Identity::Unsure
            }
            Err(error) => self.refuse(error.label(), error.to_string()),
        }
    }

    fn claims(&self, headers: &HeaderMap) -> Result<Claims, TokenError> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let token = token.ok_or(TokenError::Missing)?;
        let issuer = self.keys.issuer().ok_or(TokenError::UnknownKey)?;
        let now = now();
        if let Some(claims) = self.checked().known(&issuer, token, now) {
            return Ok(claims);
        }
        // Not under the lock: it takes a while.
        let claims = issuer.verify(token, now)?;
        self.checked().note(&issuer, token, &claims);
        Ok(claims)
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, reason: &'static str, why: String) -> Identity {
        self.refused.get_or_create(&Reason { reason }).inc();
        tracing::debug!(reason, why, "a sidecar was refused");
        Identity::Refused(why.into())
    }

    fn counted(&self, identity: Identity) -> Identity {
        match identity {
            Identity::Refused(why) => self.refuse("pod", why.to_string()),
            known => known,
        }
    }
}

impl Identify for Tokens {
    fn identify(&self, caller: Caller<'_>) -> Identity {
        match self.identity(caller.headers) {
            Identity::Refused(why) => Identity::Refused(why),
            known => self.counted(known),
        }
    }

    fn wait<'a>(
        &'a self,
        caller: Caller<'a>,
    ) -> Pin<Box<dyn Future<Output = Identity> + Send + 'a>> {
        Box::pin(async move {
            let (mut pods, mut keys) = (self.pods.changes(), self.keys.changes());
            let appears = async {
                loop {
                    match self.identity(caller.headers) {
                        Identity::Unsure => {}
                        identity => return identity,
                    }
                    let changed = tokio::select! {
                        changed = pods.changed() => changed,
                        changed = keys.changed() => changed,
                    };
                    if changed.is_err() {
                        return Identity::Unsure;
                    }
                }
            };
            let found = tokio::time::timeout(PATIENCE, appears).await;
            match found.unwrap_or(Identity::Unsure) {
                Identity::Unsure => match self.claims(caller.headers) {
                    Err(error) => self.refuse(error.label(), error.to_string()),
                    Ok(claims) => {
                        let Claims { namespace, pod, .. } = claims;
                        let why = format!(
                            "the pod {namespace}/{pod} of the token is not on this node any more, or not yet"
                        );
                        self.refuse("pod", why)
                    }
                },
                identity => identity,
            }
        })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
