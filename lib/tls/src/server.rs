//! The listening side.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::client::authorities;
use crate::reload::{Reloading, read};
use crate::{CERTIFICATE_FILE, KEY_FILE, TlsError};

/// A connection that was accepted over TLS.
pub type TlsStream<S> = tokio_rustls::server::TlsStream<S>;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Accepts TLS with a certificate and key from files. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    identity: Arc<Identity>,
}

impl ServerTls {
    /// TLS with `tls.crt` and `tls.key` of `directory`, as Kubernetes mounts a Secret of the type
    /// `kubernetes.io/tls`. `protocols` are offered in this order ([`crate::HTTP2`],
    /// [`crate::HTTP1`]).
    ///
    /// # Errors
    /// When the files cannot be read now; later the last good ones stay.
    pub fn open(directory: impl AsRef<Path>, protocols: &[&[u8]]) -> Result<Self, TlsError> {
        let directory = directory.as_ref();
        let certificate = directory.join(CERTIFICATE_FILE);
        Self::from_files(certificate, directory.join(KEY_FILE), protocols)
    }

    /// The same, with the certificate chain and the key in files of any name.
    ///
    /// # Errors
    /// When the files cannot be read now; later the last good ones stay.
    pub fn from_files(
        certificate: PathBuf,
        key: PathBuf,
        protocols: &[&[u8]],
    ) -> Result<Self, TlsError> {
        let files = vec![certificate.clone(), key.clone()];
        let identity = Reloading::new(files, move || load(&certificate, &key))?;
        let identity = Arc::new(Identity(identity));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&identity) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            identity,
        })
    }

    /// Checks that clients which trust the authorities of the PEM bundle `ca` take the certificate, now, for
    /// that of a server called `name`.
    ///
    /// # Errors
    /// When they would not, as with a certificate that has expired, or the bundle cannot be read.
    pub fn check(&self, ca: &Path, name: &str) -> Result<(), TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authorities(&read(ca)?, ca)?);
        let unusable = |reason: String| TlsError::Content {
            path: ca.to_owned(),
            wanted: "CA certificate",
            reason,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        let certified = self.identity.0.get();
        let untrusted = |reason| TlsError::Untrusted {
            name: name.to_owned(),
            reason,
        };
        let (leaf, others) = certified
            .cert
            .split_first()
            .ok_or_else(|| untrusted("there is no certificate".to_owned()))?;
        let server = ServerName::try_from(name).map_err(|error| untrusted(error.to_string()))?;
        verifier
            .verify_server_cert(leaf, others, &server, &[], UnixTime::now())
            .map_err(|error| untrusted(error.to_string()))?;
        Ok(())
    }

    /// Greets a client. Run it in the connection's own task: a slow client has ten seconds.
    ///
    /// # Errors
    /// When the client is slow, goes away, or does not trust the certificate.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream))
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "TLS handshake timed out after 10 s",
                ))
            })
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// Gives each handshake the newest certificate.
#[derive(Debug)]
struct Identity(Reloading<CertifiedKey>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.get())
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let content = |path: &Path, wanted, reason: String| TlsError::Content {
        path: path.to_owned(),
        wanted,
        reason,
    };
    let no_certificate = |reason| content(certificate, "certificate", reason);
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| no_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_certificate("BEGIN CERTIFICATE not found".to_owned()));
    }
    let no_key = |reason| content(key, "private key", reason);
    let der =
        PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| no_key(error.to_string()))?;
    let signer = ring::default_provider()
        .key_provider
        .load_private_key(der)
        .map_err(|error| no_key(error.to_string()))?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        }),
        Err(error) => Err(no_certificate(error.to_string())),
    }
}
