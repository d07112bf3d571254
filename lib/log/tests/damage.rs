#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! One test per kind of damage: what is whole is delivered, what is not is said, and the log starts.

mod support;

use spanloom_log::disk::simulated::Faults;
use spanloom_log::disk::{Access, Disk};
use spanloom_log::{Problem, Recovered};
use support::*;

/// Opens a log whose files were changed: these requests are there and can be read, these are the problems,
/// and the log goes on.
fn check(rig: &Rig, expected_keys: &[u128], expected: &[&str]) -> Recovered {
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), expected_keys);
    check_payloads(&log, &recovered);
    let said: Vec<String> = recovered.findings.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.contains(expected), "{said} does not say {expected:?}");
    }
    append_durable(&log, request(999));
    log.close().unwrap();
    let (_, again) = rig.open();
    let mut with_new = expected_keys.to_vec();
    with_new.push(999);
    assert_eq!(keys(&again), with_new);
    // What is damaged or lost is counted once.
    assert_eq!((again.lost_records(), again.damaged_bytes()), (0, 0));
    recovered
}

/// Where the frame of the request with this key begins, of requests from 1 on.
fn start_of(key: u128) -> usize {
    HEADER + (1..key).map(frame_of).sum::<usize>()
}

fn damaged(change: impl FnOnce(&mut Vec<u8>), expected_keys: &[u128], expected: &[&str]) {
    let rig = Rig::default();
    rig.write(1..4);
    rig.edit(&segment(1), change);
    check(&rig, expected_keys, expected);
}

#[test]
fn no_damage() {
    damaged(|_| {}, &[1, 2, 3], &[]);
}

/// I6.
#[test]
fn torn_header() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(start_of(3) + 10);
    damaged(cut, &[1, 2], &["a write that did not finish"]);
}

#[test]
fn torn_body() {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(start_of(3) + FRAME + 20);
    damaged(cut, &[1, 2], &["a write that did not finish"]);
}

#[test]
fn a_torn_end_is_cut_and_kept_aside() {
    let rig = Rig::default();
    rig.write(1..4);
    let end = start_of(3);
    rig.edit(&segment(1), |bytes| bytes.truncate(end + 40));
    let recovered = check(&rig, &[1, 2], &["the last 40 bytes"]);
    assert_eq!(rig.bytes_of(&segment(1)).len(), end);
    let kept = recovered.findings[0].kept_in.clone().unwrap();
    assert_eq!(rig.bytes_of(&kept).len(), 40);
    assert!(!recovered.findings[0].problem.is_damage());
}

/// I7.
#[test]
fn wrong_checksum_of_a_payload() {
    let flip = |bytes: &mut Vec<u8>| bytes[start_of(2) + FRAME + 50] ^= 1;
    let skipped = ["bytes at offset", "1 records from position"];
    damaged(flip, &[1, 3], &skipped);
}

#[test]
fn wrong_checksum_of_a_header() {
    let flip = |bytes: &mut Vec<u8>| bytes[start_of(2) + 9] ^= 1;
    let skipped = ["bytes at offset", "1 records from position"];
    damaged(flip, &[1, 3], &skipped);
}

#[test]
fn bad_bytes_are_kept_aside_once_and_counted_once() {
    let rig = Rig::default();
    rig.write(1..4);
    rig.edit(&segment(1), |bytes| bytes[start_of(2) + 40] ^= 1);
    let (log, first) = rig.open();
    drop(log);
    let (_, second) = rig.open();
    let kept = first.findings[0].kept_in.clone().unwrap();
    assert_eq!(rig.bytes_of(&kept).len(), frame_of(2));
    assert_eq!(second.findings[0].kept_in, Some(kept));
    assert!(first.findings[0].is_new && !second.findings[0].is_new);
    assert_eq!(first.lost_records(), 1);
    assert_eq!(first.damaged_bytes(), frame_of(2) as u64);
}

#[test]
fn damage_without_room_to_keep_it_is_said_all_the_same() {
    let mut rig = Rig::default();
    rig.options.damaged_bytes = 10;
    rig.write(1..4);
    rig.edit(&segment(1), |bytes| bytes[start_of(2) + 40] ^= 1);
    let recovered = check(&rig, &[1, 3], &["were skipped", "1 records"]);
    assert_eq!(recovered.findings[0].kept_in, None);
}

#[test]
fn zeros_at_the_end() {
    let grow = |bytes: &mut Vec<u8>| bytes.resize(bytes.len() + 5000, 0);
    damaged(grow, &[1, 2, 3], &["5000 bytes were never written"]);
}

