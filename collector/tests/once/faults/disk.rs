//! A log that is full, and a disk that is.

use super::super::Mood;
use super::ballast::Disk;
use super::load::Pace;
use super::program::Options;
use super::rig::Rig;
use super::settings::either;

/// Bytes added to each span, so that little time fills a log.
const PADDING: usize = 500;

/// Senders are told to retry while the log is full, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn log_full() {
    let options = Options {
        log_bytes: 16 << 20,
        ..Options::default()
    };
    let mut rig = Rig::start("log full", options).await;
    fill_and_drain(&mut rig, either(1, 10)).await;
    let outcome = rig.finish().await;
    assert!(outcome.ledger.pushed_back() > 0);
    outcome.assert_all_once();
}

/// Until senders are pushed back, and until what they repeat is taken; so often.
async fn fill_and_drain(rig: &mut Rig, times: usize) {
    for _ in 0..times {
        rig.phase("full");
        rig.ground.proxy.set(Mood::Away).await;
        rig.send(&Pace::closed(4, PADDING));
        let before = rig.load.ledger().pushed_back();
        rig.load
            .wait_until("a full log", |ledger| ledger.pushed_back() >= before + 8)
            .await;
        rig.phase("room again");
        rig.ground.proxy.set(Mood::Honest).await;
        rig.load.wait_acknowledged(40).await;
        rig.load.pause().await;
    }
}

/// The disk is full while the log may still grow: the same, and a collector that goes on when there is space.
#[tokio::test(flavor = "multi_thread")]
async fn disk_full() {
    let Some((disk, mut rig)) = on_a_small_disk("disk full").await else {
        return;
    };
    for _ in 0..either(1, 5) {
        disk.put(24 << 20);
        rig.phase("no space");
        rig.ground.proxy.set(Mood::Away).await;
        fill_the_disk(&mut rig).await;
        rig.phase("space again");
        disk.take();
        rig.load.wait_acknowledged(8).await;
        rig.phase("delivered");
        rig.ground.proxy.set(Mood::Honest).await;
        rig.load.wait_acknowledged(40).await;
        rig.load.pause().await;
    }
    let outcome = rig.finish().await;
    drop(disk);
    outcome.assert_all_once();
}

/// The disk is full and stays so, when ClickHouse is back: what the log holds is delivered all the same, and what it
/// had taken of the disk is room again.
#[tokio::test(flavor = "multi_thread")]
async fn disk_stays_full() {
    let Some((disk, mut rig)) = on_a_small_disk("disk stays full").await else {
        return;
    };
    disk.put(24 << 20);
    rig.phase("no space");
    rig.ground.proxy.set(Mood::Away).await;
    fill_the_disk(&mut rig).await;
    // Not a byte is left.
    disk.put_more();
    rig.phase("delivered");
    rig.ground.proxy.set(Mood::Honest).await;
    rig.load.wait_acknowledged(40).await;
    rig.load.pause().await;
    let outcome = rig.finish().await;
    drop(disk);
    outcome.assert_all_once();
}

/// Sends until senders are told to retry.
async fn fill_the_disk(rig: &mut Rig) {
    rig.send(&Pace::closed(4, PADDING));
    let before = rig.load.ledger().pushed_back();
    rig.load
        .wait_until("a full disk", |ledger| ledger.pushed_back() >= before + 4)
        .await;
}

/// A scenario whose log lies on a disk of 48 MiB; none where that cannot be mounted.
async fn on_a_small_disk(name: &'static str) -> Option<(Disk, Rig)> {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("disk");
    let disk = match Disk::mount(&folder, 48 << 20) {
        Ok(disk) => disk,
        Err(reason) => {
            // Not in the captured output: who runs this must see it.
            eprintln!("SKIPPED: {name} needs to mount a tmpfs: {reason}");
            return None;
        }
    };
    let log = folder.join("log");
    let rig = Rig::start_in(name, Options::default(), temporary, log).await;
    Some((disk, rig))
}
