//! Control runs: without a protection, the checker finds what is wrong.

use super::super::Mood;
use super::super::proxy::Misdeed;
use super::load::Pace;
use super::program::Options;
use super::rig::Rig;

async fn without(scenario: &'static str, protection: &'static str) -> Rig {
    let options = Options {
        without: Some(protection),
        ..Options::default()
    };
    Rig::start(scenario, options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_deduplication_the_checker_finds_spans_twice() {
    let mut rig = without("without deduplication", "deduplication").await;
    rig.phase("reset after commit");
    rig.send(&Pace::of(3_000));
    let tables = ["spans", "half_edges", "trace_index", "red", "red_hours"];
    // Each by itself: the spans of a batch are inserted after all others.
    for (done, table) in tables.into_iter().enumerate() {
        let proxy = &rig.ground.proxy;
        proxy.misbehave(Misdeed::LoseReply, 1, Some(table));
        proxy.wait_done(done + 1).await;
    }
    let outcome = rig.finish().await;
    let found = &outcome.phases[0].tables;
    for table in tables {
        assert!(found[table].doubled > 0, "{table}: {found:?}");
    }
    assert_eq!(outcome.phases[0].total().lost, 0, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answered_before_they_are_durable_the_checker_finds_spans_lost() {
    let mut rig = without("without a durable log", "storing").await;
    rig.phase("kill -9");
    rig.ground.proxy.set(Mood::Away).await;
    rig.send(&Pace::of(3_000));
    rig.load.wait_acknowledged(20).await;
    rig.kill_collector();
    rig.load.wait_acknowledged(20).await;
    let outcome = rig.finish().await;
    let found = &outcome.phases[0].tables;
    for table in [
        "spans",
        "half_edges",
        "trace_index",
        "red",
        "red_hours",
        "edges",
    ] {
        assert!(found[table].lost > 0, "{table}: {found:?}");
    }
}
