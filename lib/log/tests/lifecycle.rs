#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! Records from their append to the end of their segment, on a disk that works.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spanloom_log::{
    AppendError, BatchId, DeadLetter, DeadLetterError, Event, Full, Observer, Position, Record,
    Request, inspect_on,
};
use support::*;

/// I1.
#[test]
fn what_was_durable_is_recovered_in_order() {
    let rig = Rig::with_segments(1024);
    let positions = rig.write(1..60);
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), (1..60).collect::<Vec<_>>());
    let found: Vec<_> = recovered
        .requests
        .iter()
        .map(|request| request.position)
        .collect();
    assert_eq!(found, positions);
    assert!(found.is_sorted());
    check_payloads(&log, &recovered);
    assert!(recovered.findings.is_empty());
}

/// I2.
#[test]
fn a_position_is_durable_only_after_a_commit() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let before = log.durable();
    let position = log.append(request(1)).unwrap();
    assert_eq!(log.durable(), before);
    assert!(position > before);
    assert_eq!(log.read(position).unwrap().key, 1);
    let waited = log.wait_durable(position, Duration::ZERO);
    assert!(waited.unwrap_err().to_string().contains("not durable"));
    log.commit().unwrap();
    assert_eq!(log.durable(), position);
    log.wait_durable(position, Duration::ZERO).unwrap();
}

/// I3.
#[test]
fn positions_are_never_given_twice() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let first = append_durable(&log, request(1));
    let lost = log.append(request(2)).unwrap();
    rig.disk.kill();
    drop(log);
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), [1]);
    let next = log.append(request(3)).unwrap();
    assert!(next > lost && lost > first);
}

/// I9.
#[test]
fn a_batch_is_recovered_as_it_was() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..5)
        .map(|key| log.append(request(key)).unwrap())
        .collect();
    let order = [positions[2], positions[0]];
    log.append(batch(7, &order)).unwrap();
    log.append(Record::Cut {
        batch: BatchId(7),
        pieces: vec![0..1, 1..3],
    })
    .unwrap();
    log.append(Record::Cut {
        batch: BatchId(7),
        pieces: vec![0..2, 2..3],
    })
    .unwrap();
    log.append(sent(7)).unwrap();
    log.append(Record::Refused {
        batch: BatchId(7),
        rows: 2..3,
        kept: true,
        reason: "not a date".to_owned(),
    })
    .unwrap();
    log.append(batch(8, &positions[1..2])).unwrap();
    log.commit().unwrap();
    drop(log);
    let (_, recovered) = rig.open();
    let [first, second] = &recovered.batches[..] else {
        panic!("{:?}", recovered.batches);
    };
    assert_eq!(first.id, BatchId(7));
    assert_eq!(first.requests, order);
    assert_eq!(first.tokens, ["7:spans", "7:tags"]);
    assert_eq!(first.pieces, [0..2, 2..3]);
    assert_eq!(first.sent_at_ms, Some(START_MS + 5));
    assert_eq!(first.refused.first(), Some(&(2..3)));
    assert!(first.missing.is_empty());
    assert_eq!((second.id, second.sent_at_ms), (BatchId(8), None));
    let batches: Vec<_> = recovered
        .requests
        .iter()
        .map(|request| request.batch)
        .collect();
    let expected = [Some(7), Some(8), Some(7), None].map(|id| id.map(BatchId));
    assert_eq!(batches, expected);
}

#[test]
fn what_is_stored_is_not_delivered_again() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..4)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    deliver(&log, 7, &positions[..2]);
    assert!(log.read(positions[0]).is_err());
    drop(log);
    let (_, recovered) = rig.open();
    assert_eq!(keys(&recovered), [3]);
    assert!(recovered.batches.is_empty());
    assert_eq!(recovered.keys.len(), 3);
}

#[test]
fn a_request_without_payload_is_only_a_key() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let empty = Request {
        key: 5,
        received_at_ms: START_MS,
        spans: 0,
        answer: b"3 rejected"[..].into(),
        payload: [][..].into(),
    };
    append_durable(&log, Record::Request(empty));
    drop(log);
    let (_, recovered) = rig.open();
    assert!(recovered.requests.is_empty());
    assert_eq!(recovered.keys[0].key, 5);
    assert_eq!(recovered.keys[0].answer[..], *b"3 rejected");
}

/// I10.
#[test]
fn segments_go_oldest_first_once_all_of_them_is_stored() {
    let rig = Rig::with_segments(1024);
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..40)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    let before = rig.names().len();
    // All but the first: nothing can go.
    deliver(&log, 1, &positions[1..]);
    assert!(rig.names().len() >= before);
    assert!(rig.names().contains(&"00000001.seg".to_owned()));
    deliver(&log, 2, &positions[..1]);
    log.commit().unwrap();
    let left = rig.names();
    assert!(left.len() < before, "{left:?}");
    assert!(!left.contains(&"00000001.seg".to_owned()));
    drop(log);
    let (_, recovered) = rig.open();
    assert!(recovered.requests.is_empty() && recovered.findings.is_empty());
}

