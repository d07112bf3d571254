//! Five times what the collector takes.

use std::time::Instant;

use super::super::SPANS;
use super::load::Pace;
use super::program::Options;
use super::rig::Rig;
use super::settings::{is_full, seconds};

/// Bytes added to each span: it is memory that must not run out.
const PADDING: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn overload() {
    let mut rig = Rig::start("overload", Options::default()).await;
    rig.phase("peak");
    let begun = Instant::now();
    rig.send(&Pace::closed(8, PADDING));
    tokio::time::sleep(seconds(2, 10)).await;
    rig.load.pause().await;
    let requests = rig.load.ledger().acknowledged as f64;
    let peak = requests * SPANS as f64 / begun.elapsed().as_secs_f64();
    rig.phase("five times");
    rig.send(&Pace {
        // Each waits for its answers: so many that those who wait do not slow the others down.
        senders: 1_500,
        spans_per_second: Some((5.0 * peak) as u32),
        padding: PADDING,
        repeat: false,
    });
    let time = seconds(4, 120);
    let before = rig.load.ledger().acknowledged;
    tokio::time::sleep(time).await;
    rig.load.pause().await;
    let taken = (rig.load.ledger().acknowledged - before) as f64;
    if is_full() {
        // Far less than the peak, since the senders have the same cores.
        let least = peak / SPANS as f64 * time.as_secs_f64() / 10.0;
        assert!(
            taken >= least,
            "{taken} requests were acknowledged, not {least}"
        );
    }
    rig.phase("after");
    rig.send(&Pace::closed(8, 0));
    rig.load.wait_acknowledged(50).await;
    rig.finish().await.assert_once();
}
