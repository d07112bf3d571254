//! The pipeline started and stopped: listeners, worker threads and what they share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Sender;
use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Budget, Expansion};
use crate::batch::{Batch, Export};
use crate::buffers::Buffers;
use crate::config::{Config, Processing};
use crate::decompress::{Decompressor, Encoding};
use crate::metrics::{Levels, Metrics};
use crate::process::{ProcessingError, Rules};
use crate::receive::{Listener, Transport};
use crate::repeat::Repeats;
use crate::worker::{Job, Message, Parts, Worker};

/// Why the pipeline does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen for OTLP over {transport} on {address}: {}", listen_hint(.error))]
    Listen {
        /// `gRPC` or `HTTP`.
        transport: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The processing rules cannot be applied.
    #[error(transparent)]
    Processing(#[from] ProcessingError),
    /// A worker cannot be made.
    #[error("cannot start a worker thread: {0}")]
    Worker(std::io::Error),
}

fn listen_hint(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "the port is busy; stop the program that uses it, or choose another address".into()
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 usually need more rights: choose a higher one")
        }
        _ => error.to_string(),
    }
}

/// What could not be finished in time when the pipeline stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the pipeline was stopped before all requests were answered; clients will repeat them")]
pub struct ShutdownIncomplete;

/// What requests, workers and exports share.
pub(crate) struct Shared {
    pub(crate) budget: Arc<Budget>,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) repeats: Arc<Repeats>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) max_request_bytes: usize,
    /// Nothing is taken yet: nobody has said what to do to spans.
    pub(crate) held: AtomicBool,
    /// Connections are asked to go elsewhere; new ones are still accepted.
    pub(crate) leaving: CancellationToken,
    /// Connections close and nothing new is accepted.
    pub(crate) closing: CancellationToken,
    /// Exports are given up.
    pub(crate) abort: CancellationToken,
    pub(crate) exports: TaskTracker,
    pub(crate) connections: TaskTracker,
    exporting: Arc<AtomicUsize>,
    expansions: [Expansion; 8],
    workers: Vec<Queue>,
}

/// A worker's queue. Admission bounds what all of them hold.
struct Queue {
    jobs: Sender<Message>,
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// A worker is given requests until this much waits for it; then the next gets them too. So little
/// load makes few, large batches.
const BUSY_BYTES: usize = 2 << 20;

/// Buffers of bodies are kept up to this part of the memory for requests, beside it.
const KEPT_BUFFERS: usize = 8;

impl Shared {
    fn new(config: &Config, metrics: Arc<Metrics>, jobs: Vec<Sender<Message>>) -> Self {
        let repeats = &config.repeats;
        Self {
            budget: Budget::new(config.memory_limit_bytes),
            buffers: Buffers::new(config.memory_limit_bytes / KEPT_BUFFERS),
            repeats: Repeats::new(repeats.ttl, repeats.max_entries, Arc::clone(&metrics)),
            metrics,
            max_request_bytes: config.max_request_bytes,
            held: AtomicBool::new(config.hold),
            leaving: CancellationToken::new(),
            closing: CancellationToken::new(),
            abort: CancellationToken::new(),
            exports: TaskTracker::new(),
            connections: TaskTracker::new(),
            exporting: Arc::default(),
            // Until requests have shown it: columns and their copy, and what unpacking makes.
            expansions: std::array::from_fn(|form| Expansion::new(if form < 2 { 2 } else { 12 })),
            workers: jobs
                .into_iter()
                .map(|jobs| Queue {
                    jobs,
                    requests: AtomicUsize::new(0),
                    bytes: AtomicUsize::new(0),
                })
                .collect(),
        }
    }

