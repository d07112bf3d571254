#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! A disk that is full, and the room on it that only records that settle requests may use.

mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use spanloom_log::disk::simulated::Faults;
use spanloom_log::disk::{Access, Disk};
use spanloom_log::{AppendError, Event, Full, Log, Observer, Position, Problem, inspect_on};
use support::*;

const RESERVE_BYTES: u64 = 4096;

fn reserve() -> PathBuf {
    folder().join("reserve")
}

fn rig() -> Rig {
    let mut rig = Rig::with_segments(8192);
    rig.options.max_bytes = 1 << 20;
    rig.options.reserve_bytes = RESERVE_BYTES;
    rig
}

/// The disk has no byte more than what is on it.
fn fill(rig: &Rig) {
    let used = rig.disk.bytes_in(folder());
    rig.fail(Faults {
        capacity_bytes: Some(used),
        ..Faults::default()
    });
}

/// A log whose disk became full while `waiting` was written.
fn full(rig: &Rig, keys: std::ops::Range<u128>, waiting: u128) -> (Log, Vec<Position>, Position) {
    let (log, _) = rig.open();
    let positions = keys.map(|key| append_durable(&log, request(key))).collect();
    fill(rig);
    let stuck = log.append(request(waiting)).unwrap();
    let error = log.commit().unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    (log, positions, stuck)
}

fn is_there(rig: &Rig) -> bool {
    rig.names().contains(&"reserve".to_owned())
}

/// I18.
#[test]
fn a_log_is_delivered_while_its_disk_stays_full() {
    let mut rig = rig();
    let early = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&early);
    rig.options.observer = Some(Observer::new(move |event| {
        if let Event::DurableEarly(positions) = event {
            seen.lock().unwrap().extend(positions);
        }
    }));
    let (log, positions, stuck) = full(&rig, 1..200, 1000);
    // Others take what becomes free, at once.
    for (id, positions) in positions.chunks(7).enumerate() {
        let id = id as u128;
        log.append(batch(id, positions)).unwrap();
        let is_sent = log.append(sent(id)).unwrap();
        let _ = log.commit();
        assert!(log.durable() >= is_sent || early.lock().unwrap().contains(&is_sent));
        log.wait_durable(is_sent, std::time::Duration::ZERO)
            .unwrap();
        log.append(stored(id)).unwrap();
        let _ = log.commit();
        assert!(rig.disk.bytes_in(folder()) <= rig.options.max_bytes);
        fill(&rig);
    }
    assert_eq!(log.status().undelivered_requests, 1);
    drop(log);
    rig.disk.crash(|| 3);
    let (_, recovered) = rig.open();
    // The request was never durable, or found room.
    let found = recovered.requests.iter().map(|request| request.position);
    assert!(found.eq([]) || recovered.requests[0].position == stuck);
    assert!(recovered.batches.is_empty());
    assert_eq!(recovered.lost_records(), 0, "{:?}", recovered.findings);
}

/// Without the reserve the same log is stuck.
#[test]
fn without_a_reserve_nothing_is_delivered() {
    let mut rig = rig();
    rig.options.reserve_bytes = 0;
    let (log, positions, _) = full(&rig, 1..20, 1000);
    log.append(batch(1, &positions)).unwrap();
    let is_sent = log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    log.wait_durable(is_sent, std::time::Duration::ZERO)
        .unwrap_err();
}

#[test]
fn requests_are_refused_while_the_disk_is_full_and_taken_when_it_has_room() {
    let rig = rig();
    let (log, positions, stuck) = full(&rig, 1..20, 1000);
    let refused = log.append(request(1001)).unwrap_err();
    assert!(
        matches!(refused, AppendError::Full(Full::Disk(_))),
        "{refused}"
    );
    assert_eq!(
        (log.status().room_bytes, log.status().is_disk_full),
        (0, true)
    );
    log.append(batch(1, &positions)).unwrap();
    log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    assert_eq!(log.status().reserve_bytes, 0, "it is in use");
    rig.fail(Faults::default());
    log.commit().unwrap();
    assert_eq!(log.status().reserve_bytes, RESERVE_BYTES);
    append_durable(&log, request(1001));
    drop(log);
    let (_, recovered) = rig.open();
    let expected: Vec<_> = (1..20).chain([1000, 1001]).collect();
    assert_eq!(keys(&recovered), expected);
    assert_eq!(recovered.requests[19].position, stuck);
    assert_eq!(recovered.findings, []);
}

