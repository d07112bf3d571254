//! Whether the rollout of collectors goes well, and what to do when it does not.
//!
//! The last good configuration comes back on evidence of harm only: a new collector refuses its
//! configuration, new ones crash as the old ones did not, or on nodes that are Ready nothing has moved
//! for the whole deadline. What is merely absent, such as a node that is not Ready, neither blocks a
//! rollout nor undoes it. A change that was taken back is tried again when something that may have been
//! the cause has changed, else after growing pauses.

use std::time::Duration;

use jiff::Timestamp;
use spanloom_crds::status::Rollout;

use crate::retry::doubled;

/// What was seen of the collectors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every Ready node has the new collector, ready, with the new configuration.
    pub complete: bool,
    /// Kubernetes has the new form. Until then no time counts.
    pub is_placed: bool,
    /// Ready nodes whose collector is as it should be.
    pub done: i64,
    /// Ready nodes that wait for it.
    pub waiting: i64,
    /// A new collector refused the new configuration, and why.
    pub refused: Option<String>,
    /// New collectors crash, and what they say.
    pub crashed: Option<String>,
    /// What stands in the way, in words.
    pub trouble: String,
}

/// What is rolled out, and the circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The rollout as it was last.
    pub previous: Option<&'a Rollout>,
    /// Names what is rolled out.
    pub hash: &'a str,
    /// The generation of the spec that asks for it.
    pub generation: i64,
    /// The value of the annotation by which a person asks for another try.
    pub asked: Option<&'a str>,
    /// There is something to return to.
    pub has_last_good: bool,
    /// Something that may have been the cause of a failure is different now.
    pub has_changed: bool,
    /// The time.
    pub now: Timestamp,
    /// How long nothing may move.
    pub deadline: Duration,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rollout, for the status.
    pub rollout: Rollout,
    /// The last good configuration and collectors take the place of the new ones.
    pub use_last_good: bool,
    /// The new ones are good now.
    pub record_good: bool,
}

/// The rollout is under way.
pub const PROGRESSING: &str = "Progressing";
/// Every Ready node has the new collector, ready, with the new configuration; once true it stays.
pub const COMPLETE: &str = "Complete";
/// It failed, and there is nothing to return to.
pub const FAILED: &str = "Failed";
/// It failed, and the last good configuration is back.
pub const ROLLED_BACK: &str = "RolledBack";

/// The pause before a change that was taken back is tried again, and the longest one, in seconds.
const RETRY_PAUSES: (u64, u64) = (600, 6 * 3_600);
/// The least time between two tries, however much changes.
const RETRY_LEAST: Duration = Duration::from_secs(60);

/// Judges a rollout.
pub fn decide(case: Case<'_>, facts: &Facts) -> Decision {
    let mut rollout = carried_on(&case);
    if rollout.state == ROLLED_BACK && is_due(&case, &rollout) {
        rollout = Rollout {
            attempts: rollout.attempts,
            cause: rollout.cause,
            ..begun(&case)
        };
    }
    match rollout.state.as_str() {
        PROGRESSING | FAILED if facts.complete => {
            rollout = Rollout {
                state: COMPLETE.to_owned(),
                started_at: rollout.started_at,
                ..begun(&case)
            };
        }
        PROGRESSING => {
            let stalled = progress(&mut rollout, &case, facts);
            if let Some(cause) = harm(facts, stalled, case.deadline) {
                fail(&mut rollout, &case, cause);
            }
        }
        _ => {}
    }
    Decision {
        use_last_good: rollout.state == ROLLED_BACK && case.has_last_good,
        record_good: rollout.state == COMPLETE && facts.complete && facts.done > 0,
        rollout,
    }
}

/// The rollout under the spec as it is now. Somebody who changes it, or asks, gives what failed another
/// chance.
fn carried_on(case: &Case<'_>) -> Rollout {
    let Some(previous) = case.previous.filter(|previous| previous.hash == case.hash) else {
        return begun(case);
    };
    let is_asked =
        previous.generation != case.generation || previous.retry.as_deref() != case.asked;
    if is_asked && previous.state != COMPLETE {
        return begun(case);
    }
    Rollout {
        generation: case.generation,
        retry: case.asked.map(str::to_owned),
        ..previous.clone()
    }
}

fn begun(case: &Case<'_>) -> Rollout {
    Rollout {
        hash: case.hash.to_owned(),
        generation: case.generation,
        started_at: seconds(case.now),
        state: PROGRESSING.to_owned(),
        retry: case.asked.map(str::to_owned),
        ..Rollout::default()
    }
}

/// Whether a change that was taken back is tried again now.
fn is_due(case: &Case<'_>, rollout: &Rollout) -> bool {
    let is_time = time(rollout.retry_at.as_deref()).is_none_or(|at| case.now >= at);
    let begun = time(Some(&rollout.started_at));
    let is_soon = begun.is_some_and(|begun| elapsed(begun, case.now) < RETRY_LEAST);
    is_time || (case.has_changed && !is_soon)
}

/// Notes what has moved. Says for how long nothing has, where that counts.
fn progress(rollout: &mut Rollout, case: &Case<'_>, facts: &Facts) -> Duration {
    if !facts.is_placed || facts.waiting == 0 {
        // Nothing waits for a node that is Ready: the time begins anew when something does.
        rollout.progressed_at = None;
        return Duration::ZERO;
    }
    let since = time(rollout.progressed_at.as_deref());
    match since {
        Some(since) if facts.done <= rollout.done => elapsed(since, case.now),
        _ => {
            rollout.done = rollout.done.max(facts.done);
            rollout.progressed_at = Some(seconds(case.now));
            Duration::ZERO
        }
    }
}

fn harm(facts: &Facts, stalled: Duration, deadline: Duration) -> Option<String> {
    if let Some(refusal) = &facts.refused {
        return Some(format!("a collector rejected the configuration: {refusal}"));
    }
    if let Some(crash) = &facts.crashed {
        return Some(format!("new collectors crash: {crash}"));
    }
    (stalled >= deadline).then(|| {
        let seconds = deadline.as_secs();
        let Facts {
            waiting, trouble, ..
        } = facts;
        format!("no progress for {seconds} s, {waiting} Ready nodes are waiting: {trouble}")
    })
}

fn fail(rollout: &mut Rollout, case: &Case<'_>, cause: String) {
    rollout.cause = Some(cause);
    rollout.attempts = rollout.attempts.saturating_add(1);
    if !case.has_last_good {
        rollout.state = FAILED.to_owned();
        return;
    }
    rollout.state = ROLLED_BACK.to_owned();
    let attempts = u32::try_from(rollout.attempts).unwrap_or(u32::MAX);
    let pause = doubled(RETRY_PAUSES.0, RETRY_PAUSES.1, attempts);
    rollout.retry_at = Some(seconds(case.now + pause));
}

/// Whether a try goes to one node first: the change has failed before, and no node has it yet.
pub fn is_on_one_node(rollout: Option<&Rollout>) -> bool {
    rollout.is_some_and(|rollout| {
        rollout.state == PROGRESSING && rollout.attempts > 0 && rollout.done == 0
    })
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A time as Kubernetes writes it: whole seconds.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

#[cfg(test)]
#[path = "rollout/tests.rs"]
mod tests;
