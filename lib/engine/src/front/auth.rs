//! Who may ask: one user with a password, said in any of the ways ClickHouse knows.

use base64::Engine as _;
use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::error::{ChError, code};
use super::request::Ask;

/// The one user.
pub(crate) struct Login {
    user: String,
    /// Of the password: hashes have one length, so comparing them tells nothing by its time.
    hash: [u8; 32],
}

impl Login {
    /// The user and the password that are let in.
    pub(crate) fn new(user: String, password: &str) -> Login {
        Login {
            user,
            hash: hash(password),
        }
    }

    /// Checks a request. The headers `X-ClickHouse-User` and `-Key` come first, then HTTP's basic
    /// authentication, then the URL.
    pub(crate) fn check(&self, headers: &HeaderMap, ask: &Ask) -> Result<(), ChError> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let own = (header("x-clickhouse-user"), header("x-clickhouse-key"));
        let (user, password) = match (own, header("authorization").and_then(basic)) {
            ((None, None), Some((user, password))) => (user, password),
            ((None, None), None) => (
                ask.user.clone().unwrap_or_else(|| "default".to_owned()),
                ask.password.clone().unwrap_or_default(),
            ),
            ((user, password), _) => (
                user.unwrap_or("default").to_owned(),
                password.unwrap_or_default().to_owned(),
            ),
        };
        let given = hash(&password);
        let differ = given
            .iter()
            .zip(self.hash)
            .fold(0, |differ, (a, b)| differ | (a ^ b));
        if differ == 0 && user == self.user {
            return Ok(());
        }
        Err(ChError::new(
            code::AUTHENTICATION_FAILED,
            format!(
                "{user}: Authentication failed: password is incorrect, or there is no user with \
                 such name"
            ),
        ))
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// User and password of `Basic …`.
fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(encoded.trim())
        .ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
