use super::*;
use crate::admission::Budget;
use crate::config::AccountsConfig;
use crate::config::RepeatLimits;
use crate::receive::Transport;
use crate::repeat::{Begin, Repeats};
use futures_util::FutureExt;
use spanloom_log::disk::Disk;
use spanloom_log::disk::simulated::{SimulatedClock, SimulatedDisk};
use spanloom_log::{Committer, Options};
use std::path::Path;
use std::time::Duration;

/// A settlement, and what its requests need.
struct Desk {
    settlement: Arc<Settlement>,
    metrics: Arc<Metrics>,
    repeats: Arc<Repeats>,
    budget: Arc<Budget>,
}

const PERMIT: usize = 100;
const ORIGIN: Origin = Origin {
    receiver: "otlp",
    transport: Transport::Grpc,
};
const SPANS: usize = 3;

impl Desk {
    fn new(policy: Acknowledge) -> Self {
        let metrics = Arc::new(Metrics::default());
        let accounts = Accounts::new(&AccountsConfig {
            age: Duration::ZERO,
            ..AccountsConfig::default()
        });
        Self {
            settlement: Settlement::new(policy, Arc::clone(&metrics), accounts),
            repeats: Repeats::new(&RepeatLimits::within(1 << 20), Arc::clone(&metrics)),
            metrics,
            budget: Budget::new(10 * PERMIT),
        }
    }

    /// A request of three spans that are in the batch at `first` and after, and what it is answered.
    fn entry(&self, body: &[u8], first: usize) -> (Entry, Answer) {
        let (entry, answer) = self.enter(body, first, 1024);
        (entry.unwrap(), answer)
    }

    /// The same, of which a log keeps so many bytes.
    fn enter(&self, body: &[u8], first: usize, bytes: usize) -> (Option<Entry>, Answer) {
        let Begin::First(ticket) = self.repeats.begin(body, 0) else {
            panic!("taken for a repeat");
        };
        let answer = Answer(ticket.pending());
        let request = Request {
            origin: ORIGIN,
            bytes: body.len(),
            tally: Tally {
                kept: SPANS as u64,
                ..Tally::default()
            },
            ticket,
        };
        let mut permit = self.budget.begin([127, 0, 0, 1].into());
        permit.grow_to(PERMIT).unwrap();
        permit.arrived().unwrap();
        let rows = first..first + SPANS;
        let payload =
            matches!(self.settlement.policy, Acknowledge::Logged(_)).then(|| vec![0; bytes]);
        let entry = self.settlement.enter(request, rows, None, permit, payload);
        (entry, answer)
    }

    fn is_known(&self, body: &[u8]) -> bool {
        matches!(self.repeats.begin(body, 0), Begin::Repeat(_))
    }

    fn accounts(&self) -> Vec<(String, u64)> {
        let rows = self.settlement.due_accounts();
        let mut rows: Vec<_> = rows
            .iter()
            .map(|row| (format!("{}/{}", row.stage, row.reason), row.spans))
            .collect();
        rows.sort();
        rows
    }

    fn lost(&self) -> u64 {
        self.metrics.all_lost()
    }
}

struct Answer(Arc<crate::outcome::Pending>);

impl Answer {
    fn now(&self) -> Option<Outcome> {
        futures_util::FutureExt::now_or_never(self.0.wait())
    }
}

fn account(key: &str, spans: u64) -> (String, u64) {
    (key.to_owned(), spans)
}

fn away() -> ExportOutcome {
    ExportOutcome::Unavailable("away".to_owned())
}

#[test]
fn by_default_both_events_are_one() {
    let desk = Desk::new(Acknowledge::Stored);
    let (entry, answer) = desk.entry(b"a", 0);
    let lot = desk.settlement.hand_over(7, vec![entry], Vec::new());
    assert_eq!((answer.now(), desk.budget.used()), (None, PERMIT));
    lot.settle(ExportOutcome::Stored);
    assert_eq!((answer.now(), desk.budget.used()), (Some(Outcome::OK), 0));
    assert_eq!(desk.accounts(), [account("store/stored", 3)]);
    assert!(desk.is_known(b"a"));
}

