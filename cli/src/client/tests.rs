use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

/// Answers one request on a free port with `answer`; gives the request's head.
fn serve_once(
    answer: &'static str,
    tls: Option<Arc<rustls::ServerConfig>>,
) -> (String, JoinHandle<std::io::Result<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        match tls {
            None => exchange(stream, answer),
            Some(config) => {
                let session = rustls::ServerConnection::new(config).unwrap();
                exchange(rustls::StreamOwned::new(session, stream), answer)
            }
        }
    });
    (format!("{scheme}://{address}/"), served)
}

fn exchange(mut stream: impl Read + Write, answer: &str) -> std::io::Result<String> {
    let mut head = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    stream.write_all(answer.as_bytes())?;
    stream.flush()?;
    Ok(head)
}

const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\n\
                            content-length: 0\r\nconnection: close\r\n\r\n";

fn service(url: String, token: Option<&str>) -> ServiceArgs {
    ServiceArgs {
        url,
        token: token.map(str::to_owned),
        ca_file: None,
    }
}

#[track_caller]
fn check_sent(token: Option<&str>, expect: Option<&str>) {
    let (url, served) = serve_once(FINE, None);
    assert_eq!(service(url, token).get("traces", &[]).unwrap(), b"{}");
    let head = served.join().unwrap().unwrap().to_lowercase();
    let sent = head
        .lines()
        .find_map(|line| line.strip_prefix("authorization: "));
    assert_eq!(sent, expect, "{head}");
}

#[test]
fn the_token_is_sent() {
    check_sent(Some("abc.def"), Some("bearer abc.def"));
    check_sent(Some(" abc\n"), Some("bearer abc"));
    check_sent(Some(""), None);
    check_sent(None, None);
}

#[track_caller]
fn check_refused(token: Option<&str>, expect: &str) {
    let (url, served) = serve_once(UNAUTHORIZED, None);
    let error = service(url, token).get("traces", &[]).unwrap_err();
    assert!(error.to_string().contains(expect), "{error:#}");
    served.join().unwrap().unwrap();
}

#[test]
fn a_refusal_says_what_to_do() {
    check_refused(None, "set SPANLOOM_TOKEN");
    check_refused(Some("old"), "rejected the token");
}

/// A server's settings, and the PEM of the authority that signed its certificate.
fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let leaf = CertificateDer::from_pem_slice(leaf.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf], key)
        .unwrap();
    (Arc::new(config), authority)
}

#[test]
fn https_trusts_the_authority_of_the_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (config, authority) = certificate();
    let (_, other) = certificate();
    for (pem, trusted) in [(authority, true), (other, false)] {
        let file = folder.path().join("ca.crt");
        std::fs::write(&file, pem).unwrap();
        let (url, served) = serve_once(FINE, Some(config.clone()));
        let service = ServiceArgs {
            ca_file: Some(file),
            ..service(url, Some("abc"))
        };
        let answer = service.get("traces", &[]);
        assert_eq!(answer.is_ok(), trusted, "{answer:?}");
        let head = served.join().unwrap();
        assert_eq!(head.is_ok(), trusted, "{head:?}");
    }
}

#[track_caller]
fn check_file(content: &str, expect: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, content).unwrap();
    let error = authorities(&file).unwrap_err();
    assert!(format!("{error:#}").contains(expect), "{error:#}");
}

#[test]
fn a_file_without_an_authority_is_named() {
    check_file("", "ca.crt contains no certificate");
    check_file("hello\n", "ca.crt contains no certificate");
    check_file(
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        "ca.crt is not a PEM file",
    );
    assert!(authorities(Path::new("/nowhere/ca.crt")).is_err());
}
