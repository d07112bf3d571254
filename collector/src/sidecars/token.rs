//! A pod's service-account token: a JWT that the API server has signed, checked without asking it.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use spanloom_crds::sidecar::AUDIENCE;

/// A token that is longer is none of Kubernetes'.
const MAX_BYTES: usize = 16 << 10;
/// By how much the clocks of nodes may differ, in seconds.
const LEEWAY: u64 = 60;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("the request has no bearer token")]
    Missing,
    /// It is something else.
    #[error("the token is not a JWT of a service account")]
    Malformed,
    /// It is signed in another way than by RS256 or ES256.
    #[error("the token's signature algorithm is not supported; use RS256 or ES256")]
    Algorithm,
    /// It is signed with a key that is not one of the API server's.
    #[error("the token is signed with a key that the API server does not publish")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the token's signature is not valid")]
    Signature,
    /// Another cluster issued it.
    #[error("the token's issuer is not this cluster's API server")]
    Issuer,
    /// It is for another audience.
    #[error("the token's audience is not {AUDIENCE}")]
    Audience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is not a pod's.
    #[error("the token does not name a pod")]
    NoPod,
}

impl TokenError {
    /// The value of the label `reason` in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed | Self::Algorithm | Self::NoPod => "malformed",
            Self::UnknownKey => "key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Expired | Self::NotYet => "expired",
        }
    }
}

/// The pod that a token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its node, where the API server says it (Kubernetes 1.30 and later).
    pub node: Option<String>,
    /// When the token expires, seconds since the Unix epoch.
    pub expires: u64,
}

/// Who issues tokens, and the keys that they are signed with.
#[derive(Debug, Default)]
pub(crate) struct Issuer {
    name: String,
    keys: HashMap<String, Key>,
}

#[derive(Debug)]
enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
}

/// A JWKS, as far as it is read.
#[derive(Debug, Deserialize)]
struct KeySet {
    keys: Vec<JsonKey>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JsonKey {
    kty: String,
    kid: String,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl JsonKey {
    /// None for a kind of key that is not known.
    fn read(&self) -> Option<Key> {
        let decode = |text: &str| BASE64.decode(text).ok();
        match (self.kty.as_str(), self.crv.as_str()) {
            ("RSA", _) => Some(Key::Rsa {
                n: decode(&self.n)?,
                e: decode(&self.e)?,
            }),
            ("EC", "P-256") => {
                let (x, y) = (decode(&self.x)?, decode(&self.y)?);
                let point = [&[4], &*x, &*y].concat();
                (x.len() == 32 && y.len() == 32).then_some(Key::P256(point))
            }
            _ => None,
        }
    }
}

impl Key {
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let verified = match (self, algorithm) {
            (Self::Rsa { n, e }, "RS256") => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            (Self::P256(point), "ES256") => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            _ => return Err(TokenError::Algorithm),
        };
        verified.map_err(|_| TokenError::Signature)
    }
}

#[derive(Debug, Deserialize)]
struct Head {
    alg: String,
    #[serde(default)]
    kid: String,
}

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Audiences,
    exp: u64,
    #[serde(default)]
    nbf: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audiences {
    fn has_ours(&self) -> bool {
        match self {
            Self::One(one) => one == AUDIENCE,
            Self::Many(many) => many.iter().any(|one| one == AUDIENCE),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    namespace: String,
    pod: Option<Named>,
    node: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

impl Issuer {
    /// The issuer of this name, with a key set as `/openid/v1/jwks` has it. Kinds of keys that are not known are
    /// left out.
    pub(crate) fn new(name: String, key_set: &str) -> Result<Self, serde_json::Error> {
        let set: KeySet = serde_json::from_str(key_set)?;
        let keys = set.keys.into_iter();
        Ok(Self {
            name,
            keys: keys
                .filter_map(|key| Some((key.kid.clone(), key.read()?)))
                .collect(),
        })
    }

    /// Who shows this token, at this time in seconds since the Unix epoch.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn verify(&self, token: &str, now: u64) -> Result<Claims, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (head, body) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = BASE64
            .decode(signature)
            .map_err(|_| TokenError::Malformed)?;
        let head: Head = decode(head)?;
        // Nothing of the body counts before this.
        let key = self.keys.get(&head.kid).ok_or(TokenError::UnknownKey)?;
        key.verify(&head.alg, message.as_bytes(), &signature)?;
        let body: Body = decode(body)?;
        if body.iss != self.name {
            return Err(TokenError::Issuer);
        }
        if !body.aud.has_ours() {
            return Err(TokenError::Audience);
        }
        if body.exp.saturating_add(LEEWAY) <= now {
            return Err(TokenError::Expired);
        }
        if body.nbf > now.saturating_add(LEEWAY) {
            return Err(TokenError::NotYet);
        }
        let kubernetes = body.kubernetes.ok_or(TokenError::NoPod)?;
        let pod = kubernetes.pod.ok_or(TokenError::NoPod)?;
        if pod.uid.is_empty() {
            return Err(TokenError::NoPod);
        }
        Ok(Claims {
            namespace: kubernetes.namespace,
            pod: pod.name,
            uid: pod.uid,
            node: kubernetes.node.map(|node| node.name),
            expires: body.exp,
        })
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let bytes = BASE64.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

#[cfg(test)]
mod tests;