    /// What requests of this form are known to need.
    pub(crate) fn expansion(&self, encoding: Encoding, json: bool) -> &Expansion {
        let [
            plain,
            plain_json,
            gzip,
            gzip_json,
            deflate,
            deflate_json,
            zstd,
            zstd_json,
        ] = &self.expansions;
        match (encoding, json) {
            (Encoding::Identity, false) => plain,
            (Encoding::Identity, true) => plain_json,
            (Encoding::Gzip, false) => gzip,
            (Encoding::Gzip, true) => gzip_json,
            (Encoding::Deflate, false) => deflate,
            (Encoding::Deflate, true) => deflate_json,
            (Encoding::Zstd, false) => zstd,
            (Encoding::Zstd, true) => zstd_json,
        }
    }

    /// Gives a job to a worker.
    pub(crate) fn submit(&self, job: Job) {
        let load = |queue: &&Queue| queue.bytes.load(Ordering::Relaxed);
        let calm = self.workers.iter().find(|queue| load(queue) < BUSY_BYTES);
        let Some(queue) = calm.or_else(|| self.workers.iter().min_by_key(load)) else {
            return;
        };
        queue.requests.fetch_add(1, Ordering::Relaxed);
        queue.bytes.fetch_add(job.body.len(), Ordering::Relaxed);
        // A worker that is gone drops the job, whose ticket then tells the client to retry.
        let _ = queue.jobs.send(Message::Job(Box::new(job)));
    }

