//! The memory of large request bodies, used again for the next ones.
//!
//! An allocator gives pieces of this size back to the system as soon as they are freed, or keeps them
//! out of sight of admission. Given back, the next body costs the kernel a cleared page for every 4 KiB.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers of bodies that were processed, the newest last.
#[derive(Debug)]
pub(crate) struct Buffers {
    max_bytes: usize,
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Smaller ones are the allocator's.
const MIN_LEN: usize = 64 << 10;

impl Buffers {
    /// Keeps buffers of at most `max_bytes` together.
    pub(crate) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_bytes,
            free: Mutex::default(),
        })
    }

    /// An empty buffer with room for `len` bytes, and not much more.
    pub(crate) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        Buffer {
            bytes: match len < MIN_LEN {
                true => Vec::with_capacity(len),
                false => self.take_large(len),
            },
            home: Arc::clone(self),
        }
    }

    fn take_large(&self, len: usize) -> Vec<u8> {
        // In steps of an eighth, so that bodies of about one length fit each other's buffers.
        let step = 1 << (len.ilog2() - 3);
        let len = len.next_multiple_of(step);
        let fits = len..=len + step;
        let mut free = self.lock();
        let found = free
            .buffers
            .iter()
            .rposition(|buffer| fits.contains(&buffer.capacity()));
        match found.and_then(|at| free.buffers.remove(at)) {
            Some(buffer) => {
                free.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(len),
        }
    }

    fn put(&self, mut buffer: Vec<u8>) {
        let len = buffer.capacity();
        if !(MIN_LEN..=self.max_bytes).contains(&len) {
            return;
        }
        buffer.clear();
        let mut free = self.lock();
        let mut old = Vec::new();
        while free.bytes + len > self.max_bytes {
            let Some(buffer) = free.buffers.pop_front() else {
                break;
            };
            free.bytes -= buffer.capacity();
            old.push(buffer);
        }
        free.bytes += len;
        free.buffers.push_back(buffer);
        // What follows is the system's work, and nobody need wait for it.
        drop(free);
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body's bytes; dropped, their memory serves another.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    home: Arc<Buffers>,
}

impl Buffer {
    /// Makes room for `more` bytes, at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        let len = self.bytes.len() + more;
        if len > self.bytes.capacity() {
            let mut larger = self.home.take(len);
            larger.bytes.extend_from_slice(&self.bytes);
            *self = larger;
        }
    }

    /// Appends bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.put(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Arc<Buffers>, len: usize) -> *const u8 {
        let mut buffer = buffers.take(len);
        assert!(buffer.is_empty());
        buffer.extend(&vec![7; len]);
        buffer.as_ptr()
    }

    fn kept(buffers: &Buffers) -> (usize, usize) {
        let free = buffers.lock();
        let sum: usize = free.buffers.iter().map(Vec::capacity).sum();
        assert_eq!(sum, free.bytes);
        (free.buffers.len(), free.bytes)
    }

    #[test]
    fn a_buffer_serves_bodies_of_about_its_length() {
        let buffers = Buffers::new(1 << 20);
        let first = filled(&buffers, 100_000);
        assert_eq!(filled(&buffers, 99_000), first);
        assert_eq!(kept(&buffers), (1, 106_496));
        let larger = filled(&buffers, 120_000);
        let smaller = filled(&buffers, 80_000);
        assert_eq!(kept(&buffers).0, 3);
        assert_eq!(
            [100_000, 120_000, 80_000].map(|len| filled(&buffers, len)),
            [first, larger, smaller]
        );
        filled(&buffers, 1_000);
        assert_eq!(kept(&buffers).0, 3, "small ones are not kept");
    }

    #[test]
    fn what_is_kept_has_a_bound_and_the_oldest_goes() {
        let buffers = Buffers::new(1 << 20);
        for len in (1..40).map(|n| n * 64 * 1024) {
            filled(&buffers, len);
            assert!(kept(&buffers).1 <= 1 << 20);
        }
        filled(&buffers, 700_000);
        filled(&buffers, 300_000);
        let newest = kept(&buffers);
        assert_eq!(newest.0, 2);
        filled(&buffers, 2 << 20);
        assert_eq!(kept(&buffers), newest, "one alone that is too large");
    }

    #[test]
    fn a_buffer_grows_into_another() {
        let buffers = Buffers::new(1 << 20);
        let large = filled(&buffers, 200_000);
        let mut buffer = buffers.take(0);
        buffer.extend(b"12345");
        buffer.reserve(200_000 - 5);
        assert_eq!((buffer.as_ptr(), &*buffer), (large, &b"12345"[..]));
        buffer.reserve(10);
        assert_eq!(buffer.as_ptr(), large);
    }
}
