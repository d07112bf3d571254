//! The API server's part: a key, and tokens of pods that are signed with it.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::api::Api;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    /// Publishes the key as an API server does.
    pub fn publish(&self, api: &Api) {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let set = json!({"keys": [{"kty": "EC", "kid": "k1", "crv": "P-256", "x": x, "y": y}]});
        let discovery = json!({"issuer": ISSUER, "jwks_uri": "https://x/openid/v1/jwks"});
        api.serve("/openid/v1/jwks", set.to_string());
        api.serve("/.well-known/openid-configuration", discovery.to_string());
    }

    /// The token of a pod with something else at some places.
    pub fn token(&self, pod: &str, changes: &[(&str, Value)]) -> String {
        let now = super::unix_now();
        let mut body = json!({
            "iss": ISSUER, "aud": ["spanloom.dev"], "exp": now + 3600, "nbf": now - 60, "iat": now - 60,
            "kubernetes.io": {
                "namespace": "shop",
                "node": {"name": "node-a", "uid": "n"},
                "pod": {"name": pod, "uid": format!("uid-of-{pod}")},
            },
        });
        for (pointer, value) in changes {
            *body.pointer_mut(pointer).unwrap() = value.clone();
        }
        let part = |value: &Value| BASE64.encode(value.to_string());
        let head = json!({"alg": "ES256", "kid": "k1"});
        let message = format!("{}.{}", part(&head), part(&body));
        let signature = self.pair.sign(&self.random, message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }
}