    pub(crate) fn dequeued(&self, worker: usize, bytes: usize) {
        if let Some(queue) = self.workers.get(worker) {
            queue.requests.fetch_sub(1, Ordering::Relaxed);
            queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Requests that wait for a worker.
    pub(crate) fn queued(&self) -> usize {
        self.workers
            .iter()
            .map(|queue| queue.requests.load(Ordering::Relaxed))
            .sum()
    }

    pub(crate) fn exports_in_flight(&self) -> usize {
        self.exporting.load(Ordering::Relaxed)
    }

    pub(crate) fn exporting(&self) -> Exporting {
        self.exporting.fetch_add(1, Ordering::Relaxed);
        Exporting(Arc::clone(&self.exporting))
    }

    fn stop_workers(&self) {
        for queue in &self.workers {
            // A worker that is gone needs no word.
            let _ = queue.jobs.send(Message::Stop);
        }
    }
}

/// Counts an export while it is in flight.
#[derive(Debug)]
pub(crate) struct Exporting(Arc<AtomicUsize>);

impl Drop for Exporting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A hold on a pipeline that does not keep it running.
#[derive(Clone)]
pub struct Control {
    rules: watch::Sender<Arc<Rules>>,
    shared: Arc<Shared>,
}

impl Control {
    /// Changes what is done to spans, from the next request on, and ends the holding of requests
    /// ([`Config::hold`]).
    ///
    /// # Errors
    /// When the rules cannot be applied; the old ones stay.
    pub fn set_processing(&self, processing: &Processing) -> Result<(), ProcessingError> {
        self.rules
            .send_replace(Arc::new(Rules::compile(processing)?));
        self.shared.held.store(false, Ordering::Release);
        Ok(())
    }

    /// Spans received so far, those of probes aside.
    pub fn spans_received(&self) -> u64 {
        self.shared.metrics.received.load(Ordering::Relaxed)
    }

    /// Spans discarded so far because the pipeline is not enabled.
    pub fn spans_discarded(&self) -> u64 {
        self.shared.metrics.disabled.load(Ordering::Relaxed)
    }
}

/// A running pipeline. Dropped without [`Server::shutdown`], it goes on until the runtime ends.
pub struct Server {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    control: Control,
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
}

impl Server {
    /// Starts the pipeline: listens, and answers from then on. Must be called in a tokio runtime.
    pub fn start<B, E>(
        config: Config,
        make_batch: impl Fn() -> B + Send + Sync + 'static,
        export: E,
        registry: &mut Registry,
    ) -> Result<Self, StartError>
    where
        B: Batch,
        E: Export<Frozen = B::Frozen>,
    {
        let rules = Arc::new(Rules::compile(&config.processing)?);
        let grpc = Listener::bind(config.grpc, Transport::Grpc)?;
        let http = Listener::bind(config.http, Transport::Http)?;
        let workers = config.workers.max(1);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| crossbeam_channel::unbounded()).unzip();
        let metrics = Arc::new(Metrics::default());
        metrics.register(registry);
        let shared = Arc::new(Shared::new(&config, metrics, senders.clone()));
        registry.register_collector(Levels::of(&shared));
        let (rules, watch) = watch::channel(rules);
        let export = Arc::new(export);
        let make_batch: Arc<dyn Fn() -> B + Send + Sync> = Arc::new(make_batch);
        let mut threads = Vec::new();
        for (index, (jobs, wake)) in receivers.into_iter().zip(senders).enumerate() {
            let parts = Parts {
                shared: Arc::clone(&shared),
                export: Arc::clone(&export),
                make_batch: Arc::clone(&make_batch),
                limits: config.batch.clone(),
                exports: config.exports_in_flight.div_ceil(workers),
                rules: watch.clone(),
                jobs,
                wake,
                runtime: tokio::runtime::Handle::current(),
                index,
                decompressor: Decompressor::new(config.max_request_bytes)
                    .map_err(StartError::Worker)?,
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || Worker::new(parts).run())
                .map_err(StartError::Worker)?;
            threads.push(thread);
        }
        let addresses = [&grpc, &http].map(|l| l.as_ref().map(Listener::address));
        let settings = Arc::new(crate::receive::Settings::new(&config));
        for listener in [grpc, http].into_iter().flatten() {
            let serve = listener.serve(Arc::clone(&settings), Arc::clone(&shared));
            shared.connections.spawn(serve);
        }
        let [grpc, http] = addresses;
        Ok(Self {
            control: Control {
                rules,
                shared: Arc::clone(&shared),
            },
            shared,
            workers: threads,
            grpc,
            http,
        })
    }

    /// Where OTLP over gRPC is served.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Where OTLP over HTTP is served.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Changes what is done to spans, from the next request on.
    pub fn set_processing(&self, processing: &Processing) -> Result<(), ProcessingError> {
        self.control.set_processing(processing)
    }

    /// What can be asked of the pipeline and told to it by others than its owner.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Asks clients to go elsewhere, and serves whoever comes all the same: for the time that the
    /// cluster takes to learn that this collector stops. HTTP/2 clients are told at once, HTTP/1
    /// ones with their next answer, since closing under a request would look like a failure.
    pub fn leave(&self) {
        self.shared.leaving.cancel();
    }

    /// Memory reserved for requests now, in bytes.
    pub fn admitted_bytes(&self) -> usize {
        self.shared.budget.used()
    }

    /// Stops: accepts nothing new, answers what was received, exports it all. What is not done
    /// after `deadline` is given up, and its clients are told to retry.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ShutdownIncomplete> {
        let deadline = Instant::now() + deadline;
        self.shared.leaving.cancel();
        self.shared.closing.cancel();
        self.shared.connections.close();
        let mut complete = true;
        if tokio::time::timeout_at(deadline, self.shared.connections.wait())
            .await
            .is_err()
        {
            complete = false;
        }
        self.shared.stop_workers();
        let workers = tokio::task::spawn_blocking(move || {
            // A worker catches its panics: there is nothing to learn from the result.
            self.workers
                .into_iter()
                .for_each(|worker| drop(worker.join()));
        });
        tokio::pin!(workers);
        if tokio::time::timeout_at(deadline, &mut workers)
            .await
            .is_err()
        {
            // With exports given up, the workers end too.
            complete = false;
            self.shared.abort.cancel();
            let _ = workers.await;
        }
        self.shared.exports.close();
        if tokio::time::timeout_at(deadline, self.shared.exports.wait())
            .await
            .is_err()
        {
            complete = false;
            self.shared.abort.cancel();
            self.shared.exports.wait().await;
        }
        if complete {
            Ok(())
        } else {
            Err(ShutdownIncomplete)
        }
    }
}
