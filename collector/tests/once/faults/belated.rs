//! Replies that come later than the collector waits. By its name it is first: it takes longest, for the most part
//! without work, so another scenario runs beside it.

use std::time::Duration;

use super::super::TABLES;
use super::super::proxy::Misdeed;
use super::program::Options;
use super::replies::{RATE, misbehave};
use super::rig::Rig;
use super::settings::either;

/// Longer than the collector waits for a reply.
pub const TOO_SLOW: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn slow_replies() {
    let mut rig = Rig::start("slow replies", Options::default()).await;
    rig.send_in("slower than the time-out", RATE);
    let often = either(2, 4 * TABLES);
    misbehave(
        &rig,
        "slower than the time-out",
        Misdeed::SlowReply(TOO_SLOW),
        often,
        None,
    )
    .await;
    rig.load.wait_acknowledged(either(50, 500)).await;
    rig.finish().await.assert_all_once();
}
