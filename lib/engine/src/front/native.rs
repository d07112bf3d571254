//! Native blocks in the framing that clients ask for with `client_protocol_version`: each block
//! begins with a description of itself and, in newer versions of the protocol, each column says
//! how it is serialised. The engine writes neither, so its blocks are taken apart and put together
//! again, column by column.

use std::io;

use super::native_type::{Cursor, Shape, Stop};

/// What stands before a block: not an overflow block, no bucket.
const BLOCK_INFO: [u8; 8] = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];
/// What stands after a column's type: the usual serialisation.
const NO_CUSTOM_SERIALIZATION: u8 = 0;
/// The version of the protocol from which on it stands there.
const WITH_CUSTOM_SERIALIZATION: u64 = 54454;
/// A column that is longer than this is refused.
const MAX_BUFFERED: usize = 1 << 30;

/// Takes the engine's stream in any pieces.
pub(crate) struct Reframer {
    /// Columns say how they are serialised.
    marked: bool,
    buffer: Vec<u8>,
    /// Columns of the block that have not come yet.
    columns: u64,
    rows: u64,
    /// It is not worth another look before so many bytes are there: each look starts at the
    /// column's beginning.
    look_at: usize,
}

impl Reframer {
    /// At the beginning of a stream, for a client of this version.
    pub(crate) fn new(protocol: u64) -> Reframer {
        let marked = protocol >= WITH_CUSTOM_SERIALIZATION;
        Reframer {
            marked,
            buffer: Vec::new(),
            columns: 0,
            rows: 0,
            look_at: 0,
        }
    }

    /// Takes bytes in and gives the framed ones out.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < self.look_at {
            return Ok(Vec::new());
        }
        let out = self.advance()?;
        self.look_at = self.buffer.len() + self.buffer.len() / 4;
        if self.buffer.len() > MAX_BUFFERED {
            return Err(io::Error::other(
                "a column of a block is too long to be framed",
            ));
        }
        Ok(out)
    }

    /// The end of the stream: the last bytes out.
    pub(crate) fn finish(&mut self) -> io::Result<Vec<u8>> {
        let out = self.advance()?;
        if self.columns > 0 || !self.buffer.is_empty() {
            return Err(io::Error::other("the last block is cut off"));
        }
        Ok(out)
    }

    fn advance(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut done = 0;
        loop {
            let mut cursor = Cursor::new(self.buffer.get(done..).unwrap_or_default());
            let step = if self.columns == 0 {
                block(&mut cursor, &mut out).map(|(columns, rows)| {
                    (self.columns, self.rows) = (columns, rows);
                })
            } else {
                column(&mut cursor, self.rows, self.marked, &mut out).map(|()| self.columns -= 1)
            };
            match step {
                Ok(()) => done += cursor.at,
                Err(Failed::Short) => {
                    self.buffer.drain(..done);
                    return Ok(out);
                }
                Err(Failed::Broken(what)) => {
                    return Err(io::Error::other(format!("Native for this client: {what}")));
                }
            }
        }
    }
}

/// Why a step was not made.
enum Failed {
    Short,
    Broken(String),
}

impl From<Stop> for Failed {
    fn from(stop: Stop) -> Failed {
        match stop {
            Stop::Short => Failed::Short,
            Stop::Broken(what) => Failed::Broken(format!("{what} makes no sense")),
        }
    }
}

/// The head of a block.
fn block(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(u64, u64), Failed> {
    let columns = cursor.varint()?;
    let rows = cursor.varint()?;
    out.extend_from_slice(&BLOCK_INFO);
    put_varint(out, columns);
    put_varint(out, rows);
    Ok((columns, rows))
}

/// A whole column.
fn column(
    cursor: &mut Cursor<'_>,
    rows: u64,
    marked: bool,
    out: &mut Vec<u8>,
) -> Result<(), Failed> {
    let name = cursor.text()?;
    let kind = cursor.text()?;
    let text = String::from_utf8_lossy(kind);
    let shape = Shape::of(&text).ok_or_else(|| {
        Failed::Broken(format!(
            "columns of type {text} are not supported in this format; use another format"
        ))
    })?;
    let start = cursor.at;
    shape.skip(cursor, rows)?;
    let end = cursor.at;
    cursor.at = start;
    let data = cursor.take(end - start)?;
    for text in [name, kind] {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text);
    }
    if marked {
        out.push(NO_CUSTOM_SERIALIZATION);
    }
    out.extend_from_slice(data);
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &mut Vec<u8>, text: &str) {
        put_varint(out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }

    /// Two rows: a text, a dictionary in an array, a number; and what becomes of them.
    fn sample(marked: bool) -> (Vec<u8>, Vec<u8>) {
        let mut columns: Vec<(&str, &str, Vec<u8>)> = Vec::new();
        let mut texts = Vec::new();
        text(&mut texts, "hello");
        text(&mut texts, &"x".repeat(300));
        columns.push(("s", "String", texts));
        let mut array = Vec::new();
        array.extend(1_u64.to_le_bytes());
        array.extend(1_u64.to_le_bytes());
        array.extend(3_u64.to_le_bytes());
        array.extend(0x600_u64.to_le_bytes());
        array.extend(2_u64.to_le_bytes());
        text(&mut array, "");
        text(&mut array, "key");
        array.extend(3_u64.to_le_bytes());
        array.extend([0, 1, 1]);
        columns.push(("a", "Array(LowCardinality(String))", array));
        columns.push(("n", "UInt16", vec![1, 0, 2, 0]));
        let (mut plain, mut framed) = (vec![3, 2], BLOCK_INFO.to_vec());
        framed.extend([3, 2]);
        for (name, kind, data) in columns {
            for out in [&mut plain, &mut framed] {
                text(out, name);
                text(out, kind);
            }
            framed.extend(marked.then_some(0));
            plain.extend(&data);
            framed.extend(&data);
        }
        (plain, framed)
    }

    #[test]
    fn any_pieces() {
        for (protocol, marked) in [(54405, false), (54460, true)] {
            let (plain, framed) = sample(marked);
            let plain = [plain.clone(), plain].concat();
            let framed = [framed.clone(), framed].concat();
            for size in 1..=plain.len() {
                let mut reframer = Reframer::new(protocol);
                let mut out = Vec::new();
                for piece in plain.chunks(size) {
                    out.extend(reframer.push(piece).unwrap());
                }
                out.extend(reframer.finish().unwrap());
                assert!(out == framed, "pieces of {size}");
            }
        }
    }

    #[test]
    fn cut_off_or_unknown() {
        let (plain, _) = sample(true);
        for end in 1..plain.len() {
            let mut reframer = Reframer::new(1);
            reframer.push(&plain[..end]).unwrap();
            assert!(reframer.finish().is_err(), "cut at {end}");
        }
        let mut unknown = vec![1, 1];
        text(&mut unknown, "c");
        text(&mut unknown, "JSON");
        let error = Reframer::new(1).push(&unknown).unwrap_err().to_string();
        assert!(error.contains("JSON"), "{error}");
    }
}