#[test]
fn zeros_in_the_middle() {
    let wipe = |bytes: &mut Vec<u8>| bytes[start_of(2)..start_of(3)].fill(0);
    let skipped = ["bytes at offset", "1 records from position"];
    damaged(wipe, &[1, 3], &skipped);
}

#[test]
fn garbage_between_frames() {
    // The frames behind it are not at their places any more, so they are not valid: they may be copies.
    let insert = |bytes: &mut Vec<u8>| {
        let at = start_of(3);
        bytes.splice(at..at, *b"garbage");
    };
    damaged(insert, &[1, 2], &["a write that did not finish"]);
    let replace = |bytes: &mut Vec<u8>| {
        let noise = (0..frame_of(2)).map(|index| (index * 31 % 251) as u8);
        let noise: Vec<u8> = noise.collect();
        bytes.splice(start_of(2)..start_of(3), noise);
    };
    damaged(replace, &[1, 3], &["bytes at offset", "1 records"]);
}

/// I4.
#[test]
fn a_frame_copied_over_another() {
    let copy = |bytes: &mut Vec<u8>| {
        let frame = bytes[start_of(1)..start_of(2)].to_vec();
        bytes.splice(start_of(2)..start_of(3), frame);
    };
    damaged(copy, &[1, 3], &["bytes at offset", "1 records"]);
}

#[test]
fn a_frame_repeated_at_the_end() {
    let repeat = |bytes: &mut Vec<u8>| bytes.extend_from_within(start_of(3)..);
    damaged(repeat, &[1, 2, 3], &["a write that did not finish"]);
}

#[test]
fn markers_everywhere() {
    let fill = |bytes: &mut Vec<u8>| {
        let marker = bytes[HEADER..HEADER + 4].to_vec();
        bytes.extend(marker.repeat(20_000));
    };
    damaged(fill, &[1, 2, 3], &["a write that did not finish"]);
}

#[test]
fn a_frame_that_claims_a_huge_length() {
    let claim = |bytes: &mut Vec<u8>| {
        let at = start_of(2) + 8;
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    };
    damaged(claim, &[1, 3], &["bytes at offset", "1 records"]);
}

#[test]
fn a_damaged_segment_header() {
    for index in [0, 9, 20, 30, 45, 79] {
        let flip = |bytes: &mut Vec<u8>| bytes[index] ^= 0x40;
        damaged(flip, &[1, 2, 3], &["its header is damaged"]);
    }
}

#[test]
fn a_segment_header_of_noise() {
    let noise = |bytes: &mut Vec<u8>| bytes[..HEADER].fill(0x77);
    damaged(noise, &[], &["can be read as records"]);
}

#[test]
fn a_truncated_segment_header() {
    damaged(|bytes| bytes.truncate(30), &[], &["the last 30 bytes"]);
}

#[test]
fn an_empty_file() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.put(&segment(2), &[]);
    check(&rig, &[1, 2], &["it is empty"]);
}

#[test]
fn a_header_without_records() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.edit(&segment(1), |bytes| bytes.truncate(HEADER));
    check(&rig, &[], &[]);
}

#[test]
fn a_file_of_noise() {
    let rig = Rig::default();
    rig.write(1..3);
    let noise: Vec<u8> = (0..100_000)
        .map(|index| (index * 7919 % 256) as u8)
        .collect();
    rig.put(&segment(7), &noise);
    let recovered = check(&rig, &[1, 2], &["can be read as records"]);
    let kept = recovered.findings[0].kept_in.clone().unwrap();
    assert_eq!(rig.bytes_of(&kept), noise);
}

#[test]
fn swapped_segments() {
    let rig = Rig::with_segments(1024);
    rig.write(1..40);
    let (first, second) = (rig.bytes_of(&segment(1)), rig.bytes_of(&segment(2)));
    rig.put(&segment(1), &second);
    rig.put(&segment(2), &first);
    let all: Vec<u128> = (1..40).collect();
    check(&rig, &all, &["it is segment 1", "it is segment 2"]);
}

/// I8.
#[test]
fn a_lost_segment() {
    let rig = Rig::with_segments(1024);
    rig.write(1..40);
    let before = keys(&rig.open().1);
    rig.disk.remove(&segment(2)).unwrap();
    let (log, recovered) = rig.open();
    let lost = before.len() - keys(&recovered).len();
    assert!(lost > 3);
    assert_eq!(recovered.lost_records(), lost as u64);
    check_payloads(&log, &recovered);
}

