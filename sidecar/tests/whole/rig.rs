//! A cluster of one node: an API server of the tests' own, a real collector with the embedded ClickHouse, and the
//! sidecar's program.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::json;
use spanloom_collector::sidecars::SidecarsConfig;
use spanloom_collector::{Cluster, Collector, CollectorConfig, LogConfig, StoreAddress};
use spanloom_crds::TracingPipeline;
use spanloom_crds::agent::AgentConfig;
use spanloom_crds::sidecar::SidecarConfig;
use spanloom_engine::testing::TestEngine;
use spanloom_program::memory;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::api::Api;
use super::app;
use super::objects::{config, pod};
use super::tokens::Signer;

static ENGINE: OnceCell<TestEngine> = OnceCell::const_new();

/// Longer than anything takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

pub struct Rig {
    pub api: Api,
    pub signer: Signer,
    pub folder: TempDir,
    pub ca: String,
    pub config: CollectorConfig,
    pub collector: Option<(Collector, Registry)>,
    direct: clickhouse::Client,
}

impl Rig {
    /// A collector with a configuration of this spec in force, which knows the pod `web-1`.
    pub async fn new(spec: &str) -> Self {
        spanloom_program::logs::init("warn");
        let engine = ENGINE.get_or_init(TestEngine::start).await;
        let store = StoreAddress {
            url: engine.url(),
            user: engine.user().to_owned(),
            password: engine.password().to_owned(),
            credentials_dir: None,
            database: format!("sidecar_{:016x}", rand::random::<u64>()),
            cluster: None,
            ca_file: None,
        };
        let migrated = spanloom_collector::migrate_agent(&store, &config(1, "")).await;
        migrated.unwrap();
        let direct = clickhouse::Client::default()
            .with_url(&store.url)
            .with_user(&store.user)
            .with_password(&store.password)
            .with_database(&store.database);
        let (api, signer) = (Api::start().await, Signer::new());
        signer.publish(&api);
        api.put("pods", pod("web-1", "10.1.0.7", &["app"]));
        let folder = TempDir::new().unwrap();
        let ca = certificates(&folder);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let in_folder = |name: &str| folder.path().join(name);
        let config = CollectorConfig {
            otlp_grpc: any,
            otlp_http: any,
            cors_origins: Vec::new(),
            memory: memory::Collector::of(128 << 20),
            store,
            document: TracingPipeline::default(),
            agent: "collector-1".to_owned(),
            log: Some(LogConfig {
                folder: in_folder("log"),
                max_bytes: 256 << 20,
            }),
            sidecars: Some(SidecarsConfig {
                address: SocketAddr::from(([127, 0, 0, 1], free_port())),
                certificate_file: in_folder("tls.crt"),
                key_file: in_folder("tls.key"),
                ca_file: Some(in_folder("ca.crt")),
            }),
        };
        let mut rig = Self {
            api,
            signer,
            folder,
            ca,
            config,
            collector: None,
            direct,
        };
        rig.put_config(&super::objects::config(1, spec));
        rig.start_collector().await;
        rig
    }

    pub async fn start_collector(&mut self) {
        let cluster = Cluster {
            client: self.api.client(),
            namespace: "tracing".to_owned(),
            name: "prod-collector".to_owned(),
            node: "node-a".to_owned(),
        };
        let mut registry = Registry::default();
        let collector = Collector::start_in(cluster, self.config.clone(), &mut registry).await;
        let collector = collector.unwrap();
        let health = collector.health();
        until("the collector is ready", async || {
            health.not_ready().is_none()
        })
        .await;
        self.collector = Some((collector, registry));
    }

    pub async fn stop_collector(&mut self) {
        let (collector, _) = self.collector.take().unwrap();
        collector.shutdown(DEADLINE).await.unwrap();
    }

