//! Admission by bytes: memory is reserved before it is used, and a request that finds none left is
//! refused at once, so that overload costs the sender a retry and us almost nothing.
//!
//! A request's reservation starts as what its headers promise times what such requests are known to
//! grow to, follows what really arrives and what it unpacks to, and shrinks to what the batch holds
//! of it. It is given back when the batch's export has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use thiserror::Error;

/// Memory that requests may use together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    begun: Instant,
    /// Milliseconds from `begun` until the last refusal is forgotten.
    strained_until: AtomicU64,
}

/// How long after a refusal the next is expected.
const STRAIN: Duration = Duration::from_secs(1);

/// Why no memory was reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refused {
    /// Others use it now.
    #[error("the memory for requests is in use; try again")]
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

    fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Reserves `bytes`.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Permit, Refused> {
        let mut permit = Permit {
            budget: Arc::clone(self),
            bytes: 0,
        };
        permit.grow_to(bytes)?;
        Ok(permit)
    }

    fn take(&self, bytes: usize) -> Result<(), Refused> {
        let fits = |used: usize| used.checked_add(bytes).filter(|&total| total <= self.limit);
        match self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
        {
            Ok(_) => Ok(()),
            Err(_) => {
                let until = self.now() + STRAIN.as_millis() as u64;
                self.strained_until.store(until, Ordering::Relaxed);
                Err(Refused::Full)
            }
        }
    }
}

/// Reserved memory; given back on drop.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Permit {
    /// Bytes reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes the reservation `total` bytes if it is smaller.
    pub fn grow_to(&mut self, total: usize) -> Result<(), Refused> {
        let limit = self.budget.limit;
        if total > limit {
            return Err(Refused::NeverFits { limit });
        }
        let more = total.saturating_sub(self.bytes);
        if more > 0 {
            self.budget.take(more)?;
            self.bytes = total;
        }
        Ok(())
    }

    /// Makes the reservation exactly `total` bytes, which are already in use: this cannot fail, and
    /// may take the budget past its limit until something is given back.
    pub fn set(&mut self, total: usize) {
        if total > self.bytes {
            self.budget
                .used
                .fetch_add(total - self.bytes, Ordering::Relaxed);
        } else {
            self.budget
                .used
                .fetch_sub(self.bytes - total, Ordering::Relaxed);
        }
        self.bytes = total;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How much memory a byte on the wire comes to need beyond itself, learnt from requests so far.
#[derive(Debug)]
pub(crate) struct Expansion {
    /// In 1/256, a moving average.
    ratio: AtomicU32,
}

impl Expansion {
    const ONE: u32 = 256;
    /// Beyond this a request is an exception, and its own numbers count when they are known.
    const MAX: u32 = 64 * Self::ONE;

    pub(crate) fn new(assumed: u32) -> Self {
        Self {
            ratio: AtomicU32::new(assumed * Self::ONE),
        }
    }

    /// What a request of `wire` bytes will need in all.
    pub(crate) fn estimate(&self, wire: usize) -> usize {
        let ratio = self.ratio.load(Ordering::Relaxed) as usize;
        wire.saturating_add(wire.saturating_mul(ratio) / Self::ONE as usize)
    }

    /// A request of `wire` bytes needed `more` bytes beyond them. Racing updates may lose one: it
    /// is an average.
    pub(crate) fn learn(&self, wire: usize, more: usize) {
        if wire == 0 {
            return;
        }
        let seen = (more as u64 * u64::from(Self::ONE) / wire as u64).min(u64::from(Self::MAX));
        let old = self.ratio.load(Ordering::Relaxed);
        let new = (u64::from(old) * 15 + seen) / 16;
        self.ratio.store(new as u32, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_given_back() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert!(!budget.is_strained());
        assert_eq!(budget.reserve(41).unwrap_err(), Refused::Full);
        assert!(budget.is_strained());
        let second = budget.reserve(40).unwrap();
        assert_eq!(budget.used(), 100);
        drop(second);
        first.grow_to(90).unwrap();
        assert_eq!(
            first.grow_to(101).unwrap_err(),
            Refused::NeverFits { limit: 100 }
        );
        assert_eq!(first.bytes(), 90);
        first.set(10);
        assert_eq!(budget.used(), 10);
        first.set(150);
        assert_eq!(
            (budget.used(), budget.reserve(1).unwrap_err()),
            (150, Refused::Full)
        );
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn many_threads_never_pass_the_limit() {
        let budget = Budget::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for size in 0..2000 {
                        if let Ok(permit) = budget.reserve(size % 400) {
                            assert!(budget.used() <= 1000);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn expansion_follows_what_is_seen() {
        let expansion = Expansion::new(8);
        assert_eq!(expansion.estimate(100), 900);
        for _ in 0..200 {
            expansion.learn(100, 300);
        }
        assert!(
            (390..=410).contains(&expansion.estimate(100)),
            "{}",
            expansion.estimate(100)
        );
        expansion.learn(1, usize::MAX / 1024);
        assert!(expansion.estimate(100) < 1000);
    }
}
