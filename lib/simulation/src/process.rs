//! A collector's process: the real pipeline on a log, started, killed and ended.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::registry::Registry;
use spanloom_collector::export::StoreExport;
use spanloom_log::{Committer, Event, Log, Observer, OpenError, Options};
use spanloom_pipeline::config::{Acknowledge, BatchLimits, RepeatLimits};
use spanloom_pipeline::durable::DurableLog;
use spanloom_pipeline::server::Control;
use spanloom_pipeline::simulation::Direct;
use spanloom_pipeline::{Config, Server};
use spanloom_store::block::BlockPoolOptions;
use spanloom_store::{BlockPool, Connection, Writer, WriterConfig};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::batch::Maker;
use crate::disk::{LogClock, ProcessDisk};
use crate::life::Life;
use crate::plan::Control as Protection;
use crate::random::Random;
use crate::store::Way;
use crate::world::World;

/// Where the log is.
pub(crate) const FOLDER: &str = "/log";

/// What shows that runs go where bugs may be.
const PATHS: [&str; 7] = [
    "spanloom_receiver_repeats_total",
    "spanloom_log_refused_requests_total",
    "spanloom_log_spilled_requests_total",
    "spanloom_log_replayed_requests_total",
    "spanloom_log_dead_letter_spans_total",
    "spanloom_store_bisect_inserts_total",
    "otelcol_exporter_send_failed_spans_total",
];

/// The first and the longest pause after a commit that failed.
const RETRY_MS: (u64, u64) = (50, 2000);

/// A process that runs.
pub(crate) struct Process {
    pub(crate) life: Arc<Life>,
    pub(crate) direct: Direct,
    server: Server,
    log: Option<Arc<DurableLog>>,
    committer: Option<JoinHandle<()>>,
    registry: Registry,
}

impl Process {
    /// Starts one, by what is on the disk.
    pub(crate) fn start(world: &World, random: &mut Random) -> Result<Self, String> {
        let life = Arc::new(Life::new());
        let plan = &world.plan;
        let (log, committer) = match plan.is_logged {
            false => (None, None),
            true => {
                let appended = Arc::new(Notify::new());
                let log =
                    open(world, &life, &appended, random).map_err(|error| error.to_string())?;
                let work = commits(Arc::clone(&log), appended, random.fork(), plan.sync_ms);
                (Some(log), Some(tokio::spawn(work)))
            }
        };
        let maker = Arc::new(Maker {
            pool: BlockPool::new(BlockPoolOptions {
                kept_bytes: 1 << 20,
                tag_cache_bytes: 64 << 10,
            }),
            store: Arc::clone(&world.store),
            ids: Mutex::new(random.fork()),
            life: Arc::clone(&life),
        });
        let mut config = WriterConfig::new(
            Connection {
                url: "http://model".to_owned(),
                user: String::new(),
                password: String::new(),
                tls: None,
            },
            "spanloom",
        );
        config.insert_timeout = Duration::from_secs(10);
        let way = Way {
            store: Arc::clone(&world.store),
            life: Arc::clone(&life),
            random: Mutex::new(random.fork()),
            patience: config.insert_timeout + Duration::from_secs(2),
        };
        let mut registry = Registry::default();
        let writer = Writer::with_inserts(way, config);
        writer.register(&mut registry);
        let export = StoreExport(writer);
        let config = Config {
            acknowledge: match &log {
                None => Acknowledge::Stored,
                Some(log) => Acknowledge::Logged(Arc::clone(log)),
            },
            memory_limit_bytes: plan.memory,
            kept_buffer_bytes: 1 << 20,
            max_request_bytes: plan.memory / 4,
            workers: plan.workers,
            batch: BatchLimits {
                max_rows: plan.max_rows,
                early_rows: plan.max_rows / 2,
                ..BatchLimits::default()
            },
            exports_in_flight: plan.exports,
            repeats: RepeatLimits::within(1 << 20),
            ..Config::default()
        };
        let make_batch = move || maker.batch();
        let server = Server::start_without_threads(config, make_batch, export, &mut registry);
        let server = server.map_err(|error| error.to_string())?;
        Ok(Self {
            direct: server.direct(),
            life,
            server,
            log,
            committer,
            registry,
        })
    }

