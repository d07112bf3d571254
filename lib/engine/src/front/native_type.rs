//! How long a column of the Native format is: its type's name, read far enough to step over it.

/// What a column's bytes look like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// So many bytes a row.
    Fixed(usize),
    /// A length and that many bytes.
    Text,
    /// A byte a row, then the values.
    Nullable(Box<Shape>),
    /// Where each row ends, then the values.
    Array(Box<Shape>),
    /// One after another.
    Tuple(Vec<Shape>),
    /// A dictionary and indexes into it.
    LowCardinality(Box<Shape>),
    /// Which alternative each row has, then the values of each.
    Variant(Vec<Shape>),
}

/// Why a column was not stepped over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its end has not come yet.
    Short,
    /// Its bytes make no sense.
    Broken(&'static str),
}

const MAX_DEPTH: usize = 48;

impl Shape {
    /// Of a type's name; `None` if rows of it have no length that can be told from outside.
    pub(crate) fn of(name: &str) -> Option<Shape> {
        Shape::at(name, 0)
    }

    fn at(name: &str, depth: usize) -> Option<Shape> {
        if depth > MAX_DEPTH {
            return None;
        }
        let name = name.trim();
        let (head, arguments) = match name.split_once('(') {
            Some((head, rest)) => (head, split(rest.strip_suffix(')')?)),
            None => (name, Vec::new()),
        };
        let inner = |n: usize| Shape::at(arguments.get(n)?, depth + 1);
        let point = || Shape::Tuple(vec![Shape::Fixed(8), Shape::Fixed(8)]);
        let array = |shape| Shape::Array(Box::new(shape));
        Some(match head {
            "Int8" | "UInt8" | "Bool" | "Enum8" | "Nothing" => Shape::Fixed(1),
            "Int16" | "UInt16" | "Enum16" | "Date" | "BFloat16" => Shape::Fixed(2),
            "Int32" | "UInt32" | "Float32" | "Date32" | "DateTime" | "DateTime32" | "IPv4"
            | "Time" | "Decimal32" => Shape::Fixed(4),
            "Int64" | "UInt64" | "Float64" | "DateTime64" | "Time64" | "Decimal64" => {
                Shape::Fixed(8)
            }
            "Int128" | "UInt128" | "UUID" | "IPv6" | "Decimal128" => Shape::Fixed(16),
            "Int256" | "UInt256" | "Decimal256" => Shape::Fixed(32),
            "Decimal" => Shape::Fixed(match arguments.first()?.trim().parse::<u32>().ok()? {
                0..=9 => 4,
                10..=18 => 8,
                19..=38 => 16,
                _ => 32,
            }),
            interval if interval.starts_with("Interval") => Shape::Fixed(8),
            "String" => Shape::Text,
            "FixedString" => Shape::Fixed(arguments.first()?.trim().parse().ok()?),
            "Nullable" => Shape::Nullable(Box::new(inner(0)?)),
            "Array" => array(inner(0)?),
            "Map" => array(Shape::Tuple(vec![inner(0)?, inner(1)?])),
            "Tuple" => Shape::Tuple(elements(&arguments, depth)?),
            "Nested" => array(Shape::Tuple(elements(&arguments, depth)?)),
            "Variant" => Shape::Variant(elements(&arguments, depth)?),
            "SimpleAggregateFunction" => Shape::at(arguments.last()?, depth + 1)?,
            // The dictionary has no nulls: index 0 stands for them.
            "LowCardinality" => Shape::LowCardinality(Box::new(match inner(0)? {
                Shape::Nullable(plain) => *plain,
                plain => plain,
            })),
            "Point" => point(),
            "Ring" | "LineString" => array(point()),
            "Polygon" | "MultiLineString" => array(array(point())),
            "MultiPolygon" => array(array(array(point()))),
            _ => return None,
        })
    }

    /// Steps over a column of so many rows.
    pub(crate) fn skip(&self, bytes: &mut Cursor<'_>, rows: u64) -> Result<(), Stop> {
        if rows == 0 {
            return Ok(());
        }
        self.skip_prefix(bytes)?;
        self.skip_rows(bytes, rows)
    }

    /// What stands before the values of the whole column, for nested types too.
    fn skip_prefix(&self, bytes: &mut Cursor<'_>) -> Result<(), Stop> {
        match self {
            Shape::Fixed(_) | Shape::Text => Ok(()),
            Shape::Nullable(inner) | Shape::Array(inner) => inner.skip_prefix(bytes),
            Shape::LowCardinality(_) => bytes.skip(8),
            Shape::Tuple(parts) => parts.iter().try_for_each(|part| part.skip_prefix(bytes)),
            Shape::Variant(parts) => {
                if bytes.u64()? != 0 {
                    return Err(Stop::Broken("compact discriminators of a Variant"));
                }
                parts.iter().try_for_each(|part| part.skip_prefix(bytes))
            }
        }
    }