/// I12.
#[test]
fn keys_outlive_their_segments_for_ten_minutes() {
    let rig = Rig::with_segments(1024);
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..40)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    deliver(&log, 1, &positions);
    log.commit().unwrap();
    assert!(!rig.names().contains(&"00000001.seg".to_owned()));
    drop(log);
    let key_count = || {
        let (log, recovered) = rig.open();
        log.commit().unwrap();
        let answers = recovered.keys.iter().map(|key| key.answer.clone());
        for (key, answer) in recovered.keys.iter().zip(answers) {
            assert_eq!(answer, format!("answer {}", key.key));
        }
        recovered.keys.len()
    };
    assert_eq!(key_count(), 39);
    rig.clock.advance(Duration::from_secs(599));
    assert_eq!(key_count(), 39);
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(key_count(), 0);
}

#[test]
fn too_many_keys_evict_the_oldest() {
    let mut rig = Rig::default();
    rig.options.max_keys = 10;
    let (log, _) = rig.open();
    for key in 1..30 {
        append_durable(&log, request(key));
    }
    assert_eq!((log.status().keys, log.status().keys_evicted), (10, 19));
    drop(log);
    let found: Vec<_> = rig.open().1.keys.iter().map(|key| key.key).collect();
    assert_eq!(found, (20..30).collect::<Vec<_>>());
}

/// Keys that go with a segment, since there is no room to copy them, are said too.
#[test]
fn keys_that_go_with_their_segment_are_said() {
    let mut rig = Rig::with_segments(1024);
    rig.options.max_bytes = 64 * 1024;
    let evicted = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&evicted);
    rig.options.observer = Some(Observer::new(move |event| {
        if let Event::KeysEvicted(count) = event {
            *seen.lock().unwrap() += count as u64;
        }
    }));
    let (log, _) = rig.open();
    // Requests that are nearly all key: half of the log is keys soon.
    for key in 0..1500_u128 {
        let empty = Request {
            key,
            received_at_ms: START_MS,
            spans: 0,
            answer: [][..].into(),
            payload: [][..].into(),
        };
        append_durable(&log, Record::Request(empty));
        assert_eq!(*evicted.lock().unwrap(), log.status().keys_evicted);
    }
    assert!(log.status().keys_evicted > 0);
    assert!(log.status().keys as u64 + log.status().keys_evicted == 1500);
}

#[test]
fn a_clock_that_jumps_forwards_does_not_forget_keys() {
    let rig = Rig::with_segments(1024);
    let (log, _) = rig.open();
    let mut positions = vec![append_durable(&log, request(1))];
    rig.clock.jump_to(START_MS + 3_600_000);
    positions.extend((2..40).map(|key| append_durable(&log, request(key))));
    deliver(&log, 1, &positions);
    log.commit().unwrap();
    assert_eq!(log.status().keys, 39);
}

#[test]
fn a_clock_that_jumps_backwards_does_not_keep_keys_for_ever() {
    let rig = Rig::with_segments(1024);
    rig.write(1..10);
    rig.clock.jump_to(START_MS - 3_600_000);
    let (log, recovered) = rig.open();
    assert_eq!((keys(&recovered).len(), recovered.keys.len()), (9, 9));
    assert_eq!(log.status().oldest_age_ms, Some(0));
    rig.clock.advance(Duration::from_secs(601));
    append_durable(&log, request(50));
    assert_eq!(log.status().keys, 1);
}

/// I13.
#[test]
fn a_full_log_refuses_requests_and_takes_what_gives_room() {
    let mut rig = Rig::with_segments(4096);
    rig.options.max_bytes = 64 * 1024;
    let (log, _) = rig.open();
    let mut positions = Vec::new();
    let full = loop {
        match log.append(request(positions.len() as u128)) {
            Ok(position) => positions.push(position),
            Err(AppendError::Full(full)) => break full,
            Err(error) => panic!("{error}"),
        }
        log.commit().unwrap();
    };
    assert!(matches!(full, Full::Bytes { .. }), "{full}");
    assert!(positions.len() > 100);
    for (id, positions) in positions.chunks(10).enumerate() {
        log.append(batch(id as u128, positions)).unwrap();
        log.append(sent(id as u128)).unwrap();
        append_durable(&log, stored(id as u128));
        assert!(rig.disk.bytes_in(folder()) <= rig.options.max_bytes);
    }
    log.append(request(1000)).unwrap();
    assert_eq!(log.status().undelivered_requests, 1);
}

#[test]
fn a_full_buffer_refuses_and_too_many_requests_do() {
    let mut rig = Rig::default();
    rig.options.buffer_bytes = 1000;
    rig.options.max_requests = 20;
    let (log, _) = rig.open();
    let first_error = |log: &spanloom_log::Log| {
        (0..)
            .find_map(|key| log.append(request(key)).err())
            .unwrap()
    };
    let error = first_error(&log).to_string();
    assert!(error.contains("waits for its disk"), "{error}");
    log.commit().unwrap();
    let error = (0..).find_map(|key| {
        log.commit().unwrap();
        log.append(request(key)).err()
    });
    assert_eq!(error, Some(AppendError::Full(Full::Requests(20))));
}

