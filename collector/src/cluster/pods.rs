//! The pods of this node, by address.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use spanloom_crds::resolved::KubernetesConfig;
use spanloom_pipeline::{Caller, Identify, Identity, Pod};
use spanloom_program::causes;
use tokio::sync::watch;

use super::identity::{ApiPod, Known};
use crate::sidecars::{Claims, PodsByToken};

/// A kubelet takes 110 pods unless it is told otherwise; beyond this they are not enriched.
const MAX_PODS: usize = 2_048;

/// Pods that are listed at a time: a page is held whole while it is read.
const PAGE: u32 = 25;

/// How long a request waits for its sender to appear: kubelets report a pod's address a second or
/// two after its containers have started.
const PATIENCE: Duration = Duration::from_secs(3);

/// An address that was waited for in vain is not waited for again so soon.
const MEMORY: Duration = Duration::from_secs(600);

/// For how long a refusal may be the delay with which rights come into force. After it, spans are taken
/// without enrichment: the rights may be gone for good, as after `helm uninstall`.
const RIGHTS_DELAY: Duration = Duration::from_secs(10);

/// Addresses that were waited for in vain; with so many, nobody waits any more.
const MAX_STRANGERS: usize = 1_024;

/// What is known of the node's pods.
#[derive(Debug)]
pub(super) struct PodIndex {
    node: String,
    pods: RwLock<Pods>,
    strangers: Mutex<HashMap<IpAddr, Instant>>,
    /// Which labels and annotations are wanted; none before the first configuration.
    chosen: watch::Sender<Option<KubernetesConfig>>,
    /// Changes when a pod does, for those who wait.
    changes: watch::Sender<()>,
    why_not: Mutex<Option<String>>,
    is_denied: Gauge,
    size: Gauge,
    refused: Counter,
    watch_errors: Counter,
}

#[derive(Debug, Default)]
struct Pods {
    /// All pods of the node were seen once.
    synced: bool,
    /// Since when the API server has refused to show them.
    denied: Option<Instant>,
    /// The owner's uid stands with each address, which may go from one pod to another.
    by_address: HashMap<IpAddr, (Arc<str>, Sender)>,
    by_uid: HashMap<Arc<str>, (Vec<IpAddr>, Sender)>,
    /// The node's own addresses: of pods in its network.
    node: HashSet<IpAddr>,
}

/// A pod as a sender.
#[derive(Debug, Clone)]
struct Sender {
    pod: Arc<Pod>,
    /// It may speak for others.
    is_gateway: bool,
}

impl Sender {
    fn identity(&self) -> Identity {
        let pod = Arc::clone(&self.pod);
        if self.is_gateway {
            Identity::Gateway(pod)
        } else {
            Identity::Pod(pod)
        }
    }
}

impl Pods {
    /// The rights to see pods are gone: nothing is known of any, and what was known may be wrong by now.
    fn are_hidden(&self) -> bool {
        self.denied
            .is_some_and(|since| since.elapsed() >= RIGHTS_DELAY)
    }

    /// Returns false when there is no room.
    fn put(&mut self, known: Known) -> bool {
        self.remove(&known.uid);
        let Known {
            uid,
            addresses,
            pod,
            is_gateway,
        } = known;
        let Some(pod) = pod else {
            if self.node.len() < MAX_PODS {
                self.node.extend(addresses);
            }
            return true;
        };
        if self.by_uid.len() >= MAX_PODS {
            return false;
        }
        let uid: Arc<str> = uid.into();
        let sender = Sender {
            pod: Arc::new(pod),
            is_gateway,
        };
        for &address in &addresses {
            let owner = (Arc::clone(&uid), sender.clone());
            self.by_address.insert(address, owner);
        }
        self.by_uid.insert(uid, (addresses, sender));
        true
    }

    fn remove(&mut self, uid: &str) {
        let (addresses, _) = self.by_uid.remove(uid).unzip();
        for address in addresses.unwrap_or_default() {
            if self
                .by_address
                .get(&address)
                .is_some_and(|(owner, _)| **owner == *uid)
            {
                self.by_address.remove(&address);
            }
        }
    }
}

