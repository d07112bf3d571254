//! Servers and clients whose files change under them, the way Kubernetes changes them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use http::Uri;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use spanloom_tls::{ClientTls, Connector, HTTP1, ServerTls, Stream, TlsError};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tower_service::Service as _;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Authority {
        issuer: Issuer::new(params, key),
        pem,
    }
}

impl Authority {
    /// Certificate and key for this machine.
    fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

/// Puts files where Kubernetes would: in a folder of their own, to which the link `..data` is then
/// swapped in one step.
fn mount(directory: &Path, files: &[(&str, &str)]) {
    let version = format!("..{}", rand_name());
    std::fs::create_dir(directory.join(&version)).unwrap();
    for (name, content) in files {
        std::fs::write(directory.join(&version).join(name), content).unwrap();
        let link = directory.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(format!("..data/{name}"), link).unwrap();
        }
    }
    let fresh = directory.join("..data_tmp");
    std::os::unix::fs::symlink(&version, &fresh).unwrap();
    std::fs::rename(fresh, directory.join("..data")).unwrap();
}

fn rand_name() -> String {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_nanos().to_string()
}

/// Accepts until the test ends; returns where.
async fn serve(tls: ServerTls) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(tls.accept(stream).await);
        }
    });
    port
}

async fn dial(client: &ClientTls, host: &str, port: u16) -> Result<Stream, String> {
    let mut connector = Connector::new(Some(client.clone()));
    let uri: Uri = format!("https://{host}:{port}/").parse().unwrap();
    std::future::poll_fn(|context| connector.poll_ready(context))
        .await
        .unwrap();
    connector.call(uri).await.map_err(|error| {
        let cause = error.source().map(ToString::to_string);
        format!("{error} {}", cause.unwrap_or_default())
    })
}

#[tokio::test]
async fn both_sides_follow_their_files() {
    let (server, client) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (old, new) = (authority(), authority());
    let (certificate, key) = old.leaf();
    mount(
        server.path(),
        &[("tls.crt", &certificate), ("tls.key", &key)],
    );
    mount(client.path(), &[("ca.crt", &old.pem)]);
    let tls = ServerTls::open(server.path(), &[HTTP1]).unwrap();
    let port = serve(tls).await;
    let trust = ClientTls::with_ca_file(client.path().join("ca.crt")).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        dial(&trust, host, port).await.unwrap();
    }

    // The overlap of a rotation: the client trusts both, then the server changes.
    mount(
        client.path(),
        &[("ca.crt", &format!("{}{}", old.pem, new.pem))],
    );
    let (certificate, key) = new.leaf();
    mount(
        server.path(),
        &[("tls.crt", &certificate), ("tls.key", &key)],
    );
    let only_new = TempDir::new().unwrap();
    mount(only_new.path(), &[("ca.crt", &new.pem)]);
    let strict = ClientTls::with_ca_file(only_new.path().join("ca.crt")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = dial(&strict, "localhost", port).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        // Whoever trusts both never notices, once it has looked.
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = dial(&trust, "localhost", port).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_stranger_is_not_trusted() {
    let server = TempDir::new().unwrap();
    let (ours, theirs) = (authority(), authority());
    let (certificate, key) = theirs.leaf();
    mount(
        server.path(),
        &[("tls.crt", &certificate), ("tls.key", &key)],
    );
    let bundle = server.path().join("ours.crt");
    std::fs::write(&bundle, &ours.pem).unwrap();
    let port = serve(ServerTls::open(server.path(), &[]).unwrap()).await;
    let trust = ClientTls::with_ca_file(&bundle).unwrap();
    let error = dial(&trust, "localhost", port).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // The right authority, but another host's certificate.
    std::fs::write(&bundle, &theirs.pem).unwrap();
    let trust = ClientTls::with_ca_file(&bundle).unwrap();
    dial(&trust, "localhost", port).await.unwrap();
    let error = dial(&trust, "ip6-localhost", port).await;
    assert!(error.is_err());
}

#[tokio::test]
async fn what_cannot_be_used_is_not_taken() {
    let directory = TempDir::new().unwrap();
    let authority = authority();
    let (certificate, key) = authority.leaf();
    let (other, other_key) = authority.leaf();
    mount(
        directory.path(),
        &[("tls.crt", &certificate), ("tls.key", &key)],
    );
    let bundle = directory.path().join("ca.crt");
    std::fs::write(&bundle, &authority.pem).unwrap();
    let trust = ClientTls::with_ca_file(&bundle).unwrap();
    let port = serve(ServerTls::open(directory.path(), &[]).unwrap()).await;
    // Long enough that each change below is looked at: the look is at the next handshake.
    let look = Duration::from_millis(1_100);
    for files in [
        [("tls.crt", other.as_str()), ("tls.key", key.as_str())],
        [("tls.crt", "garbage"), ("tls.key", other_key.as_str())],
        [("tls.crt", other.as_str()), ("tls.key", "")],
    ] {
        mount(directory.path(), &files);
        tokio::time::sleep(look).await;
        let stream = dial(&trust, "localhost", port).await.unwrap();
        assert_eq!(shown(&stream), der(&certificate), "{files:?}");
    }
    mount(
        directory.path(),
        &[("tls.crt", &other), ("tls.key", &other_key)],
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let stream = dial(&trust, "localhost", port).await.unwrap();
        if shown(&stream) == der(&other) {
            break;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The certificate that the server showed.
fn shown(stream: &Stream) -> Vec<u8> {
    let Stream::Tls(stream) = stream else {
        panic!("a plain connection");
    };
    let (_, session) = stream.inner().get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let directory = TempDir::new().unwrap();
    let check = |error: TlsError, parts: &[&str]| {
        let text = error.to_string();
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    };
    let open = || ServerTls::open(directory.path(), &[]).unwrap_err();
    check(open(), &["tls.crt", "No such file", "mount the Secret"]);
    let authority = authority();
    let ((certificate, _), (_, key)) = (authority.leaf(), authority.leaf());
    std::fs::write(directory.path().join("tls.crt"), certificate).unwrap();
    std::fs::write(directory.path().join("tls.key"), "nothing").unwrap();
    check(open(), &["tls.key", "private key", "PEM"]);
    std::fs::write(directory.path().join("tls.key"), key).unwrap();
    check(open(), &["does not belong", "replace both"]);
    std::fs::write(directory.path().join("ca.crt"), "nothing").unwrap();
    let bundle = directory.path().join("ca.crt");
    check(
        ClientTls::with_ca_file(&bundle).unwrap_err(),
        &["ca.crt", "CA certificate", "BEGIN CERTIFICATE not found"],
    );
}
