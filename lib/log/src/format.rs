//! The bytes of a segment: its header, and the headers of its frames. Everything is little endian.

use crc32c::{crc32c, crc32c_append};

/// The format that this code writes, and the highest that it reads.
pub(crate) const VERSION: u32 = 1;
/// Bytes of a segment's header. They have the same layout in every version.
pub(crate) const SEGMENT_HEADER: usize = 80;
/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER: usize = 32;
/// The first bytes of a segment.
pub(crate) const MAGIC: [u8; 8] = *b"SPANLOG\n";
/// The first bytes of a frame. A reader that has lost its way looks for them.
pub(crate) const MARKER: [u8; 4] = [0xf5, b'F', b'R', 0xa9];

/// What a segment says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) version: u32,
    /// 0 for the file of dead letters.
    pub(crate) number: u64,
    pub(crate) log_id: u128,
    pub(crate) created_ms: u64,
    /// The position of its first frame.
    pub(crate) first: u64,
    /// The position before that, of the last frame that earlier segments are known to hold; 0 for none.
    pub(crate) previous: u64,
    /// Its records, or those before it, were not written in their order: nothing follows from the positions
    /// that are not there.
    pub(crate) is_early: bool,
    /// How long the file was made before anything was written to it; 0 if it grows.
    pub(crate) allocated: u32,
}

/// What the first bytes of a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderState {
    /// A header whose checksum is right.
    Good(SegmentHeader, Salt),
    /// Not a header. If only some of its bytes are wrong, frames can be read with one of these.
    Damaged([Salt; 2]),
    /// The file ends before a header does.
    Short,
}

/// Makes a frame valid in one segment only: the checksum of the segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Salt(pub(crate) u32);

/// A frame's header whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
    pub(crate) position: u64,
}

impl FrameHeader {
    /// Bytes of the frame, header included.
    pub(crate) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER as u64 + u64::from(self.length)
    }

    pub(crate) fn is_payload(&self, payload: &[u8]) -> bool {
        payload.len() as u64 == u64::from(self.length) && crc32c(payload) == self.payload_crc
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> (Vec<u8>, Salt) {
        let mut out = Vec::with_capacity(SEGMENT_HEADER);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&(SEGMENT_HEADER as u32).to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.log_id.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&u32::from(self.is_early).to_le_bytes());
        out.extend_from_slice(&self.allocated.to_le_bytes());
        out.resize(SEGMENT_HEADER - 4, 0);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        (out, Salt(crc))
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderState {
        let Some((covered, stored)) = bytes
            .get(..SEGMENT_HEADER)
            .and_then(|header| header.split_last_chunk::<4>())
        else {
            return HeaderState::Short;
        };
        let stored = u32::from_le_bytes(*stored);
        let computed = crc32c(covered);
        let damaged = HeaderState::Damaged([Salt(stored), Salt(computed)]);
        if stored != computed {
            return damaged;
        }
        let mut fields = Fields(covered);
        if fields.array() != Some(MAGIC) {
            return damaged;
        }
        Self::decode_fields(&mut fields)
            .map_or(damaged, |header| HeaderState::Good(header, Salt(stored)))
    }

    fn decode_fields(fields: &mut Fields<'_>) -> Option<Self> {
        let version = fields.u32()?;
        let _header_bytes = fields.u32()?;
        Some(Self {
            version,
            number: fields.u64()?,
            log_id: fields.u128()?,
            created_ms: fields.u64()?,
            first: fields.u64()?,
            previous: fields.u64()?,
            is_early: fields.u32()? != 0,
            allocated: fields.u32()?,
        })
    }
}

