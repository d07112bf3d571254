//! The pipeline started and stopped: its parts are made and joined here.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use prometheus_client::registry::Registry;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{self, Accounts};
use crate::admission::Budget;
use crate::batch::{Batch, Export};
use crate::batcher::Batcher;
use crate::buffers::Buffers;
use crate::codec::Codings;
use crate::config::{Config, Processing};
use crate::delivery::Delivery;
use crate::doors::Doors;
use crate::durable::{DurableLog, Replay};
use crate::flight::{InFlight, Slots};
use crate::intake::Intake;
use crate::metrics::{Levels, Metrics};
use crate::pace::Pace;
use crate::parts::Parts;
use crate::process::{ProcessingError, Rules};
use crate::queue::Queues;
use crate::receive::{Bound, Fullness, Inlet, Settings, StoreTrouble};
use crate::repeat::Repeats;
use crate::settlement::Settlement;
use crate::worker::Worker;

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
            "the port is in use; stop the program that uses it, or choose another address".into()
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 usually require privileges: choose a higher port")
        }
        _ => error.to_string(),
    }
}

/// What could not be finished in time when the pipeline stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ShutdownIncomplete {
    /// There is no log.
    #[error("the pipeline was stopped before all requests were answered; clients will retry them")]
    NotAnswered,
    /// Everything that was acknowledged is in the log.
    #[error(
        "the pipeline was stopped before everything was stored; the next start delivers what is in the log, and \
         clients retry what was not acknowledged"
    )]
    NotStored,
}

/// A hold on a pipeline that does not keep it running.
#[derive(Clone)]
pub struct Control {
    rules: watch::Sender<Arc<Rules>>,
    pace: Arc<Pace>,
    doors: Arc<Doors>,
    metrics: Arc<Metrics>,
    inlet: Weak<Inlet>,
}

impl Control {
    /// What the log holds that is not stored: how many requests, and the age of the oldest; none without a
    /// log.
    pub fn undelivered(&self) -> Option<(usize, Duration)> {
        let inlet = self.inlet.upgrade()?;
        let status = inlet.log.as_ref()?.status();
        let age = Duration::from_millis(status.oldest_age_ms.unwrap_or(0));
        Some((status.undelivered_requests, age))
    }

    /// Why spans are not stored now, or cannot be taken: for health pages.
    pub fn impairment(&self) -> Option<String> {
        Some(self.inlet.upgrade()?.impairment()?.message)
    }

    /// Changes what is done to spans, from the next request on, and ends the holding of requests
    /// ([`Config::hold`]).
    ///
    /// # Errors
    /// When the rules cannot be applied; the old ones stay.
    pub fn set_processing(&self, processing: &Processing) -> Result<(), ProcessingError> {
        self.rules
            .send_replace(Arc::new(Rules::compile(processing)?));
        self.doors.open();
        Ok(())
    }

    /// Changes how old batches become ([`BatchLimits::max_age`](crate::config::BatchLimits::max_age)), and small
    /// ones that have to wait ([`Quiet::age`](crate::config::Quiet::age)); for those that fill now as soon as
    /// something wakes their worker.
    pub fn set_pace(&self, age: Duration, quiet: Duration) {
        self.pace.set(age, quiet);
    }

    /// What is not stored is given up: senders that wait are told to retry, and what a log has stays in it. A
    /// shutdown that waits for it ends.
    pub fn give_up(&self) {
        self.doors.abort.cancel();
    }

    /// The part of the pipeline that has ended before its time, by a bug; then it is not ready for
    /// anything any more.
    pub fn broken(&self) -> Option<&'static str> {
        self.doors.broken()
    }

    /// Spans received so far, those of probes aside.
    pub fn spans_received(&self) -> u64 {
        self.metrics.received.load(Ordering::Relaxed)
    }

    /// Spans discarded so far because the pipeline is not enabled.
    pub fn spans_discarded(&self) -> u64 {
        self.metrics.disabled.load(Ordering::Relaxed)
    }
}

