//! The sender of a request: the pod at the other end, if it is known.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderMap;
use spanloom_otlp::record::{Attr, Value};
use spanloom_rules::HIDDEN;

use crate::process::{Decisions, KeyDecision, Rules, text};

/// What is known of a pod, ready to be written to the resources that it sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Resource attributes; nothing that the sender says under these keys counts.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    /// The service's name, for a sender that gives none of its own.
    pub service: Option<Box<str>>,
    /// Its containers. The only one is the sender; of several, the sender may say which it is.
    pub containers: Vec<Box<str>>,
    /// Only some of it is known here, as of a pod on another node: what its sidecar says beside that counts.
    pub is_partial: bool,
}

/// What a sender shows of itself.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The address that the connection comes from.
    pub address: SocketAddr,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

impl Caller<'_> {
    /// The address without the port. A socket for both families shows IPv4 addresses in IPv6's clothes.
    pub fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }
}

/// Knows senders: by their address, or by a token that they show.
pub trait Identify: fmt::Debug + Send + Sync + 'static {
    /// Who sends, as far as is known now. This is asked for each request, before its body is read.
    fn identify(&self, caller: Caller<'_>) -> Identity;

    /// Waits a little for a sender that was [`Identity::Unsure`]; who it is then.
    fn wait<'a>(
        &'a self,
        caller: Caller<'a>,
    ) -> Pin<Box<dyn Future<Output = Identity> + Send + 'a>>;
}

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// This pod.
    Pod(Arc<Pod>),
    /// This pod, which may speak for others: what its resources say of Kubernetes counts.
    Gateway(Arc<Pod>),
    /// No pod that is known, and waiting has not helped or cannot help.
    Unknown,
    /// No pod that is known yet: it may have started just now.
    Unsure,
    /// Somebody from whom nothing is taken: why.
    Refused(Arc<str>),
}

/// Who sent a request, when all is asked.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    /// Nobody asked: what it says of itself counts.
    Unasked,
    /// It is not known, and what it says of itself in terms of Kubernetes does not count.
    Unknown,
    /// This pod.
    Pod(Arc<Pod>),
    /// This pod, which may speak for others.
    Gateway(Arc<Pod>),
}

/// The attribute of the sender's container.
const CONTAINER: &str = "k8s.container.name";
const SERVICE: &str = "service.name";
/// What SDKs call a service that nobody named, alone or followed by `:` and the program.
const UNNAMED: &str = "unknown_service";

/// Whether an attribute says who the sender is, in terms of Kubernetes. Only the cluster's name is
/// the sender's to say: the collector does not know it.
pub(crate) fn claims(key: &str) -> bool {
    key.strip_prefix("k8s.")
        .is_some_and(|rest| !rest.starts_with("cluster."))
}

impl Pod {
    /// Takes out what a sender claims to be. Returns its container, if it says a true one.
    pub(crate) fn disown<'r>(&'r self, list: &mut Vec<Attr<'r>>) -> Option<&'r str> {
        let container = self.container(list);
        match self.is_partial {
            true => list.retain(|attribute| !self.says(attribute.key)),
            false => list.retain(|attribute| !claims(attribute.key)),
        }
        container
    }

    /// The sender's container, if it says a true one.
    fn container<'r>(&'r self, list: &[Attr<'r>]) -> Option<&'r str> {
        let named = list.iter().find_map(|attribute| match attribute.value {
            Value::Str(name) if attribute.key == CONTAINER => Some(name),
            _ => None,
        });
        if self.is_partial {
            return named;
        }
        match self.containers.as_slice() {
            [only] => Some(only),
            several => {
                let mut names = several.iter().map(|container| &**container);
                names.find(|name| Some(*name) == named)
            }
        }
    }

    /// What is known of the pod under this key.
    pub(crate) fn attribute(&self, key: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        let (_, value) = attributes.find(|(own, _)| **own == *key)?;
        Some(value)
    }

    /// Writes who the sender is.
    pub(crate) fn sign<'r>(&'r self, container: Option<&'r str>, list: &mut Vec<Attr<'r>>) {
        let mut set = |key: &'r str, text: &'r str| {
            let own = Attr {
                key,
                value: Value::Str(text),
            };
            match list.iter_mut().find(|attribute| attribute.key == key) {
                Some(said) => *said = own,
                // In front, so that a limit cuts what was sent.
                None => list.insert(0, own),
            }
        };
        for (key, value) in &self.attributes {
            set(key, value);
        }
        if let Some(container) = container {
            set(CONTAINER, container);
        }
        name_service(self.service.as_deref(), list);
    }

