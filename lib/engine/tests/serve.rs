//! `spanloom-engine serve`, as the image runs it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test stops on the first surprise

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use spanloom_tls::{ClientTls, Connector};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Longer than anything takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// An authority, and in `directory` a certificate of its for this machine.
fn certificates(directory: &Path) -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    std::fs::write(directory.join("tls.crt"), leaf.pem()).unwrap();
    std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    authority
}

struct Server {
    child: Child,
    port: u16,
}

/// The program, with what the operator sets; `None` when it ends instead of listening.
async fn start(root: &Path, password: &str) -> Result<Server, String> {
    let library = spanloom_engine::fetch::library(|line| eprintln!("{line}"))
        .await
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_spanloom-engine"))
        .arg("serve")
        .env("SPANLOOM_ENGINE_LISTEN", "127.0.0.1:0")
        .env("SPANLOOM_ENGINE_TLS_DIR", root)
        .env("SPANLOOM_ENGINE_DATA_DIR", root.join("data"))
        .env("SPANLOOM_CHDB_LIB", library)
        .env("CLICKHOUSE_USER", "spanloom")
        .env("CLICKHOUSE_PASSWORD", password)
        .env("CLICKHOUSE_DB", "traces")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let address = line.split("\"address\":\"127.0.0.1:").nth(1);
            if let Some(port) = address.and_then(|rest| rest.split('"').next()) {
                return Some(port.parse().unwrap());
            }
            said.push_str(&line);
        }
        None
    };
    let port = tokio::time::timeout(DEADLINE, listening).await.unwrap();
    // What else it says is read too: a full pipe would stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    port.map(|port| Server { child, port }).ok_or(said)
}

impl Server {
    fn client(&self, tls: &ClientTls, password: &str) -> clickhouse::Client {
        let http =
            legacy::Client::builder(TokioExecutor::new()).build(Connector::new(Some(tls.clone())));
        clickhouse::Client::with_http_client(http)
            .with_url(format!("https://localhost:{}", self.port))
            .with_user("spanloom")
            .with_password(password)
            .with_database("traces")
    }

    /// As Kubernetes stops it.
    async fn terminate(mut self) {
        let pid = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(kill.unwrap().success());
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        assert!(ended.unwrap().unwrap().success());
    }
}

#[tokio::test]
async fn data_outlives_it_and_certificates_change_under_it() {
    let root = TempDir::new().unwrap();
    let bundle = root.path().join("ca.crt");
    std::fs::write(&bundle, certificates(root.path())).unwrap();
    let tls = ClientTls::with_ca_file(&bundle).unwrap();
    let server = start(root.path(), "secret").await.unwrap();
    let client = server.client(&tls, "secret");
    let create = "CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n";
    client.query(create).execute().await.unwrap();
    let insert = "INSERT INTO t SELECT number FROM numbers(1000)";
    client.query(insert).execute().await.unwrap();
    let count = "SELECT count() FROM t";
    let refused = server.client(&tls, "wrong").query(count).fetch_one::<u64>();
    let refused = refused.await.unwrap_err().to_string();
    assert!(refused.contains("Authentication failed"), "{refused}");

    // Another authority's certificate: those who trust only the first one are not served by it.
    let second = root.path().join("second.crt");
    std::fs::write(&second, certificates(root.path())).unwrap();
    let newer = ClientTls::with_ca_file(&second).unwrap();
    let begun = Instant::now();
    while let Err(error) = server
        .client(&newer, "secret")
        .query(count)
        .fetch_one::<u64>()
        .await
    {
        assert!(begun.elapsed() < DEADLINE, "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.terminate().await;

    let server = start(root.path(), "secret").await.unwrap();
    let rows = server
        .client(&newer, "secret")
        .query(count)
        .fetch_one::<u64>();
    assert_eq!(rows.await.unwrap(), 1000);
    server.terminate().await;
}

#[tokio::test]
async fn it_does_not_start_without_a_password_or_a_certificate() {
    let root = TempDir::new().unwrap();
    let said = start(root.path(), "secret").await.err().unwrap();
    assert!(said.contains("tls.crt"), "{said}");
    certificates(root.path());
    let said = start(root.path(), "").await.err().unwrap();
    assert!(said.contains("CLICKHOUSE_PASSWORD"), "{said}");
}
