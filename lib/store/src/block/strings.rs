//! A `String` column: the values as the block will hold them, one after the other.

use super::compress::CHUNK;
use super::native;
use super::out::Out;

/// Values of one column; a row remembers where its last one ends.
///
/// They lie in pieces, each as long as a compressed block takes at once: a column grows without being
/// copied, whatever its batch comes to, and its memory serves the next batch however that is shaped.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    /// Pieces of [`CHUNK`] bytes; a value may begin in one and end in the next.
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    /// Empty pieces, of earlier batches.
    spare: Vec<Vec<u8>>,
}

/// The longest length that is written before a value.
const MAX_PREFIX: usize = 10;

impl Strings {
    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) {
        if self.last.len() + MAX_PREFIX + value.len() <= CHUNK {
            native::string(&mut self.last, value);
        } else {
            self.push_across(value);
        }
    }

    /// Adds a value that the last piece may have no room for.
    fn push_across(&mut self, value: &[u8]) {
        let mut prefix = Vec::with_capacity(MAX_PREFIX);
        native::varint(&mut prefix, value.len() as u64);
        for mut bytes in [&*prefix, value] {
            while !bytes.is_empty() {
                if self.last.len() >= CHUNK {
                    let empty = self.spare.pop();
                    let empty = empty.unwrap_or_else(|| Vec::with_capacity(CHUNK));
                    self.full.push(std::mem::replace(&mut self.last, empty));
                }
                let room = CHUNK.saturating_sub(self.last.len());
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                self.last.extend_from_slice(now);
                bytes = later;
            }
        }
    }

    /// Where the next value starts.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.full.len() * CHUNK + self.last.len()
    }

    /// Forgets the values, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.last.clear();
        for mut piece in self.full.drain(..) {
            piece.clear();
            self.spare.push(piece);
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        let pieces = self.full.iter().chain(&self.spare);
        self.last.capacity() + pieces.map(Vec::capacity).sum::<usize>()
    }

    /// Gives at least `bytes` of kept memory back, or as much as there is; says how much.
    pub(crate) fn let_go(&mut self, bytes: usize) -> usize {
        let mut freed = 0;
        while freed < bytes {
            let Some(piece) = self.spare.pop() else { break };
            freed += piece.capacity();
        }
        freed
    }

    /// The values between two ends.
    pub(crate) fn write(&self, out: &mut Out<'_>, from: usize, to: usize) {
        let mut at = from;
        while at < to {
            let (piece, start) = (at / CHUNK, at % CHUNK);
            let bytes = self.full.get(piece).unwrap_or(&self.last);
            let end = (start + (to - at)).min(CHUNK);
            out.bytes(bytes.get(start..end).unwrap_or_default());
            at += end - start;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(strings: &Strings, from: usize, to: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        strings.write(&mut Out::plain(&mut bytes), from, to);
        bytes
    }

    /// Values of every length around the end of a piece, and longer than one.
    #[test]
    fn values_cross_pieces() {
        let mut strings = Strings::default();
        for round in 0..2 {
            let mut whole = Vec::new();
            let mut ends = vec![0];
            let lengths = (0..40)
                .map(|n| n * n * 37)
                .chain([CHUNK - 3, 3 * CHUNK, 0, 1]);
            for (n, len) in lengths.chain((0..20).map(|n| CHUNK / 3 + n)).enumerate() {
                let value = vec![n as u8; len];
                native::string(&mut whole, &value);
                strings.push(&value);
                assert_eq!(strings.end(), whole.len(), "round {round}");
                ends.push(strings.end());
            }
            for pair in ends.windows(2) {
                assert_eq!(written(&strings, pair[0], pair[1]), whole[pair[0]..pair[1]]);
            }
            assert_eq!(written(&strings, 0, whole.len()), whole);
            let held = strings.capacity();
            strings.clear();
            assert_eq!((strings.end(), strings.capacity()), (0, held));
        }
        let held = strings.capacity();
        let freed = strings.let_go(CHUNK + 1);
        assert_eq!(strings.capacity(), held - freed);
        assert!((CHUNK + 1..=4 * CHUNK).contains(&freed), "{freed}");
        assert!(strings.let_go(usize::MAX) > 0);
        assert!(strings.capacity() <= 4 * CHUNK);
    }
}
