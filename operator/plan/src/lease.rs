//! The rules of the Lease: who may act, and until when. Other machines' clocks do not matter: how old a
//! claim is, is measured from when it was seen to change.

use std::time::{Duration, Instant};

/// What a read of the Lease said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Changes with each write.
    pub version: String,
    /// Who holds it.
    pub holder: Option<String>,
    /// How long the holder's claim lasts after each renewal.
    pub duration: Duration,
}

/// What a candidate does about the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is free, or ran out: take it.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else acts.
    Wait,
}

/// A candidate's memory of the Lease.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    changed: Option<(String, Instant)>,
}

impl Candidate {
    /// What `me` does, who read this just now.
    pub fn step(&mut self, me: &str, seen: &Seen, now: Instant) -> Step {
        let holder = seen.holder.as_deref().filter(|holder| !holder.is_empty());
        match holder {
            None => return Step::Take,
            Some(holder) if holder == me => return Step::Renew,
            Some(_) => {}
        }
        match &self.changed {
            Some((version, since)) if *version == seen.version => {
                let has_run_out = now.saturating_duration_since(*since) >= seen.duration;
                if has_run_out { Step::Take } else { Step::Wait }
            }
            _ => {
                self.changed = Some((seen.version.clone(), now));
                Step::Wait
            }
        }
    }
}

/// A leader's time: until when it may act.
///
/// A candidate waits for the whole duration, counted from a moment after the API server took the last
/// renewal. The leader counts from before it sent that renewal and stops after two thirds, so it has
/// stopped before another begins, however long the API server took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// How long a claim lasts.
    pub duration: Duration,
    /// When the last renewal that went well was begun.
    pub renewed: Instant,
}

impl Term {
    /// When the leader has to have stopped.
    pub fn ends(&self) -> Instant {
        self.renewed + self.duration * 2 / 3
    }

    /// When it is renewed next, after a renewal that went well or one that did not.
    pub fn next_renewal(&self, now: Instant, went_well: bool) -> Instant {
        if went_well {
            self.renewed + self.duration / 5
        } else {
            now + self.duration / 15
        }
    }

    /// How long one try may take.
    pub fn patience(duration: Duration) -> Duration {
        duration / 3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn seen(version: &str, holder: Option<&str>) -> Seen {
        Seen {
            version: version.to_owned(),
            holder: holder.map(str::to_owned),
            duration: DURATION,
        }
    }

    #[test]
    fn a_candidate_waits_for_the_whole_duration_after_each_change() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut candidate = Candidate::default();
        let mut step =
            |version, holder, second| candidate.step("me", &seen(version, holder), at(second));
        assert_eq!(step("1", Some("other"), 0), Step::Wait);
        assert_eq!(step("1", Some("other"), 14), Step::Wait);
        // It was renewed: the time begins anew, from when that was seen.
        assert_eq!(step("2", Some("other"), 16), Step::Wait);
        assert_eq!(step("2", Some("other"), 30), Step::Wait);
        assert_eq!(step("2", Some("other"), 31), Step::Take);
        assert_eq!(step("3", Some("me"), 32), Step::Renew);
        assert_eq!(step("4", None, 33), Step::Take);
        assert_eq!(step("4", Some(""), 34), Step::Take);
    }

    #[test]
    fn a_leader_stops_before_a_candidate_may_begin() {
        let renewed = Instant::now();
        let term = Term {
            duration: DURATION,
            renewed,
        };
        assert_eq!(term.ends(), renewed + Duration::from_secs(10));
        let next = term.next_renewal(renewed, true);
        assert_eq!(next, renewed + Duration::from_secs(3));
        // A try that hangs is given up in time for another before the end.
        let failed = next + Term::patience(DURATION);
        let again = term.next_renewal(failed, false);
        assert_eq!(again, failed + Duration::from_secs(1));
        assert!(again < term.ends());
        // The earliest that a candidate begins: it saw the renewal as soon as it was sent.
        assert!(term.ends() < renewed + DURATION);
    }
}
