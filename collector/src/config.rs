//! What a collector is told: addresses and bounds by whoever runs it, the rest by the document.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use spanloom_crds::agent::{AgentConfig, ConfigHead, NotUnderstood};
use spanloom_crds::resolved::{self, Resolved, Server};
use spanloom_crds::{DocumentErrors, TracingPipeline};
use spanloom_pipeline::Config as PipelineConfig;
use spanloom_pipeline::config::{
    AccountsConfig, BatchLimits, Cors, Listener, Processing, RepeatLimits,
};
use spanloom_pipeline::durable::{DurableLog, LogOptions, OpenError};
use spanloom_program::memory;
use spanloom_store::access::{Access, AccessError, Credentials};
use spanloom_store::block::BlockPoolOptions;
use spanloom_store::schema::SchemaOptions;
use tokio::time::Instant;

use crate::sidecars::SidecarsConfig;

/// Where spans are written.
#[derive(Clone)]
pub struct StoreAddress {
    /// ClickHouse's HTTP interface, like `http://127.0.0.1:8123`; empty where the configuration of a
    /// collector in a cluster has it.
    pub url: String,
    /// The user; it inserts, and for migrations creates.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// A folder with the files `username` and `password`, read again when they change; where it is given,
    /// the two above do not count.
    pub credentials_dir: Option<PathBuf>,
    /// The database that holds Spanloom's tables.
    pub database: String,
    /// The ClickHouse cluster whose nodes hold the tables; none for a single node.
    pub cluster: Option<String>,
    /// For an `https` URL, the PEM bundle of the authorities to trust, read again when it changes;
    /// none: this machine's.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreAddress")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// Where the credentials of a ClickHouse of the user's own come from: never from the document.
const USER_VARIABLE: &str = "SPANLOOM_CLICKHOUSE_USER";
const PASSWORD_VARIABLE: &str = "SPANLOOM_CLICKHOUSE_PASSWORD";
const CREDENTIALS_DIR_VARIABLE: &str = "SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR";
const CA_FILE_VARIABLE: &str = "SPANLOOM_CLICKHOUSE_CA_FILE";

impl StoreAddress {
    /// The ClickHouse that the document names as `external`; none where it is ours to run. User and
    /// password come from the environment variables `SPANLOOM_CLICKHOUSE_USER` and
    /// `SPANLOOM_CLICKHOUSE_PASSWORD`, or from the folder that `SPANLOOM_CLICKHOUSE_CREDENTIALS_DIR` names.
    ///
    /// # Errors
    /// When the document is wrong.
    pub fn external(document: &TracingPipeline) -> Result<Option<Self>, DocumentErrors> {
        let storage = spanloom_crds::resolve(document)?.storage;
        let resolved::Server::External {
            url,
            database,
            cluster,
            ..
        } = storage.server
        else {
            return Ok(None);
        };
        let variable = |name: &str| std::env::var(name).ok();
        Ok(Some(Self {
            url,
            user: variable(USER_VARIABLE).unwrap_or_else(|| "default".to_owned()),
            password: variable(PASSWORD_VARIABLE).unwrap_or_default(),
            credentials_dir: variable(CREDENTIALS_DIR_VARIABLE).map(PathBuf::from),
            database,
            cluster,
            ca_file: variable(CA_FILE_VARIABLE).map(PathBuf::from),
        }))
    }

