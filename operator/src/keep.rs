//! What the operator keeps in Secrets and ConfigMaps of its own, and reads from the user's.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::certificates::{Authority, CertificateError, Leaf};
use crate::cluster::{Cluster, ClusterError, Owned, SECRET, VOLUME_CLAIM};
use crate::pipeline::Pipeline;
use crate::render::{
    Known, LABEL_MANAGED_BY, LAST_GOOD_KEY, LastGood, MANAGER, Token, last_good_name,
};

/// The Secret that holds the certificate authority, in the release's namespace.
pub const CA_SECRET: &str = "spanloom-ca";
/// The key with all of it.
const CA_STATE: &str = "authority.json";
/// How often it is looked at.
const CA_EVERY: Duration = Duration::from_secs(300);

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
    #[error("the Secret {CA_SECRET} cannot be read: {0}; delete it to start anew")]
    Authority(String),
    /// A Secret that the document names is not as it should be.
    #[error("the Secret {name} {what}")]
    UserSecret {
        /// Its name.
        name: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// The certificate authority, looked at now and then.
#[derive(Debug, Default)]
pub struct AuthorityKeeper(Mutex<Option<(Instant, Authority)>>);

impl AuthorityKeeper {
    /// The authority, made or renewed where it is time.
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
        if let Some((when, authority)) = kept.as_ref()
            && when.elapsed() < CA_EVERY
        {
            return Ok(authority.clone());
        }
        let secret = cluster.get(SECRET, Some(namespace), CA_SECRET).await?;
        let found = secret.map(|secret| read_authority(&secret)).transpose()?;
        let authority = match &found {
            None => Authority::new(now)?,
            Some(found) => found.renewed(now)?,
        };
        if found.as_ref() != Some(&authority) {
            let object = authority_secret(namespace, &authority)?;
            cluster
                .apply_shared(SECRET, Some(namespace), &object)
                .await?;
        }
        *kept = Some((Instant::now(), authority.clone()));
        Ok(authority)
    }
}

fn read_authority(secret: &Value) -> Result<Authority, KeepError> {
    let text = secret_text(secret, CA_STATE)
        .ok_or_else(|| KeepError::Authority(format!("it has no key {CA_STATE}")))?;
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

/// Everything that rendering needs and that is not in the document.
///
/// # Errors
/// When the API refuses, or a Secret that the document names is wrong.
pub async fn known(
    cluster: &Cluster,
    authorities: &AuthorityKeeper,
    release_namespace: &str,
    pipeline: &Pipeline,
    owned: &Owned,
    grafana_operator: bool,
    now: i64,
) -> Result<Known, KeepError> {
    let mut known = Known {
        grafana_operator,
        last_good: last_good(pipeline, owned),
        ..Known::default()
    };
    if pipeline.runs_store() {
        let authority = authorities
            .authority(cluster, release_namespace, now)
            .await?;
        known.ca_bundle = authority.bundle();
        known.store_password = store_password(pipeline, owned);
        known.store_leaf = store_leaf(pipeline, owned, &authority, now)?;
        known.volume_size = volume_size(pipeline, owned);
    }
    if let Some(auth) = &pipeline.spec.query.auth
        && pipeline.spec.grafana.datasources.unwrap_or(true)
    {
        match token(cluster, pipeline, &auth.tokens_secret.name).await {
            Ok(token) => known.token = Some(token),
            // What can go on without it does.
            Err(error @ KeepError::UserSecret { .. }) => known.missing = Some(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    if let Some(tls) = &pipeline.spec.query.tls {
        let name = &tls.secret.name;
        let secret = cluster.get(SECRET, Some(&pipeline.namespace), name).await?;
        known.query_ca = secret.and_then(|secret| secret_text(&secret, "ca.crt"));
    }
    Ok(known)
}

/// The Secrets of a pipeline that may be there, by name: Secrets are never listed.
pub fn secrets(pipeline: &Pipeline) -> [String; 3] {
    ["clickhouse", "clickhouse-tls", "grafana-datasource"].map(|suffix| pipeline.object(suffix))
}

fn of<'o>(owned: &'o Owned, kind: &str, name: String) -> Option<&'o Value> {
    owned.get(&(kind.to_owned(), name))
}

fn last_good(pipeline: &Pipeline, owned: &Owned) -> Option<LastGood> {
    let map = of(owned, "ConfigMap", last_good_name(pipeline))?;
    serde_json::from_str(map["data"][LAST_GOOD_KEY].as_str()?).ok()
}

/// The password that the store was made with, or a new one.
fn store_password(pipeline: &Pipeline, owned: &Owned) -> String {
    of(owned, "Secret", pipeline.object("clickhouse"))
        .and_then(|secret| secret_text(secret, "password"))
        .filter(|password| !password.is_empty())
        .unwrap_or_else(|| {
            let (high, low) = (rand::random::<u128>(), rand::random::<u64>());
            format!("{high:032x}{low:016x}")
        })
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
    let kept = of(owned, "Secret", pipeline.object("clickhouse-tls")).and_then(|secret| {
        let text = |key: &str| secret_text(secret, key);
        Leaf::of(
            &secret["metadata"]["annotations"],
            &text("tls.crt")?,
            &text("tls.key")?,
        )
    });
    match kept.filter(|leaf| leaf.serves(authority, &names, now)) {
        Some(leaf) => Ok(leaf),
        None => authority.leaf(&names, now),
    }
}

/// The size in the StatefulSet's template, which cannot be changed there.
fn volume_size(pipeline: &Pipeline, owned: &Owned) -> Option<String> {
    let set = of(owned, "StatefulSet", pipeline.object("clickhouse"))?;
    let claim = set["spec"]["volumeClaimTemplates"].get(0)?;
    let size = claim["spec"]["resources"]["requests"]["storage"].as_str()?;
    Some(size.to_owned())
}

async fn token(cluster: &Cluster, pipeline: &Pipeline, name: &str) -> Result<Token, KeepError> {
    let wrong = |what| KeepError::UserSecret {
        name: name.to_owned(),
        what,
    };
    let secret = cluster
        .get(SECRET, Some(&pipeline.namespace), name)
        .await?
        .ok_or_else(|| wrong("is not there; make it with at least one token"))?;
    let mut keys: Vec<_> = secret["data"]
        .as_object()
        .map(|data| data.keys().cloned().collect())
        .unwrap_or_default();
    keys.sort();
    keys.into_iter()
        .find_map(|key| {
            let text = secret_text(&secret, &key)?;
            let value = text.lines().map(str::trim).find(|line| !line.is_empty())?;
            let value = value.to_owned();
            Some(Token { key, value })
        })
        .ok_or_else(|| wrong("has no token in it"))
}

/// Grows the store's volume claim when the document asks for more. It is never made smaller.
///
/// # Errors
/// When the API refuses: most of all when the StorageClass does not allow it.
pub async fn grow_volume(cluster: &Cluster, pipeline: &Pipeline) -> Result<(), ClusterError> {
    let (namespace, wanted) = (&pipeline.namespace, crate::render::wanted_size(pipeline));
    let name = format!("data-{}-0", pipeline.object("clickhouse"));
    let Some(claim) = cluster.get(VOLUME_CLAIM, Some(namespace), &name).await? else {
        return Ok(());
    };
    let has = claim["spec"]["resources"]["requests"]["storage"]
        .as_str()
        .and_then(crate::render::size_bytes);
    if has >= crate::render::size_bytes(&wanted) {
        return Ok(());
    }
    let patch = json!({"spec": {"resources": {"requests": {"storage": wanted}}}});
    cluster.merge(VOLUME_CLAIM, namespace, &name, &patch).await
}
