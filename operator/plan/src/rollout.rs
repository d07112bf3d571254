//! Whether the agents' rollout goes well, and what to do when it does not. Pure.

use std::time::Duration;

use jiff::Timestamp;
use spanloom_crds::status::Rollout;

/// What was seen of the agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Every agent is the new one, ready, and uses the new configuration.
    pub complete: bool,
    /// An agent refused the new configuration, and why.
    pub refused: Option<String>,
    /// What stands in the way, in words.
    pub trouble: String,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The rollout, for the status.
    pub rollout: Rollout,
    /// The last good configuration and agents take the place of the new ones.
    pub use_last_good: bool,
    /// The new ones are good now.
    pub record_good: bool,
}

/// The rollout is under way.
pub const PROGRESSING: &str = "Progressing";
/// Every agent is new, ready, and uses the new configuration; once true it stays.
pub const COMPLETE: &str = "Complete";
/// It failed, and there is nothing to return to.
pub const FAILED: &str = "Failed";
/// It failed, and the last good configuration is back.
pub const ROLLED_BACK: &str = "RolledBack";

/// Judges the rollout of what `hash` names, asked for by `generation`.
pub fn decide(
    previous: Option<&Rollout>,
    hash: &str,
    generation: i64,
    facts: &Facts,
    has_last_good: bool,
    now: Timestamp,
    deadline: Duration,
) -> Decision {
    let mut rollout = match previous {
        Some(previous) if previous.hash == hash => {
            let mut rollout = previous.clone();
            // Someone changed the document: what failed gets another chance.
            if previous.generation != generation && previous.state != COMPLETE {
                rollout = begun(hash, generation, now);
            }
            rollout.generation = generation;
            rollout
        }
        _ => begun(hash, generation, now),
    };
    match rollout.state.as_str() {
        PROGRESSING | FAILED if facts.complete => {
            rollout.state = COMPLETE.to_owned();
            rollout.cause = None;
        }
        PROGRESSING => {
            let started: Timestamp = rollout.started_at.parse().unwrap_or(now);
            let taken = Duration::try_from(now.duration_since(started)).unwrap_or_default();
            let cause = match &facts.refused {
                Some(refusal) => Some(format!("an agent refuses the configuration: {refusal}")),
                None if taken >= deadline => Some(format!(
                    "the new agents are not ready after {} s: {}",
                    deadline.as_secs(),
                    facts.trouble
                )),
                None => None,
            };
            if cause.is_some() {
                let state = if has_last_good { ROLLED_BACK } else { FAILED };
                rollout.state = state.to_owned();
                rollout.cause = cause;
            }
        }
        _ => {}
    }
    Decision {
        use_last_good: rollout.state == ROLLED_BACK && has_last_good,
        record_good: rollout.state == COMPLETE && facts.complete,
        rollout,
    }
}

fn begun(hash: &str, generation: i64, now: Timestamp) -> Rollout {
    Rollout {
        hash: hash.to_owned(),
        generation,
        started_at: seconds(now),
        state: PROGRESSING.to_owned(),
        cause: None,
    }
}

/// A time as Kubernetes writes it: whole seconds.
pub fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second())
        .unwrap_or(time)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(300);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn waiting() -> Facts {
        Facts {
            trouble: "pod a: ImagePullBackOff".to_owned(),
            ..Facts::default()
        }
    }

    fn done() -> Facts {
        Facts {
            complete: true,
            ..Facts::default()
        }
    }

    #[track_caller]
    fn step(
        previous: Option<&Rollout>,
        hash: &str,
        generation: i64,
        facts: &Facts,
        good: bool,
        second: i64,
    ) -> Decision {
        decide(
            previous,
            hash,
            generation,
            facts,
            good,
            at(second),
            DEADLINE,
        )
    }

    #[test]
    fn the_first_rollout_completes_and_is_remembered() {
        let first = step(None, "a", 1, &waiting(), false, 0);
        assert_eq!(first.rollout.state, PROGRESSING);
        assert!(!first.record_good && !first.use_last_good);
        let second = step(Some(&first.rollout), "a", 1, &done(), false, 20);
        assert_eq!(second.rollout.state, COMPLETE);
        assert!(second.record_good);
        // A pod that is gone later is no failed rollout.
        let later = step(Some(&second.rollout), "a", 1, &waiting(), true, 9_000);
        assert_eq!(later.rollout, second.rollout);
        assert!(!later.record_good && !later.use_last_good);
        // A change elsewhere in the document is no new rollout.
        let elsewhere = step(Some(&later.rollout), "a", 2, &waiting(), true, 9_001);
        assert_eq!(elsewhere.rollout.state, COMPLETE);
    }

    #[test]
    fn a_bad_rollout_returns_at_its_deadline_and_stays_there() {
        let start = step(None, "b", 2, &waiting(), true, 0).rollout;
        let early = step(Some(&start), "b", 2, &waiting(), true, 299);
        assert_eq!(early.rollout.state, PROGRESSING);
        let late = step(Some(&start), "b", 2, &waiting(), true, 300);
        assert_eq!(late.rollout.state, ROLLED_BACK);
        assert!(late.use_last_good);
        assert_eq!(
            late.rollout.cause.as_deref(),
            Some("the new agents are not ready after 300 s: pod a: ImagePullBackOff")
        );
        // The old ones are complete again: that says nothing about the new ones.
        let after = step(Some(&late.rollout), "b", 2, &done(), true, 400);
        assert!(after.use_last_good && !after.record_good);
        // A new generation tries again.
        let again = step(Some(&late.rollout), "b", 3, &waiting(), true, 500);
        assert_eq!(again.rollout.state, PROGRESSING);
        assert_eq!(again.rollout.started_at, seconds(at(500)));
        let other = step(Some(&late.rollout), "c", 3, &waiting(), true, 500);
        assert_eq!(other.rollout.state, PROGRESSING);
    }

    #[test]
    fn a_refused_configuration_returns_at_once() {
        let facts = Facts {
            refused: Some("unknown version 9".to_owned()),
            ..waiting()
        };
        let decision = step(None, "b", 2, &facts, true, 0);
        assert_eq!(decision.rollout.state, ROLLED_BACK);
        let cause = decision.rollout.cause.unwrap();
        assert_eq!(
            cause,
            "an agent refuses the configuration: unknown version 9"
        );
    }

    #[test]
    fn without_anything_to_return_to_it_fails_and_may_still_recover() {
        let start = step(None, "a", 1, &waiting(), false, 0).rollout;
        let failed = step(Some(&start), "a", 1, &waiting(), false, 300);
        assert_eq!(failed.rollout.state, FAILED);
        assert!(!failed.use_last_good);
        let recovered = step(Some(&failed.rollout), "a", 1, &done(), false, 900);
        assert_eq!(recovered.rollout.state, COMPLETE);
        assert!(recovered.record_good);
    }
}
