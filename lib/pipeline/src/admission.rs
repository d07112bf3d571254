//! Admission by bytes: a request holds memory for what has arrived of it, and what finds none left is
//! refused at once, so that overload costs the sender a retry and us almost nothing.
//!
//! What a client promises reserves nothing. A request's reservation follows what really arrives, times
//! what such requests are known to grow to, then what it unpacks to, and shrinks to what the batch holds
//! of it. It is given back when the batch's export has ended.
//!
//! When memory runs short the youngest bodies that are still arriving are refused, so that those begun
//! first always end. While others wait, one peer (an address) holds at most a quarter.

mod expansion;
mod ledger;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use expansion::Expansion;
use ledger::{Ledger, Room};

/// Memory that requests may use together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    /// What the ledger says is used, for those who only look.
    used: AtomicUsize,
    begun: Instant,
    /// Milliseconds from `begun` until the last refusal is forgotten.
    strained_until: AtomicU64,
    ledger: Mutex<Ledger>,
    /// Notified when memory is freed while a request waits for it.
    freed: Notify,
}

/// How long after a refusal the next is expected.
const STRAIN: Duration = Duration::from_secs(1);
/// How often a body that waits looks for room beside when some is given back.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why no memory was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Others use it now.
    #[error("the memory for requests is exhausted; try again")]
    Full,
    /// The request alone needs more than there is.
    #[error("the request needs more memory than the limit of {limit} bytes for all requests")]
    NeverFits {
        /// The limit.
        limit: usize,
    },
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            begun: Instant::now(),
            strained_until: AtomicU64::new(0),
            ledger: Mutex::new(Ledger::new(limit)),
            freed: Notify::new(),
        })
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// What is reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether memory ran out within the last second.
    pub fn is_strained(&self) -> bool {
        self.now() < self.strained_until.load(Ordering::Relaxed)
    }

    /// A request of this peer begins to arrive. Nothing is reserved yet.
    pub fn begin(self: &Arc<Self>, peer: IpAddr) -> Permit {
        let arrival = Arc::<Arrival>::default();
        let age = self.lock().begin(peer, Arc::clone(&arrival));
        Permit {
            budget: Arc::clone(self),
            peer,
            age,
            bytes: 0,
            arrival: Some(arrival),
        }
    }

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn strain(&self) {
        let until = self.now() + STRAIN.as_millis() as u64;
        self.strained_until.store(until, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger has changed. Memory that was given back is for those who wait.
    fn publish(&self, ledger: &Ledger) {
        self.used.store(ledger.used(), Ordering::Relaxed);
    }
}

/// A body that is still arriving, as others see it.
#[derive(Debug, Default)]
struct Arrival {
    /// Its memory was given to others.
    revoked: AtomicBool,
    told: Notify,
}

impl Arrival {
    fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }

    fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    async fn revoked(&self) {
        loop {
            let told = self.told.notified();
            // Made before the look, so that nothing in between is missed.
            if self.is_revoked() {
                return;
            }
            told.await;
        }
    }
}

/// Reserved memory of one request; given back on drop.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    peer: IpAddr,
    /// Requests are numbered as they begin.
    age: u64,
    bytes: usize,
    /// Set while the body is arriving: until then the memory may be given to others.
    arrival: Option<Arc<Arrival>>,
}

impl Permit {
    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a request that has just begun would find `total` bytes. It reserves nothing: of many
    /// that are told so, the youngest may still be refused.
    pub fn may_grow_to(&self, total: usize) -> bool {
        let budget = &*self.budget;
        let more = total.saturating_sub(self.bytes);
        let fits = budget.lock().may_grow(self.peer, more);
        if !fits {
            budget.strain();
        }
        fits
    }

    /// Makes the reservation `total` bytes if it is smaller.
    ///
    /// # Errors
    /// When there is no room, or others were given what this body had.
    pub fn grow_to(&mut self, total: usize) -> Result<(), Refused> {
        self.try_grow_to(total, false)
    }

    /// The same, but a body of which something has arrived waits for room.
    ///
    /// # Errors
    /// When it can never fit, or others were given what this body had.
    pub async fn grow_when_free(&mut self, total: usize) -> Result<(), Refused> {
        if self.bytes == 0 {
            return self.grow_to(total);
        }
        let budget = Arc::clone(&self.budget);
        loop {
            let mut freed = std::pin::pin!(budget.freed.notified());
            // Before the look, so that nothing given back in between is missed.
            freed.as_mut().enable();
            match (self.try_grow_to(total, true), &self.arrival) {
                (Err(Refused::Full), Some(arrival)) if !arrival.is_revoked() => {
                    tokio::select! {
                        () = freed => {}
                        () = arrival.revoked() => {}
                        // A peer that is held back for others is not told when they are gone.
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
                (result, _) => return result,
            }
        }
    }

    /// Resolves when others were given the memory of this body.
    pub async fn revoked(&self) {
        match &self.arrival {
            Some(arrival) => arrival.revoked().await,
            None => std::future::pending().await,
        }
    }

    /// The body has arrived: nobody else gets its memory any more.
    ///
    /// # Errors
    /// When somebody has got it.
    pub fn arrived(&mut self) -> Result<(), Refused> {
        let Some(arrival) = &self.arrival else {
            return Ok(());
        };
        let mut ledger = self.budget.lock();
        if arrival.is_revoked() {
            return Err(Refused::Full);
        }
        ledger.arrived(self.peer, self.age);
        drop(ledger);
        self.arrival = None;
        Ok(())
    }

    /// Makes the reservation exactly `total` bytes, which are already in use: this cannot fail, and
    /// may take the budget past its limit until something is given back.
    pub fn set(&mut self, total: usize) {
        let mut ledger = self.budget.lock();
        if self.is_revoked() {
            return;
        }
        ledger.set(self.peer, self.age, self.bytes, total);
        self.budget.publish(&ledger);
        if total < self.bytes && ledger.somebody_waits() {
            self.budget.freed.notify_waiters();
        }
        drop(ledger);
        self.bytes = total;
    }

    fn try_grow_to(&mut self, total: usize, wait: bool) -> Result<(), Refused> {
        let budget = &*self.budget;
        if total > budget.limit {
            return Err(Refused::NeverFits {
                limit: budget.limit,
            });
        }
        if total <= self.bytes {
            return Ok(());
        }
        let mut ledger = budget.lock();
        if self.is_revoked() {
            return Err(Refused::Full);
        }
        let more = total - self.bytes;
        match ledger.grow(self.peer, self.age, more, self.arrival.is_some(), wait) {
            Room::Granted => {
                budget.publish(&ledger);
                drop(ledger);
                self.bytes = total;
                Ok(())
            }
            Room::None => {
                budget.publish(&ledger);
                drop(ledger);
                budget.strain();
                Err(Refused::Full)
            }
        }
    }

    fn is_revoked(&self) -> bool {
        self.arrival
            .as_ref()
            .is_some_and(|arrival| arrival.is_revoked())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        // What was given to others is not given back again.
        let bytes = if self.is_revoked() { 0 } else { self.bytes };
        ledger.end(self.peer, self.age, bytes);
        self.budget.publish(&ledger);
        if ledger.somebody_waits() {
            self.budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