    /// Changes the configuration object.
    pub fn put_config(&self, config: &AgentConfig) {
        let text = serde_json::to_string(config).unwrap();
        self.api.put(
            "configmaps",
            json!({"metadata": {"name": "prod-collector", "namespace": "tracing"},
                "data": {"config.json": text}}),
        );
    }

    pub fn sidecars(&self) -> SocketAddr {
        self.config.sidecars.as_ref().unwrap().address
    }

    /// The value of a metric of the collector.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let (_, registry) = self.collector.as_ref()?;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        value(&text, name)
    }

    pub async fn number(&self, sql: &str) -> u64 {
        self.direct.query(sql).fetch_one().await.unwrap()
    }

    pub async fn text(&self, sql: &str) -> String {
        self.direct.query(sql).fetch_one().await.unwrap()
    }

    /// Waits until a query gives this number.
    pub async fn reaches(&self, sql: &str, expected: u64) {
        let begun = Instant::now();
        loop {
            let have = self.number(sql).await;
            if have == expected {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{sql}: {have}, not {expected}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A sidecar in the pod `web-1`, with the configuration of this spec inlined.
    pub async fn sidecar(&self, spec: &str) -> Sidecar {
        let ports = [free_port(), free_port()];
        let sidecar = self.sidecar_on(spec, ports);
        for port in ports {
            until("the sidecar listens", async || is_listening(port).await).await;
        }
        sidecar
    }

    pub fn sidecar_on(&self, spec: &str, ports: [u16; 2]) -> Sidecar {
        let token = self.folder.path().join("token");
        std::fs::write(&token, self.signer.token("web-1", &[])).unwrap();
        let state = self.folder.path().join(format!("state-{}", ports[0]));
        std::fs::create_dir_all(&state).unwrap();
        let inlined = SidecarConfig::of(&config(1, spec));
        let admin = free_port();
        let child = Command::new(env!("CARGO_BIN_EXE_spanloom-sidecar"))
            .env_clear()
            .env(
                "SPANLOOM_SIDECAR_CONFIG",
                serde_json::to_string(&inlined).unwrap(),
            )
            .env("SPANLOOM_SIDECAR_CA", &self.ca)
            .env(
                "SPANLOOM_COLLECTOR_URL",
                format!("https://localhost:{}", self.sidecars().port()),
            )
            .env("SPANLOOM_TOKEN_FILE", &token)
            .env("SPANLOOM_STATE_DIR", &state)
            .env("SPANLOOM_POD_NAME", "web-1")
            .env("SPANLOOM_POD_UID", "uid-of-web-1")
            .env("SPANLOOM_POD_NAMESPACE", "shop")
            .env("SPANLOOM_NODE_NAME", "node-a")
            .env("SPANLOOM_POD", json!({"containers": ["app"]}).to_string())
            .env(
                "SPANLOOM_SIDECAR_PORTS",
                format!("{},{}", ports[0], ports[1]),
            )
            .env("SPANLOOM_ADMIN", format!("127.0.0.1:{admin}"))
            .env("SPANLOOM_DRAIN_SECONDS", "60")
            .env("SPANLOOM_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Sidecar {
            child,
            ports,
            admin,
        }
    }
}

pub struct Sidecar {
    child: Child,
    pub ports: [u16; 2],
    admin: u16,
}

impl Sidecar {
    pub async fn metric(&self, name: &str) -> Option<f64> {
        value(&app::get(self.admin, "/metrics").await?, name)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Tells it to stop, and waits until it has.
    pub async fn terminate(&mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(sent.success());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "the sidecar does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(
            begun.elapsed() < DEADLINE,
            "not within {DEADLINE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn is_listening(port: u16) -> bool {
    tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_ok()
}

pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found?.parse().ok()
}

/// Writes `tls.crt`, `tls.key` and `ca.crt`; the authority, in PEM.
fn certificates(folder: &TempDir) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("tls.crt", leaf.pem());
    write("tls.key", leaf_key.serialize_pem());
    write("ca.crt", authority.pem());
    authority.pem()
}