#[test]
fn the_last_segment_is_lost_and_then_another_is_written() {
    let rig = Rig::with_segments(1024);
    rig.write(1..12);
    let last = rig.names().len() as u64;
    rig.disk.remove(&segment(last)).unwrap();
    let (log, recovered) = rig.open();
    // Nothing says that there was more.
    assert_eq!(recovered.lost_records(), 0);
    let position = append_durable(&log, request(50));
    let old = recovered.requests.iter().map(|request| request.position);
    assert!(old.max().unwrap() < position);
}

#[test]
fn a_duplicated_segment() {
    let rig = Rig::default();
    rig.write(1..4);
    let bytes = rig.bytes_of(&segment(1));
    rig.put(&segment(9), &bytes);
    let recovered = check(&rig, &[1, 2, 3], &["a copy of segment 1"]);
    assert!(recovered.findings[0].kept_in.is_some());
    assert!(!rig.names().contains(&"00000009.seg".to_owned()));
}

#[test]
fn a_segment_of_another_log() {
    let rig = Rig::with_segments(1024);
    rig.write(1..12);
    let mut bytes = rig.bytes_of(&segment(1));
    // Another log's id, with a checksum that is right.
    bytes[24] ^= 1;
    let crc = crc32c::crc32c(&bytes[..HEADER - 4]);
    bytes[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
    rig.put(&segment(30), &bytes);
    let all: Vec<u128> = (1..12).collect();
    check(&rig, &all, &["it belongs to another log"]);
    assert_eq!(rig.bytes_of(&segment(30)), bytes);
}

#[test]
fn a_foreign_file() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.put(&folder().join("notes.txt"), b"mine");
    rig.put(&folder().join("1.seg"), b"also mine");
    let not_ours = "not a file of a log";
    check(&rig, &[1, 2], &[not_ours, not_ours]);
    assert_eq!(rig.bytes_of(&folder().join("notes.txt")), b"mine");
}

#[test]
fn a_record_that_cannot_be_decoded() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.edit(&segment(1), |bytes| {
        // A frame with right checksums whose payload is too short for a batch.
        append_frame(bytes, 2, (1 << 32) + 2, b"short");
    });
    let recovered = check(&rig, &[1, 2], &["cannot be decoded"]);
    assert_eq!(recovered.lost_records(), 1);
}

/// Appends a frame to a segment's bytes, as any version could have written it.
fn append_frame(bytes: &mut Vec<u8>, kind: u8, position: u64, payload: &[u8]) {
    let salt = u32::from_le_bytes(bytes[HEADER - 4..HEADER].try_into().unwrap());
    let offset = bytes.len() as u64;
    let mut fields = (payload.len() as u32).to_le_bytes().to_vec();
    fields.extend(crc32c::crc32c(payload).to_le_bytes());
    fields.extend(position.to_le_bytes());
    fields.push(kind);
    fields.resize(FRAME - 8, 0);
    let crc = crc32c::crc32c_append(salt, &offset.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &fields);
    bytes.extend_from_within(HEADER..HEADER + 4);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(fields);
    bytes.extend(payload);
}

/// I11.
#[test]
fn records_of_unknown_kinds_outlive_their_segment() {
    let rig = Rig::with_segments(1024);
    let positions = rig.write(1..3);
    rig.edit(&segment(1), |bytes| {
        append_frame(bytes, 200, (1 << 32) + 2, b"from the future");
    });
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), [1, 2]);
    assert_eq!(problems(&recovered), [Problem::UnknownKinds { records: 1 }]);
    deliver(&log, 1, &positions);
    log.commit().unwrap();
    assert!(!rig.names().contains(&"00000001.seg".to_owned()));
    drop(log);
    let (_, again) = rig.open();
    assert_eq!(problems(&again), [Problem::UnknownKinds { records: 1 }]);
    let newest = rig.names().into_iter().rfind(|name| name.ends_with(".seg"));
    let bytes = rig.bytes_of(&folder().join(newest.unwrap()));
    let text = b"from the future";
    assert!(bytes.windows(text.len()).any(|window| window == text));
}

#[test]
fn a_batch_whose_request_is_damaged() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..4)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    append_durable(&log, batch(7, &positions));
    drop(log);
    rig.edit(&segment(1), |bytes| bytes[start_of(2) + 60] ^= 1);
    let (_, recovered) = rig.open();
    assert_eq!(keys(&recovered), [1, 3]);
    assert_eq!(recovered.batches[0].requests, positions);
    assert_eq!(recovered.batches[0].missing, [positions[1]]);
}

