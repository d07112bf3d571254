//! What the operator keeps in Secrets of its own, and reads from the user's: by name, and no more often
//! than it has to.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spanloom_plan::hash::hash_of;
use spanloom_plan::leaf::Leaf;
use spanloom_plan::render::{
    Known, LABEL_MANAGED_BY, LAST_GOOD_KEY, LastGood, MANAGER, Token, last_good_name,
    wants_data_source,
};
use spanloom_plan::retry::ErrorClass;
use spanloom_plan::{Key, Owned, Pipeline};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::certificates::{Authority, CertificateError};
use crate::cluster::{Cluster, ClusterError};
use crate::kinds::{GRAFANA_DATASOURCE, Kind, SECRET, VOLUME_CLAIM};

/// The Secret that holds the certificate authority, in the release's namespace.
pub const CA_SECRET: &str = "spanloom-ca";
/// The key with all of it.
const CA_STATE: &str = "authority.json";
/// Why something kept could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// No certificate could be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// What is kept cannot be read.
    #[error(
        "cannot read the Secret {CA_SECRET}: {0}; delete it and restart the operator to create a \
         new CA"
    )]
    Authority(String),
}

impl KeepError {
    /// The class of the error.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Cluster(error) => error.class(),
            Self::Authority(_) => ErrorClass::User,
            Self::Certificate(_) => ErrorClass::Bug,
        }
    }
}

/// The certificate authority. It is kept in memory as well: a Secret that is deleted comes back as it was.
#[derive(Debug, Default)]
pub struct AuthorityKeeper(Mutex<Option<Authority>>);

impl AuthorityKeeper {
    /// The authority as it was last seen; looked for when it was not.
    ///
    /// # Errors
    /// When its Secret cannot be read or written.
    pub async fn authority(
        &self,
        cluster: &Cluster,
        namespace: &str,
        now: i64,
    ) -> Result<Authority, KeepError> {
        let mut kept = self.0.lock().await;
        match kept.as_ref() {
            Some(authority) => Ok(authority.clone()),
            None => look(cluster, namespace, now, &mut kept).await,
        }
    }

    /// Looks at the Secret, if anybody has asked for an authority yet: makes it again when it is gone,
    /// and renews it where it is time. Says whether the authority is another one now.
    ///
    /// # Errors
    /// When its Secret cannot be read or written.
    pub async fn refresh(
        &self,
        cluster: &Cluster,
        namespace: &str,
        now: i64,
    ) -> Result<bool, KeepError> {
        let mut kept = self.0.lock().await;
        let Some(before) = kept.clone() else {
            return Ok(false);
        };
        let authority = look(cluster, namespace, now, &mut kept).await?;
        Ok(authority != before)
    }
}

async fn look(
    cluster: &Cluster,
    namespace: &str,
    now: i64,
    kept: &mut Option<Authority>,
) -> Result<Authority, KeepError> {
    let secret = cluster.get(SECRET, Some(namespace), CA_SECRET).await?;
    let found = secret.map(|secret| read_authority(&secret)).transpose()?;
    let authority = match found.as_ref().or(kept.as_ref()) {
        None => Authority::new(now)?,
        Some(known) => known.renewed(now)?,
    };
    if found.as_ref() != Some(&authority) {
        let object = authority_secret(namespace, &authority)?;
        cluster
            .apply_shared(SECRET, Some(namespace), &object)
            .await?;
    }
    *kept = Some(authority.clone());
    Ok(authority)
}

fn read_authority(secret: &Value) -> Result<Authority, KeepError> {
    let text = secret_text(secret, CA_STATE)
        .ok_or_else(|| KeepError::Authority(format!("it does not have the key {CA_STATE}")))?;
    serde_json::from_str(&text).map_err(|error| KeepError::Authority(error.to_string()))
}

fn authority_secret(namespace: &str, authority: &Authority) -> Result<Value, KeepError> {
    let state = serde_json::to_string(authority)
        .map_err(|error| KeepError::Authority(error.to_string()))?;
    Ok(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": CA_SECRET, "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "spanloom", LABEL_MANAGED_BY: MANAGER},
        },
        "data": {
            CA_STATE: STANDARD.encode(state),
            "ca.crt": STANDARD.encode(authority.bundle()),
        },
    }))
}

/// A value of a Secret as text.
pub fn secret_text(secret: &Value, key: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok()?;
    String::from_utf8(bytes).ok()
}

/// Objects of a pipeline that are read by name, and the volume claim of its store.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// What was found, the user's among it.
    pub objects: Owned,
    /// The claim of the store's volume.
    pub claim: Option<Value>,
    read: Option<(Instant, i64)>,
    claim_read: Option<Instant>,
    /// The managed store's password: a Secret that is deleted comes back with it.
    password: Option<String>,
}

/// How often they are read: a Secret that is deleted is back after this time.
const READ_EVERY: Duration = Duration::from_secs(60);
/// How often the claim is read.
const CLAIM_EVERY: Duration = Duration::from_secs(600);