/// A batch may have requests that were durable, and one that waits: it is not held up.
#[test]
fn a_request_that_waits_does_not_hold_up_its_batch() {
    let rig = rig();
    let (log, mut positions, stuck) = full(&rig, 1..20, 1000);
    positions.push(stuck);
    log.append(batch(1, &positions)).unwrap();
    let is_sent = log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    log.wait_durable(is_sent, std::time::Duration::ZERO)
        .unwrap();
    log.wait_durable(stuck, std::time::Duration::ZERO).unwrap();
    drop(log);
    rig.disk.crash(|| 3);
    let (_, recovered) = rig.open();
    assert_eq!(recovered.batches[0].requests, positions);
    assert!(recovered.batches[0].missing.is_empty());
}

/// In between, what settles a request would come to lie in an older segment than the request, which goes first.
#[test]
fn nothing_is_written_in_its_order_until_there_is_a_reserve_again() {
    let rig = rig();
    let (log, positions, stuck) = full(&rig, 1..20, 1000);
    log.append(batch(1, &positions)).unwrap();
    log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    let used = rig.disk.bytes_in(folder());
    let room = |bytes| {
        rig.fail(Faults {
            capacity_bytes: Some(used + bytes),
            ..Faults::default()
        });
    };
    room(RESERVE_BYTES - 1);
    log.commit().unwrap_err();
    log.wait_durable(stuck, std::time::Duration::ZERO)
        .unwrap_err();
    room(RESERVE_BYTES + 1000);
    log.commit().unwrap();
    log.wait_durable(stuck, std::time::Duration::ZERO).unwrap();
}

/// Requests that wait never take the half of the reserve that settles others.
#[test]
fn requests_use_half_of_the_reserve_at_most() {
    let rig = rig();
    let (log, _) = rig.open();
    let durable = append_durable(&log, request(1));
    fill(&rig);
    let stuck: Vec<_> = (2..100)
        .map(|key| log.append(request(key)).unwrap())
        .collect();
    log.commit().unwrap_err();
    for (id, part) in stuck.chunks(5).enumerate() {
        log.append(batch(10 + id as u128, part)).unwrap();
    }
    log.append(batch(1, &[durable])).unwrap();
    let is_sent = log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    log.wait_durable(is_sent, std::time::Duration::ZERO)
        .unwrap();
    let written = stuck.iter().filter(|position| {
        log.wait_durable(**position, std::time::Duration::ZERO)
            .is_ok()
    });
    let bytes = written.count() * frame_of(50);
    assert!(bytes > 0 && bytes as u64 <= RESERVE_BYTES / 2, "{bytes}");
}

