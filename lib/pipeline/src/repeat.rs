//! Repeated exports: a client that got no answer sends the same bytes again. They are recognised by
//! a hash of the body, and get the first one's outcome, whether it is known yet or not.
//!
//! Only a request of which nothing is stored is forgotten, so that its repeat is processed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::metrics::Metrics;
use crate::outcome::{Outcome, Pending};

/// The requests of the last minutes.
#[derive(Debug)]
pub(crate) struct Repeats {
    /// Secret, so that nobody can make two bodies collide.
    seed: u64,
    ttl: Duration,
    max_entries: usize,
    known: Mutex<Known>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Known {
    requests: HashMap<u128, Arc<Pending>, RandomState>,
    /// In the order of arrival, for expiry; a forgotten request stays here until its time.
    order: VecDeque<(Instant, u128, Arc<Pending>)>,
}

/// Whether a request is new.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It is: whoever has the ticket answers it.
    First(Ticket),
    /// It is a repeat of this one.
    Repeat(Arc<Pending>),
}

impl Repeats {
    pub(crate) fn new(ttl: Duration, max_entries: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        let known = Mutex::default();
        Arc::new(Self {
            seed: rand::random(),
            ttl,
            max_entries,
            known,
            metrics,
        })
    }

    /// Looks a body up. Bodies of another `form` (encoding, codec) are other requests.
    pub(crate) fn begin(self: &Arc<Self>, body: &[u8], form: u64) -> Begin {
        let key = xxh3_128_with_seed(body, self.seed.wrapping_add(form));
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.expire(&mut known, now);
        if let Some(pending) = known.requests.get(&key) {
            self.metrics.repeats.inc();
            return Begin::Repeat(Arc::clone(pending));
        }
        let pending = Arc::new(Pending::default());
        known.requests.insert(key, Arc::clone(&pending));
        known.order.push_back((now, key, Arc::clone(&pending)));
        drop(known);
        Begin::First(Ticket {
            pending,
            repeats: Arc::clone(self),
            key,
        })
    }

    /// Requests remembered.
    pub(crate) fn len(&self) -> usize {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .order
            .len()
    }

    fn expire(&self, known: &mut Known, now: Instant) {
        while let Some((at, key, pending)) = known.order.front() {
            let old = now.duration_since(*at) >= self.ttl;
            if !old && known.order.len() < self.max_entries.max(1) {
                break;
            }
            if known
                .requests
                .get(key)
                .is_some_and(|current| Arc::ptr_eq(current, pending))
            {
                known.requests.remove(key);
                if !old {
                    self.metrics.repeats_evicted.inc();
                }
            }
            known.order.pop_front();
        }
    }

    fn forget(&self, key: u128, pending: &Arc<Pending>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known
            .requests
            .get(&key)
            .is_some_and(|current| Arc::ptr_eq(current, pending))
        {
            known.requests.remove(&key);
        }
    }
}

/// The duty to answer a request. Dropped without an answer, it tells the client to retry.
#[derive(Debug)]
pub(crate) struct Ticket {
    pending: Arc<Pending>,
    repeats: Arc<Repeats>,
    key: u128,
}

impl Ticket {
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
        if let Outcome::Unavailable(_) = outcome {
            // Before the answer: a client quick to retry must not meet it again.
            self.repeats.forget(self.key, &self.pending);
        }
        self.pending.set(outcome);
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

    fn repeats(ttl: Duration, max_entries: usize) -> Arc<Repeats> {
        Repeats::new(ttl, max_entries, Arc::new(Metrics::default()))
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
        let repeats = repeats(LONG, 10);
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
        let repeats = repeats(LONG, 10);
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
        let none = repeats(Duration::ZERO, 10);
        first(none.begin(b"spans", 0)).answer(Outcome::OK);
        first(none.begin(b"spans", 0)).answer(Outcome::OK);
        assert_eq!(none.metrics.repeats_evicted.get(), 0);

        let two = repeats(LONG, 2);
        for body in [b"a", b"b", b"c"] {
            first(two.begin(body, 0)).answer(Outcome::OK);
        }
        assert_eq!((two.len(), two.metrics.repeats_evicted.get()), (2, 1));
        repeat(two.begin(b"c", 0));
        first(two.begin(b"a", 0));
    }
}
