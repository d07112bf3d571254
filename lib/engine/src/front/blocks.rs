//! ClickHouse's compressed blocks (`compress=1`, `decompress=1`): a checksum of 16 bytes, the
//! method, the sizes with and without compression, the data; one block after another.

use std::io::{self, Read};

/// Method byte, compressed size, raw size.
const HEADER: usize = 9;
const CHECKSUM: usize = 16;
const NONE: u8 = 0x02;
const LZ4: u8 = 0x82;
const ZSTD: u8 = 0x90;
/// No client makes blocks of more than a few MiB; ClickHouse itself stops at 1 GiB.
const MAX_BLOCK: usize = 256 << 20;
/// What goes into one block that we write.
const BLOCK: usize = 1 << 20;

/// The checksum as it stands in the stream.
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    cityhash_rs::cityhash_102_128(bytes)
        .rotate_right(64)
        .to_le_bytes()
}

/// Compresses with LZ4 into as many blocks as it takes.
pub(crate) fn compress(raw: &[u8], out: &mut Vec<u8>) {
    for part in raw.chunks(BLOCK) {
        let start = out.len() + CHECKSUM;
        let most = lz4_flex::block::get_maximum_output_size(part.len());
        out.resize(start + HEADER + most, 0);
        let target = out.get_mut(start + HEADER..).unwrap_or_default();
        // The target has the size the library asks for; an error cannot happen.
        let length = lz4_flex::block::compress_into(part, target).unwrap_or(0);
        out.truncate(start + HEADER + length);
        let size = u32::try_from(HEADER + length).unwrap_or(u32::MAX);
        let raw_size = u32::try_from(part.len()).unwrap_or(u32::MAX);
        if let Some(header) = out.get_mut(start..start + HEADER) {
            header[0] = LZ4;
            header[1..5].copy_from_slice(&size.to_le_bytes());
            header[5..9].copy_from_slice(&raw_size.to_le_bytes());
        }
        let sum = checksum(out.get(start..).unwrap_or_default());
        if let Some(place) = out.get_mut(start - CHECKSUM..start) {
            place.copy_from_slice(&sum);
        }
    }
}

/// Reads the blocks of a stream as one run of bytes; errors are of the kind `InvalidData`.
pub(crate) struct BlockReader<R> {
    source: R,
    raw: Vec<u8>,
    at: usize,
    packed: Vec<u8>,
}

impl<R: Read> BlockReader<R> {
    /// Starts at the first block.
    pub(crate) fn new(source: R) -> BlockReader<R> {
        BlockReader {
            source,
            raw: Vec::new(),
            at: 0,
            packed: Vec::new(),
        }
    }

    /// Reads the next block; false at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        let mut head = [0_u8; CHECKSUM + HEADER];
        match read_full(&mut self.source, &mut head)? {
            0 => return Ok(false),
            n if n < head.len() => return Err(bad("a block's header is cut off")),
            _ => {}
        }
        let (sum, header) = head.split_at(CHECKSUM);
        let number = |at: usize| {
            let bytes = header
                .get(at..at + 4)
                .and_then(|b| <[u8; 4]>::try_from(b).ok());
            bytes.map_or(0, u32::from_le_bytes) as usize
        };
        let (size, raw_size) = (number(1), number(5));
        if !(HEADER..=MAX_BLOCK).contains(&size) || raw_size > MAX_BLOCK {
            return Err(bad("a block's size makes no sense"));
        }
        self.packed.clear();
        self.packed.extend_from_slice(header);
        let want = (size - HEADER) as u64;
        if self
            .source
            .by_ref()
            .take(want)
            .read_to_end(&mut self.packed)? as u64
            != want
        {
            return Err(bad("a block is cut off"));
        }
        if checksum(&self.packed) != sum {
            return Err(bad("a block's checksum does not match"));
        }
        let data = self.packed.get(HEADER..).unwrap_or_default();
        self.raw.clear();
        self.at = 0;
        match header.first() {
            Some(&NONE) => self.raw.extend_from_slice(data),
            Some(&LZ4) => {
                self.raw.resize(raw_size, 0);
                let n = lz4_flex::block::decompress_into(data, &mut self.raw)
                    .map_err(|e| bad(&e.to_string()))?;
                self.raw.truncate(n);
            }
            Some(&ZSTD) => {
                self.raw =
                    zstd::bulk::decompress(data, raw_size).map_err(|e| bad(&e.to_string()))?;
            }
            _ => return Err(bad("a block is compressed in a way that is not known")),
        }
        if self.raw.len() != raw_size {
            return Err(bad("a block's size is not what it says"));
        }
        Ok(true)
    }
}

impl<R: Read> Read for BlockReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.raw.len() {
            if !self.fill()? {
                return Ok(0);
            }
        }
        let rest = self.raw.get(self.at..).unwrap_or_default();
        let n = rest.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        Ok(n)
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Fills the buffer as far as the source has bytes.
fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while let Some(rest) = buffer.get_mut(n..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(packed: &[u8]) -> Result<Vec<u8>, String> {
        let mut raw = Vec::new();
        BlockReader::new(packed)
            .read_to_end(&mut raw)
            .map_err(|e| e.to_string())?;
        Ok(raw)
    }

    #[test]
    fn there_and_back() {
        for size in [0, 1, 100, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let raw: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut packed = Vec::new();
            compress(&raw, &mut packed);
            assert_eq!(read(&packed).unwrap(), raw, "{size}");
        }
    }

    #[test]
    fn broken() {
        let mut packed = Vec::new();
        compress(b"some bytes, some bytes, some bytes", &mut packed);
        for at in 0..packed.len() {
            let mut bad = packed.clone();
            bad[at] ^= 0x41;
            assert!(read(&bad).is_err(), "flipped byte {at}");
            assert!(at == 0 || read(&packed[..at]).is_err(), "cut at {at}");
        }
        let mut header = vec![0_u8; CHECKSUM];
        header.extend([LZ4, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff]);
        assert!(read(&header).unwrap_err().contains("size"));
    }

    #[test]
    fn other_methods() {
        for (method, data) in [
            (NONE, b"abcabc".to_vec()),
            (ZSTD, zstd::bulk::compress(b"abcabc", 1).unwrap()),
        ] {
            let mut block = vec![method];
            block.extend(((HEADER + data.len()) as u32).to_le_bytes());
            block.extend(6_u32.to_le_bytes());
            block.extend(data);
            let mut packed = checksum(&block).to_vec();
            packed.extend(block);
            assert_eq!(read(&packed).unwrap(), b"abcabc");
        }
    }
}
