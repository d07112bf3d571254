use base64::Engine;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://kubernetes.default.svc";

/// An API server's signing key.
struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self {
            pair: pair.unwrap(),
            random,
        }
    }

    fn key_set(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let encode = |bytes: &[u8]| BASE64.encode(bytes);
        json!({"keys": [
            {"kty": "OKP", "kid": "unknown kind", "crv": "Ed25519", "x": "AA"},
            {"kty": "EC", "kid": "k1", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
        ]})
        .to_string()
    }

    fn sign(&self, head: &Value, body: &Value) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", part(head), part(body));
        let signature = self.pair.sign(&self.random, message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64.encode(signature.as_ref()))
    }

    fn token(&self, body: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "kid": "k1"}), body)
    }
}

fn body() -> Value {
    json!({
        "iss": ISSUER, "aud": ["spanloom.dev"], "exp": NOW + 600, "nbf": NOW - 60, "iat": NOW - 60,
        "sub": "system:serviceaccount:shop:default",
        "kubernetes.io": {
            "namespace": "shop",
            "node": {"name": "node-a", "uid": "n"},
            "pod": {"name": "web-1", "uid": "u-1"},
            "serviceaccount": {"name": "default", "uid": "s"},
        },
    })
}

/// The body with something else at this place.
fn with(pointer: &str, value: Value) -> Value {
    let mut changed = body();
    *changed.pointer_mut(pointer).unwrap() = value;
    changed
}

#[test]
fn a_token_of_a_pod_says_which() {
    let signer = Signer::new();
    let issuer = Issuer::new(ISSUER.to_owned(), &signer.key_set()).unwrap();
    let expect = Claims {
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        uid: "u-1".to_owned(),
        node: Some("node-a".to_owned()),
        expires: NOW + 600,
    };
    assert_eq!(
        issuer.verify(&signer.token(&body()), NOW),
        Ok(expect.clone())
    );
    // Before Kubernetes 1.30 there is no node, and some issuers give one audience as text.
    let mut older = with("/aud", json!("spanloom.dev"));
    older["kubernetes.io"]
        .as_object_mut()
        .unwrap()
        .remove("node");
    let expect = Claims {
        node: None,
        ..expect
    };
    assert_eq!(issuer.verify(&signer.token(&older), NOW), Ok(expect));
}

#[test]
fn what_is_refused() {
    let (signer, other) = (Signer::new(), Signer::new());
    let issuer = Issuer::new(ISSUER.to_owned(), &signer.key_set()).unwrap();
    let check = |token: String, expected| {
        assert_eq!(issuer.verify(&token, NOW), Err(expected), "{token}");
    };
    let body = body();
    check(
        signer.token(&with("/iss", json!("https://other"))),
        TokenError::Issuer,
    );
    check(
        signer.token(&with("/aud", json!(["api"]))),
        TokenError::Audience,
    );
    check(signer.token(&with("/aud", json!([]))), TokenError::Audience);
    check(
        signer.token(&with("/exp", json!(NOW - 61))),
        TokenError::Expired,
    );
    check(
        signer.token(&with("/nbf", json!(NOW + 61))),
        TokenError::NotYet,
    );
    check(
        signer.token(&with("/kubernetes.io/pod", Value::Null)),
        TokenError::NoPod,
    );
    check(
        signer.token(&with("/kubernetes.io", Value::Null)),
        TokenError::NoPod,
    );
    check(
        signer.token(&with("/exp", json!("soon"))),
        TokenError::Malformed,
    );
    // Signed with another key, with a key of an unknown id, or not at all.
    check(other.token(&body), TokenError::Signature);
    let unknown = signer.sign(&json!({"alg": "ES256", "kid": "k2"}), &body);
    check(unknown, TokenError::UnknownKey);
    for alg in ["none", "HS256", "RS256"] {
        let token = signer.sign(&json!({"alg": alg, "kid": "k1"}), &body);
        check(token, TokenError::Algorithm);
    }
    // A body that was changed after it was signed.
    let (good, evil) = (
        signer.token(&body),
        signer.token(&with("/kubernetes.io/pod/uid", json!("u-2"))),
    );
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (good, evil) = (parts(&good), parts(&evil));
    check(
        [&*good[0], &evil[1], &good[2]].join("."),
        TokenError::Signature,
    );
    for text in ["", "a", "a.b", "a.b.c", "..", "é.é.é"] {
        check(text.to_owned(), TokenError::Malformed);
    }
    check("x".repeat(MAX_BYTES + 1), TokenError::Malformed);
}

/// RFC 7515, appendix A.2: a signature by RS256 that another program has made.
#[test]
fn rs256() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS\
             -pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2Ca\
             pHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54\
             h4FRWyuXpoQ";
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0\
                 cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9\
                 CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO\
                 --xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_Ioyp\
                 GlUPQGe77Rw";
    let key_set = json!({"keys": [{"kty": "RSA", "kid": "", "n": n, "e": "AQAB"}]});
    let issuer = Issuer::new("joe".to_owned(), &key_set.to_string()).unwrap();
    // The signature holds, and then the audience does not.
    assert_eq!(issuer.verify(token, NOW), Err(TokenError::Audience));
    let cut = token.replace("cC4hiUPoj9", "cC4hiUPoj8");
    assert_eq!(issuer.verify(&cut, NOW), Err(TokenError::Signature));
}