impl PodIndex {
    pub(super) fn new(node: String) -> Arc<Self> {
        Arc::new(Self {
            node,
            pods: RwLock::default(),
            strangers: Mutex::default(),
            chosen: watch::Sender::new(None),
            changes: watch::Sender::new(()),
            why_not: Mutex::default(),
            is_denied: Gauge::default(),
            size: Gauge::default(),
            refused: Counter::default(),
            watch_errors: Counter::default(),
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "spanloom_pods",
            "Pods of this node in the index that spans are enriched from",
            self.size.clone(),
        );
        registry.register(
            "spanloom_pods_denied",
            "1 while the API server denies access to pods, so that spans are not enriched",
            self.is_denied.clone(),
        );
        registry.register(
            "spanloom_pods_refused",
            "Pods left out of the index because it was full",
            self.refused.clone(),
        );
        registry.register(
            "spanloom_pods_watch_errors",
            "Failures of the watch of this node's pods",
            self.watch_errors.clone(),
        );
    }

    /// Which labels and annotations become attributes, from now on.
    pub(super) fn select(&self, chosen: &KubernetesConfig) {
        self.chosen.send_if_modified(|current| {
            let other = current.as_ref() != Some(chosen);
            if other {
                *current = Some(chosen.clone());
            }
            other
        });
    }

    /// Why the pods are not known yet.
    pub(super) fn not_ready(&self) -> Option<String> {
        let pods = self.read();
        if pods.synced || pods.are_hidden() {
            return None;
        }
        drop(pods);
        let why = self.why_not.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = || format!("waiting for the list of pods of node {}", self.node);
        Some(why.clone().unwrap_or_else(waiting))
    }

    fn broken(&self, error: &watcher::Error) {
        let why = format!(
            "cannot watch the pods of node {}: {}",
            self.node,
            causes(error)
        );
        tracing::warn!(why, "the watch of pods failed; restarting it");
        self.watch_errors.inc();
        *self.why_not.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        if !is_denial(error) {
            return;
        }
        let mut pods = self.write();
        if pods.denied.is_none() {
            pods.denied = Some(Instant::now());
            drop(pods);
            self.is_denied.set(1);
            tracing::error!(
                node = %self.node,
                "the API server denies access to pods; spans are stored without pod attributes"
            );
        }
    }

    fn changed(&self, change: impl FnOnce(&mut Pods)) {
        let size = {
            let mut pods = self.write();
            change(&mut pods);
            pods.by_uid.len()
        };
        self.size.set(i64::try_from(size).unwrap_or(i64::MAX));
        self.changes.send_replace(());
    }

    fn put(&self, pods: &mut Pods, pod: &ApiPod, chosen: &KubernetesConfig) {
        match Known::of(pod, &self.node, chosen) {
            Some(known) => {
                if !pods.put(known) {
                    self.refused.inc();
                }
            }
            None => pods.remove(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }

    // What is done under the locks is done in whole steps, so a panic elsewhere leaves them usable.
    fn read(&self) -> RwLockReadGuard<'_, Pods> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pods> {
        self.pods.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, address: IpAddr) -> Option<Identity> {
        self.read()
            .by_address
            .get(&address)
            .map(|(_, sender)| sender.identity())
    }

    /// Notes that waiting for an address was in vain.
    fn stranger(&self, address: IpAddr) {
        let mut strangers = self.strangers();
        if strangers.len() < MAX_STRANGERS {
            strangers.insert(address, Instant::now());
        }
    }
}

/// A sender is known by its address.
impl Identify for PodIndex {
    fn identify(&self, caller: Caller<'_>) -> Identity {
        let address = caller.ip();
        let pods = self.read();
        if pods.are_hidden() {
            return Identity::Unknown;
        }
        if let Some((_, sender)) = pods.by_address.get(&address) {
            return sender.identity();
        }
        if pods.node.contains(&address) {
            return Identity::Unknown;
        }
        drop(pods);
        let mut strangers = self.strangers();
        if strangers.len() >= MAX_STRANGERS {
            strangers.retain(|_, since| since.elapsed() < MEMORY);
        }
        let in_vain = strangers
            .get(&address)
            .is_some_and(|since| since.elapsed() < MEMORY);
        if in_vain || strangers.len() >= MAX_STRANGERS {
            Identity::Unknown
        } else {
            Identity::Unsure
        }
    }

    fn wait<'a>(
        &'a self,
        caller: Caller<'a>,
    ) -> Pin<Box<dyn Future<Output = Identity> + Send + 'a>> {
        let address = caller.ip();
        Box::pin(async move {
            let mut changes = self.changes.subscribe();
            let appears = async {
                loop {
                    if let Some(identity) = self.known(address) {
                        return identity;
                    }
                    if changes.changed().await.is_err() {
                        return Identity::Unknown;
                    }
                }
            };
            match tokio::time::timeout(PATIENCE, appears).await {
                Ok(identity) => identity,
                Err(_) => {
                    self.stranger(address);
                    Identity::Unknown
                }
            }
        })
    }
}

