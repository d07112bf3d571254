//! Sends sidecars their configuration, and knows what they have applied.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use prost::Message;
use spanloom_crds::agent::AgentConfig;
use spanloom_crds::sidecar::SidecarConfig;
use spanloom_pipeline::{Dialogue, Identity, Talk};
use spanloom_proto::sidecar::v1::{ConfigureRequest, ConfigureResponse};
use spanloom_proto::sidecar::{CONFIGURE, VERSION};
use tokio::sync::watch;

/// How often the file with the authorities is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The sidecars' part of the configuration in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The hash of the whole.
    pub(super) hash: String,
    json: Bytes,
}

/// What is sent to all sidecars, and what each said.
#[derive(Debug)]
pub(super) struct Hub {
    part: watch::Sender<Option<Arc<Part>>>,
    authorities: watch::Sender<Bytes>,
    said: Mutex<Said>,
    connected: Gauge,
    outdated: Gauge,
}

#[derive(Debug, Default)]
struct Said {
    next: u64,
    sidecars: HashMap<u64, ConfigureRequest>,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            part: watch::Sender::new(None),
            authorities: watch::Sender::new(Bytes::new()),
            said: Mutex::default(),
            connected: Gauge::default(),
            outdated: Gauge::default(),
        }
    }
}

impl Hub {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanloom_sidecars_connected",
            "Sidecars that get their configuration from this collector",
            self.connected.clone(),
        );
        registry.register(
            "spanloom_sidecars_outdated",
            "Those that have not applied the configuration in force, or refused it; this collector applies it to \
             their spans",
            self.outdated.clone(),
        );
    }

    /// The configuration in force.
    pub(super) fn current(&self) -> watch::Receiver<Option<Arc<Part>>> {
        self.part.subscribe()
    }

    pub(super) fn publish(&self, config: &AgentConfig) {
        let part = SidecarConfig::of(config);
        let json = match serde_json::to_vec(&part) {
            Ok(json) => json.into(),
            Err(error) => {
                return tracing::error!(%error, "the sidecars' configuration cannot be written");
            }
        };
        let hash = part.hash;
        self.part.send_replace(Some(Arc::new(Part { hash, json })));
        self.count();
    }

    /// Reads the authorities now and then. Never ends.
    pub(super) async fn follow_authorities(&self, file: &Path) {
        loop {
            match tokio::fs::read(file).await {
                Ok(pem) => {
                    let pem = Bytes::from(pem);
                    self.authorities.send_if_modified(|current| {
                        let is_new = *current != pem;
                        *current = pem;
                        is_new
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, file = %file.display(), "cannot read the authorities that sidecars are to trust");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
        self.count();
    }

    fn count(&self) {
        let current = self.part.borrow().clone();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_outdated = |sidecar: &&ConfigureRequest| {
            let hash = current.as_ref().map_or("", |part| &part.hash);
            sidecar.applied != hash || !sidecar.refused.is_empty()
        };
        let outdated = said.sidecars.values().filter(is_outdated).count();
        self.connected.set(said.sidecars.len() as i64);
        self.outdated.set(outdated as i64);
    }
}

/// The method `Configure`.
#[derive(Debug)]
pub(super) struct Configure {
    hub: Arc<Hub>,
}

impl Configure {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }
}

impl Dialogue for Configure {
    fn path(&self) -> &'static str {
        CONFIGURE
    }

    fn begin(&self, sender: &Identity) -> Box<dyn Talk> {
        let pod_uid = match sender {
            Identity::Pod(pod) | Identity::Gateway(pod) => {
                let uid = pod
                    .attributes
                    .iter()
                    .find(|(key, _)| **key == *"k8s.pod.uid");
                uid.map(|(_, uid)| uid.clone())
            }
            Identity::Unknown | Identity::Unsure | Identity::Refused(_) => None,
        };
        let mut id = 0;
        self.hub.change(|said| {
            id = said.next;
            said.next += 1;
        });
        Box::new(Session {
            part: self.hub.part.subscribe(),
            authorities: self.hub.authorities.subscribe(),
            hub: Arc::clone(&self.hub),
            has_spoken: false,
            pod_uid,
            id,
        })
    }
}

/// One sidecar.
struct Session {
    hub: Arc<Hub>,
    part: watch::Receiver<Option<Arc<Part>>>,
    authorities: watch::Receiver<Bytes>,
    has_spoken: bool,
    /// The uid of its token's pod.
    pod_uid: Option<Box<str>>,
    id: u64,
}

impl Talk for Session {
    fn hear(&mut self, message: &[u8]) -> Result<(), String> {
        let said = ConfigureRequest::decode(message)
            .map_err(|error| format!("the message cannot be read: {error}"))?;
        if self.pod_uid.as_deref() != Some(&*said.pod_uid) {
            return Err("the message names another pod than the sender's token".to_owned());
        }
        if !said.refused.is_empty() {
            let (pod, refused, error) = (&said.pod_uid, &said.refused, &said.error);
            tracing::warn!(
                pod,
                refused,
                error,
                "a sidecar rejected its configuration; it is applied here"
            );
        }
        let id = self.id;
        self.hub.change(|all| {
            all.sidecars.insert(id, said);
        });
        Ok(())
    }

    fn say(&mut self) -> Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + '_>> {
        Box::pin(async {
            if self.has_spoken || self.part.borrow().is_none() {
                let changed = tokio::select! {
                    changed = self.part.changed() => changed,
                    changed = self.authorities.changed(), if self.has_spoken => changed,
                };
                changed.ok()?;
            }
            self.has_spoken = true;
            let part = self.part.borrow_and_update().clone();
            let ca = self.authorities.borrow_and_update().clone();
            let part = part?;
            let response = ConfigureResponse {
                version: VERSION,
                hash: part.hash.clone(),
                configuration: part.json.clone(),
                ca,
            };
            Some(response.encode_to_vec())
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let id = self.id;
        self.hub.change(|all| {
            all.sidecars.remove(&id);
        });
    }
}
