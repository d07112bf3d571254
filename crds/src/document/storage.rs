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
    /// A ClickHouse that Spanloom runs; with `spanloom up`, the embedded one. This is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<Managed>,
    /// Your own ClickHouse.
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
        /// The size of the volume, such as `50Gi`; it can be increased, not decreased. Without it,
        /// a new volume gets 50Gi, and an existing one keeps its size. Has no effect with `spanloom
        /// up`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = SIZE, "maxLength" = 24, "x-laptop" = ""))]
        #[schemars(extend("x-kubernetes-validations" = [rule(
            "quantity(string(self)).compareTo(quantity('1Gi')) >= 0",
            "must be at least 1Gi"
        )]))]
        pub size: Option<Quantity>,
        /// The StorageClass of the volume; defaults to that of the cluster. Immutable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("pattern" = NAME, "maxLength" = 253, "x-laptop" = ""))]
        pub storage_class_name: Option<String>,
        /// Resource requests and limits of the container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(extend("x-laptop" = ""))]
        pub resources: Option<Resources>,
    }
}

/// Your own ClickHouse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
#[schemars(extend("x-kubernetes-validations" = [rule(
    "!has(self.tls) || self.url.startsWith('https://')",
    "tls is not allowed with http"
)]))]
pub struct External {
    /// The URL of the HTTP interface, such as `https://clickhouse.example:8443`.
    #[schemars(extend("pattern" = r"^https?://[^@?#\s]+$", "maxLength" = 1024))]
    pub url: String,
    /// The database for Spanloom's tables. Defaults to `spanloom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-default" = "spanloom", "pattern" = "^[A-Za-z_][A-Za-z0-9_]*$", "maxLength" = 128))]
    #[schemars(extend("x-kubernetes-validations" = [rule(
        "self == oldSelf",
        "database is immutable, since stored traces would be left behind; create a second pipeline \
         instead"
    )]))]
    pub database: Option<String>,
    /// The Secret with the keys `username` and `password`; changes are loaded without a restart. With
    /// `spanloom up`, use the environment variables `SPANLOOM_CLICKHOUSE_USER` and
    /// `SPANLOOM_CLICKHOUSE_PASSWORD` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-laptop" = "use the environment variables SPANLOOM_CLICKHOUSE_USER and SPANLOOM_CLICKHOUSE_PASSWORD"))]
    pub credentials_secret: Option<SecretName>,
    /// The ClickHouse cluster for replicated and distributed tables; without it, a single node is
    /// assumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("pattern" = r"^[-_.{}A-Za-z0-9]+$", "maxLength" = 128))]
    pub cluster: Option<String>,
    /// How the server certificate is verified; without it, the CA certificates of the Mozilla list
    /// are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExternalTls>,
}

/// How a server certificate is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = in_order::<Self>)]
pub struct ExternalTls {
    /// The Secret with the CA certificates (PEM) to trust. With `spanloom up`, use the environment
    /// variable `SPANLOOM_CLICKHOUSE_CA_FILE` instead.
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
    /// The key in the Secret. Defaults to `ca.crt`.
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
    /// How long traces are kept, such as `7d` (the default), `36h` or `1d12h`; at least `1h` and at
    /// most `3650d`.
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
            "managed and external are mutually exclusive"
        ),
        rule(
            "has(self.external) == has(oldSelf.external)",
            "managed and external cannot be exchanged, since stored traces would be left behind; \
             create a second pipeline instead",
        ),
        rule(
            &format!(
                "{both} || !has(self.managed.size) || !has(oldSelf.managed.size) || \
                 quantity(string(self.managed.size)).compareTo(quantity(string(oldSelf.managed.size))) >= 0"
            ),
            "managed.size can be increased, not decreased",
        ),
        rule(
            &format!("{both} || {} == {}", class("self"), class("oldSelf")),
            "managed.storageClassName is immutable",
        ),
    ])
}