impl Kept {
    /// Reads what it is time to read.
    ///
    /// # Errors
    /// When the API does not answer or refuses.
    pub async fn refresh(
        &mut self,
        cluster: &Cluster,
        pipeline: &Pipeline,
        grafana_operator: bool,
    ) -> Result<(), ClusterError> {
        let namespace = Some(pipeline.namespace.as_str());
        let is_new = self
            .read
            .is_none_or(|(_, generation)| generation != pipeline.generation);
        let is_old = |(when, _): (Instant, i64)| when.elapsed() >= READ_EVERY;
        if is_new || self.read.is_none_or(is_old) {
            let mut objects = Owned::new();
            // What is no longer wanted is looked for once after each change, so that it goes.
            for (kind, name) in names(pipeline, grafana_operator, is_new, &self.objects) {
                if let Some(object) = cluster.get(kind, namespace, &name).await? {
                    objects.insert((kind.kind.to_owned(), name), object);
                }
            }
            self.objects = objects;
            self.note_password(pipeline);
            self.read = Some((Instant::now(), pipeline.generation));
        }
        // It is made by the StatefulSet, a moment after that.
        let claim_every = match self.claim {
            Some(_) => CLAIM_EVERY,
            None => READ_EVERY,
        };
        let is_due = self
            .claim_read
            .is_none_or(|when| when.elapsed() >= claim_every);
        if pipeline.runs_store() && (is_new || is_due) {
            let name = format!("data-{}-0", pipeline.object("clickhouse"));
            self.claim = cluster.get(VOLUME_CLAIM, namespace, &name).await?;
            self.claim_read = Some(Instant::now());
        }
        Ok(())
    }

    /// The password that the store was made with; a new one only where none is known.
    fn store_password(&mut self, pipeline: &Pipeline, owned: &Owned) -> String {
        let known = found_password(pipeline, owned).or_else(|| self.password.take());
        let password = known.unwrap_or_else(|| {
            let (high, low) = (rand::random::<u128>(), rand::random::<u64>());
            format!("{high:032x}{low:016x}")
        });
        self.password = Some(password.clone());
        password
    }

    fn note_password(&mut self, pipeline: &Pipeline) {
        let found = found_password(pipeline, &self.objects);
        self.password = found.or_else(|| self.password.take());
    }

    /// An object was written or deleted.
    pub fn wrote(&mut self, key: &Key, object: Option<Value>) {
        match object {
            Some(object) if is_read_by_name(&key.0) => {
                self.objects.insert(key.clone(), object);
            }
            Some(_) => {}
            None => {
                self.objects.remove(key);
            }
        }
    }

    /// The claim was written: it is read anew.
    pub fn claim_changed(&mut self) {
        self.claim_read = None;
    }
}

fn is_read_by_name(kind: &str) -> bool {
    kind == SECRET.kind || kind == GRAFANA_DATASOURCE.kind
}

/// The objects that are read: those that the pipeline has or names, and with `all` those that it may
/// have had.
fn names(
    pipeline: &Pipeline,
    grafana_operator: bool,
    all: bool,
    before: &Owned,
) -> BTreeSet<(Kind, String)> {
    let mut names = BTreeSet::new();
    let mut own = |kind: Kind, suffix: &str, is_wanted: bool| {
        let name = pipeline.object(suffix);
        if all || is_wanted || before.contains_key(&(kind.kind.to_owned(), name.clone())) {
            names.insert((kind, name));
        }
    };
    let (spec, store) = (&pipeline.spec, pipeline.runs_store());
    own(SECRET, "clickhouse", store);
    own(SECRET, "clickhouse-tls", store);
    let datasources = wants_data_source(pipeline);
    let by_operator = grafana_operator && spec.grafana.instance_selector.is_some();
    let has_token = datasources && spec.query.auth.is_some() && !by_operator;
    own(SECRET, "grafana-datasource", has_token);
    if grafana_operator {
        own(
            GRAFANA_DATASOURCE,
            "grafana-datasource",
            datasources && by_operator,
        );
    }
    for name in user_secrets(pipeline) {
        names.insert((SECRET, name));
    }
    names
}

/// The Secrets that the spec names: a change of one may be what a failed rollout waits for.
fn user_secrets(pipeline: &Pipeline) -> BTreeSet<String> {
    let spec = &pipeline.spec;
    let tokens = spec
        .query
        .auth
        .as_ref()
        .map(|auth| &auth.tokens_secret.name);
    let tls = spec.query.tls.as_ref().map(|tls| &tls.secret.name);
    let external = spec.storage.external.as_ref();
    let credentials = external.and_then(|external| external.credentials_secret.as_ref());
    let authority = external
        .and_then(|external| external.tls.as_ref())
        .and_then(|tls| tls.ca_secret.as_ref());
    let pull = spec.images.pull_secrets.iter().map(|secret| &secret.name);
    tokens
        .into_iter()
        .chain(tls)
        .chain(credentials.map(|secret| &secret.name))
        .chain(authority.map(|secret| &secret.name))
        .chain(pull)
        .cloned()
        .collect()
}

