//! Certificates with hot reload, for all that listens or dials; and the ports that are [listened](listen())
//! on.
//!
//! Kubernetes renews the files of a mounted Secret or ConfigMap in place (it swaps a symbolic link).
//! [`ServerTls`] and [`ClientTls`] look at their files when a connection begins, at most once a second,
//! and read them again when they have changed; there is no task to own and nothing to stop. What
//! cannot be used is logged and the last good state stays: a certificate and a key that do not belong
//! together, as when both are being replaced, are tried again a second later.
//!
//! The cryptography is ring's: it builds with a C compiler alone.

mod client;
mod connector;
mod error;
mod listen;
mod reload;
mod server;

pub use client::{ClientTls, system_bundle};
pub use connector::{Connector, Stream};
pub use error::{TlsError, is_untrusted};
pub use listen::listen;
pub use server::{ServerTls, TlsStream};

/// The certificate chain in a directory of [`ServerTls::open`], leaf first.
pub const CERTIFICATE_FILE: &str = "tls.crt";
/// The private key in a directory of [`ServerTls::open`].
pub const KEY_FILE: &str = "tls.key";

/// The protocol name of HTTP/1.1 in a TLS handshake.
pub const HTTP1: &[u8] = b"http/1.1";
/// The protocol name of HTTP/2 in a TLS handshake.
pub const HTTP2: &[u8] = b"h2";
