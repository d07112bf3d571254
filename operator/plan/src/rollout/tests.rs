//! How rollouts go, step by step.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

const DEADLINE: Duration = Duration::from_secs(300);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// So many of 500 Ready nodes have it.
fn done(done: i64) -> Facts {
    Facts {
        complete: done == 500,
        is_placed: true,
        done,
        waiting: 500 - done,
        trouble: "pod a: ImagePullBackOff".to_owned(),
        ..Facts::default()
    }
}

/// A rollout, looked at again and again.
struct Story {
    rollout: Option<Rollout>,
    hash: &'static str,
    generation: i64,
    asked: Option<&'static str>,
    has_last_good: bool,
    has_changed: bool,
}

impl Story {
    fn new(hash: &'static str) -> Self {
        Self {
            rollout: None,
            hash,
            generation: 1,
            asked: None,
            has_last_good: true,
            has_changed: false,
        }
    }

    fn look(&mut self, second: i64, facts: &Facts) -> Decision {
        let case = Case {
            previous: self.rollout.as_ref(),
            hash: self.hash,
            generation: self.generation,
            asked: self.asked,
            has_last_good: self.has_last_good,
            has_changed: self.has_changed,
            now: at(second),
            deadline: DEADLINE,
        };
        let decision = decide(case, facts);
        self.rollout = Some(decision.rollout.clone());
        self.has_changed = false;
        decision
    }

    #[track_caller]
    fn is(&mut self, second: i64, facts: &Facts, state: &str) -> Decision {
        let decision = self.look(second, facts);
        assert_eq!(decision.rollout.state, state, "{second}: {decision:?}");
        assert_eq!(decision.use_last_good, state == ROLLED_BACK);
        decision
    }

    fn cause(&self) -> &str {
        self.rollout
            .as_ref()
            .unwrap()
            .cause
            .as_deref()
            .unwrap_or_default()
    }
}

#[test]
fn the_first_rollout_completes_and_is_remembered() {
    let mut story = Story::new("a");
    story.has_last_good = false;
    assert!(!story.is(0, &done(0), PROGRESSING).record_good);
    assert!(story.is(20, &done(500), COMPLETE).record_good);
    // A pod that is gone later is no failed rollout.
    let later = story.is(9_000, &done(499), COMPLETE);
    assert!(!later.record_good && later.rollout.started_at == seconds(at(0)));
    // Nor is a change elsewhere in the spec.
    story.generation = 2;
    story.is(9_001, &done(0), COMPLETE);
    story.asked = Some("now");
    story.is(9_002, &done(0), COMPLETE);
    // Without a node there is nothing to have seen it work on.
    let nowhere = Facts {
        complete: true,
        is_placed: true,
        ..Facts::default()
    };
    assert!(!Story::new("a").is(0, &nowhere, COMPLETE).record_good);
}

#[test]
fn five_hundred_nodes_one_after_the_other_are_healthy() {
    let mut story = Story::new("b");
    for node in 0..500 {
        story.is(node * 290, &done(node), PROGRESSING);
    }
    story.is(500 * 290, &done(500), COMPLETE);
}

#[test]
fn without_progress_it_is_taken_back_at_the_deadline() {
    let mut story = Story::new("b");
    story.is(0, &done(0), PROGRESSING);
    story.is(200, &done(3), PROGRESSING);
    story.is(499, &done(2), PROGRESSING);
    story.is(500, &done(3), ROLLED_BACK);
    assert_eq!(
        story.cause(),
        "no progress for 300 s, 497 Ready nodes are waiting: pod a: ImagePullBackOff"
    );
    // The old ones are complete again: that says nothing about the new ones.
    let after = story.is(600, &done(500), ROLLED_BACK);
    assert!(!after.record_good);
}

#[test]
fn time_counts_only_where_a_ready_node_waits_for_what_kubernetes_has() {
    let absent = Facts {
        waiting: 0,
        ..done(499)
    };
    let not_placed = Facts {
        is_placed: false,
        ..done(0)
    };
    for facts in [absent, not_placed] {
        let mut story = Story::new("b");
        story.is(0, &done(0), PROGRESSING);
        for second in [100, 5_000, 50_000] {
            let said = story.is(second, &facts, PROGRESSING);
            assert_eq!(said.rollout.progressed_at, None, "written again and again");
        }
        story.is(50_001, &done(0), PROGRESSING);
        story.is(50_300, &done(0), PROGRESSING);
        story.is(50_301, &done(0), ROLLED_BACK);
    }
}