#[test]
fn a_sender_that_was_not_answered_is_told_to_retry() {
    let desk = Desk::new(Acknowledge::Stored);
    for fail in [
        (|lot: Lot| lot.settle(away())) as fn(Lot),
        // The task of the export is gone.
        drop,
    ] {
        let (entry, answer) = desk.entry(b"a", 0);
        fail(desk.settlement.hand_over(7, vec![entry], Vec::new()));
        assert!(matches!(answer.now(), Some(Outcome::Unavailable(_))));
        assert_eq!(desk.accounts(), [account("store/unavailable", 3)]);
        assert_eq!((desk.budget.used(), desk.lost()), (0, 0));
    }
    // And a worker's batch is thrown away.
    let (entry, answer) = desk.entry(b"a", 0);
    desk.settlement.abandon(vec![entry]);
    assert!(matches!(answer.now(), Some(Outcome::Unavailable(_))));
    assert_eq!(desk.accounts(), [account("store/unavailable", 3)]);
}

#[test]
fn in_memory_a_sender_is_answered_at_once_and_what_fails_later_is_counted_as_lost() {
    let desk = Desk::new(Acknowledge::InMemory);
    let (entry, answer) = desk.entry(b"a", 0);
    // Its batch is not even complete, and its memory is still in use.
    assert_eq!(
        (answer.now(), desk.budget.used()),
        (Some(Outcome::OK), PERMIT)
    );
    let (other, _) = desk.entry(b"other", 3);
    let entries = vec![entry, other];
    let mut lot = desk.settlement.hand_over(7, entries, Vec::new());
    // What was compressed holds less.
    lot.hold(31);
    assert_eq!(desk.budget.used(), 31);
    lot.settle(ExportOutcome::Stored);
    assert_eq!((desk.budget.used(), desk.lost()), (0, 0));
    assert_eq!(desk.accounts(), [account("store/stored", 6)]);

    let (entry, answer) = desk.entry(b"b", 0);
    let lot = desk.settlement.hand_over(7, vec![entry], Vec::new());
    lot.settle(away());
    assert_eq!(
        (answer.now(), desk.budget.used(), desk.lost()),
        (Some(Outcome::OK), 0, 3)
    );
    assert_eq!(desk.accounts(), [account("store/lost", 3)]);

    // Rows that the store refuses are lost as well: their sender was not told.
    let (entry, _) = desk.entry(b"c", 0);
    let lot = desk.settlement.hand_over(7, vec![entry], Vec::new());
    lot.settle(ExportOutcome::Partial(vec![RefusedRows {
        range: 1..2,
        reason: "bad".to_owned(),
    }]));
    assert_eq!(desk.lost(), 4);
    let expect = [account("store/refused", 1), account("store/stored", 2)];
    assert_eq!(desk.accounts(), expect);
}

/// A log on a disk in memory, which is synced when the test says so.
fn log(max_bytes: u64) -> (Arc<DurableLog>, SimulatedDisk) {
    let disk = SimulatedDisk::default();
    let options = Options {
        max_bytes,
        committer: Committer::Caller,
        ..Options::default()
    };
    let clock = Arc::new(SimulatedClock::at(1_000_000));
    let on: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = DurableLog::open_with(options, |options| {
        spanloom_log::Log::open_on(on, clock, Path::new("/log"), options)
    });
    (log.unwrap(), disk)
}

#[test]
fn a_log_answers_before_the_store_and_forgets_after_it() {
    let (log, _) = log(1 << 30);
    let desk = Desk::new(Acknowledge::Logged(Arc::clone(&log)));
    let undelivered = || log.status().undelivered_requests;
    // Acknowledged while the batch is still open.
    let (entry, answer) = desk.entry(b"a", 0);
    assert_eq!((answer.now(), undelivered()), (None, 1));
    log.commit().unwrap();
    assert_eq!(
        (answer.now(), desk.budget.used()),
        (Some(Outcome::OK), PERMIT)
    );
    // Its batch is sent when the log has its name.
    let mut lot = desk.settlement.hand_over(7, vec![entry], Vec::new());
    {
        let mut name = Box::pin(lot.name());
        assert!((&mut name).now_or_never().is_none());
        log.commit().unwrap();
        assert!(matches!((&mut name).now_or_never(), Some(Ok(_))));
    }
    lot.settle(ExportOutcome::Stored);
    log.commit().unwrap();
    assert_eq!((undelivered(), desk.budget.used()), (0, 0));
    assert_eq!(desk.accounts(), [account("store/stored", 3)]);

    // The store fails after that: the log has it, nothing is lost, and a repeat is a repeat.
    let (entry, answer) = desk.entry(b"b", 0);
    log.commit().unwrap();
    let lot = desk.settlement.hand_over(8, vec![entry], Vec::new());
    lot.settle(away());
    assert_eq!((answer.now(), undelivered()), (Some(Outcome::OK), 1));
    assert_eq!((log.backlog(), desk.budget.used(), desk.lost()), (1, 0, 0));
    assert!(desk.is_known(b"b"));

    // The worker throws its batch away before the log was synced: it is in the log all the same.
    let (entry, answer) = desk.entry(b"c", 0);
    desk.settlement.abandon(vec![entry]);
    assert_eq!((answer.now(), log.backlog()), (None, 2));
    log.commit().unwrap();
    assert_eq!(answer.now(), Some(Outcome::OK));
}