impl Kept {
    /// Names the user's objects that the pods of a pipeline name, as they are.
    pub fn named(&self, pipeline: &Pipeline) -> String {
        let version = |name: &String| {
            let object = self.objects.get(&(SECRET.kind.to_owned(), name.clone()));
            object.map(|object| object["metadata"]["resourceVersion"].clone())
        };
        let all: Vec<_> = user_secrets(pipeline)
            .into_iter()
            .map(|name| (version(&name), name))
            .collect();
        hash_of(&all)
    }
}

/// Everything that rendering needs and that is not in the spec. `owned` has what was read by name, too.
///
/// # Errors
/// When no certificate can be made.
pub fn known(
    authority: Option<&Authority>,
    pipeline: &Pipeline,
    owned: &Owned,
    kept: &mut Kept,
    grafana_operator: bool,
    now: i64,
) -> Result<Known, KeepError> {
    let mut known = Known {
        grafana_operator,
        last_good: last_good(pipeline, owned),
        ..Known::default()
    };
    if let Some(authority) = authority {
        known.ca_bundle = authority.bundle();
        known.store_password = kept.store_password(pipeline, owned);
        known.store_leaf = store_leaf(pipeline, owned, authority, now)?;
        known.volume_size = volume_size(pipeline, owned);
    }
    if let Some(auth) = &pipeline.spec.query.auth
        && wants_data_source(pipeline)
    {
        let name = &auth.tokens_secret.name;
        match token(of(owned, "Secret", name.clone())) {
            Ok(token) => known.token = Some(token),
            // What can go on without it does.
            Err(what) => known.missing = Some(format!("the Secret {name} {what}")),
        }
    }
    if let Some(tls) = &pipeline.spec.query.tls {
        let secret = of(owned, "Secret", tls.secret.name.clone());
        known.query_ca = secret.and_then(|secret| secret_text(secret, "ca.crt"));
    }
    Ok(known)
}

fn of<'o>(owned: &'o Owned, kind: &str, name: String) -> Option<&'o Value> {
    owned.get(&(kind.to_owned(), name))
}

fn last_good(pipeline: &Pipeline, owned: &Owned) -> Option<LastGood> {
    let map = of(owned, "ConfigMap", last_good_name(pipeline))?;
    serde_json::from_str(map["data"][LAST_GOOD_KEY].as_str()?).ok()
}

fn found_password(pipeline: &Pipeline, owned: &Owned) -> Option<String> {
    of(owned, "Secret", pipeline.object("clickhouse"))
        .and_then(|secret| secret_text(secret, "password"))
        .filter(|password| !password.is_empty())
}

fn store_leaf(
    pipeline: &Pipeline,
    owned: &Owned,
    authority: &Authority,
    now: i64,
) -> Result<Leaf, CertificateError> {
    let (service, namespace) = (pipeline.object("clickhouse"), &pipeline.namespace);
    let names = [
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
        format!("{service}.{namespace}"),
        service,
        "localhost".to_owned(),
    ];
    let kept = of(owned, "Secret", pipeline.object("clickhouse-tls")).and_then(leaf_of);
    match kept.filter(|leaf| leaf.serves(&authority.current.name, &names, now)) {
        Some(leaf) => Ok(leaf),
        None => authority.leaf(&names, now),
    }
}

/// The certificate that a Secret of ours holds.
pub fn leaf_of(secret: &Value) -> Option<Leaf> {
    let text = |key: &str| secret_text(secret, key);
    Leaf::of(
        &secret["metadata"]["annotations"],
        &text("tls.crt")?,
        &text("tls.key")?,
    )
}

/// The size in the StatefulSet's template, which cannot be changed there.
fn volume_size(pipeline: &Pipeline, owned: &Owned) -> Option<String> {
    let set = of(owned, "StatefulSet", pipeline.object("clickhouse"))?;
    let claim = set["spec"]["volumeClaimTemplates"].get(0)?;
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str()?;
    Some(size.to_owned())
}

/// The first token of a Secret, or what is wrong with it.
fn token(secret: Option<&Value>) -> Result<Token, &'static str> {
    let secret = secret.ok_or("does not exist; create it with at least one token")?;
    let mut keys: Vec<_> = secret["data"]
        .as_object()
        .map(|data| data.keys().cloned().collect())
        .unwrap_or_default();
    keys.sort();
    keys.into_iter()
        .find_map(|key| {
            let text = secret_text(secret, &key)?;
            let value = text.lines().map(str::trim).find(|line| !line.is_empty())?;
            let value = value.to_owned();
            Some(Token { key, value })
        })
        .ok_or("contains no token")
}
