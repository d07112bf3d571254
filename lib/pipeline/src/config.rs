//! What the pipeline is started with.

use std::time::Duration;

pub use crate::accounts::AccountsConfig;
pub use crate::listener::{Listener, Route};
pub use crate::process::{Mode, Processing};
pub use crate::settlement::Acknowledge;

/// The pipeline's settings. [`Config::default`] has the documented ones and listens nowhere.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where requests are received.
    pub listeners: Vec<Listener>,
    /// When their senders are told that their spans are safe.
    pub acknowledge: Acknowledge,
    /// Whose accounts are written of where spans went.
    pub accounts: AccountsConfig,
    /// Memory that requests may use together, from their first byte until they are stored.
    pub memory_limit_bytes: usize,
    /// Memory of empty buffers that is kept for the bodies of the next requests.
    pub kept_buffer_bytes: usize,
    /// How large a request may be, as sent and decompressed.
    pub max_request_bytes: usize,
    /// Worker threads, each with a batch of its own.
    pub workers: usize,
    /// When a batch is handed to the exporter.
    pub batch: BatchLimits,
    /// Exports at a time, over all workers; each worker may have at least one.
    pub exports_in_flight: usize,
    /// What is remembered of requests, to recognise repeats.
    pub repeats: RepeatLimits,
    /// Connections and their timeouts.
    pub connections: Connections,
    /// Which web pages may send.
    pub cors: Cors,
    /// How long clients are asked to wait before they retry.
    pub retry_after: Duration,
    /// What is done to spans; [`Server::set_processing`](crate::Server::set_processing) changes it
    /// later.
    pub processing: Processing,
    /// How much of that is done here to the requests of applications. A sidecar leaves the measuring of what it
    /// forwards to its collector; with a log, this one does it from the records.
    pub mode: Mode,
    /// Whether requests are refused (senders are told to retry) until the first
    /// [`Server::set_processing`](crate::Server::set_processing): for who does not know yet what to
    /// do to spans.
    pub hold: bool,
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            listeners: Vec::new(),
            acknowledge: Acknowledge::Stored,
            accounts: AccountsConfig::default(),
            memory_limit_bytes: 256 << 20,
            kept_buffer_bytes: 32 << 20,
            max_request_bytes: 64 << 20,
            // More batches at a time make smaller ones; 4 workers take millions of spans a second.
            workers: cores.min(4),
            batch: BatchLimits::default(),
            exports_in_flight: 4,
            repeats: RepeatLimits::default(),
            connections: Connections::default(),
            cors: Cors::default(),
            retry_after: Duration::from_secs(1),
            processing: Processing::default(),
            mode: Mode::Full,
            hold: false,
        }
    }
}

/// When a batch is frozen and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLimits {
    /// At this many spans.
    pub max_rows: usize,
    /// At this much memory.
    pub max_bytes: usize,
    /// So long after its first span. Without a log that is what an export's answer waits at most.
    pub max_age: Duration,
    /// Sooner, when nothing waits and nothing is being exported, once it has this many spans and
    /// `linger` has passed since the last request: its clients may all be waiting for it.
    pub early_rows: usize,
    /// How long an idle worker waits for more before it exports early.
    pub linger: Duration,
    /// Where there is little to store, and less often. None: a batch never waits for longer than `max_age`.
    pub quiet: Option<Quiet>,
}

/// Small batches one after the other cost the store much for each span. So only some of them are sent at
/// [`BatchLimits::max_age`]: a single request can be searched soon, and a trickle makes few parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    /// A batch with fewer spans is small.
    pub rows: usize,
    /// One small batch in this time need not wait, and all others become that old.
    pub age: Duration,
    /// So many small batches need not wait after a time without any.
    pub burst: u32,
}

impl Default for Quiet {
    fn default() -> Self {
        Self {
            rows: 64,
            age: Duration::from_secs(6),
            burst: 10,
        }
    }
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_rows: 32_768,
            // The memory of a larger one would not be kept for the next.
            max_bytes: 16 << 20,
            max_age: Duration::from_millis(200),
            // Smaller early batches would make the store merge too many small parts.
            early_rows: 2_000,
            linger: Duration::from_millis(5),
            quiet: None,
        }
    }
}

