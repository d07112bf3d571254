//! A server's certificate as it is kept, and for how long it serves. Making one is not done here.

use serde_json::{Value, json};

/// How far clocks may differ: certificates are valid this long before they are made. More than a wrong time zone.
pub const CLOCK_SKEW_SECONDS: i64 = 86_400;

/// A server's certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaf {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
    /// The common name of the authority that signed it.
    pub issuer: String,
    /// Its names, joined by commas.
    pub names: String,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
}

const ISSUER: &str = "spanloom.dev/certificate-issuer";
const NAMES: &str = "spanloom.dev/certificate-names";
const MADE: &str = "spanloom.dev/certificate-made";
const ENDS: &str = "spanloom.dev/certificate-ends";

impl Leaf {
    /// What is kept beside the certificate, so that it need not be parsed.
    pub fn annotations(&self) -> Value {
        json!({
            ISSUER: self.issuer, NAMES: self.names,
            MADE: self.made.to_string(), ENDS: self.ends.to_string(),
        })
    }

    /// The leaf of a Secret's annotations and contents; none when anything is missing.
    pub fn of(annotations: &Value, certificate: &str, key: &str) -> Option<Self> {
        let text = |name: &str| annotations.get(name)?.as_str().map(str::to_owned);
        Some(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            issuer: text(ISSUER)?,
            names: text(NAMES)?,
            made: text(MADE)?.parse().ok()?,
            ends: text(ENDS)?.parse().ok()?,
        })
    }

    /// Whether it still serves: of the right authority and names, with a third of its time left, and
    /// not from the future, which is what a clock that was set back makes of it.
    pub fn serves(&self, issuer: &str, names: &[String], now: i64) -> bool {
        self.issuer == issuer
            && self.names == names.join(",")
            && self.ends - now > (self.ends - self.made) / 3
            && self.made <= now + CLOCK_SKEW_SECONDS
            && !self.certificate.is_empty()
            && !self.key.is_empty()
    }
}
