//! The users of the managed store, each with no more rights than its statements need: one that changes the
//! schema, one that writes, one that reads.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// A user of the managed store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    /// Changes the schema, and defines its views: of a volume of an earlier version, too.
    Migrate,
    /// Writes.
    Collector,
    /// Reads.
    Query,
}

/// The database of the managed store.
pub(super) const DATABASE: &str = "spanloom";

/// How long a query may take, in seconds, and how much memory, whatever it asks for: as much as the query
/// service ever does.
const MAX_QUERY_SECONDS: u32 = 60;
const MAX_QUERY_BYTES: u64 = 2 << 30;

impl User {
    const ALL: [Self; 3] = [Self::Migrate, Self::Collector, Self::Query];

    fn name(self) -> &'static str {
        match self {
            Self::Migrate => "spanloom",
            Self::Collector => "spanloom_collector",
            Self::Query => "spanloom_query",
        }
    }

    /// The keys of its name and password in the store's Secret.
    pub(super) fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Migrate => ("username", "password"),
            Self::Collector => ("collector-username", "collector-password"),
            Self::Query => ("query-username", "query-password"),
        }
    }

    /// The password, made from the one that is kept. It cannot be computed back.
    fn password(self, kept: &str) -> String {
        match self {
            Self::Migrate => kept.to_owned(),
            _ => sha256(&format!("{}:{kept}", self.name())),
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Migrate | Self::Collector => "default",
            Self::Query => "spanloom_query",
        }
    }

    fn grants(self) -> &'static [&'static str] {
        match self {
            // An existing volume has logs of the server that are not kept any more.
            Self::Migrate => &[
                "GRANT SELECT, INSERT, CREATE, ALTER, DROP ON spanloom.*",
                "GRANT TABLE ENGINE ON *",
                "GRANT SELECT ON system.tables",
                "GRANT SELECT ON system.columns",
                "GRANT DROP TABLE ON system.*",
            ],
            Self::Collector => &[
                "GRANT INSERT ON spanloom.spans",
                "GRANT INSERT ON spanloom.trace_index",
                "GRANT INSERT ON spanloom.tags",
                "GRANT INSERT ON spanloom.red",
                "GRANT INSERT ON spanloom.red_hours",
                "GRANT INSERT ON spanloom.half_edges",
                "GRANT INSERT ON spanloom.accounts",
                // A batch that was sent long ago is looked for before it is sent again.
                "GRANT SELECT(trace_id, span_id, time) ON spanloom.spans",
                "GRANT SELECT ON system.disks",
            ],
            Self::Query => &["GRANT SELECT ON spanloom.*"],
        }
    }
}

/// What the store's Secret says of its users.
pub(super) fn secret(kept: &str) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    for user in User::ALL {
        let (name, password) = user.keys();
        pairs.push((name, user.name().to_owned()));
        pairs.push((password, user.password(kept)));
    }
    pairs.push((USERS_KEY, users_xml(kept)));
    pairs
}

/// The key of the server's file of users in the Secret.
pub(super) const USERS_KEY: &str = "users.xml";

/// The server's file of users; it has hashes of the passwords.
fn users_xml(kept: &str) -> String {
    let mut users = String::new();
    for user in User::ALL {
        let (name, profile) = (user.name(), user.profile());
        let hash = sha256(&user.password(kept));
        let mut grants = String::new();
        for grant in user.grants() {
            let _ = writeln!(grants, "        <query>{grant}</query>");
        }
        let _ = write!(
            users,
            "    <{name}>
      <password_sha256_hex>{hash}</password_sha256_hex>
      <networks><ip>::/0</ip></networks>
      <profile>{profile}</profile>
      <quota>default</quota>
      <grants>
{grants}      </grants>
    </{name}>
"
        );
    }
    format!(
        "<clickhouse>
  <profiles>
    <spanloom_query>
      <readonly>2</readonly>
      <max_execution_time>{MAX_QUERY_SECONDS}</max_execution_time>
      <max_memory_usage>{MAX_QUERY_BYTES}</max_memory_usage>
      <constraints>
        <max_execution_time><min>1</min><max>{MAX_QUERY_SECONDS}</max></max_execution_time>
        <max_memory_usage><min>1</min><max>{MAX_QUERY_BYTES}</max></max_memory_usage>
      </constraints>
    </spanloom_query>
  </profiles>
  <users>
    <default remove=\"1\"/>
{users}  </users>
</clickhouse>
"
    )
}

fn sha256(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