    /// The way there.
    ///
    /// # Errors
    /// When the credentials, or the authorities to trust, cannot be read.
    pub fn access(&self) -> Result<Access, AccessError> {
        let credentials = match &self.credentials_dir {
            Some(folder) => Credentials::in_folder(folder.clone())?,
            None => Credentials::fixed(self.user.clone(), self.password.clone()),
        };
        Access::new(&self.url, credentials, self.ca_file.clone())
    }
}

/// All of a collector's configuration.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// Where OTLP over gRPC is received; port 0 takes a free one.
    pub otlp_grpc: SocketAddr,
    /// Where OTLP over HTTP is received; port 0 takes a free one.
    pub otlp_http: SocketAddr,
    /// Browser origins that may send spans; `*` for any.
    pub cors_origins: Vec<String>,
    /// What may be held in memory; beyond it senders are told to retry.
    pub memory: memory::Collector,
    /// Where spans are written.
    pub store: StoreAddress,
    /// The pipeline's document.
    pub document: TracingPipeline,
    /// This collector in the accounts of where spans went: the name of its pod, or of the machine.
    pub agent: String,
    /// Where requests are kept until they are stored; senders are answered when they are in it. None: they are
    /// answered when they are stored.
    pub log: Option<LogConfig>,
    /// Where sidecars are received, in a cluster; none: nowhere.
    pub sidecars: Option<SidecarsConfig>,
}

/// The log on disk.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Its folder, which no other process uses; it is made when it is missing.
    pub folder: PathBuf,
    /// How large it may become; beyond that senders are told to retry.
    pub max_bytes: u64,
}

impl LogConfig {
    /// Opens the log, which may use so many bytes of memory.
    pub(crate) fn open(&self, memory: usize) -> Result<Arc<DurableLog>, OpenError> {
        let options = LogOptions {
            max_bytes: self.max_bytes,
            buffer_bytes: (memory as u64 / 8 * 3).min(LOG_BUFFER_BYTES),
            max_requests: (memory / 8 * 3 / LOG_REQUEST_BYTES).min(LOG_REQUESTS),
            max_keys: (memory / 4 / LOG_KEY_BYTES).min(LOG_KEYS),
            ..LogOptions::default()
        };
        DurableLog::open(&self.folder, options)
    }

    /// The same, once no other process has it: one that is still ending is waited for a while.
    pub(crate) async fn open_when_free(
        &self,
        memory: usize,
        patience: Duration,
    ) -> Result<Arc<DurableLog>, OpenError> {
        let begun = Instant::now();
        let mut is_told = false;
        loop {
            match self.open(memory) {
                Err(error @ OpenError::InUse { .. }) if begun.elapsed() < patience => {
                    if !is_told {
                        tracing::warn!(%error, "waiting for the log");
                        is_told = true;
                    }
                    tokio::time::sleep(LOCK_EVERY).await;
                }
                opened => return opened,
            }
        }
    }
}

/// How often a log that another process has is tried again.
const LOCK_EVERY: Duration = Duration::from_millis(200);

/// The part of the memory for requests that a log may use.
const LOG_SHARE: usize = 8;
/// What waits to be written, at most.
const LOG_BUFFER_BYTES: u64 = 8 << 20;
/// Requests that are not stored, at most, and the memory of each.
const LOG_REQUESTS: usize = 65_536;
const LOG_REQUEST_BYTES: usize = 130;
/// Keys of requests that are stored, at most, and the memory of each: enough for ten minutes with 437 requests a
/// second.
const LOG_KEYS: usize = 262_144;
const LOG_KEY_BYTES: usize = 50;

impl CollectorConfig {
    /// What block builders keep between batches.
    pub(crate) fn blocks(&self) -> BlockPoolOptions {
        BlockPoolOptions {
            kept_bytes: self.memory.columns,
            tag_cache_bytes: self.memory.tags,
        }
    }

    /// What the log may use of the memory.
    pub(crate) fn log_memory(&self) -> usize {
        match self.log {
            Some(_) => self.memory.requests / LOG_SHARE,
            None => 0,
        }
    }

