//! The dialling side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::TlsError;
use crate::reload::{Reloading, read};

/// Where Linux distributions keep the public certificate authorities.
const SYSTEM_BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Whom to trust when dialling. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<Reloading<Arc<ClientConfig>>>,
}

impl ClientTls {
    /// Trusts servers whose certificate an authority of this PEM bundle has signed, and no others.
    ///
    /// # Errors
    /// When the file cannot be read now, or holds no authority; later the last good one stays.
    pub fn with_ca_file(path: impl Into<PathBuf>) -> Result<Self, TlsError> {
        let path = path.into();
        let files = vec![path.clone()];
        let config = Reloading::new(files, move || load(&path).map(Arc::new))?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// The same for a bundle that is not in a file; `origin` is where it is from, for errors.
    ///
    /// # Errors
    /// When it holds no authority.
    pub fn with_ca_pem(pem: &[u8], origin: &str) -> Result<Self, TlsError> {
        let config = Arc::new(trusting(pem, Path::new(origin))?);
        let config = Reloading::new(Vec::new(), move || Ok(Arc::clone(&config)))?;
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Trusts the public authorities of this machine: those of [`system_bundle`].
    ///
    /// # Errors
    /// When there is no such file, or it cannot be used.
    pub fn with_system_authorities() -> Result<Self, TlsError> {
        Self::with_ca_file(system_bundle()?)
    }

    /// The settings for a connection that begins now. Without ALPN: what speaks HTTP/2 adds it.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config.get())
    }
}

/// The PEM bundle of this machine's public authorities: the file that `SSL_CERT_FILE` names, or where
/// Linux distributions keep it.
///
/// # Errors
/// When there is none.
pub fn system_bundle() -> Result<PathBuf, TlsError> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return Ok(path.into());
    }
    let there = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).is_file());
    there
        .map(PathBuf::from)
        .ok_or_else(|| TlsError::NoSystemBundle(SYSTEM_BUNDLES.join(", ")))
}

fn load(path: &Path) -> Result<ClientConfig, TlsError> {
    trusting(&read(path)?, path)
}

fn trusting(pem: &[u8], path: &Path) -> Result<ClientConfig, TlsError> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(authorities(pem, path)?)
        .with_no_client_auth();
    Ok(config)
}

/// The authorities of a PEM bundle; `path` is where it is from, for errors.
pub(crate) fn authorities(pem: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let unusable = |reason: String| TlsError::Content {
        path: path.to_owned(),
        wanted: "CA certificate",
        reason,
    };
    let mut roots = RootCertStore::empty();
    let mut refused = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        // Bundles of distributions hold a few that no modern library takes: the others count.
        if let Err(error) = roots.add(certificate) {
            refused = Some(error.to_string());
        }
    }
    if roots.is_empty() {
        return Err(unusable(
            refused.unwrap_or_else(|| "BEGIN CERTIFICATE not found".to_owned()),
        ));
    }
    Ok(roots)
}
