//! Repeated exports: a client that got no answer sends the same bytes again. They are recognised by
//! a hash of the body, and get the first one's outcome, whether it is known yet or not.
//!
//! Of a request that is stored without a word a fingerprint is kept (`window`). Where there is something
//! to say, the words are kept as well, as long as there is room for them. A request of which nothing is
//! stored is forgotten, so that its repeat is processed, and takes no room from the others.

mod window;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::config::RepeatLimits;
use crate::metrics::Metrics;
use crate::outcome::{Outcome, Pending};
use window::Window;

/// The requests of the last minutes.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// Secret, so that nobody can make two bodies collide.
    seed: u64,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Known {
    /// Requests whose outcome is not known yet; each holds memory that is admitted.
    pending: HashMap<u128, Arc<Pending>, RandomState>,
    stored: Window,
    words: Words,
}

/// Outcomes with something to say, the oldest first.
#[derive(Debug)]
struct Words {
    outcomes: HashMap<u128, Outcome, RandomState>,
    order: VecDeque<u128>,
    bytes: usize,
    max_bytes: usize,
}

/// The part of the memory that is for words.
const WORDS: usize = 16;
/// What an outcome takes beside its message.
const OUTCOME_BYTES: usize = 160;

/// Whether a request is new.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It is: whoever has the ticket answers it.
    First(Ticket),
    /// It is a repeat of this one.
    Repeat(Arc<Pending>),
}

impl Repeats {
    pub(crate) fn new(limits: &RepeatLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        Self::with_seed(rand::random(), limits, metrics)
    }

    /// Those of a log, whose keys were made with this seed.
    pub(crate) fn with_seed(seed: u64, limits: &RepeatLimits, metrics: Arc<Metrics>) -> Arc<Self> {
        let words = limits.max_bytes / WORDS;
        Arc::new(Self {
            seed,
            known: Mutex::new(Known {
                pending: HashMap::default(),
                stored: Window::new(limits.ttl, limits.max_bytes - words),
                words: Words {
                    outcomes: HashMap::default(),
                    order: VecDeque::new(),
                    bytes: 0,
                    max_bytes: words,
                },
            }),
            metrics,
        })
    }

    /// Looks a body up. Bodies of another `form` (encoding, codec) are other requests.
    pub(crate) fn begin(self: &Arc<Self>, body: &[u8], form: u64) -> Begin {
        let key = xxh3_128_with_seed(body, self.seed.wrapping_add(form));
        let mut known = self.lock();
        known.stored.expire(Instant::now());
        if let Some(pending) = known.outcome(key) {
            self.metrics.repeats.inc();
            return Begin::Repeat(pending);
        }
        let pending = Arc::new(Pending::default());
        known.pending.insert(key, Arc::clone(&pending));
        drop(known);
        Begin::First(Ticket {
            pending,
            repeats: Arc::clone(self),
            key,
        })
    }

    /// Remembers requests of an earlier process, the oldest first: the key, how long ago, and the answer.
    pub(crate) fn restore(&self, requests: impl Iterator<Item = (u128, Duration, Outcome)>) {
        let now = Instant::now();
        let mut known = self.lock();
        for (key, age, outcome) in requests {
            // A machine that was started a moment ago has no earlier time.
            known
                .stored
                .insert(key, now.checked_sub(age).unwrap_or(now));
            if outcome != Outcome::OK {
                known.words.insert(key, outcome);
            }
        }
    }

    /// Requests remembered.
    pub(crate) fn len(&self) -> usize {
        let known = self.lock();
        known.pending.len() + known.stored.len()
    }

