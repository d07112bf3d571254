//! What the release tells the operator: environment variables, each with a flag of the same meaning.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use spanloom_plan::Release;
use spanloom_plan::release::NetworkPolicies;

/// What the release tells both modes of the program.
#[derive(Debug, Clone, Args)]
pub struct ReleaseSettings {
    /// The release's namespace, where its Lease and its CA are kept.
    #[arg(long, env = "SPANLOOM_OPERATOR_NAMESPACE")]
    pub namespace: String,
    /// The release's name, a prefix of the names of its objects.
    #[arg(long, env = "SPANLOOM_OPERATOR_RELEASE", default_value = "spanloom")]
    pub release: String,
    /// Additional namespaces in which pipelines are allowed, comma-separated.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_PIPELINE_NAMESPACES",
        value_delimiter = ','
    )]
    pub pipeline_namespaces: Vec<String>,
    /// The address to serve /metrics, /healthz and /readyz on.
    #[arg(long, env = "SPANLOOM_OPERATOR_ADMIN", default_value = "[::]:9464")]
    pub admin: SocketAddr,
}

/// What the release tells the operator.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// The release itself.
    #[command(flatten)]
    pub of: ReleaseSettings,
    /// This pod's name, the holder identity of the Lease.
    #[arg(long, env = "SPANLOOM_OPERATOR_POD_NAME", default_value = "")]
    pub pod_name: String,
    /// The registry and path before `spanloom-<program>`.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_IMAGE_REGISTRY",
        default_value = "ghcr.io/spanloom"
    )]
    pub image_registry: String,
    /// The tag of the programs' images.
    #[arg(long, env = "SPANLOOM_OPERATOR_IMAGE_TAG", default_value = env!("CARGO_PKG_VERSION"))]
    pub image_tag: String,
    /// Digests of the images as `program=sha256:…`, comma-separated; they take precedence over the
    /// tag.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_IMAGE_DIGESTS",
        value_delimiter = ',',
        value_parser = digest
    )]
    pub image_digests: Vec<(String, String)>,
    /// The architectures that the images are built for, comma-separated, as in the node label
    /// `kubernetes.io/arch`; pods are only scheduled to nodes with one of these. Empty: all nodes.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_IMAGE_ARCHITECTURES",
        value_delimiter = ',',
        default_value = "amd64,arm64"
    )]
    pub image_architectures: Vec<String>,
    /// When images are pulled: `IfNotPresent`, `Always` or `Never`.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_IMAGE_PULL_POLICY",
        default_value = "IfNotPresent"
    )]
    pub image_pull_policy: String,
    /// Image pull secrets, comma-separated; they must exist in each pipeline's namespace.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_IMAGE_PULL_SECRETS",
        value_delimiter = ','
    )]
    pub image_pull_secrets: Vec<String>,
    /// The whole reference of the managed ClickHouse's image.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_CLICKHOUSE_IMAGE",
        default_value = "docker.io/clickhouse/clickhouse-server:26.7"
    )]
    pub clickhouse_image: String,
    /// What NetworkPolicies allow, as JSON with `queryFrom`, `metricsFrom` and `apiServerPorts`;
    /// without it, no NetworkPolicies are created.
    #[arg(long, env = "SPANLOOM_OPERATOR_NETWORK_POLICIES", value_parser = network_policies)]
    pub network_policies: Option<NetworkPolicies>,
    /// Whether the release has the webhook that injects pods.
    #[arg(long, env = "SPANLOOM_OPERATOR_WEBHOOK", default_value_t = false, action = clap::ArgAction::Set)]
    pub webhook: bool,
    /// Whether to apply this version's CustomResourceDefinition at startup.
    #[arg(long, env = "SPANLOOM_OPERATOR_APPLY_CRDS", default_value_t = true, action = clap::ArgAction::Set)]
    pub apply_crds: bool,
    /// The duration of the Lease, in seconds.
    #[arg(long, env = "SPANLOOM_OPERATOR_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=600))]
    pub lease_seconds: u16,
    /// How long a rollout of collectors may make no progress before it is rolled back, in seconds.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_ROLLOUT_DEADLINE_SECONDS",
        default_value_t = 300
    )]
    pub rollout_deadline_seconds: u32,
    /// How long a migration of the schema may take, in seconds.
    #[arg(
        long,
        env = "SPANLOOM_OPERATOR_MIGRATION_DEADLINE_SECONDS",
        default_value_t = 3_600
    )]
    pub migration_deadline_seconds: u32,
    /// How many pipelines are reconciled at the same time.
    #[arg(long, env = "SPANLOOM_OPERATOR_CONCURRENCY", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub concurrency: u16,
}

impl ReleaseSettings {
    /// The namespaces whose pipelines are served, the release's first, each once.
    pub fn namespaces(&self) -> Vec<String> {
        let mut namespaces = vec![self.namespace.clone()];
        for namespace in &self.pipeline_namespaces {
            let namespace = namespace.trim();
            if !namespace.is_empty() && !namespaces.iter().any(|known| known == namespace) {
                namespaces.push(namespace.to_owned());
            }
        }
        namespaces
    }
}

impl Settings {
    /// What of it decides what is placed.
    pub fn release(&self) -> Release {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        Release {
            namespace: self.of.namespace.clone(),
            name: self.of.release.clone(),
            namespaces: self.of.namespaces(),
            image_registry: self.image_registry.clone(),
            image_tag: self.image_tag.clone(),
            image_digests: self.image_digests.iter().cloned().collect(),
            image_architectures: self
                .image_architectures
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            image_pull_policy: self.image_pull_policy.clone(),
            image_pull_secrets: self.image_pull_secrets.clone(),
            clickhouse_image: self.clickhouse_image.clone(),
            webhook: self.webhook,
            network_policies: self.network_policies.clone(),
            rollout_deadline: seconds(self.rollout_deadline_seconds),
            migration_deadline: seconds(self.migration_deadline_seconds),
        }
    }
}

/// A program and the digest of its image.
fn digest(text: &str) -> Result<(String, String), String> {
    let (program, digest) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not a valid digest: expected program=sha256:…"))?;
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!(
            "{digest:?} is not a valid digest: expected sha256: and 64 hexadecimal digits"
        ));
    }
    Ok((program.to_owned(), digest.to_owned()))
}

fn network_policies(text: &str) -> Result<NetworkPolicies, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