    /// Requests that only the log has.
    pub(crate) fn undelivered(&self) -> usize {
        self.log
            .as_ref()
            .map_or(0, |log| log.status().undelivered_requests)
    }

    pub(crate) fn admitted(&self) -> usize {
        self.server.admitted_bytes()
    }

    /// It is dead: what of it still runs sees neither disk nor store nor senders.
    pub(crate) async fn bury(self, world: &World) {
        self.life.end();
        check(world, &self.registry, &self.server.control());
        self.add_up(world);
        if let Some(committer) = &self.committer {
            committer.abort();
        }
        // Its tasks end at once, since nothing is given time.
        let _ = self.server.shutdown(Duration::ZERO).await;
    }

    /// It ends in good order. Says whether all was stored within the time.
    pub(crate) async fn end(self, world: &World, grace: Duration) -> bool {
        let Self {
            life,
            direct: _,
            server,
            log,
            committer,
            registry,
        } = self;
        let control = server.control();
        let ended = tokio::select! {
            biased;
            ended = server.shutdown(grace) => ended.is_ok(),
            () = life.died() => false,
        };
        check(world, &registry, &control);
        add_up(world, &registry, log.as_deref());
        life.end();
        if let Some(committer) = committer {
            committer.abort();
        }
        ended
    }

    fn add_up(&self, world: &World) {
        add_up(world, &self.registry, self.log.as_deref());
    }
}

/// The value of a counter, over all its labels.
fn metric(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        return 0;
    }
    let values = text.lines().filter(|line| line.starts_with(name));
    let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

fn add_up(world: &World, registry: &Registry, log: Option<&DurableLog>) {
    let mut counts = world.counts();
    counts.processes += 1;
    counts.evicted += log.map_or(0, |log| log.status().keys_evicted);
    counts.uncertain += metric(registry, "spanloom_store_uncertain_batches_total");
    counts.accepted += metric(registry, "otelcol_receiver_accepted_spans_total");
    for path in PATHS {
        *counts.paths.entry(path).or_default() += metric(registry, path);
    }
}

/// Nothing is lost, and no part has panicked.
fn check(world: &World, registry: &Registry, control: &Control) {
    for name in ["spanloom_lost_spans_total", "spanloom_worker_panics_total"] {
        let count = metric(registry, name);
        if count > 0 {
            world.trace.violation(format!("{name} is {count}"));
        }
    }
    if let Some(part) = control.broken() {
        world.trace.violation(format!("{part} has panicked"));
    }
}

fn open(
    world: &World,
    life: &Arc<Life>,
    appended: &Arc<Notify>,
    random: &mut Random,
) -> Result<Arc<DurableLog>, OpenError> {
    let disk = ProcessDisk {
        disk: world.disk.clone(),
        life: Arc::clone(life),
        trace: Arc::clone(&world.trace),
        lies: world.control == Protection::LyingDisk,
    };
    let clock = LogClock::new(Arc::clone(&world.calendar), random.fork());
    let (trace, tell) = (Arc::clone(&world.trace), Arc::clone(appended));
    let options = Options {
        max_bytes: world.plan.log_bytes,
        segment_bytes: world.plan.segment_bytes,
        buffer_bytes: world.plan.buffer_bytes,
        committer: Committer::Caller,
        observer: Some(Observer::new(move |event| match event {
            Event::Appended => tell.notify_one(),
            event => trace.note(format_args!("log {event:?}")),
        })),
        ..Options::default()
    };
    DurableLog::open_with(options, |options| {
        let disk = Arc::new(disk);
        Log::open_on(disk, Arc::new(clock), Path::new(FOLDER), options)
    })
}

/// What the log's thread does, in virtual time.
async fn commits(log: Arc<DurableLog>, appended: Arc<Notify>, mut random: Random, sync_ms: u64) {
    // What an earlier process left finished goes at once.
    let mut result = log.commit();
    let mut pause = RETRY_MS.0;
    loop {
        match &result {
            Ok(()) => {
                pause = RETRY_MS.0;
                appended.notified().await;
                // The wait for more, and the disk's time.
                sleep(random.millis(1, 1 + sync_ms)).await;
            }
            Err(_) => {
                sleep(Duration::from_millis(pause)).await;
                pause = (pause * 2).min(RETRY_MS.1);
            }
        }
        result = log.commit();
    }
}