    /// For how long a request is remembered now.
    pub(crate) fn window(&self) -> Duration {
        self.lock().stored.covers(Instant::now())
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has ended, and something of it is stored.
    fn remember(&self, key: u128, pending: &Arc<Pending>, outcome: &Outcome) {
        let mut known = self.lock();
        if !known.end(key, pending) {
            return;
        }
        let evicted = known.stored.insert(key, Instant::now());
        if *outcome != Outcome::OK {
            known.words.insert(key, outcome.clone());
        }
        drop(known);
        self.metrics.repeats_evicted.inc_by(evicted as u64);
    }

    fn forget(&self, key: u128, pending: &Arc<Pending>) {
        self.lock().end(key, pending);
    }
}

impl Known {
    fn outcome(&self, key: u128) -> Option<Arc<Pending>> {
        if let Some(pending) = self.pending.get(&key) {
            return Some(Arc::clone(pending));
        }
        if !self.stored.contains(key) {
            return None;
        }
        let outcome = self.words.outcomes.get(&key).cloned();
        Some(Arc::new(Pending::ended(outcome.unwrap_or(Outcome::OK))))
    }

    /// A request is not pending any more; says whether it was.
    fn end(&mut self, key: u128, pending: &Arc<Pending>) -> bool {
        let current = self.pending.get(&key);
        let is_it = current.is_some_and(|current| Arc::ptr_eq(current, pending));
        if is_it {
            self.pending.remove(&key);
        }
        is_it
    }
}

impl Words {
    fn insert(&mut self, key: u128, outcome: Outcome) {
        self.bytes += bytes_of(&outcome);
        self.order.push_back(key);
        if let Some(before) = self.outcomes.insert(key, outcome) {
            self.bytes -= bytes_of(&before);
        }
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            if let Some(outcome) = self.outcomes.remove(&oldest) {
                self.bytes -= bytes_of(&outcome);
            }
        }
    }
}

fn bytes_of(outcome: &Outcome) -> usize {
    let message = match outcome {
        Outcome::Done { message, .. } => message.as_ref(),
        Outcome::Malformed(message)
        | Outcome::Denied(message)
        | Outcome::TooLarge(message)
        | Outcome::Unavailable(message)
        | Outcome::Internal(message) => Some(message),
    };
    OUTCOME_BYTES + message.map_or(0, |message| message.len())
}

/// The duty to answer a request. Dropped without an answer, it tells the client to retry.
#[derive(Debug)]
pub(crate) struct Ticket {
    pending: Arc<Pending>,
    repeats: Arc<Repeats>,
    key: u128,
}

impl Ticket {
    /// Names the request's bytes.
    pub(crate) fn key(&self) -> u128 {
        self.key
    }

    /// What to wait on for the answer.
    pub(crate) fn pending(&self) -> Arc<Pending> {
        Arc::clone(&self.pending)
    }

    /// Answers, unless the request was answered before; says whether it was not.
    pub(crate) fn answer(&self, outcome: Outcome) -> bool {
        let claimed = self.claim();
        if claimed {
            self.give(outcome);
        }
        claimed
    }

    /// Whether the request is not answered yet, and the caller is who answers it now, by
    /// [`Ticket::give`].
    pub(crate) fn claim(&self) -> bool {
        self.pending.claim()
    }

    /// The answer after a [claim](Ticket::claim).
    pub(crate) fn give(&self, outcome: Outcome) {
        // Before the answer: a client quick to retry must not meet what is forgotten, nor miss what is
        // remembered.
        match outcome {
            Outcome::Done { .. } | Outcome::Malformed(_) => {
                self.repeats.remember(self.key, &self.pending, &outcome);
            }
            Outcome::Denied(_)
            | Outcome::Unavailable(_)
            | Outcome::TooLarge(_)
            | Outcome::Internal(_) => {
                self.repeats.forget(self.key, &self.pending);
            }
        }
        self.pending.set(outcome);
    }

