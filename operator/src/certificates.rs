//! The operator's own certificate authority, and the leaves it signs. Pure: the time is an argument,
//! and what is kept is text.
//!
//! Two authorities overlap. Well before the current one ends, a new one is published beside it; a day
//! later, when every client has the new bundle, it signs; the old one stays trusted until it ends.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use spanloom_plan::leaf::{CLOCK_SKEW_SECONDS, Leaf};

const DAY: i64 = 86_400;

/// How long an authority holds.
const AUTHORITY_SECONDS: i64 = 730 * DAY;
/// How long a new authority is published before it signs: more than any client takes to reload.
const OVERLAP_SECONDS: i64 = DAY;
/// How long a leaf holds.
const LEAF_SECONDS: i64 = 60 * DAY;

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The library refused, for a name that is none or a key that cannot be read.
    #[error("cannot create a certificate: {0}; delete the Secret with its key to create a new one")]
    Make(#[from] rcgen::Error),
}

/// One authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ca {
    /// Its common name.
    pub name: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
}

/// The authorities that are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The one that signs.
    pub current: Ca,
    /// The one that will sign, already trusted.
    pub next: Option<Ca>,
    /// The one that signed before, still trusted. Its key is gone.
    pub previous: Option<Ca>,
}

impl Authority {
    /// A new authority.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(now: i64) -> Result<Self, CertificateError> {
        Ok(Self {
            current: authority(now)?,
            next: None,
            previous: None,
        })
    }

    /// What it should be now; equal to `self` most of the time.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn renewed(&self, now: i64) -> Result<Self, CertificateError> {
        let mut renewed = self.clone();
        let remaining = renewed.current.ends - now;
        if renewed.next.is_none() && remaining < AUTHORITY_SECONDS / 3 {
            renewed.next = Some(authority(now)?);
        }
        let is_due = |next: &Ca| now - next.made >= OVERLAP_SECONDS || remaining <= 0;
        if let Some(next) = renewed.next.take_if(|next| is_due(next)) {
            let mut previous = std::mem::replace(&mut renewed.current, next);
            previous.key = String::new();
            renewed.previous = Some(previous);
        }
        renewed.previous = renewed.previous.filter(|previous| previous.ends > now);
        Ok(renewed)
    }

    /// What clients trust, PEM: the current, the next and the previous authority.
    pub fn bundle(&self) -> String {
        [
            Some(&self.current),
            self.next.as_ref(),
            self.previous.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(|ca| ca.certificate.as_str())
        .collect()
    }

    /// A leaf for a server with these names.
    ///
    /// # Errors
    /// When a name is none, or the authority's key cannot be read.
    pub fn leaf(&self, names: &[String], now: i64) -> Result<Leaf, CertificateError> {
        let mut params = CertificateParams::new(names.to_vec())?;
        let ends = (now + LEAF_SECONDS).min(self.current.ends);
        valid(&mut params, now - CLOCK_SKEW_SECONDS, ends);
        params.serial_number = Some(serial());
        if let Some(name) = names.first() {
            params.distinguished_name = rcgen::DistinguishedName::new();
            // A common name has 64 characters at most; clients look at the other names.
            let short: String = name.chars().take(64).collect();
            params.distinguished_name.push(DnType::CommonName, short);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(
            authority_params(&self.current.name, self.current.made, self.current.ends),
            KeyPair::from_pem(&self.current.key)?,
        );
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            issuer: self.current.name.clone(),
            names: names.join(","),
            made: now,
            ends,
        })
    }
}

fn authority(now: i64) -> Result<Ca, CertificateError> {
    let name = format!("spanloom CA {:08x}", rand::random::<u32>());
    let ends = now + AUTHORITY_SECONDS;
    let key = KeyPair::generate()?;
    let certificate = authority_params(&name, now, ends).self_signed(&key)?;
    Ok(Ca {
        name,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        made: now,
        ends,
    })
}

fn authority_params(name: &str, made: i64, ends: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, made - CLOCK_SKEW_SECONDS, ends);
    params.serial_number = Some(serial());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn serial() -> SerialNumber {
    // Positive and not too long: the first bit is off.
    let mut bytes = rand::random::<[u8; 16]>();
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x01;
    }
    SerialNumber::from_slice(&bytes)
}

/// Sets from when until when, in seconds since 1970. (rcgen's calendar type has no name here: it is of
/// a crate that we do not depend on.)
fn valid(params: &mut CertificateParams, from: i64, until: i64) {
    let since = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    params.not_before = date_time_ymd(1970, 1, 1) + since(from);
    params.not_after = date_time_ymd(1970, 1, 1) + since(until);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn names() -> Vec<String> {
        vec!["prod-clickhouse.tracing.svc".to_owned()]
    }

    #[test]
    fn an_authority_is_replaced_with_overlap() {
        let first = Authority::new(NOW).unwrap();
        assert_eq!(first.renewed(NOW + 400 * DAY).unwrap(), first);
        let published = NOW + 500 * DAY;
        let second = first.renewed(published).unwrap();
        assert_eq!(
            second.current, first.current,
            "the new one does not sign yet"
        );
        let next = second.next.clone().unwrap();
        assert!(second.bundle().contains(&next.certificate));
        assert_eq!(second.renewed(published + DAY - 1).unwrap(), second);
        let third = second.renewed(published + DAY).unwrap();
        assert_eq!(third.current, next);
        let previous = third.previous.clone().unwrap();
        assert_eq!(previous.certificate, first.current.certificate);
        assert_eq!(previous.key, "");
        assert!(third.bundle().contains(&first.current.certificate));
        let last = third.renewed(first.current.ends + 1).unwrap();
        assert_eq!(last.bundle(), next.certificate);
    }

    #[test]
    fn an_authority_that_ended_unseen_is_replaced_at_once() {
        let first = Authority::new(NOW).unwrap();
        let late = first.current.ends + 5;
        let second = first.renewed(late).unwrap();
        assert_ne!(second.current.name, first.current.name);
        assert_eq!((second.next, second.previous), (None, None));
    }

    #[test]
    fn a_leaf_serves_until_a_third_of_its_time_is_left() {
        let authority = Authority::new(NOW).unwrap();
        let leaf = authority.leaf(&names(), NOW).unwrap();
        assert!(leaf.serves(&authority.current.name, &names(), NOW));
        assert!(leaf.serves(&authority.current.name, &names(), NOW + 39 * DAY));
        assert!(!leaf.serves(&authority.current.name, &names(), NOW + 41 * DAY));
        assert!(!leaf.serves(&authority.current.name, &["other".to_owned()], NOW));
        assert!(!leaf.serves(&Authority::new(NOW).unwrap().current.name, &names(), NOW));
        // The clock was set back by a year.
        assert!(!leaf.serves(&authority.current.name, &names(), NOW - 365 * DAY));
        let kept = Leaf::of(&leaf.annotations(), &leaf.certificate, &leaf.key);
        assert_eq!(kept.as_ref(), Some(&leaf));
        assert_eq!(Leaf::of(&serde_json::json!({}), "a", "b"), None);
    }

    #[test]
    fn a_kept_authority_signs_after_a_restart() {
        let authority = Authority::new(NOW).unwrap();
        let text = serde_json::to_string(&authority).unwrap();
        let again: Authority = serde_json::from_str(&text).unwrap();
        let leaf = again.leaf(&names(), NOW).unwrap();
        assert!(leaf.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert_eq!(leaf.issuer, authority.current.name);
    }
}