#[test]
fn a_request_that_is_damaged_after_the_start() {
    let rig = Rig::default();
    let positions = rig.write(1..3);
    let (log, _) = rig.open();
    let mut file = rig.disk.open(&segment(1), Access::Write).unwrap();
    file.write_at(b"x", (start_of(2) + 60) as u64).unwrap();
    assert_eq!(log.read(positions[0]).unwrap().key, 1);
    let error = log.read(positions[1]).unwrap_err().to_string();
    assert!(error.contains("is damaged in /log/00000001.seg"), "{error}");
}

#[test]
fn a_dead_letter_that_is_damaged() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let letter = |batch, reason: &str| spanloom_log::DeadLetter {
        batch: spanloom_log::BatchId(batch),
        rows: 0..1,
        at_ms: START_MS,
        reason: reason.to_owned(),
        payload: vec![1, 2, 3].into(),
    };
    log.keep_dead_letter(&letter(1, "first")).unwrap();
    log.keep_dead_letter(&letter(2, "second")).unwrap();
    drop(log);
    rig.edit(&folder().join("dead-letters"), |bytes| {
        bytes[HEADER + FRAME + 3] ^= 1;
    });
    let (log, _) = rig.open();
    log.keep_dead_letter(&letter(3, "third")).unwrap();
    let mut reasons = Vec::new();
    log.read_dead_letters(|letter| reasons.push(letter.reason))
        .unwrap();
    assert_eq!(reasons, ["second", "third"]);
}

/// Letters are kept for as long as batches with refused rows are to be settled: what is damaged is not in the way.
#[test]
fn a_file_of_dead_letters_whose_header_is_damaged() {
    let letter = |batch| spanloom_log::DeadLetter {
        batch: spanloom_log::BatchId(batch),
        rows: 0..1,
        at_ms: START_MS,
        reason: batch.to_string(),
        payload: vec![1, 2, 3].into(),
    };
    type Damage = fn(&mut [u8]);
    let damages: [(Damage, &[&str]); 3] = [
        (|header| header[10] ^= 1, &["1", "2", "3"]),
        (|header| header.fill(0), &["3"]),
        (|header| header.fill(0xff), &["3"]),
    ];
    for (damage, expected) in damages {
        let rig = Rig::default();
        let (log, _) = rig.open();
        for batch in 1..=2 {
            log.keep_dead_letter(&letter(batch)).unwrap();
        }
        rig.edit(&folder().join("dead-letters"), |bytes| {
            damage(&mut bytes[..HEADER]);
        });
        for _ in 0..2 {
            // Known by now, if it was not before.
            log.keep_dead_letter(&letter(3)).unwrap();
        }
        let mut reasons = Vec::new();
        log.read_dead_letters(|letter| reasons.push(letter.reason))
            .unwrap();
        assert_eq!(reasons, expected);
        if expected.len() == 1 {
            let kept = rig.disk.list(&folder().join("damaged")).unwrap();
            assert!(
                kept.iter().any(|name| name.starts_with("dead-letters-")),
                "{kept:?}"
            );
        }
    }
}

#[test]
fn bytes_that_the_disk_does_not_give() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    for key in 1..200 {
        append_durable(&log, request(key));
    }
    drop(log);
    rig.fail(Faults {
        unreadable: Some((8192, 8193)),
        ..Faults::default()
    });
    let (_, recovered) = rig.open();
    let found = keys(&recovered);
    assert!(
        found.starts_with(&[1, 2, 3]) && found.ends_with(&[198, 199]),
        "{found:?}"
    );
    let lost = 199 - found.len() as u64;
    // A block, and the frames at its ends.
    assert!(lost <= 8192 / frame_of(1) as u64, "{lost}");
    assert_eq!(recovered.lost_records(), lost);
    assert!(matches!(
        recovered.findings[0].problem,
        Problem::Unreadable { .. }
    ));
}

#[test]
fn a_disk_that_cannot_be_read_at_the_start() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.fail(Faults {
        read: true,
        ..Faults::default()
    });
    let error = rig.try_open().unwrap_err().to_string();
    assert!(error.contains("cannot use /log for the log"), "{error}");
    rig.fail(Faults::default());
    check(&rig, &[1, 2], &[]);
}