    /// Answers a request of which nothing is stored, unless it was answered before.
    pub(crate) fn refuse(&self, outcome: Outcome) {
        if self.claim() {
            self.repeats.forget(self.key, &self.pending);
            self.pending.set(outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.answer(Outcome::Unavailable(ABANDONED.into()));
    }
}

/// For a request whose ticket was dropped without an answer.
pub(crate) const ABANDONED: &str = "the request was abandoned; try again";

#[cfg(test)]
mod tests {
    use super::*;

    fn repeats(ttl: Duration, max_bytes: usize) -> Arc<Repeats> {
        let limits = RepeatLimits { ttl, max_bytes };
        Repeats::new(&limits, Arc::new(Metrics::default()))
    }

    fn first(begin: Begin) -> Ticket {
        match begin {
            Begin::First(ticket) => ticket,
            Begin::Repeat(_) => panic!("taken for a repeat"),
        }
    }

    fn repeat(begin: Begin) -> Arc<Pending> {
        match begin {
            Begin::Repeat(pending) => pending,
            Begin::First(_) => panic!("not recognised"),
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn a_repeat_joins_before_and_after_the_answer() {
        let repeats = repeats(LONG, 1 << 20);
        let ticket = first(repeats.begin(b"spans", 0));
        let early = repeat(repeats.begin(b"spans", 0));
        let waiting = tokio::spawn(async move { early.wait().await });
        first(repeats.begin(b"spans", 1)).answer(Outcome::OK);
        first(repeats.begin(b"other", 0)).answer(Outcome::OK);
        let answer = Outcome::Done {
            rejected: 2,
            message: Some("zero ids".into()),
        };
        ticket.answer(answer.clone());
        assert_eq!(waiting.await.unwrap(), answer);
        assert_eq!(repeat(repeats.begin(b"spans", 0)).wait().await, answer);
        assert_eq!(repeats.metrics.repeats.get(), 2);
    }

    #[tokio::test]
    async fn what_was_not_stored_is_processed_again() {
        let repeats = repeats(LONG, 1 << 20);
        let ticket = first(repeats.begin(b"spans", 0));
        let joined = repeat(repeats.begin(b"spans", 0));
        ticket.answer(Outcome::Unavailable("down".into()));
        assert_eq!(joined.wait().await, Outcome::Unavailable("down".into()));
        // Abandoned: the same.
        drop(first(repeats.begin(b"spans", 0)));
        first(repeats.begin(b"spans", 0)).answer(Outcome::OK);
        repeat(repeats.begin(b"spans", 0));
    }

    #[test]
    fn old_and_surplus_requests_are_forgotten() {
        let none = repeats(Duration::ZERO, 1 << 20);
        first(none.begin(b"spans", 0)).answer(Outcome::OK);
        first(none.begin(b"spans", 0)).answer(Outcome::OK);
        assert_eq!(none.metrics.repeats_evicted.get(), 0);
    }

    #[test]
    fn what_was_refused_takes_no_room() {
        let repeats = repeats(LONG, 1 << 20);
        first(repeats.begin(b"stored", 0)).answer(Outcome::OK);
        for n in 0..200_000_u32 {
            let ticket = first(repeats.begin(&n.to_le_bytes(), 0));
            match n % 3 {
                0 => ticket.refuse(Outcome::Malformed("no OTLP".into())),
                1 => drop(ticket),
                _ => drop(ticket.answer(Outcome::TooLarge("too large".into()))),
            }
        }
        repeat(repeats.begin(b"stored", 0));
        assert_eq!(
            (repeats.len(), repeats.metrics.repeats_evicted.get()),
            (1, 0)
        );
    }

    #[tokio::test]
    async fn words_are_kept_while_there_is_room_and_the_fact_for_longer() {
        let repeats = repeats(LONG, 1 << 20);
        let said = |n: u32| Outcome::Done {
            rejected: 1,
            message: Some(format!("span {n} is not valid").into()),
        };
        for n in 0..5_000_u32 {
            first(repeats.begin(&n.to_le_bytes(), 0)).answer(said(n));
        }
        let answer = async |n: u32| repeat(repeats.begin(&n.to_le_bytes(), 0)).wait().await;
        assert_eq!(answer(4_999).await, said(4_999));
        assert_eq!(answer(0).await, Outcome::OK);
        assert!(repeats.lock().words.bytes <= (1 << 20) / WORDS);
    }
}
