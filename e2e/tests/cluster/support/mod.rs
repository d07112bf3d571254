//! What the scenarios have in common: kubectl, namespaces of their own, one installation for most
//! of them, pipelines, demo apps, questions.

pub mod apps;
pub mod directory;
pub mod install;
pub mod kube;
pub mod namespace;
pub mod node;
pub mod pipeline;

use std::time::{Duration, Instant};

/// How long something may take that is not the scenario's point, on a machine with much to do.
pub const LIMIT: Duration = Duration::from_secs(240);

/// Between two looks, at least.
const PAUSE: Duration = Duration::from_millis(300);

/// Between two looks, in times of what a look took: those who wait leave the machine to what they wait for.
const REST: u32 = 3;

/// Between two looks, at most.
const MAX_PAUSE: Duration = Duration::from_secs(3);

/// Looks again and again until there is an answer; the last reason is the failure's.
pub fn await_some<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        let look_begun = Instant::now();
        let looked = look();
        let pause = PAUSE.max(look_begun.elapsed() * REST);
        match looked {
            Ok(found) => return found,
            Err(reason) if begun.elapsed() > limit => {
                panic!("{what} did not come within {} s: {reason}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(pause.min(MAX_PAUSE)),
        }
    }
}

/// Fails unless `condition`; for [`await_some`].
pub fn want(condition: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(reason()) }
}

/// A short word that no other run has used.
pub fn random_word() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:08x}", RandomState::new().hash_one(0) >> 32)
}
