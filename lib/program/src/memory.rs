//! What each program may hold in memory: the container's limit in, every share out.
//!
//! A container that passes its limit is killed, with all that it holds. The shares leave room for what
//! is not counted: the program itself, sockets' buffers in the kernel (they belong to the container, too),
//! and what an allocator keeps for its next use. `cargo xtask bench overload` shows whether that is enough.
//!
//! The tables of `docs/operate.md` are made from this file; a test compares them.

use std::path::Path;

const MIB: u64 = 1 << 20;

/// The limit that a program assumes outside a container.
pub const COLLECTOR_DEFAULT: u64 = 512 * MIB;
/// The same for the query service.
pub const QUERY_DEFAULT: u64 = 2048 * MIB;
/// The same for the embedded ClickHouse: enough for ten million spans and their merges.
pub const ENGINE_DEFAULT: u64 = 4096 * MIB;

/// A part of the container's limit.
#[derive(Debug, Clone, Copy)]
struct Share {
    /// For the tables of the docs, which a test makes.
    #[cfg_attr(not(test), expect(dead_code))]
    what: &'static str,
    /// How many 64ths of the limit.
    parts: u64,
    /// What is enough however much there is.
    at_most: u64,
}

/// Shares are counted in this part of a limit.
const PART: u64 = 64;

impl Share {
    const fn new(what: &'static str, parts: u64) -> Self {
        Self {
            what,
            parts,
            at_most: u64::MAX,
        }
    }

    const fn at_most(self, bytes: u64) -> Self {
        Self {
            at_most: bytes,
            ..self
        }
    }

    fn bytes(&self, limit: u64) -> u64 {
        (limit / PART).saturating_mul(self.parts).min(self.at_most)
    }
}

/// In the order of [`Collector`]'s fields.
const COLLECTOR: [Share; 5] = [
    Share::new("requests, from their first byte until they are stored", 20),
    Share::new("buffers of request bodies, kept for reuse", 3).at_most(64 * MIB),
    Share::new("columns of batches, kept for reuse", 3).at_most(64 * MIB),
    Share::new("cache of the tag catalogue", 1).at_most(8 * MIB),
    Share::new("requests remembered to recognise repeats", 4).at_most(40 * MIB),
];

/// In the order of [`Query`]'s fields.
const QUERY: [Share; 4] = [
    Share::new("one trace in a response", 8).at_most(128 * MIB),
    Share::new("all traces being returned", 16).at_most(512 * MIB),
    Share::new("results of all other running queries", 8).at_most(256 * MIB),
    // ClickHouse bounds all of its queries together; this is for one, which must not be all of them.
    Share::new(
        "one query in ClickHouse, in ClickHouse's own memory",
        4 * PART,
    )
    .at_most(2048 * MIB),
];

/// In the order of [`Engine`]'s fields.
const ENGINE: [Share; 1] = [Share::new("queries, inserts and merges", 48)];

/// What a collector may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collector {
    /// Requests, from their first byte until they are stored.
    pub requests: usize,
    /// Empty buffers of bodies.
    pub bodies: usize,
    /// Empty columns of batches.
    pub columns: usize,
    /// The cache of the tag catalogue.
    pub tags: usize,
    /// Requests remembered for repeats.
    pub repeats: usize,
}

impl Collector {
    /// The shares of a container's limit.
    pub fn of(limit: u64) -> Self {
        let [requests, bodies, columns, tags, repeats] = shares(&COLLECTOR, limit);
        Self {
            requests,
            bodies,
            columns,
            tags,
            repeats,
        }
    }
}

/// What a query service may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query {
    /// One trace in an answer; what is beyond is cut.
    pub trace: usize,
    /// All traces being answered; beyond it clients are told to retry.
    pub traces: usize,
    /// The results of all other queries that run.
    pub results: usize,
    /// One query in ClickHouse: not held here, but asked for by this process.
    pub clickhouse: usize,
}

impl Query {
    /// The shares of a container's limit.
    pub fn of(limit: u64) -> Self {
        let [trace, traces, results, clickhouse] = shares(&QUERY, limit);
        Self {
            trace,
            traces,
            results,
            clickhouse,
        }
    }
}

/// What the embedded ClickHouse may hold, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// What ClickHouse counts itself (`max_server_memory_usage`).
    pub server: u64,
}

impl Engine {
    /// The shares of a container's limit.
    pub fn of(limit: u64) -> Self {
        let [server] = shares(&ENGINE, limit);
        Self {
            server: server as u64,
        }
    }
}

fn shares<const N: usize>(shares: &[Share; N], limit: u64) -> [usize; N] {
    shares.map(|share| usize::try_from(share.bytes(limit)).unwrap_or(usize::MAX))
}

/// The limit of this process's container; none where there is none.
pub fn container_limit() -> Option<u64> {
    // Version 2 of control groups, then version 1, whose "none" is a number of nearly 2^63.
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .find_map(|path| limit_in(Path::new(path)))
}

fn limit_in(path: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let limit: u64 = text.trim().parse().ok()?;
    (limit < 1 << 60).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: [u64; 3] = [256 * MIB, 512 * MIB, 2048 * MIB];

    /// A table of the docs.
    fn table(shares: &[Share]) -> String {
        let mebibytes = |bytes: u64| format!("{} MiB", bytes / MIB);
        let mut lines = vec![
            format!(
                "| what | share | of {} |",
                LIMITS.map(mebibytes).join(" | of ")
            ),
            "|---|---|---|---|---|".to_owned(),
        ];
        for share in shares {
            let most = match share.at_most {
                u64::MAX => String::new(),
                bytes => format!(", at most {}", mebibytes(bytes)),
            };
            lines.push(format!(
                "| {} | {}/{PART}{most} | {} |",
                share.what,
                share.parts,
                LIMITS
                    .map(|limit| mebibytes(share.bytes(limit)))
                    .join(" | ")
            ));
        }
        lines.join("\n")
    }

    #[test]
    fn the_docs_have_these_tables() {
        let docs = include_str!("../../../docs/operate.md");
        for shares in [&COLLECTOR[..], &QUERY, &ENGINE] {
            let table = table(shares);
            assert!(docs.contains(&table), "docs/operate.md lacks:\n{table}");
        }
    }

    #[test]
    fn a_fifth_is_left_for_what_is_not_counted() {
        for shares in [&COLLECTOR[..], &ENGINE] {
            let parts: u64 = shares.iter().map(|share| share.parts).sum();
            assert!(parts * 5 <= PART * 4, "{parts} of {PART}");
        }
        // A trace being answered is there as rows and as text.
        let query = Query::of(512 * MIB);
        assert!(query.traces * 3 + query.results <= 512 << 20, "{query:?}");
    }

    #[test]
    fn limits_of_control_groups() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("memory.max");
        let check = |text: &str, expect| {
            std::fs::write(&path, text).unwrap();
            assert_eq!(limit_in(&path), expect, "{text:?}");
        };
        check("536870912\n", Some(512 * MIB));
        check("max\n", None);
        check("9223372036854771712\n", None);
        check("", None);
        assert_eq!(limit_in(&folder.path().join("none")), None);
    }
}
