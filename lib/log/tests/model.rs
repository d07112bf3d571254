#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // tests may stop
//! Any sequence of operations, faults and crashes, against a model in memory: nothing durable is lost, nothing
//! is invented, order is kept, and bytes are bounded.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use spanloom_log::disk::simulated::Faults;
use spanloom_log::{AppendError, BatchId, Event, Log, Observer, Position, Recovered};
use support::*;

#[derive(Debug, Clone)]
enum Step {
    Append,
    /// Batches some of what waits, from the oldest on.
    Batch(usize),
    Sent(usize),
    Stored(usize),
    Commit,
    Fault(u8),
    /// The machine loses power.
    Crash(u64),
    /// The process is killed.
    Kill,
    /// The process ends well.
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Append),
        3 => (1..6_usize).prop_map(Step::Batch),
        2 => (0..4_usize).prop_map(Step::Sent),
        3 => (0..4_usize).prop_map(Step::Stored),
        8 => Just(Step::Commit),
        3 => (0..8_u8).prop_map(Step::Fault),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

#[derive(Debug, Clone, PartialEq)]
struct ModelBatch {
    requests: Vec<Position>,
    appended: Position,
    sent: Option<Position>,
    stored: Option<Position>,
}

/// What was appended, and what has to be there after a crash.
#[derive(Default)]
struct Model {
    /// Keys by position; all that were ever appended.
    requests: BTreeMap<Position, u128>,
    batches: BTreeMap<u128, ModelBatch>,
    /// Positions that the log said are durable.
    durable: BTreeSet<Position>,
    /// Of these, what was said of single ones.
    early: Arc<Mutex<Vec<Position>>>,
    /// The log said that keys went before their time, or the disk was full: then they may.
    keys_may_go: bool,
    next_key: u128,
    next_batch: u128,
}

impl Model {
    fn announce(&mut self, durable: Position) {
        self.durable.extend(self.early.lock().unwrap().drain(..));
        let batches = self.batches.values();
        let all = batches
            .flat_map(|batch| [Some(batch.appended), batch.sent, batch.stored])
            .flatten()
            .chain(self.requests.keys().copied());
        self.durable
            .extend(all.filter(|position| *position <= durable));
    }

    fn open_batches(&self) -> Vec<u128> {
        let open = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.stored.is_none());
        open.map(|(id, _)| *id).collect()
    }

    fn waiting(&self) -> Vec<Position> {
        let taken: BTreeSet<_> = self
            .batches
            .values()
            .flat_map(|batch| &batch.requests)
            .collect();
        let requests = self.requests.keys();
        requests
            .filter(|position| !taken.contains(position))
            .copied()
            .collect()
    }

    /// The log was opened again: what it found is what there is from now on.
    fn check(&mut self, log: &Log, recovered: &Recovered) {
        let found: Vec<_> = recovered
            .requests
            .iter()
            .map(|request| request.position)
            .collect();
        assert!(found.is_sorted(), "order is kept");
        for request in &recovered.requests {
            let key = self.requests.get(&request.position);
            assert_eq!(key, Some(&request.key), "nothing is invented");
        }
        check_payloads(log, recovered);
        let stored_for_sure: BTreeSet<_> = self
            .batches
            .values()
            .filter(|batch| {
                batch
                    .stored
                    .is_some_and(|stored| self.durable.contains(&stored))
            })
            .flat_map(|batch| batch.requests.clone())
            .collect();
        let stored_perhaps: BTreeSet<_> = self
            .batches
            .values()
            .filter(|batch| batch.stored.is_some())
            .flat_map(|batch| batch.requests.clone())
            .collect();
        for position in self
            .requests
            .keys()
            .filter(|position| self.durable.contains(position))
        {
            let is_there = found.binary_search(position).is_ok();
            assert!(
                is_there || stored_perhaps.contains(position),
                "{position} is lost"
            );
            assert!(
                !(is_there && stored_for_sure.contains(position)),
                "{position} is back"
            );
        }
        for (id, batch) in &self.batches {
            let recovered = recovered
                .batches
                .iter()
                .find(|found| found.id == BatchId(*id));
            if batch
                .stored
                .is_some_and(|stored| self.durable.contains(&stored))
            {
                assert!(recovered.is_none(), "the stored batch {id} is back");
            }
            if self.durable.contains(&batch.appended) && batch.stored.is_none() {
                let recovered = recovered.expect("a durable batch is there");
                assert_eq!(recovered.requests, batch.requests);
                assert!(recovered.missing.is_empty());
                assert_eq!(
                    recovered.tokens,
                    [format!("{id}:spans"), format!("{id}:tags")]
                );
                if batch.sent.is_some_and(|sent| self.durable.contains(&sent)) {
                    assert!(recovered.sent_at_ms.is_some());
                }
            }
        }
        let kept: BTreeSet<_> = recovered.keys.iter().map(|key| key.key).collect();
        for (position, key) in &self.requests {
            assert!(
                self.keys_may_go || kept.contains(key) || !self.durable.contains(position),
                "the key {key} is forgotten"
            );
        }
        self.keys_may_go = false;
        self.adopt(recovered, &found);
    }

    fn adopt(&mut self, recovered: &Recovered, found: &[Position]) {
        // Requests that are stored keep their keys; those that are gone are forgotten.
        let kept: BTreeSet<_> = recovered.keys.iter().map(|key| key.key).collect();
        self.requests.retain(|_, key| kept.contains(key));
        let done: Vec<_> = self
            .requests
            .keys()
            .filter(|at| !found.contains(at))
            .copied()
            .collect();
        self.batches.clear();
        for batch in &recovered.batches {
            let model = ModelBatch {
                requests: batch.requests.clone(),
                appended: Position(0),
                sent: batch.sent_at_ms.map(|_| Position(0)),
                stored: None,
            };
            self.batches.insert(batch.id.0, model);
        }
        // Finished: in a batch that is stored.
        let finished = ModelBatch {
            requests: done,
            appended: Position(0),
            sent: None,
            stored: Some(Position(0)),
        };
        self.next_batch += 1;
        self.batches.insert(u128::MAX - self.next_batch, finished);
        self.durable.extend(self.requests.keys().copied());
        self.durable.insert(Position(0));
    }
}

