//! What a seed decides before a run begins. Each run has some kinds of faults and not others, so that one that
//! is frequent does not hide another.

use std::time::Duration;

use crate::random::Random;
use crate::store::Weather;

/// How long runs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Some senders with a few requests, and a crash or two.
    Small,
    /// Hundreds of requests, many crashes, outages of minutes.
    Large,
    /// A small log that fills while the store is away for hours.
    Outage,
}

/// A protection that is taken away, to see that the checks find it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// None: everything must hold.
    None,
    /// The disk says that it has synced and has not.
    LyingDisk,
    /// The store forgets tokens.
    ForgetfulStore,
}

/// What happens to the process, the disk and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The machine loses power.
    PowerLoss,
    /// The process is killed.
    Kill,
    /// The process dies at one of its next calls to the disk; then power is lost, or not.
    DieAtDisk,
    /// The process is asked to end, and given some time.
    Restart,
    StoreAway,
    StoreFault,
    DiskWrites,
    DiskSyncs,
    DiskFull,
    DiskReadOnly,
    SetBack,
}

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) is_logged: bool,
    pub(crate) senders: u64,
    pub(crate) requests: u64,
    pub(crate) spans: u64,
    /// Milliseconds between the requests of a sender, at most.
    pub(crate) pace_ms: u64,
    /// Requests and answers that get lost, in a thousand.
    pub(crate) lost: u64,
    /// Spans that the store refuses, in a thousand requests.
    pub(crate) bad: u64,
    /// After so many attempts a sender drops its request.
    pub(crate) attempts: u64,
    pub(crate) blows: Vec<(Duration, Blow)>,
    /// How long faults last, in milliseconds, at most.
    pub(crate) fault_ms: u64,
    pub(crate) weather: Weather,
    pub(crate) workers: usize,
    pub(crate) max_rows: usize,
    pub(crate) exports: usize,
    pub(crate) memory: usize,
    pub(crate) log_bytes: u64,
    pub(crate) segment_bytes: u64,
    /// Bytes that may wait for the disk: a request beyond that is not logged.
    pub(crate) buffer_bytes: u64,
    /// Milliseconds of a sync, at most.
    pub(crate) sync_ms: u64,
}

impl Plan {
    fn outage(random: &mut Random) -> Self {
        let plan = Self::new(random, Scale::Large);
        let away = random.pick(&[Blow::StoreAway, Blow::StoreFault]);
        let kills = (0..random.between(0, 3)).map(|_| (random.millis(1, 60_000), Blow::Kill));
        let mut blows: Vec<_> = kills.collect();
        blows.extend(away.map(|away| (random.millis(60_000, 90_000), away)));
        Self {
            is_logged: true,
            senders: 8,
            requests: 40,
            spans: 30,
            attempts: u64::MAX,
            log_bytes: 64 << 10,
            blows,
            fault_ms: 2 * 3_600_000,
            ..plan
        }
    }

    pub(crate) fn new(random: &mut Random, scale: Scale) -> Self {
        if scale == Scale::Outage {
            return Self::outage(random);
        }
        let large = scale == Scale::Large;
        let is_logged = random.chance(900);
        let mut kinds = vec![
            Blow::StoreAway,
            Blow::StoreFault,
            Blow::SetBack,
            Blow::Restart,
        ];
        if is_logged {
            // Without a log a repeat after a restart is stored twice: the promise excepts it.
            kinds.extend([
                Blow::PowerLoss,
                Blow::PowerLoss,
                Blow::Kill,
                Blow::DieAtDisk,
                Blow::DieAtDisk,
                Blow::DiskWrites,
                Blow::DiskSyncs,
                Blow::DiskFull,
                Blow::DiskReadOnly,
            ]);
        } else {
            kinds.retain(|kind| *kind != Blow::Restart);
        }
        kinds.retain(|_| random.chance(600));
        let count = match large {
            true => random.between(5, 40),
            false => random.between(0, 4),
        };
        let seconds = if large { 120 } else { 6 };
        let mut blows: Vec<_> = (0..count)
            .filter_map(|_| {
                let at = random.millis(1, seconds * 1000);
                Some((at, random.pick(&kinds)?))
            })
            .collect();
        blows.sort_by_key(|(at, _)| *at);
        let some = |random: &mut Random, most: u64| match random.chance(500) {
            true => 0,
            false => random.between(1, most),
        };
        let weather = Weather {
            refused: some(random, 200),
            reset: some(random, 200),
            slow: some(random, 60),
            errors: some(random, 200),
            latency_ms: random.between(1, 300),
            widest: random.chance(200).then(|| random.between(2, 20) as usize),
            ..Weather::default()
        };
        let small_log = random.chance(150);
        Self {
            is_logged,
            senders: random.between(1, if large { 12 } else { 4 }),
            requests: random.between(1, if large { 60 } else { 6 }),
            spans: random.between(1, if large { 40 } else { 8 }),
            pace_ms: random.between(1, if large { 3000 } else { 800 }),
            lost: some(random, 200),
            bad: some(random, 60),
            attempts: if random.chance(300) {
                random.between(1, 4)
            } else {
                u64::MAX
            },
            blows,
            fault_ms: if large { 90_000 } else { 8000 },
            weather,
            workers: random.between(1, 3) as usize,
            max_rows: random.between(5, 200) as usize,
            exports: random.between(1, 4) as usize,
            memory: random.between(40_000, 4_000_000) as usize,
            log_bytes: if small_log { 64 << 10 } else { 4 << 20 },
            segment_bytes: random.between(1 << 10, 64 << 10),
            buffer_bytes: match random.chance(200) {
                true => random.between(300, 4000),
                false => 256 << 10,
            },
            sync_ms: random.between(0, 20),
        }
    }
}
