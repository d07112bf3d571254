//! What can happen to an insert on its way to ClickHouse and back, and each class of ClickHouse's errors.

use super::super::proxy::{Answer, Misdeed};
use super::super::{Mood, TABLES};
use super::load::Pace;
use super::program::Options;
use super::rig::Rig;
use super::settings::either;

/// Errors that pass.
pub const RETRIED: [u32; 10] = [159, 202, 209, 210, 241, 242, 252, 285, 319, 999];
/// Errors of rows: the batch is cut.
pub const BAD_ROWS: [u32; 4] = [6, 27, 53, 117];
/// Errors of the schema or of credentials.
pub const FAULTS: [u32; 4] = [16, 60, 497, 516];

/// Spans a second.
pub const RATE: u32 = 3_000;

/// Does it to so many inserts, in a phase of its own; to those of all tables, then to those of the spans, which are
/// inserted when all else of their batch is.
pub async fn misbehave(
    rig: &Rig,
    name: &str,
    misdeed: Misdeed,
    count: usize,
    table: Option<&'static str>,
) {
    rig.phase(name);
    let inserts = match table {
        Some(_) => vec![(table, count)],
        None => vec![(None, count), (Some("spans"), count.min(either(2, 10)))],
    };
    for (table, count) in inserts {
        let before = rig.ground.proxy.done();
        rig.ground.proxy.misbehave(misdeed.clone(), count, table);
        rig.ground.proxy.wait_done(before + count).await;
    }
    // Its spans are sent again: something of this phase is stored, too.
    rig.ground.proxy.wait_committed(TABLES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_way() {
    let mut rig = Rig::start("on the way", Options::default()).await;
    rig.phase("connection refused");
    rig.send(&Pace::of(RATE));
    let often = either(2 * TABLES, 20 * TABLES);
    for _ in 0..either(2, 20) {
        rig.ground.proxy.set(Mood::Away).await;
        rig.load.wait_acknowledged(10).await;
        rig.ground.proxy.set(Mood::Honest).await;
        rig.ground.proxy.wait_committed(TABLES).await;
    }
    for (name, misdeed) in [
        ("reset mid-request", Misdeed::ResetMidRequest),
        ("reset after commit", Misdeed::LoseReply),
        ("500 without commit", Misdeed::Answer(Answer::status(500))),
        ("503 without commit", Misdeed::Answer(Answer::status(503))),
        (
            "500 with commit",
            Misdeed::CommitAndAnswer(Answer::status(500)),
        ),
        (
            "502 with commit",
            Misdeed::CommitAndAnswer(Answer::status(502)),
        ),
    ] {
        misbehave(&rig, name, misdeed, often, None).await;
    }
    rig.finish().await.assert_all_once();
}

#[tokio::test(flavor = "multi_thread")]
async fn error_classes() {
    let mut rig = Rig::start("error classes", Options::default()).await;
    rig.send_in("none", RATE);
    rig.load.wait_acknowledged(10).await;
    let often = either(2, 4 * TABLES);
    for code in RETRIED {
        let misdeed = Misdeed::Answer(Answer::code(code));
        misbehave(&rig, &format!("code {code}"), misdeed, often, None).await;
    }
    for code in FAULTS {
        let misdeed = Misdeed::Answer(Answer::code(code));
        misbehave(&rig, &format!("code {code}"), misdeed, often, None).await;
    }
    for code in BAD_ROWS {
        // Twice, since a row that is refused alone is put aside; a table with few rows has it at once.
        let misdeed = Misdeed::Answer(Answer::code(code));
        for _ in 0..either(1, 4) {
            misbehave(
                &rig,
                &format!("code {code}"),
                misdeed.clone(),
                2,
                Some("spans"),
            )
            .await;
        }
    }
    let too_wide = Answer::code(252).saying("max_partitions_per_insert_block");
    for (name, answer) in [
        ("429", Answer::status(429)),
        ("503", Answer::status(503)),
        ("241 after 200", Answer::late_code(241)),
        ("too many partitions", too_wide),
    ] {
        misbehave(&rig, name, Misdeed::Answer(answer), often, None).await;
    }
    rig.finish().await.assert_all_once();
}
