#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! A disk that fails while the log is open, and machines that lose power.

mod support;

use std::sync::{Arc, Mutex};

use spanloom_log::disk::simulated::Faults;
use spanloom_log::disk::{Clock, Disk};
use spanloom_log::{AppendError, Event, Full, Log, Observer, inspect_on};
use support::*;

/// The disk fails while a record is written, and works again: it is durable then, as are those around it.
fn failing(faults: Faults, expected: &str) {
    let mut rig = Rig::default();
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    rig.options.observer = Some(Observer::new(move |event| seen.lock().unwrap().push(event)));
    let (log, _) = rig.open();
    let first = append_durable(&log, request(1));
    rig.fail(faults);
    let second = log.append(request(2)).unwrap();
    for _ in 0..3 {
        let error = log.commit().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("/log/"), "{error}");
    }
    assert_eq!(log.durable(), first);
    assert!(log.status().fault.unwrap().contains(expected));
    assert_eq!(log.read(second).unwrap().key, 2);
    rig.fail(Faults::default());
    log.commit().unwrap();
    let third = append_durable(&log, request(3));
    assert_eq!(log.status().fault, None);
    let names = rig.names();
    let segments = names.iter().filter(|name| name.ends_with(".seg")).count();
    assert_eq!(
        segments, 2,
        "the failed segment is not written to again: {names:?}"
    );
    rig.disk.crash(|| 3);
    drop(log);
    let (log, recovered) = rig.open();
    assert_eq!(keys(&recovered), [1, 2, 3]);
    assert_eq!(recovered.requests[1].position, second);
    assert_eq!(recovered.lost_records(), 0);
    check_payloads(&log, &recovered);
    let events = events.lock().unwrap();
    // The caller commits, and is told when there is something to commit.
    let [
        Event::Appended,
        Event::Durable(one),
        Event::Appended,
        Event::Failing(said),
        Event::Durable(two),
        Event::Working,
        Event::Appended,
        Event::Durable(_),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*one, *two), (first, second));
    assert!(said.contains(expected) && third > second);
}

/// I5.
#[test]
fn eio_on_write() {
    failing(
        Faults {
            write: true,
            ..Faults::default()
        },
        "Input/output error",
    );
}

#[test]
fn eio_on_sync() {
    failing(
        Faults {
            sync: true,
            ..Faults::default()
        },
        "Input/output error",
    );
}

#[test]
fn no_space() {
    failing(
        Faults {
            capacity_bytes: Some(0),
            ..Faults::default()
        },
        "No space left",
    );
}

#[test]
fn read_only_while_it_is_open() {
    failing(
        Faults {
            read_only: true,
            ..Faults::default()
        },
        "Read-only file system",
    );
}

#[test]
fn a_folder_that_is_read_only_at_the_start() {
    let rig = Rig::default();
    rig.write(1..3);
    rig.fail(Faults {
        read_only: true,
        ..Faults::default()
    });
    let error = rig.try_open().unwrap_err().to_string();
    assert!(
        error.contains("must be a folder that this user can write to"),
        "{error}"
    );
    let report = inspect_on(&rig.disk, &rig.clock, folder()).unwrap();
    assert_eq!(report.requests.len(), 2);
}

#[test]
fn eio_on_read_leaves_the_request_for_later() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let position = append_durable(&log, request(1));
    rig.fail(Faults {
        read: true,
        ..Faults::default()
    });
    let error = log.read(position).unwrap_err().to_string();
    assert!(error.contains("cannot read /log/00000001.seg"), "{error}");
    rig.fail(Faults::default());
    assert_eq!(log.read(position).unwrap().key, 1);
}

#[test]
fn a_failing_disk_fills_the_buffer_and_loses_nothing() {
    let mut rig = Rig::default();
    rig.options.buffer_bytes = 2000;
    let (log, _) = rig.open();
    rig.fail(Faults {
        sync: true,
        ..Faults::default()
    });
    let mut taken = 0;
    let full = loop {
        match log.append(request(taken)) {
            Ok(_) => taken += 1,
            Err(AppendError::Full(full)) => break full,
            Err(error) => panic!("{error}"),
        }
        log.commit().unwrap_err();
    };
    let Full::Buffer {
        fault: Some(fault), ..
    } = &full
    else {
        panic!("{full}");
    };
    assert!(fault.contains("Input/output error"));
    // Files of failed tries do not pile up.
    let names = rig.names();
    assert!(names.len() <= 1, "{names:?}");
    rig.fail(Faults::default());
    log.commit().unwrap();
    drop(log);
    assert_eq!(keys(&rig.open().1), (0..taken).collect::<Vec<_>>());
}

