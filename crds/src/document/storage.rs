//! Where traces are stored, and for how long.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::scheduling::{
    Affinity, Scheduling, Toleration, TopologySpreadConstraint, with_scheduling,
};
use super::{NAME, Resources, SIZE};
use crate::quantity::Quantity;
use crate::schema::{in_order, rule};

/// The shortest retention: less would throw away what is still on its way.
pub(crate) const MIN_RETENTION_SECONDS: u64 = 3_600;
/// The longest: ten years.
pub(crate) const MAX_RETENTION_SECONDS: u64 = 3_650 * 86_400;

/// The seconds of a duration such as `1d12h`, in CEL. A part of more digits is longer than any limit, and
/// may not overflow.
const RETENTION_SECONDS: &str = "self.findAll('[0-9]+[smhdw]').map(part, \
     (size(part) > 11 ? 99999999999 : int(part.substring(0, size(part) - 1))) * \
     (part.endsWith('s') ? 1 : part.endsWith('m') ? 60 : part.endsWith('h') ? 3600 : \
     part.endsWith('d') ? 86400 : 604800)).sum()";

/// Where traces are stored, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = storage_rules()))]
pub struct Storage {
    /// A ClickHouse that Spanloom runs, on a laptop the embedded one; the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// A ClickHouse of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How long traces are kept.
    #[serde(default)]
    #[schemars(extend("x-default" = {}))]
    pub retention: Retention,
}

with_scheduling! {
    /// A ClickHouse that Spanloom runs.
    pub struct Managed {
        /// The size of its volume, such as `50Gi`; it can grow, not shrink. Without it a new volume has
        /// 50Gi, and one that exists keeps its size. Means nothing on a laptop.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = SIZE, "maxLength" = 24, "x-laptop" = ""))]
        #[schemars(extend("x-kubernetes-validations" = [rule(
            "quantity(string(self)).compareTo(quantity('1Gi')) >= 0",
            "must be at least 1Gi"
        )]))]
        pub size: Option<Quantity>,
        /// The StorageClass of its volume; the cluster's default one without it. It cannot be changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = NAME, "maxLength" = 253, "x-laptop" = ""))]
        pub storage_class_name: Option<String>,
        /// What its container requests, and its limits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-laptop" = ""))]
        pub resources: Option<Resources>,
    }
}

/// A ClickHouse of your own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.tls) || self.url.startsWith('https://')",
    "tls is not allowed with http"
)]))]
pub struct External {
    /// Its HTTP interface, such as `https://clickhouse.example:8443`.
    #[schemars(extend("pattern" = r"^https?://[^@?#\s]+$", "maxLength" = 1024))]
    pub url: String,
    /// The database for Spanloom's tables; `spanloom` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "spanloom", "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength" = 128))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "the database keeps its name: what is stored would stay behind; make a second pipeline"
    )]))]
    pub database: Option<String>,
    /// The Secret with the keys `username` and `password`; on a laptop the environment variables
    /// `SPANLOOM_CLICKHOUSE_USER` and `SPANLOOM_CLICKHOUSE_PASSWORD` stand for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-laptop" = "use the environment variables SPANLOOM_CLICKHOUSE_USER and SPANLOOM_CLICKHOUSE_PASSWORD"))]
    pub credentials_secret: Option<SecretName>,
    /// The ClickHouse cluster for replicated and distributed tables; without it there is one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^[-_.{}A-Za-z0-9]+$", "maxLength" = 128))]
    pub cluster: Option<String>,
    /// How its certificate is checked; only the certificate authorities of the Mozilla list are
    /// trusted without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
}

/// How a server's certificate is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct ExternalTls {
    /// The Secret with the certificate authorities (PEM) that are trusted; on a laptop the
    /// environment variable `SPANLOOM_CLICKHOUSE_CA_FILE` stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-laptop" = "use the environment variable SPANLOOM_CLICKHOUSE_CA_FILE"))]
    pub ca_secret: Option<SecretKey>,
}

/// A key of a Secret in the pipeline's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct SecretKey {
    /// The Secret's name.
    #[schemars(extend("pattern" = NAME, "minLength" = 1, "maxLength" = 253))]
    pub name: String,
    /// The key in it; `ca.crt` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "ca.crt", "pattern" = "^[-._a-zA-Z0-9]+$", "maxLength" = 253))]
    pub key: Option<String>,
}

/// A Secret in the pipeline's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct SecretName {
    /// Its name.
    #[schemars(extend("pattern" = NAME, "minLength" = 1, "maxLength" = 253))]
    pub name: String,
}

/// How long traces are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-later" = ["cold"]))]
pub struct Retention {
    /// How long traces are kept, such as `7d` (the default), `36h` or `1d12h`; at least `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "7d", "pattern" = "^([0-9]+[smhdw])+$", "maxLength" = 32))]
    #[schemars(extend("x-kubernetes-validations" = [
        rule(&format!("{RETENTION_SECONDS} >= {MIN_RETENTION_SECONDS}"), "must be at least 1h"),
        rule(&format!("{RETENTION_SECONDS} <= {MAX_RETENTION_SECONDS}"), "must be at most 3650d"),
    ]))]
    pub hot: Option<String>,
}

/// What may change of the storage, and what not.
fn storage_rules() -> Value {
    let both = "!has(self.managed) || !has(oldSelf.managed)";
    let class = |of: &str| {
        format!("(has({of}.managed.storageClassName) ? {of}.managed.storageClassName : '')")
    };
    json!([
        rule(
            "!has(self.managed) || !has(self.external)",
            "keep one of managed and external"
        ),
        rule(
            "has(self.external) == has(oldSelf.external)",
            "managed cannot become external or the other way round: what is stored would stay behind; make a second pipeline",
        ),
        rule(
            &format!(
                "{both} || !has(self.managed.size) || !has(oldSelf.managed.size) || \
                 quantity(string(self.managed.size)).compareTo(quantity(string(oldSelf.managed.size))) >= 0"
            ),
            "managed.size can grow, not shrink",
        ),
        rule(
            &format!("{both} || {} == {}", class("self"), class("oldSelf")),
            "managed.storageClassName cannot be changed",
        ),
    ])
}
