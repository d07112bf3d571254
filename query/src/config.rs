//! What the query service is told at its start.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use spanloom_program::memory;

/// Where ClickHouse is.
#[derive(Clone)]
pub struct ClickHouseConfig {
    /// The HTTP interface, like `http://127.0.0.1:8123`.
    pub url: String,
    /// The user; it needs to read only.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// A folder with the files `username` and `password`, read again when they change; where it is given,
    /// the two above do not count.
    pub credentials_dir: Option<PathBuf>,
    /// The database that holds Spanloom's tables.
    pub database: String,
    /// For an `https` URL, the PEM bundle of the authorities to trust, read again when it changes;
    /// none: this machine's.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for ClickHouseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseConfig")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// The bounds on what one request, and all of them together, may take.
#[derive(Debug, Clone, Serialize)]
pub struct Limits {
    /// The time of one request's queries together.
    pub query_timeout: Duration,
    /// The memory of one query in ClickHouse.
    pub query_memory_bytes: u64,
    /// What one query may bring back, but for a trace's, which is cut.
    pub result_bytes: usize,
    /// Queries at once; more wait, and are refused when their time runs out.
    pub concurrent_queries: usize,
    /// The spans of one trace that are read; what is beyond is cut, and said to be.
    pub trace_spans: usize,
    /// The bytes of one trace that are read; what is beyond is cut, and said to be.
    pub trace_bytes: usize,
    /// The bytes of all traces that are being answered.
    pub trace_bytes_in_flight: usize,
    /// Connections at once; more are not accepted until one ends.
    pub connections: usize,
    /// A TraceQL query that takes longer gets a line in the log.
    pub slow_query: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::within(memory::Query::of(memory::QUERY_DEFAULT))
    }
}

/// Enough for ten thousand rows of latency with their histograms: the most that an answer has.
const RESULT_BYTES: usize = 8 << 20;

/// As many queries at once as there is memory for their results, within these bounds.
const CONCURRENT_QUERIES: RangeInclusive<usize> = 2..=16;

impl Limits {
    /// The default ones with these shares of memory.
    pub fn within(memory: memory::Query) -> Self {
        let concurrent_queries = (memory.results / RESULT_BYTES)
            .clamp(*CONCURRENT_QUERIES.start(), *CONCURRENT_QUERIES.end());
        Self {
            query_timeout: Duration::from_secs(30),
            query_memory_bytes: memory.clickhouse as u64,
            result_bytes: memory.results / concurrent_queries,
            concurrent_queries,
            trace_spans: 500_000,
            trace_bytes: memory.trace,
            trace_bytes_in_flight: memory.traces,
            connections: 512,
            slow_query: Duration::from_secs(5),
        }
    }
}

/// All of the query service's configuration.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where ClickHouse is.
    pub clickhouse: ClickHouseConfig,
    /// Bounds on what requests may take.
    pub limits: Limits,
    /// Who may ask, and how; as on a laptop by default: everyone who reaches the port.
    pub access: Access,
}

/// Who may ask, and how.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A directory of bearer tokens; without one nobody is asked for a token.
    pub tokens_dir: Option<PathBuf>,
    /// A directory with `tls.crt` and `tls.key`; without one the API speaks plain HTTP.
    pub tls_dir: Option<PathBuf>,
    /// Where to serve metrics, health and probes, without a token and in plain text; port 0 takes a
    /// free one. Without it there is no such port, and the first one has to do.
    pub admin: Option<SocketAddr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_clickhouse_follows_from_the_containers_memory() {
        const MIB: usize = 1 << 20;
        #[track_caller]
        fn check(container: usize, queries: usize, result: usize, in_clickhouse: usize) {
            let limits = Limits::within(memory::Query::of((container * MIB) as u64));
            let said = (limits.concurrent_queries, limits.result_bytes / MIB);
            assert_eq!(said, (queries, result), "{container} MiB");
            assert_eq!(limits.query_memory_bytes, (in_clickhouse * MIB) as u64);
            let results = limits.concurrent_queries * limits.result_bytes;
            assert!(results <= container * MIB / 8, "{container} MiB");
        }
        check(64, 2, 4, 256);
        check(256, 4, 8, 1024);
        check(512, 8, 8, 2048);
        check(2048, 16, 16, 2048);
        check(65_536, 16, 16, 2048);
    }
}