fn faults(number: u8) -> Faults {
    let none = Faults::default();
    match number {
        0 => Faults {
            write: true,
            ..none
        },
        1 => Faults { sync: true, ..none },
        2 => Faults {
            read_only: true,
            ..none
        },
        // Full at some time, and at once.
        3 => Faults {
            capacity_bytes: Some(8000),
            ..none
        },
        4 => Faults {
            capacity_bytes: Some(0),
            ..none
        },
        _ => none,
    }
}

fn run(steps: Vec<Step>) {
    let mut rig = Rig::with_segments(1024);
    rig.options.max_bytes = 64 * 1024;
    rig.options.buffer_bytes = 3000;
    rig.options.reserve_bytes = 2048;
    let mut model = Model::default();
    let early = Arc::clone(&model.early);
    rig.options.observer = Some(Observer::new(move |event| {
        if let Event::DurableEarly(positions) = event {
            early.lock().unwrap().extend(positions);
        }
    }));
    let (mut log, _) = rig.open();
    let mut has_failed_sync = false;
    for step in steps {
        match step {
            Step::Append => match log.append(request(model.next_key)) {
                Ok(position) => {
                    let before = model.requests.insert(position, model.next_key);
                    assert_eq!(before, None, "a position is given once");
                    model.next_key += 1;
                }
                Err(error) => assert!(matches!(error, AppendError::Full(_)), "{error}"),
            },
            Step::Batch(count) => {
                let mut requests = model.waiting();
                requests.truncate(count);
                if let Ok(appended) = log.append(batch(model.next_batch, &requests)) {
                    let new = ModelBatch {
                        requests,
                        appended,
                        sent: None,
                        stored: None,
                    };
                    model.batches.insert(model.next_batch, new);
                    model.next_batch += 1;
                }
            }
            Step::Sent(index) => {
                if let Some(id) = model.open_batches().get(index)
                    && let Ok(position) = log.append(sent(*id))
                {
                    model
                        .batches
                        .get_mut(id)
                        .unwrap()
                        .sent
                        .get_or_insert(position);
                }
            }
            Step::Stored(index) => {
                if let Some(id) = model.open_batches().get(index) {
                    let position = log.append(stored(*id)).unwrap();
                    model.batches.get_mut(id).unwrap().stored = Some(position);
                }
            }
            Step::Commit => {
                let _ = log.commit();
                model.keys_may_go |= log.status().keys_evicted > 0;
                model.announce(log.durable());
            }
            Step::Fault(number) => {
                has_failed_sync |= number == 1;
                model.keys_may_go |= number == 3 || number == 4;
                rig.fail(faults(number));
            }
            Step::Crash(_) | Step::Kill | Step::Close => {
                end(&rig, log, &step, &mut has_failed_sync);
                let recovered;
                (log, recovered) = rig.open();
                model.check(&log, &recovered);
            }
        }
        assert!(rig.disk.bytes_in(folder()) <= rig.options.max_bytes);
    }
    rig.fail(Faults::default());
    log.commit().unwrap();
    model.announce(log.durable());
    drop(log);
    let (log, recovered) = rig.open();
    model.check(&log, &recovered);
}

fn end(rig: &Rig, log: Log, step: &Step, has_failed_sync: &mut bool) {
    match step {
        Step::Crash(seed) => {
            let mut state = *seed;
            rig.disk.crash(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state >> 33
            });
        }
        // After a failed sync a process that is killed leaves bytes that only the page cache has, and
        // it cannot be told: the limit that the crate's documentation names.
        Step::Kill if !*has_failed_sync => rig.disk.kill(),
        _ => {
            rig.fail(Faults::default());
            log.close().unwrap();
            return;
        }
    }
    *has_failed_sync = false;
    drop(log);
    rig.fail(Faults::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I1, I2, I3, I9, I10, I12 and I13 at once.
    #[test]
    fn the_log_is_its_model(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Wipe(usize, usize),
    Insert(usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..4000_usize;
    prop_oneof![
        at.clone().prop_map(Damage::Flip),
        at.clone().prop_map(Damage::Cut),
        (at.clone(), 1..600_usize).prop_map(|(at, count)| Damage::Wipe(at, count)),
        at.prop_map(Damage::Insert),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// I6, I7: whatever happens to the bytes, the log starts, and what it gives was written.
    #[test]
    fn damaged_files_never_invent_records(changes in prop::collection::vec(damage(), 1..5)) {
        let rig = Rig::default();
        rig.write(1..25);
        rig.edit(&segment(1), |bytes| {
            for change in changes {
                let length = bytes.len();
                match change {
                    Damage::Flip(at) if at < length => bytes[at] ^= 0x20,
                    Damage::Cut(at) => bytes.truncate(at),
                    Damage::Wipe(at, count) if at + count < length => bytes[at..at + count].fill(0),
                    Damage::Insert(at) if at < length => bytes.insert(at, 0xf5),
                    _ => {}
                }
            }
        });
        let (log, recovered) = rig.open();
        let found = keys(&recovered);
        assert!(found.is_sorted() && found.iter().all(|key| (1..25).contains(key)));
        check_payloads(&log, &recovered);
        append_durable(&log, request(100));
    }
}
