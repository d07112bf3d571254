#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! Files of each version of the format, which are never edited: what is read from them does not change.

mod support;

use std::path::PathBuf;

use spanloom_log::disk::simulated::Faults;
use spanloom_log::{BatchId, Problem, Record};
use support::*;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// What the files of version 1 were made by: each kind of record once at least.
fn write_version_1(rig: &Rig) {
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..7)
        .map(|key| log.append(request(key)).unwrap())
        .collect();
    log.append(batch(1, &positions[..2])).unwrap();
    log.append(sent(1)).unwrap();
    log.append(stored(1)).unwrap();
    log.append(batch(2, &positions[2..4])).unwrap();
    log.append(Record::Cut {
        batch: BatchId(2),
        pieces: vec![0..2, 2..4],
    })
    .unwrap();
    log.append(sent(2)).unwrap();
    log.append(Record::Refused {
        batch: BatchId(2),
        rows: 0..2,
        kept: true,
        reason: "not a number".to_owned(),
    })
    .unwrap();
    log.commit().unwrap();
    log.keep_dead_letter(&spanloom_log::DeadLetter {
        batch: BatchId(2),
        rows: 0..2,
        at_ms: START_MS,
        reason: "not a number".to_owned(),
        payload: payload(3).into(),
    })
    .unwrap();
}

/// A segment that has the keys of one that is gone.
fn write_keys(rig: &Rig) {
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..12)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    deliver(&log, 1, &positions);
    log.commit().unwrap();
}

/// I17.
#[test]
fn version_1_is_read_and_written_as_ever() {
    let rig = Rig::default();
    write_version_1(&rig);
    let written = rig.bytes_of(&segment(1));
    let letters = rig.bytes_of(&folder().join("dead-letters"));
    assert!(std::fs::read(golden("v1.seg")).unwrap() == written);
    assert!(std::fs::read(golden("v1.dead-letters")).unwrap() == letters);

    let rig = Rig::default();
    rig.put(&segment(1), &std::fs::read(golden("v1.seg")).unwrap());
    rig.put(
        &folder().join("dead-letters"),
        &std::fs::read(golden("v1.dead-letters")).unwrap(),
    );
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), [3, 4, 5, 6]);
    check_payloads(&log, &recovered);
    let [batch] = &recovered.batches[..] else {
        panic!("{:?}", recovered.batches);
    };
    assert_eq!(batch.id, BatchId(2));
    assert_eq!(batch.tokens, ["2:spans", "2:tags"]);
    assert_eq!(batch.pieces, [0..2, 2..4]);
    assert_eq!(batch.refused.first(), Some(&(0..2)));
    assert_eq!(batch.sent_at_ms, Some(START_MS + 5));
    assert_eq!(recovered.keys.len(), 6);
    let mut reasons = Vec::new();
    log.read_dead_letters(|letter| reasons.push(letter.reason))
        .unwrap();
    assert_eq!(reasons, ["not a number"]);
    assert!(recovered.findings.is_empty());
}

#[test]
fn keys_of_version_1_are_read() {
    let rig = Rig::with_segments(1024);
    write_keys(&rig);
    let name = rig
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".seg"))
        .unwrap();
    let written = rig.bytes_of(&folder().join(&name));
    assert!(std::fs::read(golden("v1-keys.seg")).unwrap() == written);
    let rig = Rig::default();
    rig.put(
        &folder().join(name),
        &std::fs::read(golden("v1-keys.seg")).unwrap(),
    );
    let (_, recovered) = rig.open();
    let mut found: Vec<_> = recovered.keys.iter().map(|key| key.key).collect();
    found.sort_unstable();
    assert!(found.contains(&1) && found.len() >= 6, "{found:?}");
}

/// Records that were written before their turn, while the disk was full, to a segment made of the reserve.
#[test]
fn a_segment_of_the_reserve_of_version_1_is_read_and_written_as_ever() {
    let mut rig = Rig::default();
    rig.options.reserve_bytes = 512;
    let (log, _) = rig.open();
    let position = append_durable(&log, request(1));
    rig.fail(Faults {
        capacity_bytes: Some(rig.disk.bytes_in(folder())),
        ..Faults::default()
    });
    log.append(request(2)).unwrap();
    log.commit().unwrap_err();
    log.append(batch(1, &[position])).unwrap();
    log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    drop(log);
    let name = rig
        .names()
        .into_iter()
        .rfind(|name| name.ends_with(".seg"))
        .unwrap();
    let written = rig.bytes_of(&folder().join(&name));
    assert!(std::fs::read(golden("v1-reserve.seg")).unwrap() == written);
    rig.put(
        &folder().join(name),
        &std::fs::read(golden("v1-reserve.seg")).unwrap(),
    );
    let (_, recovered) = rig.open();
    assert_eq!(recovered.findings, []);
    assert_eq!(recovered.batches[0].sent_at_ms, Some(START_MS + 5));
}

/// I11. The file has the header of every version, and frames that are version 2's own matter.
#[test]
fn version_2_is_left_alone() {
    let later = std::fs::read(golden("v2.seg")).unwrap();
    let rig = Rig::default();
    let positions = rig.write(1..4);
    rig.put(&segment(5), &later);
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), [1, 2, 3]);
    assert_eq!(problems(&recovered), [Problem::LaterVersion { version: 2 }]);
    assert!(
        recovered.findings[0]
            .to_string()
            .contains("a later version wrote it (format 2)")
    );
    deliver(&log, 1, &positions);
    log.commit().unwrap();
    drop(log);
    assert_eq!(rig.bytes_of(&segment(5)), later);
    // Its numbers and positions are not used again.
    assert!(rig.names().contains(&"00000006.seg".to_owned()));
}
