//! ClickHouse's Native format: the pieces that blocks are written with.
//!
//! A block is its number of columns and rows, then each column whole: name, type, data. Lengths are
//! LEB128 numbers, all else is little-endian. A `LowCardinality` column is its keys and, for each row,
//! the position of its key; the version of that layout stands before all data of the column it is in.

/// Appends a LEB128 number.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
#[inline]
pub(crate) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() < 0x80 {
        out.push(bytes.len() as u8);
    } else {
        varint(out, bytes.len() as u64);
    }
    out.extend_from_slice(bytes);
}

/// Starts a block.
pub(crate) fn block(out: &mut Vec<u8>, columns: usize, rows: usize) {
    varint(out, columns as u64);
    varint(out, rows as u64);
}

/// Starts a column.
pub(crate) fn column(out: &mut Vec<u8>, name: &str, ty: &str) {
    string(out, name.as_bytes());
    string(out, ty.as_bytes());
}

/// Little-endian numbers of a fixed width.
pub(crate) trait Fixed: Copy {
    /// Appends the number.
    fn put(self, out: &mut Vec<u8>);
}

macro_rules! fixed {
    ($($ty:ty),*) => {$(
        impl Fixed for $ty {
            #[inline]
            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

fixed!(u8, u16, u32, u64, u128, i16, i64, f64);

impl<const N: usize> Fixed for [u8; N] {
    #[inline]
    fn put(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self);
    }
}

/// Appends all the numbers.
#[inline]
pub(crate) fn all<T: Fixed>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = T>) {
    out.reserve(values.len() * size_of::<T>());
    for value in values {
        value.put(out);
    }
}

/// The version that stands before the data of a column for each `LowCardinality` in it.
pub(crate) fn low_cardinality_version(out: &mut Vec<u8>) {
    1u64.put(out);
}

/// The data of a `LowCardinality(String)`: `keys` are written one after the other as strings, and
/// `indices` say for each row which it is.
pub(crate) fn low_cardinality(
    out: &mut Vec<u8>,
    key_count: usize,
    keys: impl FnOnce(&mut Vec<u8>),
    indices: impl ExactSizeIterator<Item = u32>,
) {
    if indices.len() == 0 {
        return; // no rows: ClickHouse reads nothing after the version
    }
    // The block brings its own keys, all of them.
    const OWN_KEYS: u64 = 0x600;
    let width: u64 = match key_count {
        0..=0x100 => 0,
        0x101..=0x1_0000 => 1,
        _ => 2,
    };
    (OWN_KEYS | width).put(out);
    (key_count as u64).put(out);
    keys(out);
    (indices.len() as u64).put(out);
    match width {
        0 => all(out, indices.map(|index| index as u8)),
        1 => all(out, indices.map(|index| index as u16)),
        _ => all(out, indices),
    }
}

/// The ends of arrays, counted from the first of the written range.
pub(crate) fn offsets(
    out: &mut Vec<u8>,
    before: usize,
    ends: impl ExactSizeIterator<Item = usize>,
) {
    all(out, ends.map(|end| (end - before) as u64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_leb128() {
        let check = |value: u64, expect: &[u8]| {
            let mut out = Vec::new();
            varint(&mut out, value);
            assert_eq!(out, expect, "{value}");
        };
        check(0, &[0]);
        check(127, &[0x7f]);
        check(128, &[0x80, 1]);
        check(300, &[0xac, 2]);
        check(u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }

    #[test]
    fn keys_have_the_narrowest_position_that_fits() {
        let check = |keys: usize, rows: usize, expect: usize| {
            let mut out = Vec::new();
            low_cardinality(&mut out, keys, |_| (), vec![0u32; rows].into_iter());
            assert_eq!(out.len(), expect, "{keys} keys, {rows} rows");
        };
        check(1, 0, 0);
        check(1, 5, 24 + 5);
        check(256, 5, 24 + 5);
        check(257, 5, 24 + 10);
        check(65_536, 5, 24 + 10);
        check(65_537, 5, 24 + 20);
    }
}
