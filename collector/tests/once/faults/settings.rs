//! How long the faults last, and the seed of all that is random in them.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// `full` is the length of `cargo xtask faults`; anything else, or nothing, that of `cargo xtask test`.
const LENGTH: &str = "SPANLOOM_FAULTS";
/// A number as it is printed, to repeat a run.
const SEED: &str = "SPANLOOM_FAULTS_SEED";
/// How long the soak lasts, in minutes.
const MINUTES: &str = "SPANLOOM_SOAK_MINUTES";

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether this is the full length.
pub fn is_full() -> bool {
    variable(LENGTH).is_some_and(|length| length == "full")
}

/// One of two, by length.
pub fn either<T>(short: T, full: T) -> T {
    if is_full() { full } else { short }
}

/// So many seconds, by length.
pub fn seconds(short: u64, full: u64) -> Duration {
    Duration::from_secs(either(short, full))
}

/// How long the soak lasts; none: its shortest.
pub fn soak_minutes() -> Option<u64> {
    variable(MINUTES).map(|minutes| minutes.parse().expect("SPANLOOM_SOAK_MINUTES is a number"))
}

/// The seed of a scenario's random numbers, and these. It is printed, which libtest shows of a test that
/// fails.
pub fn random(scenario: &str) -> (u64, StdRng) {
    let seed = variable(SEED).map_or_else(rand::random, |seed| {
        let digits = seed.trim_start_matches("0x");
        u64::from_str_radix(digits, 16).expect("SPANLOOM_FAULTS_SEED is a hexadecimal number")
    });
    eprintln!("{scenario}: repeat it with {SEED}={seed:#x}");
    (seed, StdRng::seed_from_u64(seed))
}