#[test]
fn a_refusal_or_crashes_take_it_back_at_once() {
    let refused = Facts {
        refused: Some("a: unknown version 9".to_owned()),
        ..done(1)
    };
    let crashed = Facts {
        crashed: Some("pod a: OOMKilled".to_owned()),
        ..done(1)
    };
    for (facts, says) in [
        (
            refused,
            "a collector rejected the configuration: a: unknown version 9",
        ),
        (crashed, "new collectors crash: pod a: OOMKilled"),
    ] {
        let mut story = Story::new("b");
        story.is(0, &facts, ROLLED_BACK);
        assert_eq!(story.cause(), says);
    }
}

#[test]
fn it_is_tried_again_after_growing_pauses() {
    let mut story = Story::new("b");
    let (mut second, mut pauses) = (0, Vec::new());
    for _ in 0..8 {
        story.is(second, &done(0), PROGRESSING);
        assert_eq!(is_on_one_node(story.rollout.as_ref()), second > 0);
        story.is(second + 300, &done(0), ROLLED_BACK);
        let failed = second + 300;
        let retry_at: Timestamp = {
            let rollout = story.rollout.as_ref().unwrap();
            rollout.retry_at.as_deref().unwrap().parse().unwrap()
        };
        second = retry_at.as_second() - at(0).as_second();
        pauses.push((second - failed) / 60);
        story.is(second - 1, &done(0), ROLLED_BACK);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 360, 360]);
    // With one node done the others may follow.
    story.is(second, &done(0), PROGRESSING);
    story.is(second + 10, &done(1), PROGRESSING);
    assert!(!is_on_one_node(story.rollout.as_ref()));
    let good = story.is(second + 20, &done(500), COMPLETE);
    assert_eq!((good.rollout.attempts, good.rollout.cause), (0, None));
}

#[test]
fn it_is_tried_again_when_what_may_have_been_the_cause_has_changed() {
    let refused = Facts {
        refused: Some("no".to_owned()),
        ..done(0)
    };
    let mut story = Story::new("b");
    story.is(0, &refused, ROLLED_BACK);
    // Not again and again, however much changes.
    story.has_changed = true;
    story.is(59, &done(0), ROLLED_BACK);
    story.has_changed = true;
    story.is(60, &done(0), PROGRESSING);
    assert!(is_on_one_node(story.rollout.as_ref()));
    story.is(61, &refused, ROLLED_BACK);
    assert_eq!(story.rollout.as_ref().unwrap().attempts, 2);
    // A person who changes the spec or asks gets a whole new rollout.
    story.asked = Some("2");
    story.is(62, &done(0), PROGRESSING);
    assert!(!is_on_one_node(story.rollout.as_ref()));
    story.is(63, &refused, ROLLED_BACK);
    story.generation = 2;
    story.is(64, &done(0), PROGRESSING);
    story.is(65, &refused, ROLLED_BACK);
    story.hash = "c";
    story.is(66, &done(0), PROGRESSING);
}

#[test]
fn a_status_of_an_older_version_is_tried_again() {
    let mut story = Story::new("b");
    story.rollout = Some(Rollout {
        hash: "b".to_owned(),
        generation: 1,
        started_at: seconds(at(-9)),
        state: ROLLED_BACK.to_owned(),
        ..Rollout::default()
    });
    story.is(0, &done(0), PROGRESSING);
}

#[test]
fn without_anything_to_return_to_it_fails_and_may_still_recover() {
    let mut story = Story::new("a");
    story.has_last_good = false;
    story.is(0, &done(0), PROGRESSING);
    story.is(300, &done(0), FAILED);
    story.is(9_000, &done(1), FAILED);
    let recovered = story.is(9_900, &done(500), COMPLETE);
    assert!(recovered.record_good && recovered.rollout.cause.is_none());
}