    /// The pipeline's settings.
    pub(crate) fn pipeline(&self) -> Result<PipelineConfig, DocumentErrors> {
        let resolved = spanloom_crds::resolve(&self.document)?;
        Ok(PipelineConfig {
            // Each takes both transports: an SDK that is told only an address chooses one itself.
            listeners: [self.otlp_grpc, self.otlp_http].map(Listener::mixed).into(),
            memory_limit_bytes: self.memory.requests - self.log_memory(),
            // A body, what it unpacks to or is read as, and its columns have room together.
            max_request_bytes: (self.memory.requests / 5 * 2).min(MAX_REQUEST_BYTES),
            kept_buffer_bytes: self.memory.bodies,
            repeats: RepeatLimits::within(self.memory.repeats),
            accounts: AccountsConfig {
                node: self.agent.clone(),
                agent: self.agent.clone(),
                ..AccountsConfig::default()
            },
            cors: Cors {
                allowed_origins: self.cors_origins.clone(),
                ..Cors::default()
            },
            processing: processing(&resolved),
            batch: match self.log {
                Some(_) => BatchLimits::logged(),
                None => BatchLimits::default(),
            },
            ..PipelineConfig::default()
        })
    }
}

/// How large a request may be where there is memory enough.
const MAX_REQUEST_BYTES: usize = 64 << 20;

/// The name of this machine, which in a pod is the pod's.
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// The store's schema as the document wants it.
pub(crate) fn schema(
    store: &StoreAddress,
    document: &TracingPipeline,
) -> Result<SchemaOptions, DocumentErrors> {
    let storage = spanloom_crds::resolve(document)?.storage;
    Ok(schema_of(store, &storage))
}

/// The store's schema as an agent's configuration wants it.
pub(crate) fn agent_schema(store: &StoreAddress, config: &AgentConfig) -> SchemaOptions {
    let storage = &config.resolved.storage;
    let mut schema = schema_of(store, storage);
    if let Server::External { cluster, .. } = &storage.server {
        schema.cluster.clone_from(cluster);
    }
    schema
}

fn schema_of(store: &StoreAddress, storage: &resolved::StorageConfig) -> SchemaOptions {
    SchemaOptions {
        database: store.database.clone(),
        cluster: store.cluster.clone(),
        retention: storage.retention,
        ..SchemaOptions::default()
    }
}

/// Why an agent's configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is something else.
    #[error("it is not a valid configuration in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version of this program wrote it, and uses what this one does not know.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
}

/// Reads an agent's configuration, `config.json` of its ConfigMap, and checks that this program
/// understands all that it asks for.
///
/// # Errors
/// When it is something else, or asks for more.
pub fn read_agent_config(text: &str) -> Result<AgentConfig, Unreadable> {
    let head: ConfigHead = serde_json::from_str(text)?;
    head.check()?;
    Ok(serde_json::from_str(text)?)
}

/// What an agent's configuration does to spans.
pub(crate) fn agent_processing(config: &AgentConfig) -> Processing {
    let uid = &config.pipeline.uid;
    Processing {
        enabled: config.enabled,
        probe: (!uid.is_empty()).then(|| uid.clone()),
        ..processing(&config.resolved)
    }
}

