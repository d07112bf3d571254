//! A long run with one fault a minute, drawn by chance.

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use super::super::proxy::{Answer, Misdeed};
use super::super::{Mood, TABLES};
use super::ballast::Disk;
use super::belated::TOO_SLOW;
use super::load::Pace;
use super::program::Options;
use super::replies::{BAD_ROWS, FAULTS, RETRIED};
use super::rig::Rig;
use super::settings;

/// Spans a second.
const RATE: u32 = 2_000;

/// The disk that the log is on, in bytes; the log may have three quarters of it.
const DISK: u64 = 256 << 20;

/// What can happen in a minute.
#[derive(Debug, Clone, Copy)]
enum Fault {
    CollectorKilled,
    EngineKilled,
    BothKilled,
    StoreAway,
    ResetMidRequest,
    ResetAfterCommit,
    ServerError,
    ServerErrorAfterCommit,
    Retried,
    BadRows,
    Refused,
    Overload,
    DiskFull,
    SlowReplies,
}

const FAULTS_OF_A_MINUTE: [Fault; 14] = [
    Fault::CollectorKilled,
    Fault::EngineKilled,
    Fault::BothKilled,
    Fault::StoreAway,
    Fault::ResetMidRequest,
    Fault::ResetAfterCommit,
    Fault::ServerError,
    Fault::ServerErrorAfterCommit,
    Fault::Retried,
    Fault::BadRows,
    Fault::Refused,
    Fault::Overload,
    Fault::DiskFull,
    Fault::SlowReplies,
];

#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let all = FAULTS_OF_A_MINUTE;
    let (minutes, minute, faults) = match settings::soak_minutes() {
        Some(minutes) => (minutes, Duration::from_secs(60), &all[..]),
        // Slow replies take half a minute.
        None => (4, Duration::from_secs(2), &all[..all.len() - 1]),
    };
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("disk");
    let disk = Disk::mount(&folder, DISK);
    if let Err(reason) = &disk {
        eprintln!("no disk is filled up, since a tmpfs cannot be mounted: {reason}");
    }
    let options = Options {
        log_bytes: DISK / 4 * 3,
        ..Options::default()
    };
    let log = folder.join("log");
    let mut rig = Rig::start_in("soak", options, temporary, log).await;
    rig.phase("before");
    rig.send(&Pace::of(RATE));
    rig.load.wait_acknowledged(20).await;
    let mut deck = Vec::new();
    for number in 1..=minutes {
        let end = Instant::now() + minute;
        if deck.is_empty() {
            deck.extend_from_slice(faults);
        }
        // Each comes before one comes again.
        let fault = deck.swap_remove(rig.random.random_range(0..deck.len()));
        rig.phase(&format!("{number:>2}: {fault:?}"));
        eprintln!("minute {number}: {fault:?}");
        inject(&mut rig, disk.as_ref().ok(), fault, minute).await;
        tokio::time::sleep_until(end).await;
        // What a minute began ends with it.
        rig.ground.proxy.set(Mood::Honest).await;
        rig.ground.proxy.forgive();
    }
    let outcome = rig.finish().await;
    drop(disk);
    outcome.assert_all_once();
}

async fn inject(rig: &mut Rig, disk: Option<&Disk>, fault: Fault, minute: Duration) {
    let often = rig.random.random_range(1..=4 * TABLES);
    // The spans of a batch are inserted when all else of it is.
    let any = rig.random.random_bool(0.5).then_some("spans");
    let one_of = |rig: &mut Rig, codes: &[u32]| {
        let code = codes[rig.random.random_range(0..codes.len())];
        eprintln!("code {code}");
        Misdeed::Answer(Answer::code(code))
    };
    let (misdeed, count, table) = match fault {
        Fault::CollectorKilled => {
            rig.some_time(300).await;
            rig.kill_collector();
            return;
        }
        Fault::EngineKilled => {
            rig.some_time(300).await;
            rig.store.kill().await;
            return;
        }
        Fault::BothKilled => {
            rig.some_time(300).await;
            rig.kill_collector();
            rig.store.kill().await;
            return;
        }
        Fault::StoreAway => {
            rig.ground.proxy.set(Mood::Away).await;
            tokio::time::sleep(minute / 2).await;
            rig.ground.proxy.set(Mood::Honest).await;
            return;
        }
        Fault::DiskFull => {
            let Some(disk) = disk else { return };
            disk.put(usize::MAX);
            tokio::time::sleep(minute / 4).await;
            disk.take();
            return;
        }
        Fault::Overload => {
            rig.send(&Pace {
                spans_per_second: None,
                senders: 64,
                padding: 500,
                repeat: true,
            });
            tokio::time::sleep(minute / 6).await;
            rig.load.pause().await;
            rig.send(&Pace::of(RATE));
            return;
        }
        Fault::ResetMidRequest => (Misdeed::ResetMidRequest, often, any),
        Fault::ResetAfterCommit => (Misdeed::LoseReply, often, any),
        Fault::SlowReplies => (Misdeed::SlowReply(TOO_SLOW), often, any),
        Fault::ServerError => (Misdeed::Answer(Answer::status(503)), often, any),
        Fault::ServerErrorAfterCommit => {
            (Misdeed::CommitAndAnswer(Answer::status(500)), often, any)
        }
        Fault::Retried => (one_of(rig, &RETRIED), often, any),
        // A row that is refused alone is put aside.
        Fault::BadRows => (one_of(rig, &BAD_ROWS), 2, Some("spans")),
        Fault::Refused => (one_of(rig, &FAULTS), often, any),
    };
    rig.ground.proxy.misbehave(misdeed, count, table);
}
