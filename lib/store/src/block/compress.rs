//! ClickHouse's compressed blocks: a checksum, a header, LZ4.

use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// Raw bytes in one compressed block. ClickHouse takes up to 1 MiB and more; below 64 KiB LZ4's table of
/// positions needs two bytes for each, half of what it needs otherwise. A span comes out a byte longer.
pub(crate) const CHUNK: usize = 63 * 1024;
const CHECKSUM: usize = 16;
const HEADER: usize = 9;
const LZ4: u8 = 0x82;
const UNCOMPRESSED: u8 = 0x02;

/// A compressor that keeps its tables.
pub(crate) struct Compressor {
    table: CompressTable,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Compressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Default for Compressor {
    fn default() -> Self {
        Self {
            table: CompressTable::small(),
            scratch: vec![0; get_maximum_output_size(CHUNK)],
        }
    }
}

impl Compressor {
    /// Appends `raw` as compressed blocks.
    pub(crate) fn compress(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        for chunk in raw.chunks(CHUNK) {
            let len = compress_into_with_table(chunk, &mut self.scratch, &mut self.table);
            let (method, data) = match len.ok().and_then(|len| self.scratch.get(..len)) {
                Some(data) => (LZ4, data),
                None => (UNCOMPRESSED, chunk), // never: there is room for the worst case
            };
            let checksum_at = out.len();
            out.extend_from_slice(&[0; CHECKSUM]);
            out.push(method);
            out.extend_from_slice(&((data.len() + HEADER) as u32).to_le_bytes());
            out.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            out.extend_from_slice(data);
            let (head, body) = out.split_at_mut(checksum_at + CHECKSUM);
            let checksum = cityhash_rs::cityhash_102_128(body).rotate_right(64);
            if let Some(place) = head.get_mut(checksum_at..) {
                place.copy_from_slice(&checksum.to_le_bytes());
            }
        }
    }
}
