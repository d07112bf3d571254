//! Processes that are killed, and a ClickHouse that is away.

use rand::RngExt;

use super::super::proxy::Misdeed;
use super::super::{Mood, TABLES};
use super::load::Pace;
use super::program::Options;
use super::rig::Rig;
use super::settings::{either, seconds};

/// Spans a second while a process is killed: much is under way then, and the checker does not read for long.
const RATE: u32 = 3_000;

/// Bytes added to each span of a scenario that fills memory.
const PADDING: usize = 1_000;

#[tokio::test(flavor = "multi_thread")]
async fn collector_killed() {
    let mut rig = Rig::start("collector killed", Options::default()).await;
    rig.phase("kill -9");
    rig.send(&Pace::of(RATE));
    for _ in 0..either(8, 50) {
        // In one round of two the store is away for a while.
        let is_away = rig.random.random();
        let mood = if is_away { Mood::Away } else { Mood::Honest };
        rig.ground.proxy.set(mood).await;
        let answers = rig.random.random_range(2..25);
        rig.load.wait_acknowledged(answers).await;
        rig.some_time(30).await;
        rig.kill_collector();
    }
    rig.finish().await.assert_all_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn engine_killed() {
    let mut rig = Rig::start("engine killed", Options::default()).await;
    rig.phase("kill -9");
    rig.send(&Pace::of(RATE));
    for _ in 0..either(3, 25) {
        let inserts = rig.random.random_range(1..12);
        rig.ground.proxy.wait_committed(inserts).await;
        rig.some_time(100).await;
        rig.store.kill().await;
    }
    rig.finish().await.assert_all_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn store_away() {
    let mut rig = Rig::start("store away", Options::default()).await;
    rig.phase("before");
    rig.send(&Pace::of(5_000));
    rig.load.wait_acknowledged(40).await;
    rig.ground.proxy.set(Mood::Away).await;
    rig.phase("away");
    tokio::time::sleep(seconds(4, 300)).await;
    rig.ground.proxy.set(Mood::Honest).await;
    rig.phase("back");
    rig.load.wait_acknowledged(100).await;
    let outcome = rig.finish().await;
    // The log has room for all of it.
    assert_eq!(outcome.ledger.pushed_back(), 0);
    outcome.assert_all_once();
}

/// While ClickHouse takes inserts but does not answer, senders are not told to retry either.
#[tokio::test(flavor = "multi_thread")]
async fn engine_hangs() {
    let options = Options {
        memory_bytes: 256 << 20,
        ..Options::default()
    };
    let mut rig = Rig::start("engine hangs", options).await;
    rig.phase("no answers");
    rig.ground.proxy.set(Mood::Holding).await;
    rig.send(&Pace::closed(8, PADDING));
    // More than there is memory for.
    rig.load.wait_acknowledged(either(800, 3_000)).await;
    rig.ground.proxy.set(Mood::Honest).await;
    rig.phase("answers");
    rig.load.wait_acknowledged(100).await;
    let outcome = rig.finish().await;
    assert_eq!(outcome.ledger.pushed_back(), 0);
    outcome.assert_all_once();
}

/// What the engine has, and the collector does not know of, must not be there twice when it is sent again to the
/// engine that was restarted.
#[tokio::test(flavor = "multi_thread")]
async fn engine_killed_after_commits() {
    let mut rig = Rig::start("engine killed after commits", Options::default()).await;
    rig.phase("kill -9");
    rig.send(&Pace::of(RATE));
    for round in 0..either(2, 10) {
        let proxy = &rig.ground.proxy;
        let so_far = proxy.done();
        // The spans of a batch are inserted when all else of it is: while nothing is confirmed, they are not.
        let (table, lost) = match round % 2 {
            0 => (None, 2 * TABLES),
            _ => (Some("spans"), 2),
        };
        proxy.misbehave(Misdeed::LoseReply, usize::MAX, table);
        proxy.wait_done(so_far + lost).await;
        proxy.set(Mood::Away).await;
        proxy.forgive();
        rig.store.kill().await;
        rig.ground.proxy.set(Mood::Honest).await;
    }
    rig.finish().await.assert_all_once();
}
