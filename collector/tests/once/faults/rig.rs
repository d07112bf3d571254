//! A collector with a log, under load, between senders and an engine that faults happen to.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::{Ground, Mood};
use super::check::{self, Counts};
use super::load::{Ledger, Load, Pace};
use super::program::{Options, Program};
use super::report::{self, Seen};
use super::settings;
use super::store::Store;

/// All that a scenario needs.
pub struct Rig {
    scenario: &'static str,
    seed: u64,
    pub random: StdRng,
    begun: Instant,
    pub store: Store,
    pub ground: Ground,
    options: Options,
    folder: PathBuf,
    _temporary: TempDir,
    program: Option<Program>,
    address: watch::Sender<SocketAddr>,
    /// The most memory of collectors that have ended, in bytes.
    peak: u64,
    pub load: Load,
}

impl Rig {
    /// Starts a collector for the scenario of this name.
    pub async fn start(scenario: &'static str, options: Options) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("log");
        Self::start_in(scenario, options, temporary, folder).await
    }

    /// The same with its log in this folder.
    pub async fn start_in(
        scenario: &'static str,
        options: Options,
        temporary: TempDir,
        folder: PathBuf,
    ) -> Self {
        let (seed, random) = settings::random(scenario);
        let store = Store::start().await;
        let ground = Ground::on(&store.url(), store.user(), store.password(), "").await;
        let program = Program::start(&ground, &folder, &options);
        let address = watch::Sender::new(program.http);
        let load = Load::new(address.subscribe());
        Self {
            scenario,
            seed,
            random,
            begun: Instant::now(),
            store,
            ground,
            options,
            folder,
            _temporary: temporary,
            program: Some(program),
            address,
            peak: 0,
            load,
        }
    }

    /// A time of up to so many milliseconds, by chance: when a fault comes must not depend on what was
    /// waited for before.
    pub async fn some_time(&mut self, most_ms: u64) {
        let time = Duration::from_millis(self.random.random_range(0..=most_ms));
        tokio::time::sleep(time).await;
    }

    /// Begins a phase.
    pub fn phase(&self, name: &str) {
        self.load.phase(name);
    }

    /// Adds senders.
    pub fn send(&mut self, pace: &Pace) {
        self.load.send(pace);
    }

    /// Begins a phase with so many spans a second, which later ones go on with.
    pub fn send_in(&mut self, phase: &str, spans_per_second: u32) {
        self.phase(phase);
        self.send(&Pace::of(spans_per_second));
    }

    /// Kills the collector and starts it again.
    pub fn kill_collector(&mut self) {
        if let Some(program) = self.program.take() {
            self.peak = self.peak.max(program.kill());
        }
        let program = Program::start(&self.ground, &self.folder, &self.options);
        self.address.send_replace(program.http);
        self.program = Some(program);
    }

    /// Heals everything, has all that was sent stored, and looks at what is there.
    pub async fn finish(mut self) -> Outcome {
        self.ground.proxy.set(Mood::Honest).await;
        self.load.pause().await;
        if let Some(program) = self.program.take() {
            self.peak = self.peak.max(program.stop());
        }
        let ledger = self.load.ledger();
        assert!(ledger.wrong.is_empty(), "{:?}", ledger.wrong);
        let engine_peak_bytes = self.store.peak();
        let phases = check::check(&self.ground.direct, &ledger).await;
        let seen = Seen {
            seed: self.seed,
            collector_peak_bytes: self.peak,
            engine_peak_bytes,
            seconds: self.begun.elapsed().as_secs_f64(),
        };
        let limit = self.store.limit();
        for (phase, counts) in ledger.phases.iter().zip(&phases) {
            report::add(self.scenario, phase, counts, seen);
        }
        self.store.stop().await;
        assert!(
            seen.collector_peak_bytes <= self.options.memory_bytes,
            "{seen:?}"
        );
        assert!(engine_peak_bytes <= limit, "{seen:?}");
        Outcome { ledger, phases }
    }
}

/// What a scenario came to.
pub struct Outcome {
    pub ledger: Ledger,
    pub phases: Vec<Counts>,
}

impl Outcome {
    /// # Panics
    /// When something acknowledged is not there once, or something is there that was not sent.
    pub fn assert_once(&self) {
        for (phase, counts) in self.ledger.phases.iter().zip(&self.phases) {
            let complaints = counts.complaints();
            assert!(complaints.is_empty(), "{}:{complaints}", phase.name);
            assert!(
                counts.acknowledged > 0,
                "{}: nothing was acknowledged",
                phase.name
            );
        }
    }

    /// The same, and everything was acknowledged in the end.
    ///
    /// # Panics
    /// When not.
    pub fn assert_all_once(&self) {
        self.assert_once();
        for (phase, counts) in self.ledger.phases.iter().zip(&self.phases) {
            assert_eq!(counts.acknowledged, counts.sent, "{}", phase.name);
            assert_eq!(counts.stored, counts.sent, "{}", phase.name);
        }
    }
}
