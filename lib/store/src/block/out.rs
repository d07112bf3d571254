//! Where a block goes as it is written: in pieces, each compressed as soon as it is long enough, so
//! that a batch is never in memory as a whole block beside its columns.

use super::compress::{CHUNK, Compressor};

/// Shorter runs are copied to what comes before and after them instead of becoming a piece of their own.
const WORTH_A_PIECE: usize = CHUNK / 4;

/// A block on its way out.
#[derive(Debug)]
pub(crate) struct Out<'a> {
    pending: &'a mut Vec<u8>,
    packed: Option<(&'a mut Compressor, &'a mut Vec<u8>)>,
}

impl<'a> Out<'a> {
    /// Appends blocks as they are.
    pub(crate) fn plain(out: &'a mut Vec<u8>) -> Self {
        Self {
            pending: out,
            packed: None,
        }
    }

    /// Appends blocks to `packed`, compressed. `pending` is for what is not enough yet, and is empty
    /// after [`Out::end`].
    pub(crate) fn compressed(
        pending: &'a mut Vec<u8>,
        compressor: &'a mut Compressor,
        packed: &'a mut Vec<u8>,
    ) -> Self {
        pending.clear();
        Self {
            pending,
            packed: Some((compressor, packed)),
        }
    }

    /// What the next bytes are appended to.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.pending.len() >= CHUNK {
            self.pack();
        }
        self.pending
    }

    /// Appends bytes that lie somewhere already, without a copy if they are many.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.packed.is_none() || bytes.len() < WORTH_A_PIECE {
            return self.buffer().extend_from_slice(bytes);
        }
        self.pack();
        if let Some((compressor, packed)) = &mut self.packed {
            compressor.compress(bytes, packed);
        }
    }

    /// Compresses what is left.
    pub(crate) fn end(mut self) {
        self.pack();
    }

    fn pack(&mut self) {
        if let Some((compressor, packed)) = &mut self.packed {
            compressor.compress(self.pending, packed);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What compressed blocks hold, and how long each is when it is unpacked.
    fn unpacked(mut blocks: &[u8]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut lengths) = (Vec::new(), Vec::new());
        while !blocks.is_empty() {
            let number =
                |at: usize| u32::from_le_bytes(blocks[at..at + 4].try_into().unwrap()) as usize;
            let (packed, raw) = (number(17), number(21));
            let data = &blocks[25..16 + packed];
            bytes.extend(lz4_flex::block::decompress(data, raw).unwrap());
            lengths.push(raw);
            blocks = &blocks[16 + packed..];
        }
        (bytes, lengths)
    }

    #[test]
    fn all_bytes_come_out_in_order_and_in_pieces() {
        let text: Vec<u8> = (0..4 * CHUNK).map(|n| (n * n / 7) as u8).collect();
        let mut plain = Vec::new();
        let mut packed = Vec::new();
        let (mut pending, mut compressor) = (b"left over".to_vec(), Compressor::default());
        let mut outs = [
            Out::plain(&mut plain),
            Out::compressed(&mut pending, &mut compressor, &mut packed),
        ];
        let lengths = [
            0,
            1,
            100,
            CHUNK,
            7,
            WORTH_A_PIECE - 1,
            WORTH_A_PIECE,
            3 * CHUNK + 5,
        ];
        for out in &mut outs {
            for (n, &len) in lengths.iter().cycle().take(40).enumerate() {
                out.bytes(&text[n..n + len]);
                out.buffer().extend_from_slice(&text[..n * 1000]);
            }
        }
        let [_, out] = outs;
        out.end();
        let (bytes, lengths) = unpacked(&packed);
        assert!(bytes == plain, "{} and {} bytes", bytes.len(), plain.len());
        assert!(
            lengths.iter().all(|len| (1..=CHUNK).contains(len)),
            "{lengths:?}"
        );
        assert!(pending.is_empty());
    }
}
