#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! Dead letters that are replayed, while a log is open or not.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use spanloom_log::disk::simulated::Faults;
use spanloom_log::disk::{Disk, Lock};
use spanloom_log::{BatchId, DeadLetter, DeadLetterError, DeadLetterFile, Log};
use support::*;

fn letter(batch: u128, row: u32) -> DeadLetter {
    DeadLetter {
        batch: BatchId(batch),
        rows: row..row + 1,
        at_ms: START_MS,
        reason: format!("refused {batch}"),
        payload: payload(batch).into(),
    }
}

fn file(rig: &Rig) -> DeadLetterFile {
    DeadLetterFile::on(Arc::new(rig.disk.clone()), folder())
}

fn path() -> PathBuf {
    folder().join("dead-letters")
}

fn read(log: &Log) -> Vec<DeadLetter> {
    let mut letters = Vec::new();
    log.read_dead_letters(|letter| letters.push(letter))
        .unwrap();
    letters
}

/// I14.
#[test]
fn letters_are_taken_out_while_the_log_adds_others() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    let all: Vec<_> = (1..4).map(|batch| letter(batch, 0)).collect();
    for letter in &all {
        log.keep_dead_letter(letter).unwrap();
    }
    let file = file(&rig);
    assert_eq!(file.read().unwrap(), all);
    // Added after it was read, by the log that has the old file open.
    let late = letter(4, 0);
    log.keep_dead_letter(&late).unwrap();
    let again = DeadLetter {
        reason: "refused again".to_owned(),
        ..all[1].clone()
    };
    file.replace(&all[..2], std::slice::from_ref(&again))
        .unwrap();
    let expected = [all[2].clone(), late, again];
    assert_eq!(file.read().unwrap(), expected);
    // The log sees the new file: it knows what is in it, and adds to it.
    log.keep_dead_letter(&expected[2]).unwrap();
    log.keep_dead_letter(&letter(5, 0)).unwrap();
    log.keep_dead_letter(&all[0]).unwrap();
    let expected: Vec<_> = expected
        .into_iter()
        .chain([letter(5, 0), all[0].clone()])
        .collect();
    assert_eq!(read(&log), expected);
    file.replace(&expected, &[]).unwrap();
    assert_eq!(read(&log), []);
    assert!(!rig.names().contains(&"dead-letters".to_owned()));
    log.keep_dead_letter(&all[0]).unwrap();
    drop(log);
    assert_eq!(read(&rig.open().0), all[..1]);
}

#[test]
fn a_crash_leaves_the_old_letters_or_the_new() {
    let letters: Vec<_> = (1..6).map(|batch| letter(batch, 0)).collect();
    let mut outcomes = [0, 0];
    for seed in 0..200_u64 {
        let rig = Rig::default();
        let (log, _) = rig.open();
        for letter in &letters {
            log.keep_dead_letter(letter).unwrap();
        }
        drop(log);
        rig.fail(Faults {
            sync: seed % 3 == 0,
            write: seed % 3 == 1,
            ..Faults::default()
        });
        let replaced = file(&rig).replace(&letters[..2], &[]);
        assert_eq!(replaced.is_ok(), seed % 3 == 2);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        rig.disk.crash(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state >> 33
        });
        let (log, recovered) = rig.open();
        assert_eq!(recovered.findings, []);
        let found = read(&log);
        let is_new = found == letters[2..];
        assert!(
            is_new || (found == letters && replaced.is_err()),
            "{seed}: {found:?}"
        );
        outcomes[usize::from(is_new)] += 1;
        log.keep_dead_letter(&letter(9, 0)).unwrap();
        file(&rig).replace(&[letter(9, 0)], &[]).unwrap();
        assert_eq!(read(&log), found);
    }
    assert!(outcomes[0] > 0 && outcomes[1] > 0, "{outcomes:?}");
}

#[test]
fn who_changes_the_file_has_its_lock() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    log.keep_dead_letter(&letter(1, 0)).unwrap();
    let lock = folder().join("dead-letters.lock");
    let Lock::Taken(guard) = rig.disk.lock(&lock, "pid 17").unwrap() else {
        panic!("the file is not locked");
    };
    let error = log.keep_dead_letter(&letter(2, 0)).unwrap_err();
    assert!(matches!(error, DeadLetterError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("pid 17"), "{error}");
    drop(guard);
    log.keep_dead_letter(&letter(2, 0)).unwrap();
    assert_eq!(read(&log).len(), 2);
}

#[test]
fn damaged_bytes_are_kept_aside_before_the_file_is_replaced() {
    let rig = Rig::default();
    let (log, _) = rig.open();
    for batch in 1..4 {
        log.keep_dead_letter(&letter(batch, 0)).unwrap();
    }
    drop(log);
    rig.edit(&path(), |bytes| bytes[HEADER + FRAME + 9] ^= 1);
    let file = file(&rig);
    assert_eq!(file.read().unwrap(), [letter(2, 0), letter(3, 0)]);
    file.replace(&[letter(2, 0)], &[]).unwrap();
    assert_eq!(file.read().unwrap(), [letter(3, 0)]);
    let kept = rig.disk.list(&folder().join("damaged")).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

#[test]
fn a_folder_that_is_not_there_is_said() {
    let file = DeadLetterFile::of("/nowhere/log".as_ref());
    let error = file.read().unwrap_err().to_string();
    assert!(error.contains("/nowhere/log"), "{error}");
}
