//! What requests are known to grow to.

use std::sync::atomic::{AtomicU32, Ordering};

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