#[test]
fn what_the_log_has_no_room_for_is_to_be_sent_again() {
    let (log, disk) = log(64 << 10);
    let desk = Desk::new(Acknowledge::Logged(Arc::clone(&log)));
    let mut taken: u64 = 0;
    let answer = loop {
        match desk.enter(&taken.to_le_bytes(), 0, 1024) {
            (None, answer) => break answer,
            // Its memory is not what this is about.
            (Some(entry), _) => drop(entry.permit),
        }
        log.commit().unwrap();
        taken += 1;
    };
    assert!(taken > 20 && !log.takes_requests());
    assert!(disk.bytes_in(Path::new("/log")) <= 64 << 10);
    assert!(matches!(answer.now(), Some(Outcome::Unavailable(_))));
    // Processed again when it comes again, and not lost.
    assert!(!desk.is_known(&taken.to_le_bytes()));
    assert_eq!((desk.budget.used(), desk.lost()), (0, 0));
    assert_eq!(
        desk.accounts(),
        [account("store/unavailable", SPANS as u64)]
    );
}

#[test]
fn what_is_too_large_for_the_log_is_answered_when_it_is_stored() {
    let (log, _) = log(64 << 10);
    let desk = Desk::new(Acknowledge::Logged(Arc::clone(&log)));
    let (entry, answer) = desk.enter(b"a", 0, 48 << 10);
    let lot = desk
        .settlement
        .hand_over(7, entry.into_iter().collect(), Vec::new());
    assert_eq!(answer.now(), None);
    lot.settle(ExportOutcome::Stored);
    assert_eq!(answer.now(), Some(Outcome::OK));
}

#[test]
fn accounts_of_a_batch_that_is_not_stored_come_back() {
    let desk = Desk::new(Acknowledge::Stored);
    desk.settlement.accounts.refused("memory", 10);
    for fail in [(|lot: Lot| lot.settle(away())) as fn(Lot), drop] {
        let rows = desk.settlement.due_accounts();
        assert_eq!(rows.len(), 1);
        fail(desk.settlement.hand_over(7, Vec::new(), rows));
    }
    let rows = desk.settlement.due_accounts();
    let lot = desk.settlement.hand_over(7, Vec::new(), rows);
    lot.settle(ExportOutcome::Stored);
    assert_eq!(desk.accounts(), []);
}

#[test]
fn what_is_not_in_a_batch_is_accounted_for_at_once() {
    let check = |tally: Tally, outcome: Option<Outcome>, expect: &[(String, u64)]| {
        let desk = Desk::new(Acknowledge::Stored);
        let Begin::First(ticket) = desk.repeats.begin(b"a", 0) else {
            panic!("taken for a repeat");
        };
        let answer = Answer(ticket.pending());
        let request = Request {
            origin: ORIGIN,
            bytes: 1,
            tally,
            ticket,
        };
        match outcome {
            None => desk.settlement.nothing_kept(request),
            Some(outcome) => desk.settlement.not_processed(request, outcome),
        }
        assert!(answer.now().is_some());
        assert_eq!(desk.accounts(), expect);
    };
    let dropped = Tally {
        dropped: 2,
        ..Tally::default()
    };
    check(dropped.clone(), None, &[account("process/drop", 2)]);
    check(
        dropped,
        Some(Outcome::Malformed("cut".into())),
        &[account("process/drop", 2), account("receive/malformed", 0)],
    );
    check(
        Tally::default(),
        Some(Outcome::TooLarge("large".into())),
        &[account("receive/too_large", 0)],
    );
}