/// Writes a frame's header at the beginning of `frame`, where there is room for it. The payload is what follows
/// there, and then `rest`, which lies elsewhere. `offset` is where the frame will lie in its file.
pub(crate) fn seal_frame(
    frame: &mut [u8],
    rest: &[u8],
    salt: Salt,
    offset: u64,
    kind: u8,
    position: u64,
) {
    let Some((header, payload)) = frame.split_at_mut_checked(FRAME_HEADER) else {
        return;
    };
    let length = payload.len() + rest.len();
    let crc = crc32c_append(crc32c(payload), rest);
    let mut fields = Vec::with_capacity(FRAME_HEADER);
    fields.extend_from_slice(&(length as u32).to_le_bytes());
    fields.extend_from_slice(&crc.to_le_bytes());
    fields.extend_from_slice(&position.to_le_bytes());
    fields.push(kind);
    fields.resize(FRAME_HEADER - 8, 0);
    let crc = frame_crc(salt, offset, &fields);
    header[..4].copy_from_slice(&MARKER);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header[8..].copy_from_slice(&fields);
}

/// Reads a frame's header that lies at `offset` of its file. `None` if it is not one.
pub(crate) fn open_frame(bytes: &[u8], salts: &[Salt], offset: u64) -> Option<FrameHeader> {
    let header = bytes.get(..FRAME_HEADER)?;
    let (start, covered) = header.split_at_checked(8)?;
    let mut start = Fields(start);
    if start.array() != Some(MARKER) {
        return None;
    }
    let crc = start.u32()?;
    if !salts
        .iter()
        .any(|salt| frame_crc(*salt, offset, covered) == crc)
    {
        return None;
    }
    let mut fields = Fields(covered);
    Some(FrameHeader {
        length: fields.u32()?,
        payload_crc: fields.u32()?,
        position: fields.u64()?,
        kind: fields.array::<1>()?[0],
    })
}

/// The checksum of a frame's header: of its fields, its segment and its place there, so that a copy
/// elsewhere is not valid. The payload's checksum is one of the fields.
fn frame_crc(salt: Salt, offset: u64, fields: &[u8]) -> u32 {
    let crc = crc32c_append(salt.0, &offset.to_le_bytes());
    crc32c_append(crc, fields)
}

/// Reads fields from bytes that may be anything.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// Bytes that follow their length.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(first)
    }

    /// How many items follow, unless there cannot be so many of `item_bytes` at least.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count.checked_mul(item_bytes)? <= self.0.len()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            version: VERSION,
            number: 7,
            log_id: 9,
            created_ms: 11,
            first: 13,
            previous: 12,
            is_early: true,
            allocated: 4096,
        }
    }

    fn frame(salt: Salt, offset: u64) -> Vec<u8> {
        let mut out = vec![0; FRAME_HEADER];
        out.extend_from_slice(b"payload");
        seal_frame(&mut out, &[], salt, offset, 3, 42);
        out
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let (bytes, salt) = header().encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER);
        assert_eq!(
            SegmentHeader::decode(&bytes),
            HeaderState::Good(header(), salt)
        );
    }

    #[test]
    fn any_changed_byte_of_a_header_is_noticed_and_leaves_a_salt() {
        let (bytes, salt) = header().encode();
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x10;
            let HeaderState::Damaged(salts) = SegmentHeader::decode(&damaged) else {
                panic!("byte {index} is not covered");
            };
            assert!(salts.contains(&salt), "byte {index} takes the salt away");
        }
        assert_eq!(SegmentHeader::decode(&bytes[..79]), HeaderState::Short);
    }

    /// I4.
    #[test]
    fn a_frame_is_valid_at_its_place_only() {
        let salt = Salt(5);
        let bytes = frame(salt, 80);
        let read = open_frame(&bytes, &[salt], 80).unwrap();
        assert_eq!((read.kind, read.position, read.length), (3, 42, 7));
        assert!(read.is_payload(b"payload"));
        assert!(!read.is_payload(b"paylaod"));
        assert_eq!(open_frame(&bytes, &[salt], 81), None);
        assert_eq!(open_frame(&bytes, &[Salt(6)], 80), None);
        for index in 0..FRAME_HEADER {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1;
            assert_eq!(open_frame(&damaged, &[salt], 80), None, "byte {index}");
        }
    }
}