    fn skip_rows(&self, bytes: &mut Cursor<'_>, rows: u64) -> Result<(), Stop> {
        if rows == 0 {
            return Ok(());
        }
        match self {
            Shape::Fixed(size) => bytes.skip_many(rows, *size),
            Shape::Text => {
                for _ in 0..rows {
                    let length = bytes.varint()?;
                    bytes.skip_many(length, 1)?;
                }
                Ok(())
            }
            Shape::Nullable(inner) => {
                bytes.skip_many(rows, 1)?;
                inner.skip_rows(bytes, rows)
            }
            Shape::Array(inner) => {
                bytes.skip_many(rows - 1, 8)?;
                let total = bytes.u64()?;
                inner.skip_rows(bytes, total)
            }
            Shape::Tuple(parts) => parts
                .iter()
                .try_for_each(|part| part.skip_rows(bytes, rows)),
            Shape::LowCardinality(keys) => {
                let width = match bytes.u64()? & 0xff {
                    0 => 1,
                    1 => 2,
                    2 => 4,
                    3 => 8,
                    _ => return Err(Stop::Broken("the width of a dictionary's indexes")),
                };
                let count = bytes.u64()?;
                keys.skip_rows(bytes, count)?;
                let count = bytes.u64()?;
                bytes.skip_many(count, width)
            }
            Shape::Variant(parts) => {
                let mut counts = vec![0_u64; parts.len()];
                let length = usize::try_from(rows).map_err(|_| Stop::Broken("a block's rows"))?;
                for discriminator in bytes.take(length)? {
                    if let Some(count) = counts.get_mut(usize::from(*discriminator)) {
                        *count += 1;
                    }
                }
                parts
                    .iter()
                    .zip(counts)
                    .try_for_each(|(part, n)| part.skip_rows(bytes, n))
            }
        }
    }
}

/// The elements of a tuple: types, or names and types.
fn elements(arguments: &[&str], depth: usize) -> Option<Vec<Shape>> {
    arguments
        .iter()
        .map(|argument| {
            let argument = argument.trim();
            Shape::at(argument, depth + 1).or_else(|| {
                let name = if argument.starts_with('`') {
                    1 + closing(argument.get(1..)?, b'`')? + 1
                } else {
                    argument.find(' ')?
                };
                Shape::at(argument.get(name..)?, depth + 1)
            })
        })
        .collect()
}

/// Where a quoted text ends.
fn closing(text: &str, quote: u8) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == quote && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

/// Arguments, cut at the commas that are in no bracket and no quotes.
fn split(arguments: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start, mut quote, mut escaped) = (0_usize, 0, None, false);
    for (at, byte) in arguments.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), byte) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'`') => quote = Some(byte),
            (None, b'(') => depth += 1,
            (None, b')') => depth = depth.saturating_sub(1),
            (None, b',') if depth == 0 => {
                parts.push(arguments.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(arguments.get(start..).unwrap_or_default());
    parts
}

/// Bytes, and how far they have been read.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    /// How many were read.
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.checked_add(count).ok_or(Stop::Broken("a length"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), Stop> {
        self.take(count).map(|_| ())
    }

    fn skip_many(&mut self, count: u64, size: usize) -> Result<(), Stop> {
        let all = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(size));
        self.skip(
            all.filter(|n| *n <= MAX_COLUMN)
                .ok_or(Stop::Broken("a column's length"))?,
        )
    }

    fn u64(&mut self) -> Result<u64, Stop> {
        let bytes = self.take(8)?;
        Ok(<[u8; 8]>::try_from(bytes).map_or(0, u64::from_le_bytes))
    }

    /// A number of seven bits a byte.
    pub(crate) fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or(0);
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::Broken("a number's length"))
    }

    /// A length and that many bytes.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Stop> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| Stop::Broken("a text's length"))?)
    }
}

/// No column of a block is longer.
const MAX_COLUMN: usize = 1 << 34;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expect: &str) {
        let shown = Shape::of(name).map_or("-".to_owned(), |shape| format!("{shape:?}"));
        assert_eq!(shown, expect, "{name}");
    }

    #[test]
    fn types() {
        check("UInt64", "Fixed(8)");
        check("DateTime64(9, 'UTC')", "Fixed(8)");
        check("Enum8('a)' = 1, 'b\\',' = 2)", "Fixed(1)");
        check("Decimal(18, 3)", "Fixed(8)");
        check("FixedString(16)", "Fixed(16)");
        check("LowCardinality(Nullable(String))", "LowCardinality(Text)");
        check(
            "Map(LowCardinality(String), Int64)",
            "Array(Tuple([LowCardinality(Text), Fixed(8)]))",
        );
        check(
            "Tuple(a UInt8, `b c` Array(String))",
            "Tuple([Fixed(1), Array(Text)])",
        );
        check("Nested(a UInt8)", "Array(Tuple([Fixed(1)]))");
        check("SimpleAggregateFunction(max, String)", "Text");
        check("Variant(String, UInt8)", "Variant([Text, Fixed(1)])");
        check("Polygon", "Array(Array(Tuple([Fixed(8), Fixed(8)])))");
        check("AggregateFunction(sum, UInt8)", "-");
        check("JSON", "-");
        check("Array(", "-");
        check(&"Array(".repeat(1000), "-");
    }
}