/// A running pipeline. Dropped without [`Server::shutdown`], it goes on until the runtime ends.
pub struct Server {
    control: Control,
    addresses: Vec<SocketAddr>,
    inlet: Arc<Inlet>,
    parts: Arc<Parts>,
    workers: TaskTracker,
    /// Batches on their way.
    exports: TaskTracker,
    /// What writes the accounts that no batch takes along, and how it is told to end.
    accounts: (TaskTracker, CancellationToken),
    /// The log, and what delivers what is left in it.
    backlog: Option<(Arc<DurableLog>, TaskTracker)>,
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
        Self::start_parts(config, make_batch, export, registry, Parts::threads)
    }

    /// Starts the pipeline without threads of its own: all of it runs where the current runtime does. For
    /// simulations, on a runtime of one thread.
    #[cfg(feature = "simulation")]
    pub fn start_without_threads<B, E>(
        config: Config,
        make_batch: impl Fn() -> B + Send + Sync + 'static,
        export: E,
        registry: &mut Registry,
    ) -> Result<Self, StartError>
    where
        B: Batch,
        E: Export<Frozen = B::Frozen>,
    {
        Self::start_parts(config, make_batch, export, registry, Parts::tasks)
    }

    fn start_parts<B, E>(
        config: Config,
        make_batch: impl Fn() -> B + Send + Sync + 'static,
        export: E,
        registry: &mut Registry,
        make_parts: fn(Arc<Doors>) -> Parts,
    ) -> Result<Self, StartError>
    where
        B: Batch,
        E: Export<Frozen = B::Frozen>,
    {
        let rules = Arc::new(Rules::compile(&config.processing)?);
        let mut codings = Codings::default();
        let bind = |listener| Bound::bind(listener, &mut codings);
        let sockets: Vec<_> = config
            .listeners
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()?;
        let addresses: Vec<_> = sockets.iter().map(Bound::address).collect();

        let export = Arc::new(export);
        let metrics = Arc::new(Metrics::default());
        metrics.register(registry);
        let accounts = Accounts::new(&config.accounts);
        accounts.register(registry);
        let (queues, inboxes) = Queues::new(config.workers.max(1));
        let inlet = Arc::new(Inlet {
            settings: Settings::new(&config),
            addresses: sockets
                .iter()
                .map(|it| (it.origin(), it.address()))
                .collect(),
            budget: Budget::new(config.memory_limit_bytes),
            buffers: Buffers::new(config.kept_buffer_bytes),
            repeats: repeats(&config, &metrics),
            log: config.acknowledge.log().cloned(),
            queues,
            trouble: StoreTrouble(Box::new({
                let export = Arc::clone(&export);
                move || export.trouble()
            })),
            fullness: Fullness(Box::new({
                let export = Arc::clone(&export);
                move || export.is_full()
            })),
            doors: Arc::new(Doors::new(config.hold)),
            metrics: Arc::clone(&metrics),
            accounts: Arc::clone(&accounts),
        });
        let in_flight = InFlight::new(&inlet.budget, config.acknowledge.log().is_some());
        registry.register_collector(Box::new(levels(&inlet, &in_flight)));

        let doors = Arc::clone(&inlet.doors);
        let settlement = Settlement::new(
            config.acknowledge.clone(),
            Arc::clone(&metrics),
            Arc::clone(&accounts),
        );
        let exports = TaskTracker::new();
        let runtime = tokio::runtime::Handle::current();
        let parts = Arc::new(make_parts(Arc::clone(&doors)));
        let delivery = Delivery::new(
            Arc::clone(&export),
            Arc::clone(&parts),
            runtime,
            exports.clone(),
            doors.abort.clone(),
        );
        let make_batch: Arc<dyn Fn() -> B + Send + Sync> = Arc::new(make_batch);
        let is_logged = config.acknowledge.log().is_some();
        let slots = config.exports_in_flight.div_ceil(inboxes.len());
        let pace = Pace::new(&config.batch);
        let (rules, watch) = watch::channel(rules);
        let workers = TaskTracker::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let slots = Slots::new(slots, inbox.wake.clone(), Arc::clone(&in_flight));
            let worker = Worker {
                intake: Intake::new(watch.clone(), &config).map_err(StartError::Worker)?,
                batcher: Batcher::new(
                    Arc::clone(&make_batch),
                    config.batch.clone(),
                    Arc::clone(&pace),
                    slots,
                    is_logged,
                ),
                inbox,
                settlement: Arc::clone(&settlement),
                delivery: Arc::clone(&delivery),
                metrics: Arc::clone(&metrics),
                accounts: Vec::new(),
                stopping: false,
                sealing: false,
            };
            let name = format!("worker-{index}");
            parts
                .start(name, "a worker", &workers, worker.run())
                .map_err(StartError::Worker)?;
        }
        let backlog = match config.acknowledge.log() {
            None => None,
            Some(log) => {
                log.register(registry);
                let replay = Replay {
                    log: Arc::clone(log),
                    make_batch: Arc::clone(&make_batch),
                    export: Arc::clone(&export),
                    rules: watch.clone(),
                    limits: config.batch.clone(),
                    abort: doors.abort.clone(),
                    metrics: Arc::clone(&metrics),
                    accounts: Arc::clone(&accounts),
                };
                let tracker = TaskTracker::new();
                let name = "backlog".to_owned();
                parts
                    .start(name, "the backlog", &tracker, replay.run())
                    .map_err(StartError::Worker)?;
                Some((Arc::clone(log), tracker))
            }
        };
        let (writing, stop) = (TaskTracker::new(), CancellationToken::new());
        let abort = doors.abort.clone();
        let write = accounts::write_overdue(accounts, make_batch, export, stop.clone(), abort);
        writing.spawn(Arc::clone(&doors).watch("the writer of accounts", write));
        for socket in sockets {
            let serve = socket.serve(Arc::clone(&inlet));
            let watched = Arc::clone(&doors).watch("a listener", serve);
            doors.connections.spawn(watched);
        }
        Ok(Self {
            control: Control {
                rules,
                pace,
                doors,
                metrics,
                inlet: Arc::downgrade(&inlet),
            },
            addresses,
            inlet,
            parts,
            workers,
            exports,
            accounts: (writing, stop),
            backlog,
        })
    }

    /// Where requests are received, in the order of [`Config::listeners`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        self.control.doors.leaving.cancel();
    }

    /// The way in for requests without a connection.
    #[cfg(feature = "simulation")]
    pub fn direct(&self) -> crate::receive::direct::Direct {
        crate::receive::direct::Direct::new(Arc::clone(&self.inlet))
    }

    /// Memory reserved for requests now, in bytes.
    pub fn admitted_bytes(&self) -> usize {
        self.inlet.budget.used()
    }

    /// Stops: accepts nothing new, answers what was received, exports it all. What is not done
    /// after `deadline` is given up, and its clients are told to retry.
    pub async fn shutdown(self, deadline: Duration) -> Result<(), ShutdownIncomplete> {
        let deadline = Instant::now() + deadline;
        let doors = &self.control.doors;
        doors.leaving.cancel();
        doors.closing.cancel();
        doors.connections.close();
        let mut complete = true;
        if tokio::time::timeout_at(deadline, doors.connections.wait())
            .await
            .is_err()
        {
            complete = false;
        }
        self.inlet.queues.stop();
        // With exports given up, the workers end too.
        complete &= finish(&self.workers, deadline, &doors.abort).await;
        complete &= finish(&self.exports, deadline, &doors.abort).await;
        let mut incomplete = ShutdownIncomplete::NotAnswered;
        if let Some((log, tracker)) = self.backlog {
            incomplete = ShutdownIncomplete::NotStored;
            complete &= drain(&log, &tracker, deadline, doors, &self.parts).await;
        }
        // The last batches have their accounts now.
        let (writing, stop) = self.accounts;
        stop.cancel();
        complete &= finish(&writing, deadline, &doors.abort).await;
        self.parts.end();
        complete.then_some(()).ok_or(incomplete)
    }
}