/// A reserve that is used up is followed by one that was made of a segment that went.
#[test]
fn segments_that_go_become_the_reserve() {
    let rig = rig();
    let (log, positions, _) = full(&rig, 1..100, 1000);
    log.append(batch(1, &positions[..90])).unwrap();
    log.append(stored(1)).unwrap();
    log.commit().unwrap();
    assert_eq!(log.status().reserve_bytes, RESERVE_BYTES);
    let bytes = rig.bytes_of(&reserve());
    assert_eq!(bytes.len() as u64, RESERVE_BYTES);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

/// The process is killed with the disk full, again and again: each goes on with what is left of the reserve.
#[test]
fn the_next_process_goes_on_with_the_reserve() {
    let rig = rig();
    let (mut log, positions, _) = full(&rig, 1..13, 1000);
    for (id, position) in positions.iter().enumerate() {
        log.append(batch(id as u128, &[*position])).unwrap();
        let is_sent = log.append(sent(id as u128)).unwrap();
        log.commit().unwrap_err();
        log.wait_durable(is_sent, std::time::Duration::ZERO)
            .unwrap();
        rig.disk.kill();
        drop(log);
        let recovered;
        (log, recovered) = rig.open();
        assert_eq!(recovered.findings, [], "{id}");
        assert_eq!(recovered.batches.len(), id + 1);
        assert_eq!(recovered.requests.len(), 12);
        assert_eq!(log.status().reserve_bytes, 0);
        // The disk is full for this process too.
        let waiting = log.append(request(2000 + id as u128)).unwrap();
        log.commit().unwrap_err();
        log.wait_durable(waiting, std::time::Duration::ZERO)
            .unwrap_err();
    }
    let segments = rig.names();
    assert_eq!(
        segments
            .iter()
            .filter(|name| name.ends_with(".seg"))
            .count(),
        2
    );
}

/// Power fails in each step of the way from the reserve to a segment: whatever of it the disk has, what was
/// durable before is there, nothing is damaged, and the log has a reserve again.
#[test]
fn power_fails_while_the_reserve_becomes_a_segment() {
    for seed in 0..300_u64 {
        let rig = rig();
        let (log, positions, _) = full(&rig, 1..20, 1000);
        rig.fail(Faults {
            sync: seed % 3 == 0,
            write: seed % 3 == 1,
            capacity_bytes: Some(rig.disk.bytes_in(folder())),
            ..Faults::default()
        });
        log.append(batch(1, &positions)).unwrap();
        log.append(sent(1)).unwrap();
        let _ = log.commit();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rig.disk.crash(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        });
        drop(log);
        let (log, recovered) = rig.open();
        assert_eq!(keys(&recovered), (1..20).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(recovered.lost_records(), 0, "{:?}", recovered.findings);
        let damage: Vec<_> = recovered
            .findings
            .iter()
            .filter(|finding| finding.problem.is_damage())
            .collect();
        assert!(damage.is_empty(), "seed {seed}: {damage:?}");
        assert_eq!(log.status().reserve_bytes, RESERVE_BYTES, "seed {seed}");
        assert!(rig.bytes_of(&reserve()).iter().all(|byte| *byte == 0));
        append_durable(&log, request(3000));
    }
}

/// A file that a crash left in the place of the reserve, whatever is in it.
#[test]
fn a_reserve_that_is_not_as_it_should_be_is_made_so() {
    let check = |what: &str, bytes: &[u8]| {
        let rig = rig();
        rig.write(1..5);
        rig.put(&reserve(), bytes);
        let report = inspect_on(&rig.disk, &rig.clock, folder()).unwrap();
        assert_eq!(report.reserve_bytes, bytes.len() as u64);
        assert_eq!(report.findings, [], "{what}");
        let (log, recovered) = rig.open();
        assert_eq!(keys(&recovered), [1, 2, 3, 4], "{what}");
        assert_eq!(recovered.findings, [], "{what}");
        assert_eq!(log.status().reserve_bytes, RESERVE_BYTES, "{what}");
        let after = rig.bytes_of(&reserve());
        assert_eq!(after, vec![0; RESERVE_BYTES as usize], "{what}");
    };
    check("empty", &[]);
    check("too short", &[0; 100]);
    check("too long", &[0; 9000]);
    check("something else", &[7; 5000]);
    let other = {
        let rig = rig();
        rig.write(1..9);
        rig.bytes_of(&segment(1))
    };
    check("records that were not confirmed", &other[..700]);
}

/// A rename that a crash did half: the file has both names.
#[test]
fn a_segment_that_is_the_reserve_too_stays_a_segment() {
    let rig = rig();
    rig.write(1..5);
    let bytes = rig.bytes_of(&segment(1));
    rig.put(&reserve(), &bytes);
    let (log, recovered) = rig.open();
    check_payloads(&log, &recovered);
    assert_eq!(rig.bytes_of(&segment(1)), bytes);
    assert_eq!(log.status().reserve_bytes, RESERVE_BYTES);
}

/// Power fails while records are written to a segment of the reserve.
#[test]
fn a_torn_end_in_a_segment_of_the_reserve_is_wiped_and_written_over() {
    let rig = rig();
    let (log, positions, _) = full(&rig, 1..20, 1000);
    log.append(batch(1, &positions[..9])).unwrap();
    log.append(sent(1)).unwrap();
    log.commit().unwrap_err();
    drop(log);
    let path = rig
        .names()
        .into_iter()
        .filter(|name| name.ends_with(".seg"))
        .map(|name| folder().join(name))
        .next_back()
        .unwrap();
    let capacity = rig.disk.bytes_in(folder());
    rig.fail(Faults::default());
    let length = rig.bytes_of(&path).len();
    assert_eq!(length as u64, RESERVE_BYTES);
    rig.edit(&path, |bytes| {
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes[end + 5..end + 90].fill(0xab);
    });
    rig.fail(Faults {
        capacity_bytes: Some(capacity),
        ..Faults::default()
    });
    let (log, recovered) = rig.open();
    assert!(matches!(
        problems(&recovered)[..],
        [Problem::TornEnd { .. }]
    ));
    assert_eq!(recovered.batches.len(), 1);
    // It is gone on with.
    log.append(request(2000)).unwrap();
    log.commit().unwrap_err();
    log.append(batch(2, &positions[9..])).unwrap();
    let is_sent = log.append(sent(2)).unwrap();
    log.commit().unwrap_err();
    log.wait_durable(is_sent, std::time::Duration::ZERO)
        .unwrap();
    drop(log);
    let (_, recovered) = rig.open();
    assert_eq!(recovered.findings, []);
    assert_eq!(recovered.batches.len(), 2);
    assert_eq!(rig.bytes_of(&path).len(), length);
}

#[test]
fn a_disk_that_is_full_at_the_first_start_is_said_and_used() {
    let mut rig = rig();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    rig.options.observer = Some(Observer::new(move |event| seen.lock().unwrap().push(event)));
    rig.fail(Faults {
        capacity_bytes: Some(RESERVE_BYTES - 1),
        ..Faults::default()
    });
    let (log, _) = rig.open();
    assert_eq!(log.status().reserve_bytes, 0);
    {
        let events = events.lock().unwrap();
        let [Event::NoReserve(error)] = &events[..] else {
            panic!("{events:?}");
        };
        assert!(error.contains("/log/reserve: No space left"), "{error}");
    }
    append_durable(&log, request(1));
    rig.clock.advance(std::time::Duration::from_secs(3));
    append_durable(&log, request(2));
    let said = |event: &&Event| matches!(event, Event::NoReserve(_));
    assert_eq!(events.lock().unwrap().iter().filter(said).count(), 1);
    assert!(!is_there(&rig), "what was begun of it is gone");
    let report = inspect_on(&rig.disk, &rig.clock, folder())
        .unwrap()
        .to_string();
    assert!(report.contains("reserve: none"), "{report}");
    rig.fail(Faults::default());
    rig.clock.advance(std::time::Duration::from_secs(3));
    append_durable(&log, request(3));
    assert_eq!(log.status().reserve_bytes, RESERVE_BYTES);
}

/// The reserve is a part of the log's limit, and small in a small log.
#[test]
fn the_reserve_counts_and_is_bounded() {
    let mut rig = rig();
    rig.options.max_bytes = 64 * 1024;
    rig.options.reserve_bytes = 1 << 20;
    let (log, _) = rig.open();
    assert_eq!(log.status().reserve_bytes, 2048);
    let room = log.free_bytes();
    drop(log);
    rig.options.reserve_bytes = 0;
    let (log, _) = rig.open();
    assert_eq!(log.free_bytes(), room + 2048);
    assert!(
        !is_there(&rig),
        "one that is not wanted any more is removed"
    );
}

/// A disk that fails is not full: the reserve stays.
#[test]
fn a_disk_that_fails_does_not_take_the_reserve() {
    let rig = rig();
    let (log, _) = rig.open();
    let position = append_durable(&log, request(1));
    log.append(batch(1, &[position])).unwrap();
    log.commit().unwrap();
    rig.fail(Faults {
        write: true,
        ..Faults::default()
    });
    log.append(stored(1)).unwrap();
    log.commit().unwrap_err();
    assert_eq!(log.status().reserve_bytes, RESERVE_BYTES);
    let file = rig.disk.open(&reserve(), Access::Read).unwrap();
    assert_eq!(file.length().unwrap(), RESERVE_BYTES);
}
