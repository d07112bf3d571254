//! A collector's clock that is set back and forward, by libfaketime: the clock of that process alone.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::super::proxy::Misdeed;
use super::super::{Mood, TABLES};
use super::program::Options;
use super::replies::RATE;
use super::rig::Rig;
use super::settings::either;

/// The path of libfaketime, which `cargo xtask` finds or installs.
const LIBRARY: &str = "SPANLOOM_FAKETIME";

const HOUR: i64 = 3600;

/// The wall clock of a process.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    folder: TempDir,
}

impl Clock {
    /// A clock that is right; none where libfaketime is not known.
    fn right() -> Option<Self> {
        let library = PathBuf::from(std::env::var_os(LIBRARY)?);
        assert!(library.is_file(), "{LIBRARY}: there is no {library:?}");
        let folder = tempfile::tempdir().unwrap();
        let clock = Self { library, folder };
        clock.set(0);
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Sets it so many seconds before or after what it should be.
    fn set(&self, offset: i64) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{offset:+}\n")).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// What a process needs to have this clock.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.file()),
            // The file is read each time.
            ("FAKETIME_NO_CACHE", "1".into()),
            // Only the wall clock is ever set.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }
}

/// The time so many seconds from now.
fn at(offset: i64) -> SystemTime {
    let distance = Duration::from_secs(offset.unsigned_abs());
    match offset < 0 {
        true => SystemTime::now() - distance,
        false => SystemTime::now() + distance,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_set() {
    let Some(clock) = Clock::right().map(Arc::new) else {
        eprintln!(
            "SKIPPED: clock set: {LIBRARY} does not name libfaketime; cargo xtask test sets it"
        );
        return;
    };
    let options = Options {
        clock: Some(clock.clone()),
        ..Options::default()
    };
    let mut rig = Rig::start("clock set", options).await;
    rig.send_in("right", RATE);
    rig.load.wait_acknowledged(20).await;
    for _ in 0..either(1, 5) {
        for (name, offset) in [
            ("an hour back", -HOUR),
            ("right again", 0),
            ("an hour ahead", HOUR),
            ("and back", 0),
        ] {
            rig.phase(name);
            // Batches are stored, but the replies are lost, so they are sent again after the clock was set: by this
            // collector, and by the next one, to which they may seem to be an hour old.
            let proxy = &rig.ground.proxy;
            let done = proxy.done();
            proxy.misbehave(Misdeed::LoseReply, usize::MAX, Some("spans"));
            proxy.wait_done(done + 1).await;
            clock.set(offset);
            proxy.wait_done(done + 3).await;
            rig.kill_collector();
            rig.ground.proxy.forgive();
            let told = rig.load.clock().await;
            let off = at(offset).duration_since(told);
            let off = off.unwrap_or_else(|early| early.duration());
            assert!(off < Duration::from_secs(60), "{name}: it is {told:?}");
            rig.ground.proxy.wait_committed(TABLES).await;
            // What is in the log then was never sent.
            rig.ground.proxy.set(Mood::Away).await;
            rig.load.wait_acknowledged(20).await;
            rig.kill_collector();
            rig.ground.proxy.set(Mood::Honest).await;
            rig.load.wait_acknowledged(20).await;
        }
    }
    rig.finish().await.assert_all_once();
}
