//! The API over TLS, and a certificate that is renewed under it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use spanloom_query::{
    Access, ClickHouseConfig, Health, Limits, Metrics, QueryConfig, Server, StartError,
};
use spanloom_tls::{ClientTls, Connector, HTTP1, ServerTls};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Service, ask, serve_to};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// Puts a certificate of a new authority into `server`, and the authority into the file `trust`.
pub fn renew(server: &Path, trust: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(trust, params.self_signed(&key).unwrap().pem()).unwrap();
    let authority = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    // A reader between the two sees a pair that does not match, and keeps the last one.
    std::fs::write(server.join("tls.crt"), leaf.pem()).unwrap();
    std::fs::write(server.join("tls.key"), key.serialize_pem()).unwrap();
}

async fn start(tls: &Path, tokens: Option<&Path>) -> Result<Server, StartError> {
    let config = QueryConfig {
        listen: ANY.into(),
        clickhouse: ClickHouseConfig {
            url: "http://127.0.0.1:1".to_owned(),
            user: "nobody".to_owned(),
            password: String::new(),
            credentials_dir: None,
            database: "spanloom".to_owned(),
            ca_file: None,
        },
        limits: Limits::default(),
        access: Access {
            tokens_dir: tokens.map(Path::to_owned),
            tls_dir: Some(tls.to_owned()),
            admin: Some(ANY.into()),
        },
    };
    let metrics = Metrics::register(&mut Registry::default());
    Server::start(config, metrics, Arc::default(), Health::new(|| None)).await
}

type HttpsClient = Client<Connector, Empty<bytes::Bytes>>;

fn client(trust: &Path, http2: bool) -> HttpsClient {
    let tls = ClientTls::with_ca_file(trust).unwrap();
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build(Connector::new(Some(tls)))
}

/// The status and the body, or none when there is no connection to be had.
async fn get(client: &HttpsClient, url: String, token: &str) -> Option<(u16, String)> {
    let request = http::Request::get(url)
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())
        .unwrap();
    let response = client.request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (folder.path().join("old.crt"), folder.path().join("new.crt"));
    renew(folder.path(), &old);
    let tokens = tempfile::tempdir().unwrap();
    std::fs::write(tokens.path().join("people"), "first").unwrap();
    let server = start(folder.path(), Some(tokens.path())).await.unwrap();
    let page = |address: SocketAddr| format!("https://{address}/ui/");
    let url = page(server.address());

    let kept = client(&old, false);
    for client in [&kept, &client(&old, true)] {
        let (status, body) = get(client, url.clone(), "first").await.unwrap();
        assert_eq!(status, 200);
        assert!(body.contains("<title>"), "{body}");
        assert_eq!(get(client, url.clone(), "other").await.unwrap().0, 401);
    }
    // Plain HTTP is not spoken there, and TLS not on the admin port.
    let plain = url.replace("https", "http");
    assert_eq!(get(&kept, plain, "first").await, None);
    let admin = server.admin_address().unwrap();
    assert_eq!(get(&kept, page(admin), "first").await, None);
    let health = format!("http://{admin}/healthz");
    assert_eq!(get(&kept, health, "").await, Some((200, "ok\n".to_owned())));

    renew(folder.path(), &new);
    let renewed = async {
        // A new client each time: connections that are open keep what they began with.
        while get(&client(&new, false), url.clone(), "first")
            .await
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), renewed)
        .await
        .expect("the new certificate is not used");
    assert_eq!(get(&client(&old, false), url, "first").await, None);
    server.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn without_a_certificate_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = start(folder.path(), None).await.unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("cannot serve TLS") && said.contains("tls.crt"),
        "{said}"
    );
}

/// Those who connect and say nothing hold nobody up. One after the other they would take five minutes.
#[tokio::test]
async fn silent_connections_hold_nothing_up() {
    let folder = tempfile::tempdir().unwrap();
    let trust = folder.path().join("ca.crt");
    renew(folder.path(), &trust);
    let server = start(folder.path(), None).await.unwrap();
    let address = server.address();
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let url = format!("https://{address}/healthz");
    let trusting = client(&trust, false);
    let answer = tokio::time::timeout(Duration::from_secs(120), get(&trusting, url, "")).await;
    assert_eq!(answer.unwrap(), Some((200, "ok\n".to_owned())));
    let ended = server.shutdown(Duration::from_secs(300));
    tokio::time::timeout(Duration::from_secs(120), ended)
        .await
        .unwrap();
    drop(silent);
}

/// TLS before the engine's plain port, with the certificate in `folder`.
async fn engine_over_tls(folder: &Path, engine: &str) -> SocketAddr {
    let engine = engine.strip_prefix("http://").unwrap().to_owned();
    let tls = ServerTls::open(folder, &[HTTP1]).unwrap();
    let listener = TcpListener::bind(SocketAddr::from(ANY)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, engine) = (tls.clone(), engine.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream).await else {
                    return;
                };
                let mut engine = TcpStream::connect(engine).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn clickhouse_is_trusted_by_the_authority_of_the_file_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (right, wrong) = (
        folder.path().join("right.crt"),
        folder.path().join("wrong.crt"),
    );
    renew(folder.path(), &wrong);
    renew(folder.path(), &right);
    let service = Service::start().await;
    let proxy = engine_over_tls(folder.path(), &service.clickhouse().url).await;
    let over = async |trust: &Path| {
        let clickhouse = ClickHouseConfig {
            url: format!("https://{proxy}"),
            ca_file: Some(trust.to_owned()),
            ..service.clickhouse()
        };
        let server = serve_to(clickhouse, Limits::default(), Access::default()).await;
        ask(server.address(), "GET", "/readyz").await
    };
    let answer = over(&right).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answer = over(&wrong).await;
    assert_eq!(answer.status, 503);
    assert!(answer.text.contains("certificate"), "{}", answer.text);
}