fn processing(resolved: &Resolved) -> Processing {
    let config = &resolved.processing;
    Processing {
        resource: config.resource.clone(),
        rules: config.rules.clone(),
        head_ratio: resolved.sampling.ratio,
        retention: resolved.storage.retention,
        ..Processing::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use spanloom_crds::RedactRule;
    use spanloom_pipeline::process::Processor;
    use spanloom_rules::{KeyPattern, Limits, RuleSet, ValuePattern};

    use super::*;

    fn config(spec: &str) -> CollectorConfig {
        let document = spanloom_crds::parse_document(&format!(
            "apiVersion: spanloom.dev/v1alpha1\nkind: TracingPipeline\nmetadata: {{name: test}}\n\
             spec:\n{spec}"
        ))
        .unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        CollectorConfig {
            otlp_grpc: any,
            otlp_http: any,
            cors_origins: Vec::new(),
            memory: memory::Collector::of(1 << 20),
            store: StoreAddress {
                url: "http://127.0.0.1:1".to_owned(),
                user: "user".to_owned(),
                password: "a secret".to_owned(),
                credentials_dir: None,
                database: "spanloom".to_owned(),
                cluster: None,
                ca_file: None,
            },
            document,
            agent: "laptop".to_owned(),
            log: None,
            sidecars: None,
        }
    }

    #[test]
    fn probes_are_what_the_operator_sends() {
        use spanloom_crds::agent;
        use spanloom_pipeline::process;
        assert_eq!(process::PROBE_ATTRIBUTE, agent::PROBE_ATTRIBUTE);
        assert_eq!(process::PROBE_SERVICE, agent::PROBE_SERVICE);
        assert_eq!(spanloom_store::block::PROBE_SERVICE, agent::PROBE_SERVICE);
    }

    #[test]
    fn the_document_reaches_the_pipeline() {
        let config = config(
            "  processing:\n    resource: {team: shop}\n    \
             redact: [{keys: [\"*.password\"]}, {values: email}, {values: \"tok_[a-z]+\"}]\n    \
             drop: ['{ name = \"ping\" }']\n    limits: {eventsPerSpan: 3, attributeValueBytes: 1Ki}\n  \
             sampling: {head: {ratio: 0.25}}\n  storage: {retention: {hot: 36h}}\n",
        );
        let processing = config.pipeline().unwrap().processing;
        assert_eq!(
            processing.resource,
            [("team".to_owned(), "shop".to_owned())]
        );
        let limits = Limits {
            events: 3,
            value_bytes: 1024,
            ..Limits::default()
        };
        assert_eq!(
            processing.rules,
            RuleSet {
                drop: vec!["{ name = \"ping\" }".to_owned()],
                redact_keys: vec![KeyPattern::Wildcard("*.password".to_owned())],
                redact_values: vec![
                    ValuePattern::Class("email".to_owned()),
                    ValuePattern::Regex("tok_[a-z]+".to_owned()),
                ],
                limits,
            }
        );
        assert_eq!(processing.head_ratio, 0.25);
        assert_eq!(processing.retention.as_secs(), 36 * 3600);
        let schema = schema(&config.store, &config.document).unwrap();
        assert_eq!(schema.retention.as_secs(), 36 * 3600);
    }

    /// Text of pieces that mean something to YAML, to expressions or to filters.
    fn written() -> impl Strategy<Value = String> {
        const PIECES: &[&str] = &[
            "a",
            "*",
            "(?P<id>x)",
            "(?x)",
            "# c",
            "(?i)",
            "|",
            "[0-9]+",
            r"\w{9}",
            "email",
            "jwt",
            "(",
            ")",
            " ",
            r"\b",
            "{ .a = 1 }",
            "{ .a =~ \"(?x) b # c\" }",
            "{ nestedSetLeft = 1 }",
        ];
        prop::collection::vec(prop::sample::select(PIECES), 1..4).prop_map(|p| p.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_the_operator_accepts_a_collector_can_load(
            keys in prop::collection::vec(written(), 0..3),
            values in prop::collection::vec(written(), 0..4),
            drop in prop::collection::vec(written(), 0..2),
            limit in prop::option::of(0..70_000_u64),
        ) {
            let mut document = TracingPipeline::default();
            let processing = &mut document.spec.processing;
            processing.redact.extend(keys.into_iter().map(|key| RedactRule {
                keys: Some(vec![key]),
                values: None,
            }));
            processing.redact.extend(values.into_iter().map(|text| RedactRule {
                keys: None,
                values: Some(text),
            }));
            processing.drop = drop;
            processing.limits.events_per_span = limit;
            if let Ok(resolved) = spanloom_crds::resolve(&document) {
                // As the operator sends it.
                let config = AgentConfig { resolved, ..AgentConfig::default() };
                let sent = serde_json::to_string(&config).unwrap();
                let config: AgentConfig = serde_json::from_str(&sent).unwrap();
                let loaded = Processor::new(&agent_processing(&config));
                prop_assert!(loaded.is_ok(), "{}: {:?}", sent, loaded.err());
            }
        }
    }

    #[test]
    fn the_password_is_never_printed() {
        let printed = format!("{:?}", config("  sampling: {}\n"));
        assert!(!printed.contains("a secret"), "{printed}");
    }
}