/// Waits for tasks; after the deadline they are given up. Says whether that was not needed.
async fn finish(tasks: &TaskTracker, deadline: Instant, abort: &CancellationToken) -> bool {
    tasks.close();
    if tokio::time::timeout_at(deadline, tasks.wait())
        .await
        .is_ok()
    {
        return true;
    }
    abort.cancel();
    tasks.wait().await;
    false
}

/// Waits until the log is delivered; after the deadline the rest stays in it. Says whether there is none.
async fn drain(
    log: &Arc<DurableLog>,
    backlog: &TaskTracker,
    deadline: Instant,
    doors: &Doors,
    parts: &Parts,
) -> bool {
    log.close();
    backlog.close();
    let in_time = tokio::time::timeout_at(deadline, backlog.wait())
        .await
        .is_ok();
    if !in_time {
        log.stop();
        doors.abort.cancel();
        backlog.wait().await;
    }
    let commit = Arc::clone(log);
    if let Some(Err(error)) = parts.block(move || commit.commit()).await {
        tracing::warn!(%error, "the log could not be written; spans that are stored may be sent again");
    }
    let left = log.status().undelivered_requests;
    if left > 0 {
        tracing::warn!(
            requests = left,
            "the log is not empty; what it holds is delivered at the next start"
        );
    }
    in_time && left == 0
}

fn repeats(config: &Config, metrics: &Arc<Metrics>) -> Arc<Repeats> {
    let Some(log) = config.acknowledge.log() else {
        return Repeats::new(&config.repeats, Arc::clone(metrics));
    };
    let repeats = Repeats::with_seed(log.seed(), &config.repeats, Arc::clone(metrics));
    repeats.restore(log.earlier().into_iter());
    repeats
}

/// Numbers that are read when they are asked for, while the pipeline runs.
fn levels(inlet: &Arc<Inlet>, in_flight: &Arc<InFlight>) -> Levels {
    let of = |read: fn(&Inlet) -> usize| {
        let inlet = Arc::downgrade(inlet);
        move || inlet.upgrade().map(|inlet| read(&inlet))
    };
    let in_flight = Arc::downgrade(in_flight);
    Levels::default()
        .with(
            "admission_bytes",
            "Memory reserved for requests",
            of(|inlet| inlet.budget.used()),
        )
        .with(
            "admission_limit_bytes",
            "Memory that requests may use",
            of(|inlet| inlet.budget.limit()),
        )
        .with(
            "queued_requests",
            "Requests waiting for a worker",
            of(|inlet| inlet.queues.waiting()),
        )
        .with("exports_in_flight", "Batches being stored", move || {
            in_flight.upgrade().map(|in_flight| in_flight.count())
        })
        .with(
            "remembered_requests",
            "Requests remembered to recognise repeats",
            of(|inlet| inlet.repeats.len()),
        )
        .with(
            "receiver_repeat_window_seconds",
            "How long requests are remembered to recognise repeats: ten minutes, unless there are \
             too many",
            of(|inlet| inlet.repeats.window().as_secs() as usize),
        )
}