/// A sidecar is known by its token. A pod on another node, whose collector does not answer, is known from its
/// token only, and so is every pod while the API server shows none.
impl PodsByToken for PodIndex {
    fn find(&self, claims: &Claims) -> Identity {
        let pods = self.read();
        let is_elsewhere = claims.node.as_ref().is_some_and(|node| *node != self.node);
        if is_elsewhere || pods.are_hidden() {
            return Identity::Pod(Arc::new(pod_of(claims)));
        }
        let Some((_, sender)) = pods.by_uid.get(claims.uid.as_str()) else {
            return Identity::Unsure;
        };
        let says = |key: &str, expected: &str| {
            let mut attributes = sender.pod.attributes.iter();
            attributes.any(|(own, value)| **own == *key && **value == *expected)
        };
        if says("k8s.namespace.name", &claims.namespace) && says("k8s.pod.name", &claims.pod) {
            // A sidecar speaks for its own pod only.
            Identity::Pod(Arc::clone(&sender.pod))
        } else {
            Identity::Refused("the pod of the token has another name or namespace".into())
        }
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

fn pod_of(claims: &Claims) -> Pod {
    let attributes = [
        ("k8s.namespace.name", Some(&claims.namespace)),
        ("k8s.pod.name", Some(&claims.pod)),
        ("k8s.pod.uid", Some(&claims.uid)),
        ("k8s.node.name", claims.node.as_ref()),
    ];
    let attributes = attributes.into_iter();
    Pod {
        attributes: attributes
            .filter_map(|(key, value)| Some((key.into(), value?.as_str().into())))
            .collect(),
        is_partial: true,
        ..Pod::default()
    }
}

/// Whether the API server refused, for want of rights.
fn is_denial(error: &watcher::Error) -> bool {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status,
        watcher::Error::WatchError(status) => status,
        _ => return false,
    };
    matches!(status.code, 401 | 403)
}

/// Never ends by itself: a watch that breaks begins anew after a pause, and one whose wishes have
/// changed at once.
pub(super) async fn follow(client: Client, index: Arc<PodIndex>) {
    let api: Api<ApiPod> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={}", index.node))
        .page_size(PAGE);
    let mut wishes = index.chosen.subscribe();
    loop {
        let Some(chosen) = wishes.borrow_and_update().clone() else {
            if wishes.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut events = pin!(watcher::watcher(api.clone(), config.clone()).default_backoff());
        // The list that is being read; until it is whole, the last one holds.
        let mut fresh = Pods::default();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = wishes.changed() => break,
            };
            match event {
                Some(Ok(Event::Init)) => fresh = Pods::default(),
                Some(Ok(Event::InitApply(pod))) => index.put(&mut fresh, &pod, &chosen),
                Some(Ok(Event::InitDone)) => {
                    index.is_denied.set(0);
                    fresh.synced = true;
                    let whole = std::mem::take(&mut fresh);
                    index.changed(|pods| *pods = whole);
                }
                Some(Ok(Event::Apply(pod))) => {
                    index.changed(|pods| index.put(pods, &pod, &chosen));
                }
                Some(Ok(Event::Delete(pod))) => {
                    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                    index.changed(|pods| pods.remove(uid));
                }
                Some(Err(error)) => index.broken(&error),
                None => break,
            }
        }
    }
}