    /// Whether this attribute is said of the sender here.
    pub(crate) fn says(&self, key: &str) -> bool {
        key == CONTAINER || self.attributes.iter().any(|(own, _)| **own == *key)
    }

    /// Whether a value is longer than `bytes`.
    pub(crate) fn exceeds(&self, bytes: usize) -> bool {
        self.attributes.iter().any(|(_, value)| value.len() > bytes)
    }
}

/// What a pod is, as the rules leave it: for spans whose sidecar has applied the rules.
#[derive(Debug)]
pub(crate) struct Signature<'p> {
    pod: &'p Pod,
    /// Its attributes, redacted and cut, but for those whose key is hidden: what the sidecar has made of these stays.
    attributes: Vec<(&'p str, Cow<'p, str>)>,
    /// Its containers in the same order; none where the key is hidden.
    containers: Vec<Option<Cow<'p, str>>>,
    service: Option<Cow<'p, str>>,
}

impl<'p> Signature<'p> {
    pub(crate) fn of(pod: &'p Pod, rules: &Rules, decisions: &mut Decisions) -> Self {
        let mut left = |key: &str, value: &'p str| left_of(rules, decisions, key, value);
        let attributes = pod.attributes.iter();
        let attributes = attributes
            .filter_map(|(key, value)| Some((&**key, left(key, value)?)))
            .collect();
        let containers = pod.containers.iter();
        let containers = containers.map(|name| left(CONTAINER, name)).collect();
        let service = pod.service.as_deref();
        Self {
            pod,
            attributes,
            containers,
            service: service.and_then(|name| left(SERVICE, name)),
        }
    }

    /// Corrects what a sidecar says of its pod. What is right stays where it is.
    pub(crate) fn correct<'r>(&'r self, list: &mut Vec<Attr<'r>>) {
        let container = self.container(list);
        let mut set = |key: &'r str, text: &'r str| {
            let value = Value::Str(text);
            match list.iter_mut().find(|attribute| attribute.key == key) {
                Some(said) => said.value = value,
                None => list.insert(0, Attr { key, value }),
            }
        };
        for (key, value) in &self.attributes {
            set(key, value);
        }
        if let Some(container) = container {
            set(CONTAINER, container);
        }
        if !self.pod.is_partial {
            list.retain(|attribute| match attribute.key {
                CONTAINER => container.is_some(),
                key => !claims(key) || self.pod.says(key),
            });
        }
        name_service(self.service.as_deref(), list);
    }

    /// The sender's container, if it says a true one.
    fn container<'r>(&'r self, list: &[Attr<'r>]) -> Option<&'r str> {
        let known = || self.pod.containers.iter().zip(&self.containers);
        let said = list.iter().find(|attribute| attribute.key == CONTAINER);
        let is_said = |name: &str| said.is_some_and(|said| said.value == Value::Str(name));
        if self.pod.is_partial {
            return None;
        }
        let mut possible = known().filter(|(name, left)| {
            self.containers.len() == 1 || is_said(name) || left.as_deref().is_some_and(is_said)
        });
        let (_, left) = possible.next()?;
        left.as_deref()
    }
}

/// What the rules leave of an attribute's value; none where its key is hidden.
fn left_of<'p>(
    rules: &Rules,
    decisions: &mut Decisions,
    key: &str,
    value: &'p str,
) -> Option<Cow<'p, str>> {
    let limit = rules.limits.value_bytes;
    let Some(redactor) = &rules.redactor else {
        return Some(Cow::Borrowed(text::cut(value, limit)));
    };
    let value = match decisions.key(redactor, key) {
        KeyDecision::Keep => decisions.hidden(redactor, value),
        KeyDecision::HideValue => Some(Cow::Borrowed(HIDDEN)),
        KeyDecision::HideBoth => return None,
    }
    .unwrap_or(Cow::Borrowed(value));
    Some(match value {
        Cow::Borrowed(value) => Cow::Borrowed(text::cut(value, limit)),
        Cow::Owned(value) => Cow::Owned(text::cut(&value, limit).to_owned()),
    })
}

/// Names the service of a sender that gives none.
fn name_service<'r>(service: Option<&'r str>, list: &mut Vec<Attr<'r>>) {
    if let Some(service) = service
        && !list.iter().any(|attribute| names_service(attribute))
    {
        list.retain(|attribute| attribute.key != SERVICE);
        let own = Attr {
            key: SERVICE,
            value: Value::Str(service),
        };
        list.insert(0, own);
    }
}

fn names_service(attribute: &Attr<'_>) -> bool {
    let Value::Str(name) = attribute.value else {
        return false;
    };
    let unnamed = name
        .strip_prefix(UNNAMED)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    attribute.key == SERVICE && !name.is_empty() && !unnamed
}
