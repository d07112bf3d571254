//! A `String` column: the values as the block will hold them, one after the other.

use super::native;

/// Values of one column; a row remembers where its last one ends.
#[derive(Debug, Default)]
pub(crate) struct Strings {
    encoded: Vec<u8>,
}

impl Strings {
    #[inline]
    pub(crate) fn push(&mut self, value: &[u8]) {
        native::string(&mut self.encoded, value);
    }

    /// Where the next value starts.
    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.encoded.len()
    }

    pub(crate) fn clear(&mut self) {
        self.encoded.clear();
    }

    pub(crate) fn capacity(&self) -> usize {
        self.encoded.capacity()
    }

    /// The values between two ends.
    pub(crate) fn write(&self, out: &mut Vec<u8>, from: usize, to: usize) {
        out.extend_from_slice(self.encoded.get(from..to).unwrap_or_default());
    }
}