/// A full disk, and a log full of what is stored: the ends of batches are written first, and give room.
#[test]
fn a_full_disk_gets_room_from_what_is_stored() {
    let rig = Rig::with_segments(2048);
    let (log, _) = rig.open();
    let positions: Vec<_> = (1..80)
        .map(|key| append_durable(&log, request(key)))
        .collect();
    append_durable(&log, batch(1, &positions));
    // Room for a header and an end, not for a request.
    let used = rig.disk.bytes_in(folder());
    rig.fail(Faults {
        capacity_bytes: Some(used + 140),
        ..Faults::default()
    });
    log.append(request(100)).unwrap();
    log.append(request(101)).unwrap();
    log.append(stored(1)).unwrap();
    log.commit().unwrap();
    assert!(rig.disk.bytes_in(folder()) < used / 2);
    drop(log);
    let (_, recovered) = rig.open();
    assert_eq!(keys(&recovered), [100, 101]);
    assert_eq!(recovered.lost_records(), 0);
}

#[test]
fn a_write_that_was_read_back_survives_the_next_crash() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    append_durable(&log, request(1));
    rig.fail(Faults {
        sync: true,
        ..Faults::default()
    });
    // Written, not synced, and the process is killed before it can do more.
    log.append(request(2)).unwrap();
    log.commit().unwrap_err();
    rig.disk.kill();
    rig.fail(Faults::default());
    drop(log);
    let (_, first) = rig.open();
    rig.disk.crash(|| 3);
    let (_, second) = rig.open();
    assert_eq!(keys(&first), keys(&second));
}

/// Deleting is durable before the next deletion: a crash never brings back a segment without those after it.
#[test]
fn crashes_while_segments_are_deleted() {
    for seed in 0..200_u64 {
        let rig = Rig::with_segments(1024);
        let (log, _) = rig.open();
        let positions: Vec<_> = (1..20)
            .map(|key| append_durable(&log, request(key)))
            .collect();
        log.append(batch(1, &positions)).unwrap();
        append_durable(&log, stored(1));
        rig.fail(Faults {
            sync: seed % 2 == 0,
            ..Faults::default()
        });
        let _ = log.append(request(50));
        let _ = log.commit();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rig.disk.crash(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        });
        drop(log);
        let (_, recovered) = rig.open();
        let found = keys(&recovered);
        assert!(found.is_empty() || found == [50], "seed {seed}: {found:?}");
    }
}

#[test]
fn the_end_of_a_batch_does_not_overtake_the_batch() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let position = append_durable(&log, request(1));
    rig.fail(Faults {
        write: true,
        ..Faults::default()
    });
    log.append(batch(1, &[position])).unwrap();
    log.append(stored(1)).unwrap();
    log.commit().unwrap_err();
    rig.fail(Faults::default());
    log.commit().unwrap();
    drop(log);
    let (_, recovered) = rig.open();
    assert!(recovered.requests.is_empty() && recovered.batches.is_empty());
}

#[test]
fn dead_letters_on_a_failing_disk_can_be_tried_again() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let letter = |batch| spanloom_log::DeadLetter {
        batch: spanloom_log::BatchId(batch),
        rows: 0..1,
        at_ms: rig.clock.unix_ms(),
        reason: "a reason".to_owned(),
        payload: vec![1; 50].into(),
    };
    let count = |log: &Log| {
        let mut count = 0;
        log.read_dead_letters(|_| count += 1).unwrap();
        count
    };
    for (round, faults) in [
        Faults {
            write: true,
            ..Faults::default()
        },
        Faults {
            sync: true,
            ..Faults::default()
        },
        Faults {
            capacity_bytes: Some(100),
            ..Faults::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        rig.fail(faults);
        log.keep_dead_letter(&letter(round as u128)).unwrap_err();
        rig.fail(Faults::default());
        log.keep_dead_letter(&letter(round as u128)).unwrap();
        assert_eq!(count(&log), round + 1);
    }
    rig.disk.crash(|| 3);
    drop(log);
    assert!(
        rig.disk
            .list(folder())
            .unwrap()
            .contains(&"dead-letters".to_owned())
    );
    assert_eq!(count(&rig.open().0), 3);
}