impl BatchLimits {
    /// The limits where a log answers senders: they do not wait for a batch, only searches do. So
    /// it may have all that comes in most of a second, and the store has fewer parts to merge.
    pub fn logged() -> Self {
        Self {
            max_age: Duration::from_millis(700),
            early_rows: usize::MAX,
            quiet: Some(Quiet::default()),
            ..Self::default()
        }
    }
}

/// What is remembered of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepeatLimits {
    /// For how long.
    pub ttl: Duration,
    /// How much memory that may take. When it is used up, requests are remembered for less time.
    pub max_bytes: usize,
}

impl RepeatLimits {
    /// As many requests as `bytes` hold, for the usual time.
    pub fn within(bytes: usize) -> Self {
        Self {
            max_bytes: bytes,
            ..Self::default()
        }
    }
}

impl Default for RepeatLimits {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(600),
            max_bytes: 40 << 20,
        }
    }
}

/// Connections and their timeouts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// Open at a time, on each listener. When there are as many, idle ones of an address that has more
    /// than a quarter of them are closed for others.
    pub max: usize,
    /// How long a client may take for a request's head, and an idle HTTP/1 connection stays open.
    pub header_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// A body of which less than this arrives in [`Connections::body_pace_time`] is ended.
    pub body_pace_bytes: usize,
    /// In what time that must arrive; only the time counts in which the body is read.
    pub body_pace_time: Duration,
    /// How long a client waits for its answer before it is told to retry; the export goes on, and
    /// the retry joins it.
    pub answer_timeout: Duration,
    /// The same while something that does not pass by itself keeps spans from being stored: SDKs wait for
    /// 10 s, and then do not know why.
    pub impaired_answer_timeout: Duration,
    /// A connection is closed at this age (a tenth more or less, so that not all go at once), which
    /// lets clients find new collectors; `None`: never.
    pub max_age: Option<Duration>,
    /// How long its open requests may then still take.
    pub max_age_grace: Duration,
    /// HTTP/2: how often a silent client is pinged.
    pub keepalive_interval: Duration,
    /// HTTP/2: how long it may take to answer that.
    pub keepalive_timeout: Duration,
    /// How large a request's head may be.
    pub max_header_bytes: u32,
    /// HTTP/2: what a client may send of one request before we read on.
    pub http2_stream_window: u32,
    /// gRPC: the same while memory is short. A refused request costs us this much reading, and a
    /// request that is let in a packet for each.
    pub strained_stream_window: u32,
    /// HTTP/2: the same for all requests of a connection. It must have room for as much as refused
    /// calls may send, or they keep each other from ending.
    pub http2_connection_window: u32,
    /// HTTP/2: the largest frame.
    pub http2_max_frame: u32,
    /// HTTP/2: requests at a time on a connection.
    pub http2_max_streams: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max: 10_000,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            body_pace_bytes: 16 << 10,
            body_pace_time: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            impaired_answer_timeout: Duration::from_secs(4),
            max_age: Some(Duration::from_secs(600)),
            max_age_grace: Duration::from_secs(60),
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            max_header_bytes: 64 << 10,
            http2_stream_window: 256 << 10,
            strained_stream_window: 64 << 10,
            http2_connection_window: 8 << 20,
            http2_max_frame: 256 << 10,
            http2_max_streams: 128,
        }
    }
}

/// Which web pages may send spans from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Origins, exact or with one `*` in them (`https://*.example.com`); `*` alone allows all, but
    /// then without credentials. Empty: no CORS headers at all.
    pub allowed_origins: Vec<String>,
    /// Headers that pages may set beside `Content-Type` and `Content-Encoding`.
    pub allowed_headers: Vec<String>,
    /// How long browsers may remember the answer.
    pub max_age: Duration,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            allowed_origins: Vec::new(),
            allowed_headers: Vec::new(),
            max_age: Duration::from_secs(7200),
        }
    }
}
