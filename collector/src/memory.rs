//! How mimalloc, the allocator of the programs that hold a collector, gives freed memory back.
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc's `mimalloc.h`, which the crate does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Gives freed memory back to the system at once instead of after a while, unless the environment's
/// `MIMALLOC_PURGE_DELAY` says otherwise. Requests come and go in megabytes, and each piece is freed
/// by another thread than allocated it: under overload what waits to be given back came to as much
/// as what was in use, and the process past its limit. What comes in next must ask for its pages anew:
/// `bench ingest` shows 6 % more CPU time than mimalloc's own 10 ms, and 15 % more than a second.
///
/// To be called first in `main`.
pub fn give_back_at_once() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: sets a number in mimalloc's table of options; any time and any thread will do.
        unsafe { mi_option_set(PURGE_DELAY, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The option's number is mimalloc's own business: its default of milliseconds tells that it is
    /// still the one meant.
    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: reads a number of mimalloc's table of options.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert!((1..=1000).contains(&read()), "{}", read());
        give_back_at_once();
        assert_eq!(read(), 0);
    }
}
