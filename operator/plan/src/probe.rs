//! When a probe is sent, and what the last one stands for.

use std::time::{Duration, Instant};

use crate::conditions::Probed;
use crate::retry::doubled;

/// How long a probe that came back counts, as long as the same pods stand.
const HOLDS: Duration = Duration::from_secs(300);
/// The pause after the first probe that was lost, and the longest one, in seconds.
const LOST_PAUSES: (u64, u64) = (8, 300);

/// What a probe is to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The spec that is in force.
    pub generation: i64,
    /// The uids of the pods that it goes through, sorted, the query service's last.
    pub pods: Vec<String>,
}

/// The probes of one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Probes {
    last: Option<Last>,
    under_way: Option<Wanted>,
}

#[derive(Debug, Clone)]
struct Last {
    wanted: Wanted,
    ended: Instant,
    went: Probed,
    losses: u32,
}

impl Probes {
    /// What is known now, and whether a probe is to be sent now; `wanted` is none while something that
    /// it goes through is not ready.
    pub fn look(&mut self, wanted: Option<&Wanted>, now: Instant) -> (Probed, bool) {
        let Some(wanted) = wanted else {
            return (Probed::NotYet, false);
        };
        // What came back counts for the same spec until the pods that came since are probed.
        let known = match &self.last {
            Some(last) if last.wanted.generation == wanted.generation => last.went.clone(),
            _ => Probed::NotYet,
        };
        let is_due = self.under_way.is_none()
            && match &self.last {
                Some(last) if last.wanted == *wanted => now >= last.ended + last.pause(),
                // Other pods: the pauses after losses stay, or pods that come and go would end them.
                Some(last) if last.losses > 1 => now >= last.ended + last.pause(),
                _ => true,
            };
        if is_due {
            self.under_way = Some(wanted.clone());
        }
        (known, is_due)
    }

    /// The probe that was under way ended.
    pub fn ended(&mut self, went: Probed, now: Instant) {
        let Some(wanted) = self.under_way.take() else {
            return;
        };
        let before = self.last.as_ref().map_or(0, |last| last.losses);
        let losses = match went {
            Probed::All(_) => 0,
            Probed::NotYet | Probed::Lost(_) => before.saturating_add(1),
        };
        self.last = Some(Last {
            wanted,
            ended: now,
            went,
            losses,
        });
    }
}

impl Last {
    fn pause(&self) -> Duration {
        match self.went {
            Probed::All(_) => HOLDS,
            Probed::NotYet | Probed::Lost(_) => doubled(LOST_PAUSES.0, LOST_PAUSES.1, self.losses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(generation: i64, pod: &str) -> Wanted {
        Wanted {
            generation,
            pods: vec![pod.to_owned()],
        }
    }

    fn lost() -> Probed {
        Probed::Lost("x".to_owned())
    }

    #[test]
    fn a_probe_that_came_back_counts_for_five_minutes_and_for_its_spec() {
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut probes = Probes::default();
        assert_eq!(probes.look(None, at(0)), (Probed::NotYet, false));
        let (one, two) = (wanted(1, "a"), wanted(1, "b"));
        assert_eq!(probes.look(Some(&one), at(0)), (Probed::NotYet, true));
        // One at a time.
        assert_eq!(probes.look(Some(&one), at(1)), (Probed::NotYet, false));
        probes.ended(Probed::All(1), at(2));
        assert_eq!(probes.look(Some(&one), at(3)), (Probed::All(1), false));
        assert_eq!(probes.look(Some(&one), at(301)), (Probed::All(1), false));
        assert_eq!(probes.look(Some(&one), at(302)), (Probed::All(1), true));
        probes.ended(Probed::All(1), at(303));
        // Another pod: sent at once; another spec: nothing is known of it.
        assert_eq!(probes.look(Some(&two), at(304)), (Probed::All(1), true));
        probes.ended(Probed::All(1), at(305));
        let changed = wanted(2, "b");
        assert_eq!(probes.look(Some(&changed), at(306)), (Probed::NotYet, true));
        assert_eq!(probes.look(None, at(307)), (Probed::NotYet, false));
    }

    #[test]
    fn lost_probes_back_off_whatever_the_pods_do() {
        let start = Instant::now();
        let mut now = start;
        let mut probes = Probes::default();
        let mut pauses = Vec::new();
        for round in 0..9 {
            let wanted = wanted(1, &round.to_string());
            let sent = now;
            while !probes.look(Some(&wanted), now).1 {
                now += Duration::from_secs(1);
            }
            pauses.push((now - sent).as_secs());
            probes.ended(lost(), now);
            assert_eq!(probes.look(Some(&wanted), now), (lost(), false));
        }
        assert_eq!(pauses, [0, 0, 16, 32, 64, 128, 256, 300, 300]);
        // The same pods wait from the first loss on.
        let mut probes = Probes::default();
        let one = wanted(1, "a");
        assert!(probes.look(Some(&one), start).1);
        probes.ended(lost(), start);
        assert!(!probes.look(Some(&one), start + Duration::from_secs(7)).1);
        assert!(probes.look(Some(&one), start + Duration::from_secs(8)).1);
    }
}
