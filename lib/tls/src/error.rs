//! What can be wrong with certificates.

use std::path::PathBuf;

/// Whether a connection failed because the server's certificate is not trusted: that does not pass with time.
pub fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error's source is that of the error in it.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(|error| error.get_ref())
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let found = inner.or_else(|| error.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(_)) = found {
            return true;
        }
        next = error.source();
    }
    false
}

/// Why files with certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or cannot be read.
    #[error(
        "cannot read {}: {source}; mount the Secret or ConfigMap that holds it, or correct the path",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{} contains no usable {wanted}: {reason}; it must be in PEM format", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What was found.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error(
        "the key in {} does not belong to the certificate in {}; replace both together",
        key.display(),
        certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Clients would not take the certificate.
    #[error("the certificate is not valid for {name}: {reason}")]
    Untrusted {
        /// The server's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// No bundle of public certificate authorities was found on this machine.
    #[error(
        "no CA bundle was found on this machine (looked for {0}); set SSL_CERT_FILE, or a CA file \
         for this server"
    )]
    NoSystemBundle(String),
    /// The TLS library refuses its settings: a bug of ours.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}
