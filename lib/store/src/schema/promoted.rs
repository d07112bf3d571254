//! Attributes that have columns of their own in `spans`: the one list of them.
//!
//! The definition of the table and of the exporter's view, the blocks that the writer sends, search, the
//! reading of traces and the table in docs/query.md are made from it. To add one, append an entry to
//! [`PROMOTED`] and write the migration that it names (`migrations/`): it adds the column, on a cluster to the
//! local and to the `Distributed` table, and creates the view `otel_traces` anew. `cargo test -p
//! spanloom-store` shows what is still missing.

/// Whose attribute it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A span's. Its value is moved: it is not in the attribute maps any more.
    Span,
    /// A resource's. Its value is copied; `resource` keeps all.
    Resource,
}

/// What values have a place in the column. Any other value stays where it would be without the column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Texts that repeat, but for the empty one.
    Name,
    /// Texts that mostly differ, but for the empty one. Only for spans.
    Text,
    /// Integers from 1 to 65535. Only for spans.
    Code,
}

impl Kind {
    /// The column's type.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::Name => "LowCardinality(String)",
            Self::Text => "String",
            Self::Code => "UInt16",
        }
    }
}

/// An attribute and its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promoted {
    /// The attribute's key.
    pub key: &'static str,
    /// The column.
    pub column: &'static str,
    /// What is in the column.
    pub kind: Kind,
    /// Whose attribute it is.
    pub scope: Scope,
    /// The migration that made the column. Where it is not the first, spans stored before have their
    /// values elsewhere, and readers look there too.
    pub since: u32,
}

impl Promoted {
    /// Whether each value that belongs into the column is there, also of the oldest spans.
    pub const fn is_complete(&self) -> bool {
        self.since == 1
    }
}

const fn span(key: &'static str, column: &'static str, kind: Kind) -> Promoted {
    Promoted {
        key,
        column,
        kind,
        scope: Scope::Span,
        since: 1,
    }
}

const fn resource(key: &'static str, column: &'static str) -> Promoted {
    Promoted {
        scope: Scope::Resource,
        ..span(key, column, Kind::Name)
    }
}

/// All of them; the columns of each scope are in this order.
pub const PROMOTED: [Promoted; 16] = [
    span("http.request.method", "http_request_method", Kind::Name),
    span("http.route", "http_route", Kind::Name),
    span("url.path", "url_path", Kind::Text),
    span("rpc.service", "rpc_service", Kind::Name),
    span("rpc.method", "rpc_method", Kind::Name),
    span("db.system.name", "db_system_name", Kind::Name),
    span(
        "messaging.destination.name",
        "messaging_destination_name",
        Kind::Name,
    ),
    span("server.address", "server_address", Kind::Name),
    span("peer.service", "peer_service", Kind::Name),
    span("error.type", "error_type", Kind::Name),
    span(
        "http.response.status_code",
        "http_response_status_code",
        Kind::Code,
    ),
    resource("service.version", "service_version"),
    resource("deployment.environment.name", "deployment_environment_name"),
    resource("k8s.namespace.name", "k8s_namespace_name"),
    resource("k8s.pod.name", "k8s_pod_name"),
    resource("k8s.node.name", "k8s_node_name"),
];

/// Those of spans.
pub const PROMOTED_SPAN: [Promoted; count(Scope::Span, None)] = of(Scope::Span);

/// Those of resources.
pub const PROMOTED_RESOURCE: [Promoted; count(Scope::Resource, None)] = of(Scope::Resource);

/// `service.name` is a column as well, but the sort key's and so no entry of the list: each span has one.
pub const SERVICE: Promoted = resource("service.name", "service");

/// How many there are of a scope, and of a kind.
pub(crate) const fn count(scope: Scope, kind: Option<Kind>) -> usize {
    let (mut n, mut place) = (0, 0);
    while place < PROMOTED.len() {
        let promoted = PROMOTED[place];
        let of_kind = match kind {
            Some(kind) => promoted.kind as u8 == kind as u8,
            None => true,
        };
        if promoted.scope as u8 == scope as u8 && of_kind {
            n += 1;
        }
        place += 1;
    }
    n
}

const fn of<const N: usize>(scope: Scope) -> [Promoted; N] {
    let mut found = [SERVICE; N];
    let (mut n, mut place) = (0, 0);
    while place < PROMOTED.len() {
        if PROMOTED[place].scope as u8 == scope as u8 {
            found[n] = PROMOTED[place];
            n += 1;
        }
        place += 1;
    }
    found
}

// What a group of spans shares has only dictionaries.
const _: () = assert!(
    count(Scope::Resource, Some(Kind::Name)) == PROMOTED_RESOURCE.len(),
    "a resource's column is of the kind Name"
);

/// Each promoted column of a list with its number among those of its kind.
pub(crate) fn numbered(
    list: &'static [Promoted],
) -> impl Iterator<Item = (&'static Promoted, usize)> {
    list.iter().enumerate().map(|(place, promoted)| {
        let before = list.iter().take(place);
        let number = before.filter(|other| other.kind == promoted.kind).count();
        (promoted, number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_columns_are_there_once() {
        for (place, one) in PROMOTED.iter().enumerate() {
            assert!(one.since > 0, "{}", one.key);
            for other in PROMOTED.iter().skip(place + 1) {
                assert_ne!(one.column, other.column);
                assert!(
                    one.key != other.key || one.scope != other.scope,
                    "{}",
                    one.key
                );
            }
        }
    }

    #[test]
    fn each_has_a_number_of_its_kind() {
        let check = |key: &str, expect: usize| {
            let mut numbered = numbered(&PROMOTED_SPAN);
            let found = numbered.find(|(promoted, _)| promoted.key == key);
            assert_eq!(found.map(|(_, number)| number), Some(expect), "{key}");
        };
        check("http.request.method", 0);
        check("http.route", 1);
        check("url.path", 0);
        check("rpc.service", 2);
        check("error.type", 8);
        check("http.response.status_code", 0);
    }
}
