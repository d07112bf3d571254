//! One run: senders send, blows fall, then all is healed and what is in the store is compared with what the
//! senders were told.

use std::collections::BTreeMap;
use std::time::Duration;

use spanloom_log::disk::simulated::Faults;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::checker;
use crate::plan::{Blow, Control, Plan, Scale};
use crate::process::Process;
use crate::random::Random;
use crate::sender::{self, Sent};
use crate::store::Weather;
use crate::world::World;

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// A hash of all events in their order: the same whenever the seed is run.
    pub hash: u64,
    /// What must not happen and did.
    pub violations: Vec<String>,
    /// Spans whose senders were told that all is well.
    pub acknowledged: u64,
    /// Processes that were started.
    pub processes: u64,
    /// Paths of the code that were taken, by the names of their counters, and how often.
    pub paths: BTreeMap<&'static str, u64>,
}

/// By then, in virtual time, everything has been delivered.
const PATIENCE: Duration = Duration::from_secs(12 * 3600);

/// Runs a seed.
pub fn run(seed: u64, scale: Scale, control: Control) -> Report {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(simulate(seed, scale, control)),
        Err(error) => Report {
            seed,
            hash: 0,
            violations: vec![format!("no runtime: {error}")],
            acknowledged: 0,
            processes: 0,
            paths: BTreeMap::new(),
        },
    }
}

async fn simulate(seed: u64, scale: Scale, control: Control) -> Report {
    let mut random = Random::new(seed);
    let plan = Plan::new(&mut random, scale);
    let world = World::new(plan, control);
    world
        .trace
        .note(format_args!("seed {seed} {:?}", world.plan));
    let mut machine = Machine {
        world: world.clone(),
        random: random.fork(),
        process: None,
        processes: 0,
        syncs_failed: false,
        heals: None,
    };
    let all = timeout(PATIENCE, machine.live(&mut random)).await;
    let acknowledged = match &all {
        Ok(sent) => sent
            .iter()
            .filter(|sent| sent.is_acknowledged)
            .map(|sent| sent.spans.len() as u64)
            .sum(),
        Err(_) => {
            world
                .trace
                .violation("it does not come to an end".to_owned());
            0
        }
    };
    Report {
        seed,
        hash: world.trace.hash(),
        violations: world.trace.violations(),
        acknowledged,
        processes: machine.processes,
        paths: world.counts().paths.clone(),
    }
}

/// The machine, and the process that runs on it.
struct Machine {
    world: World,
    random: Random,
    process: Option<Process>,
    processes: u64,
    /// A sync has failed since power was last lost. A process that is killed then leaves bytes behind that
    /// read well and are not on the disk, which the log does not promise to see.
    syncs_failed: bool,
    /// When the current fault is over.
    heals: Option<Instant>,
}

