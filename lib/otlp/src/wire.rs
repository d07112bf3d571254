//! The protobuf wire format, read from a slice; [`write`](crate::write) is its other half.
//!
//! This is the hot path: everything is inlined but the rare cases, which are marked cold.

use crate::error::{DecodeError, DecodeErrorKind as Kind};

/// How deep unknown groups may nest. prost allows 100 levels of anything.
pub const MAX_GROUP_DEPTH: usize = 100;

/// The wire type of integers, enumerations and booleans.
pub const VARINT: u32 = 0;
/// The wire type of numbers of eight bytes.
pub const FIXED64: u32 = 1;
/// The wire type of bytes, text and messages.
pub const LEN: u32 = 2;
const START_GROUP: u32 = 3;
const END_GROUP: u32 = 4;
/// The wire type of numbers of four bytes.
pub const FIXED32: u32 = 5;

/// The key of a field: its number and wire type.
pub const fn key(field: u32, wire_type: u32) -> u32 {
    field << 3 | wire_type
}

/// A cursor over the fields of a message.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// The offset just past `rest`, for errors.
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which begin at `offset` of the outermost message.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], offset: usize) -> Self {
        Self {
            rest: bytes,
            end: offset.wrapping_add(bytes.len()),
        }
    }

    /// Whether all was read.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes not yet read.
    #[inline(always)]
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// The part that begins `before` bytes and ends `after` bytes before the end.
    #[inline(always)]
    pub(crate) fn part(&self, before: usize, after: usize) -> Reader<'a> {
        let len = self.rest.len();
        let part = self
            .rest
            .get(len.wrapping_sub(before)..len.wrapping_sub(after));
        Reader {
            rest: part.unwrap_or_default(),
            end: self.end.wrapping_sub(after),
        }
    }

    /// Where the cursor stands in the outermost message.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        self.end.wrapping_sub(self.rest.len())
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn fail(&self, kind: Kind) -> DecodeError {
        DecodeError {
            kind,
            offset: self.offset(),
        }
    }

    /// Ends the reading, so that an iterator that met an error stops.
    pub(crate) fn stop(&mut self) {
        self.rest = &[];
    }

    /// A varint.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        match *self.rest {
            [a, ref rest @ ..] if a < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a))
            }
            [a, b, ref rest @ ..] if b < 0x80 => {
                self.rest = rest;
                Ok(u64::from(a & 0x7f) | u64::from(b) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds the 64th bit and nothing else.
            if i == 9 && byte > 1 {
                return Err(self.fail(Kind::VarintTooLong));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(self.fail(Kind::Truncated))
    }

    /// The next field's key. Whether its wire type exists is found out when the field is read.
    #[inline(always)]
    pub fn key(&mut self) -> Result<u32, DecodeError> {
        match *self.rest {
            [a @ 8..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u32::from(a))
            }
            [a @ 0x80..=0xff, b @ 1..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u32::from(a & 0x7f) | u32::from(b) << 7)
            }
            _ => self.long_key(),
        }
    }

    #[cold]
    #[inline(never)]
    fn long_key(&mut self) -> Result<u32, DecodeError> {
        let before = *self;
        match u32::try_from(self.varint()?) {
            Ok(key) if key >= 8 => Ok(key),
            _ => Err(before.fail(Kind::InvalidFieldNumber)),
        }
    }

    /// A length and that many bytes.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        if let [len @ ..0x80, ref rest @ ..] = *self.rest
            && let Some((bytes, rest)) = rest.split_at_checked(usize::from(len))
        {
            self.rest = rest;
            return Ok(bytes);
        }
        self.long_bytes()
    }

    #[inline(never)]
    fn long_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint()?;
        match usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len))
        {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.fail(Kind::Truncated)),
        }
    }

    /// The next field's content if it is short and its key is this one, which takes one byte: what
    /// nearly all items of a repeated field look like.
    #[inline(always)]
    pub(crate) fn short_item(&mut self, key: u32) -> Option<&'a [u8]> {
        match *self.rest {
            [k, len @ ..0x80, ref rest @ ..] if u32::from(k) == key => {
                let (bytes, rest) = rest.split_at_checked(usize::from(len))?;
                self.rest = rest;
                Some(bytes)
            }
            _ => None,
        }
    }

    /// A cursor over bytes that end where this one stands.
    #[inline(always)]
    pub(crate) fn over(&self, bytes: &'a [u8]) -> Reader<'a> {
        Reader {
            rest: bytes,
            end: self.offset(),
        }
    }

    /// The bytes not yet read.
    #[inline(always)]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// A sub-message, to be read by a cursor of its own.
    #[inline(always)]
    pub fn message(&mut self) -> Result<Reader<'a>, DecodeError> {
        let rest = self.bytes()?;
        Ok(Reader {
            rest,
            end: self.offset(),
        })
    }

    /// A number of eight bytes.
    #[inline(always)]
    pub fn fixed64(&mut self) -> Result<u64, DecodeError> {
        match self.rest.split_first_chunk::<8>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(u64::from_le_bytes(*bytes))
            }
            None => Err(self.fail(Kind::Truncated)),
        }
    }

    /// A number of four bytes.
    #[inline(always)]
    pub fn fixed32(&mut self) -> Result<u32, DecodeError> {
        match self.rest.split_first_chunk::<4>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(u32::from_le_bytes(*bytes))
            }
            None => Err(self.fail(Kind::Truncated)),
        }
    }

    /// Skips a field that the message does not use. `known` has the bit of each field number that
    /// the message does define: such a field got here by a wrong wire type.
    #[cold]
    #[inline(never)]
    pub(crate) fn unused(&mut self, key: u32, known: u32) -> Result<(), DecodeError> {
        let field = key >> 3;
        if field < 32 && known & (1 << field) != 0 {
            return Err(self.fail(Kind::WrongWireType(field)));
        }
        self.skip(key)
    }

    /// Skips the field of this key.
    #[inline]
    pub fn skip(&mut self, key: u32) -> Result<(), DecodeError> {
        match key & 7 {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed64().map(drop),
            LEN => self.bytes().map(drop),
            FIXED32 => self.fixed32().map(drop),
            START_GROUP => self.skip_group(key >> 3),
            END_GROUP => Err(self.fail(Kind::UnexpectedEndGroup)),
            _ => Err(self.fail(Kind::UnknownWireType)),
        }
    }

    /// Skips to the end of the group with this number, and of those inside it.
    #[cold]
    #[inline(never)]
    fn skip_group(&mut self, field: u32) -> Result<(), DecodeError> {
        let mut open = vec![field];
        while let Some(&innermost) = open.last() {
            let key = self.key()?;
            match key & 7 {
                START_GROUP if open.len() >= MAX_GROUP_DEPTH => {
                    return Err(self.fail(Kind::GroupTooDeep));
                }
                START_GROUP => open.push(key >> 3),
                END_GROUP if key >> 3 == innermost => drop(open.pop()),
                _ => self.skip(key)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(bytes: &[u8]) -> Result<u64, Kind> {
        Reader::new(bytes, 0).varint().map_err(|e| e.kind)
    }

    #[test]
    fn varints_of_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                crate::write::varint(&mut bytes, value);
                assert_eq!(varint(&bytes), Ok(value));
                assert_eq!(varint(&bytes[..bytes.len() - 1]), Err(Kind::Truncated));
            }
        }
    }

    #[test]
    fn odd_varints() {
        assert_eq!(varint(&[0x85, 0x80, 0x80, 0]), Ok(5), "padding is legal");
        let mut ten = [0xff; 10];
        ten[9] = 1;
        assert_eq!(varint(&ten), Ok(u64::MAX));
        ten[9] = 2;
        assert_eq!(varint(&ten), Err(Kind::VarintTooLong));
        ten[9] = 0x81;
        assert_eq!(varint(&ten), Err(Kind::VarintTooLong));
        assert_eq!(varint(&[]), Err(Kind::Truncated));
    }

    fn skip(bytes: &[u8]) -> Result<usize, (Kind, usize)> {
        let mut reader = Reader::new(bytes, 0);
        reader
            .key()
            .and_then(|key| reader.skip(key))
            .map(|()| reader.left())
            .map_err(|e| (e.kind, e.offset))
    }

    #[test]
    fn skips_every_wire_type() {
        assert_eq!(skip(&[0x08, 0xff, 0x01, 9]), Ok(1));
        assert_eq!(skip(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8]), Ok(0));
        assert_eq!(
            skip(&[0x09, 1, 2, 3, 4, 5, 6, 7]),
            Err((Kind::Truncated, 1))
        );
        assert_eq!(skip(&[0x0a, 2, 1, 2]), Ok(0));
        assert_eq!(skip(&[0x0a, 3, 1, 2]), Err((Kind::Truncated, 2)));
        assert_eq!(skip(&[0x0d, 1, 2, 3, 4]), Ok(0));
        assert_eq!(skip(&[0x0b, 0x10, 1, 0x0c, 7]), Ok(1), "a group");
        assert_eq!(skip(&[0x0b, 0x13, 0x14, 0x0c]), Ok(0), "a group in a group");
        assert_eq!(
            skip(&[0x0b, 0x13, 0x0c, 0x14]),
            Err((Kind::UnexpectedEndGroup, 3))
        );
        assert_eq!(skip(&[0x0b, 0x10, 1]), Err((Kind::Truncated, 3)));
        assert_eq!(skip(&[0x0c]), Err((Kind::UnexpectedEndGroup, 1)));
        assert_eq!(skip(&[0x0e]), Err((Kind::UnknownWireType, 1)));
        assert_eq!(skip(&[0x0f]), Err((Kind::UnknownWireType, 1)));
        assert_eq!(skip(&[0x02]), Err((Kind::InvalidFieldNumber, 0)));
        let huge = [0x80, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(skip(&huge), Err((Kind::InvalidFieldNumber, 0)));
        assert_eq!(skip(&[0x0b; 101]), Err((Kind::GroupTooDeep, 101)));
    }
}