#[test]
fn a_record_larger_than_the_buffer_is_taken_while_half_of_it_is_free() {
    let mut rig = Rig::default();
    rig.options.buffer_bytes = 300;
    rig.options.record_bytes = 10_000;
    let (log, _) = rig.open();
    let of_size = |bytes: usize| {
        Record::Request(Request {
            key: 1,
            received_at_ms: START_MS,
            spans: 1,
            answer: [][..].into(),
            payload: vec![1; bytes].into(),
        })
    };
    log.append(of_size(1)).unwrap();
    log.append(of_size(9000)).unwrap();
    let error = log.append(of_size(1)).unwrap_err();
    assert!(matches!(error, AppendError::Full(Full::Buffer { .. })));
    let error = log.append(of_size(10_000)).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }));
}

#[test]
fn records_that_cannot_follow_are_refused() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let check = |record, expected: AppendError| {
        assert_eq!(log.append(record).unwrap_err(), expected);
    };
    let position = log.append(request(1)).unwrap();
    let unknown = Position(7);
    check(batch(1, &[unknown]), AppendError::NotWaiting(unknown));
    check(
        batch(1, &[position, position]),
        AppendError::NotWaiting(position),
    );
    check(stored(1), AppendError::NoBatch(BatchId(1)));
    check(sent(1), AppendError::NoBatch(BatchId(1)));
    check(Record::Keys(Vec::new()), AppendError::Reserved);
    log.append(batch(1, &[position])).unwrap();
    check(batch(1, &[]), AppendError::BatchExists(BatchId(1)));
    check(batch(2, &[position]), AppendError::NotWaiting(position));
    log.append(stored(1)).unwrap();
    check(stored(1), AppendError::NoBatch(BatchId(1)));
    check(sent(1), AppendError::NoBatch(BatchId(1)));
    log.commit().unwrap();
    check(batch(1, &[position]), AppendError::NotWaiting(position));
}

fn letter(batch: u128, payload: usize) -> DeadLetter {
    DeadLetter {
        batch: BatchId(batch),
        rows: 3..5,
        at_ms: START_MS,
        reason: format!("refused {batch}"),
        payload: vec![b'd'; payload].into(),
    }
}

/// I14.
#[test]
fn dead_letters_are_kept_once_and_within_their_bound() {
    let mut rig = Rig::default();
    rig.options.dead_letter_bytes = 1000;
    let (log, _) = rig.open();
    log.keep_dead_letter(&letter(1, 100)).unwrap();
    drop(log);
    let (log, _) = rig.open();
    log.keep_dead_letter(&letter(1, 100)).unwrap();
    log.keep_dead_letter(&letter(2, 100)).unwrap();
    let error = log.keep_dead_letter(&letter(3, 900)).unwrap_err();
    assert!(matches!(error, DeadLetterError::Full { .. }), "{error}");
    let read = || {
        let mut letters = Vec::new();
        log.read_dead_letters(|letter| letters.push(letter))
            .unwrap();
        letters
    };
    assert_eq!(read(), [letter(1, 100), letter(2, 100)]);
    log.clear_dead_letters().unwrap();
    assert_eq!(read(), []);
    log.keep_dead_letter(&letter(3, 800)).unwrap();
    assert_eq!(read(), [letter(3, 800)]);
}

/// I15.
#[test]
fn inspect_explains_a_log_and_changes_nothing() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..6)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    deliver(&log, 1, &positions[..2]);
    log.append(batch(2, &positions[2..4])).unwrap();
    append_durable(&log, sent(2));
    log.keep_dead_letter(&letter(1, 100)).unwrap();
    rig.edit(&segment(1), |bytes| bytes.extend_from_slice(&[7; 9]));
    let before = rig.bytes_of(&segment(1));
    rig.clock.advance(Duration::from_secs(90));
    let report = inspect_on(&rig.disk, &rig.clock, folder()).unwrap();
    assert_eq!(rig.bytes_of(&segment(1)), before);
    let text = report.to_string();
    let bytes = rig.bytes_of(&segment(1)).len() - 9;
    for line in [
        "log /log",
        &format!("segments: 1, {bytes} bytes; each is deleted once all of its requests are stored"),
        "  request: 5 records, 685 bytes",
        "not stored yet: 3 requests, 6 spans, 195 bytes; the oldest was received 90 s ago",
        "batches not stored yet: 1",
        "2 requests, 1 pieces; was sent and not confirmed; it is sent again under the same tokens",
        "keys: 5; they recognise requests that are sent again",
        "dead letters: 1, 257 bytes; the store refused their rows for good",
        "  2 rows: refused 1",
        "the last 9 bytes are a write that did not finish",
    ] {
        assert!(text.contains(line), "{text}\ndoes not say\n{line}");
    }
}