impl Machine {
    async fn live(&mut self, random: &mut Random) -> Vec<Sent> {
        let world = self.world.clone();
        let mut senders = JoinSet::new();
        for number in 0..world.plan.senders {
            senders.spawn(sender::run(world.clone(), number, random.fork()));
        }
        world.store.set_weather(world.plan.weather.clone());
        self.boot().await;
        let begin = Instant::now();
        let mut sent = Vec::new();
        let mut blows = world.plan.blows.clone().into_iter().peekable();
        loop {
            let next = blows.peek().map(|(at, _)| begin + *at);
            let life = self.process.as_ref().map(|process| process.life.clone());
            let died = async {
                match &life {
                    Some(life) => life.died().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = died => self.fall().await,
                () = until(self.heals) => self.heal(),
                () = until(next) => {
                    if let Some((_, blow)) = blows.next() {
                        self.strike(blow).await;
                    }
                }
                done = senders.join_next() => match done {
                    Some(Ok(done)) => sent.extend(done),
                    Some(Err(error)) => world.trace.violation(format!("a sender failed: {error}")),
                    None => break,
                },
            }
        }
        self.heal();
        world.store.set_weather(Weather {
            latency_ms: 10,
            widest: world
                .plan
                .weather
                .widest
                .filter(|_| world.plan.weather.slow > 0),
            ..Weather::default()
        });
        self.settle().await;
        sent.sort_by_key(|sent| sent.spans.first().copied());
        checker::check(&world, &sent);
        sent
    }

    /// Starts a process, as soon as the disk lets it.
    async fn boot(&mut self) {
        let mut pause = Duration::from_millis(100);
        loop {
            self.processes += 1;
            self.world.store.set_widest(self.weather().widest);
            let mut random = self.random.fork();
            match Process::start(&self.world, &mut random) {
                Ok(process) => {
                    let listener = (process.direct.clone(), process.life.clone());
                    self.world
                        .trace
                        .note(format_args!("process {} starts", self.processes));
                    self.world.listens(Some(listener));
                    self.process = Some(process);
                    return;
                }
                Err(error) => {
                    self.world
                        .trace
                        .note(format_args!("process does not start: {error}"));
                    if self.heals.is_some_and(|at| Instant::now() >= at) {
                        self.heal();
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// The process is dead. Perhaps the machine is, too.
    async fn fall(&mut self) {
        let power_loss = self.syncs_failed || self.random.chance(500);
        self.die(power_loss).await;
    }

    async fn die(&mut self, power_loss: bool) {
        self.world.listens(None);
        self.world
            .trace
            .note(format_args!("the process dies, power loss: {power_loss}"));
        if let Some(process) = &self.process {
            process.life.end();
        }
        match power_loss {
            true => {
                let mut random = self.random.fork();
                self.world.disk.crash(|| random.number());
                self.syncs_failed = false;
            }
            false => self.world.disk.kill(),
        }
        if let Some(process) = self.process.take() {
            process.bury(&self.world).await;
        }
        sleep(self.random.millis(1, 3000)).await;
        self.boot().await;
    }

    async fn strike(&mut self, blow: Blow) {
        let world = self.world.clone();
        world.trace.note(format_args!("blow {blow:?}"));
        let capacity = || {
            world
                .disk
                .bytes_in(std::path::Path::new(crate::process::FOLDER))
        };
        let mut faults = Faults::default();
        match blow {
            Blow::PowerLoss => return self.die(true).await,
            Blow::Kill => {
                let power_loss = self.syncs_failed;
                return self.die(power_loss).await;
            }
            Blow::DieAtDisk => {
                let calls = self.random.between(0, 12);
                if let Some(process) = &self.process {
                    process.life.end_after(calls);
                }
                return;
            }
            Blow::Restart => {
                self.restart().await;
                return;
            }
            Blow::SetBack => {
                let by = self.random.millis(1, 3_600_000);
                world.calendar.set_back(by);
                return;
            }
            Blow::StoreAway => world.store.set_weather(Weather {
                is_away: true,
                ..self.weather()
            }),
            Blow::StoreFault => {
                let code = self.random.pick(&[60, 81, 241, 497, 999]);
                world.store.set_weather(Weather {
                    code,
                    ..self.weather()
                });
            }
            Blow::DiskWrites => faults.write = true,
            Blow::DiskSyncs => faults.sync = true,
            Blow::DiskFull => {
                faults.capacity_bytes = Some(capacity() + self.random.between(0, 4000))
            }
            Blow::DiskReadOnly => faults.read_only = true,
        }
        self.syncs_failed |= faults != Faults::default();
        world.disk.set_faults(faults);
        self.heals = Some(Instant::now() + self.random.millis(1, world.plan.fault_ms));
    }

    fn heal(&mut self) {
        self.heals = None;
        self.world.trace.note(format_args!("healed"));
        self.world.disk.set_faults(Faults::default());
        self.world.store.set_weather(self.weather());
    }

    /// The usual weather. What is too wide for one process is not for the next: what was cut must stay cut. That
    /// is too much to ask where an insert may be done long after its sender has died: it could be refused to the
    /// next process, which cuts it, and be done after that.
    fn weather(&self) -> Weather {
        let usual = self.world.plan.weather.clone();
        let changes = usual.slow == 0 && self.processes.is_multiple_of(2);
        Weather {
            widest: usual.widest.filter(|_| !changes),
            ..usual
        }
    }

    async fn restart(&mut self) {
        let Some(process) = self.process.take() else {
            return;
        };
        let grace = self.random.millis(0, 20_000);
        let ended = process.end(&self.world, grace).await;
        self.world.listens(None);
        self.world
            .trace
            .note(format_args!("ended in time: {ended}"));
        // What of it is left is given up, as the kubelet does.
        self.world.disk.kill();
        sleep(self.random.millis(1, 3000)).await;
        self.boot().await;
    }

    /// Everything works, and the last process delivers what there is.
    async fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            sleep(Duration::from_secs(1)).await;
            if self
                .process
                .as_ref()
                .is_none_or(|process| !process.life.is_alive())
            {
                self.die(false).await;
            }
            quiet = self
                .process
                .as_ref()
                .is_some_and(|process| process.undelivered() == 0 && process.admitted() == 0);
        }
        self.world.listens(None);
        let Some(process) = self.process.take() else {
            return;
        };
        if !process.end(&self.world, Duration::from_secs(600)).await {
            self.world
                .trace
                .violation("the last process did not end in good order".to_owned());
        }
        self.world.disk.kill();
    }
}

/// Never, if there is no such time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
