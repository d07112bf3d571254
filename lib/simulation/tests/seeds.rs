#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests may stop; people read how fast it was
//! Seeds that are run always. One alone: `SPANLOOM_SEED=7 cargo test -p spanloom-simulation --test seeds`, with
//! `SPANLOOM_TRACE=1` for all that happens; others: `SPANLOOM_SEEDS=5000..9000`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use spanloom_simulation::{Control, Report, Scale, run};

/// Seeds that found a bug once: `small` or `large`, the seed, and what it was.
const REGRESSIONS: &str = include_str!("regressions.txt");

fn check(report: &Report, scale: Scale) -> Result<(), String> {
    if report.violations.is_empty() {
        return Ok(());
    }
    let seed = report.seed;
    let name = match scale {
        Scale::Small => "small",
        Scale::Large => "large",
        Scale::Outage => "outages",
    };
    Err(format!(
        "seed {seed}: {:#?}\nrun it alone: SPANLOOM_SEED={seed} cargo test -p spanloom-simulation --test seeds \
         {name}",
        report.violations
    ))
}

/// Runs seeds on all cores, and panics with those that failed.
fn run_all(scale: Scale, seeds: Range<u64>) -> BTreeMap<&'static str, u64> {
    let chosen = |name: &str| std::env::var(name).ok();
    let seeds = match (chosen("SPANLOOM_SEED"), chosen("SPANLOOM_SEEDS")) {
        (Some(seed), _) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        (None, Some(range)) => {
            let (from, to) = range.split_once("..").unwrap();
            from.parse().unwrap()..to.parse().unwrap()
        }
        (None, None) => seeds,
    };
    let begin = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(Vec::new());
    let sums = Mutex::new((0, 0));
    let paths = Mutex::new(BTreeMap::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = run(seed, scale, Control::None);
                    let mut sums = sums.lock().unwrap();
                    sums.0 += report.acknowledged;
                    sums.1 += report.processes;
                    drop(sums);
                    let mut paths = paths.lock().unwrap();
                    for (path, count) in &report.paths {
                        *paths.entry(*path).or_default() += count;
                    }
                    drop(paths);
                    if let Err(error) = check(&report, scale) {
                        failed.lock().unwrap().push(error);
                    }
                }
            });
        }
    });
    let (spans, processes) = *sums.lock().unwrap();
    println!(
        "{} seeds in {:.1} s: {spans} spans acknowledged, {processes} processes",
        seeds.end - seeds.start,
        begin.elapsed().as_secs_f64()
    );
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} seeds failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    let paths = paths.into_inner().unwrap();
    println!("{paths:#?}");
    paths
}

#[test]
fn small_seeds() {
    let paths = run_all(Scale::Small, 0..2000);
    let is_all =
        std::env::vars_os().all(|(name, _)| !name.to_string_lossy().starts_with("SPANLOOM_SEED"));
    for (path, count) in paths.into_iter().filter(|_| is_all) {
        assert!(count > 20, "{path} is {count}: these runs hardly go there");
    }
}

#[test]
fn large_seeds() {
    run_all(Scale::Large, 0..20);
}

#[test]
fn outages() {
    run_all(Scale::Outage, 2..6);
}

#[test]
fn regressions() {
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let scale = match words.next() {
            Some("small") => Scale::Small,
            Some("large") => Scale::Large,
            Some("outage") => Scale::Outage,
            other => panic!("{other:?} is no size of a run"),
        };
        let seed = words.next().and_then(|seed| seed.parse().ok()).unwrap();
        check(&run(seed, scale, Control::None), scale).unwrap();
    }
}

#[test]
fn a_seed_gives_the_same_events_whenever_it_is_run() {
    for (scale, seeds) in [(Scale::Small, 0..40), (Scale::Large, 0..2)] {
        for seed in seeds {
            let first = run(seed, scale, Control::None);
            assert_eq!(first, run(seed, scale, Control::None));
        }
    }
}

fn found(control: Control) {
    let fails = |seed| !run(seed, Scale::Small, control).violations.is_empty();
    assert!((0..300).any(fails), "{control:?} was not found");
}

#[test]
fn a_disk_that_lies_is_found() {
    found(Control::LyingDisk);
}

#[test]
fn a_store_that_forgets_tokens_is_found() {
    found(Control::ForgetfulStore);
}
