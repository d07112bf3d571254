//! What a collector is told: addresses and bounds by whoever runs it, the rest by the document.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use spanloom_crds::agent::AgentConfig;
use spanloom_crds::resolved::{self, Resolved, Server};
use spanloom_crds::{DocumentErrors, TracingPipeline};
use spanloom_pipeline::Config as PipelineConfig;
use spanloom_pipeline::config::{
    AccountsConfig, Cors, Limits, Listener, Processing, Redaction, RepeatLimits, ValueClass,
    ValuePattern,
};
use spanloom_program::memory;
use spanloom_store::block::BlockPoolOptions;
use spanloom_store::schema::SchemaOptions;
use spanloom_traceql::Filter;

/// Where spans are written.
#[derive(Clone)]
pub struct StoreAddress {
    /// ClickHouse's HTTP interface, like `http://127.0.0.1:8123`.
    pub url: String,
    /// The user; it inserts, and for migrations creates.
    pub user: String,
    /// The user's password.
    pub password: String,
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
const CA_FILE_VARIABLE: &str = "SPANLOOM_CLICKHOUSE_CA_FILE";

impl StoreAddress {
    /// The ClickHouse that the document names as `external`; none where it is ours to run. User and
    /// password come from the environment variables `SPANLOOM_CLICKHOUSE_USER` and
    /// `SPANLOOM_CLICKHOUSE_PASSWORD`.
    ///
    /// # Errors
    /// When the document is wrong.
    pub fn external(document: &TracingPipeline) -> Result<Option<Self>, ConfigError> {
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
            database,
            cluster,
            ca_file: variable(CA_FILE_VARIABLE).map(PathBuf::from),
        }))
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The document breaks a rule.
    #[error(transparent)]
    Document(#[from] DocumentErrors),
    /// A filter that the document's own check let through; a bug of ours.
    #[error("spec.processing.drop: {0}")]
    Filter(#[from] spanloom_traceql::Error),
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
}

impl CollectorConfig {
    /// What block builders keep between batches.
    pub(crate) fn blocks(&self) -> BlockPoolOptions {
        BlockPoolOptions {
            kept_bytes: self.memory.columns,
            tag_cache_bytes: self.memory.tags,
        }
    }

    /// The pipeline's settings.
    pub(crate) fn pipeline(&self) -> Result<PipelineConfig, ConfigError> {
        let resolved = spanloom_crds::resolve(&self.document)?;
        Ok(PipelineConfig {
            listeners: vec![
                Listener::grpc(self.otlp_grpc),
                Listener::http(self.otlp_http),
            ],
            memory_limit_bytes: self.memory.requests,
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
            processing: processing(&resolved)?,
            ..PipelineConfig::default()
        })
    }
}

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
) -> Result<SchemaOptions, ConfigError> {
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

/// What an agent's configuration does to spans.
pub(crate) fn agent_processing(config: &AgentConfig) -> Result<Processing, ConfigError> {
    let uid = &config.pipeline.uid;
    Ok(Processing {
        enabled: config.enabled,
        probe: (!uid.is_empty()).then(|| uid.clone()),
        ..processing(&config.resolved)?
    })
}

fn processing(resolved: &Resolved) -> Result<Processing, ConfigError> {
    let config = &resolved.processing;
    let mut drop = Vec::with_capacity(config.drop.len());
    for text in &config.drop {
        drop.push(Arc::new(Filter::parse(text)?));
    }
    let count = |limit: u32| limit as usize;
    Ok(Processing {
        resource: config.resource.clone(),
        drop,
        redact: redactions(config),
        limits: Limits {
            attributes: count(config.limits.attributes_per_span),
            events: count(config.limits.events_per_span),
            links: count(config.limits.links_per_span),
            value_bytes: count(config.limits.attribute_value_bytes),
        },
        head_ratio: resolved.sampling.ratio,
        retention: resolved.storage.retention,
        ..Processing::default()
    })
}

fn redactions(config: &resolved::ProcessingConfig) -> Vec<Redaction> {
    let mut redactions = Vec::new();
    if !config.redact_keys.is_empty() {
        let keys = config.redact_keys.iter().map(|key| key.text().to_owned());
        redactions.push(Redaction::Keys(keys.collect()));
    }
    redactions.extend(config.redact_values.iter().map(|pattern| {
        Redaction::Values(match pattern {
            resolved::ValuePattern::Regex(regex) => ValuePattern::Regex(regex.clone()),
            resolved::ValuePattern::Class(name) => match ValueClass::from_name(name) {
                Some(class) => ValuePattern::Class(class),
                // A class that the document knows and the pipeline does not: a test forbids it.
                None => ValuePattern::Regex(name.clone()),
            },
        })
    }));
    redactions
}

#[cfg(test)]
mod tests {
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
                database: "spanloom".to_owned(),
                cluster: None,
                ca_file: None,
            },
            document,
            agent: "laptop".to_owned(),
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
    fn every_class_of_text_that_a_document_may_name_is_known() {
        for name in spanloom_crds::VALUE_CLASSES {
            assert!(ValueClass::from_name(name).is_some(), "{name}");
        }
        assert_eq!(ValueClass::ALL.len(), spanloom_crds::VALUE_CLASSES.len());
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
        assert_eq!(processing.drop.len(), 1);
        assert_eq!(
            processing.redact,
            [
                Redaction::Keys(vec!["*.password".to_owned()]),
                Redaction::Values(ValuePattern::Class(ValueClass::Email)),
                Redaction::Values(ValuePattern::Regex("tok_[a-z]+".to_owned())),
            ]
        );
        let limits = Limits {
            events: 3,
            value_bytes: 1024,
            ..Limits::default()
        };
        assert_eq!(processing.limits, limits);
        assert_eq!(processing.head_ratio, 0.25);
        assert_eq!(processing.retention.as_secs(), 36 * 3600);
        let schema = schema(&config.store, &config.document).unwrap();
        assert_eq!(schema.retention.as_secs(), 36 * 3600);
    }

    #[test]
    fn the_password_is_never_printed() {
        let printed = format!("{:?}", config("  sampling: {}\n"));
        assert!(!printed.contains("a secret"), "{printed}");
    }
}
