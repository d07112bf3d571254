//! Strings, numbers and durations as TraceQL writes them (Go's rules). An error is the byte it is
//! at, from the literal's start, and what was expected.

type Wrong = (usize, String);

/// A number without a sign.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Int(u64),
    Float(f64),
    /// Nanoseconds.
    Duration(i64),
}

/// Reads the string literal that `text` starts with; gives it and its length in bytes.
pub(crate) fn string(text: &str) -> Result<(String, usize), Wrong> {
    if let Some(raw) = text.strip_prefix('`') {
        let Some(end) = raw.find('`') else {
            return Err((
                0,
                "expected a backquote at the end of this string".to_owned(),
            ));
        };
        // As in Go: a carriage return never belongs to such a text.
        return Ok((raw.get(..end).unwrap_or("").replace('\r', ""), end + 2));
    }
    let mut bytes = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let text = String::from_utf8(bytes).map_err(|_| {
                    (
                        0,
                        "expected a string whose escapes are valid UTF-8".to_owned(),
                    )
                })?;
                return Ok((text, at + 1));
            }
            '\n' => {
                let expected = "expected a double quote before the end of the line, or \\n";
                return Err((at, expected.to_owned()));
            }
            '\\' => escape(at, &mut chars, &mut bytes)?,
            c => push(&mut bytes, c),
        }
    }
    Err((
        0,
        "expected a double quote at the end of this string".to_owned(),
    ))
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads what follows the backslash at `at`.
fn escape(
    at: usize,
    chars: &mut impl Iterator<Item = (usize, char)>,
    bytes: &mut Vec<u8>,
) -> Result<(), Wrong> {
    let unknown = || {
        let known = r#"\" \\ \n \r \t \a \b \f \v \xHH \OOO \uHHHH \UHHHHHHHH"#;
        (at, format!("expected one of the escapes {known}"))
    };
    let (_, c) = chars.next().ok_or_else(unknown)?;
    let simple = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' => Some(b'\\'),
        '"' => Some(b'"'),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return Ok(());
    }
    let (radix, digits, first) = match c {
        'x' => (16, 2, None),
        'u' => (16, 4, None),
        'U' => (16, 8, None),
        '0'..='7' => (8, 3, Some(c)),
        _ => return Err(unknown()),
    };
    let mut value = 0u32;
    for n in 0..digits {
        let digit = match first {
            Some(c) if n == 0 => c,
            _ => chars.next().ok_or_else(unknown)?.1,
        };
        let digit = digit.to_digit(radix).ok_or_else(unknown)?;
        value = value.saturating_mul(radix).saturating_add(digit);
    }
    if matches!(c, 'u' | 'U') {
        push(bytes, char::from_u32(value).ok_or_else(unknown)?);
    } else {
        bytes.push(u8::try_from(value).map_err(|_| unknown())?);
    }
    Ok(())
}

/// Reads the quoted part of an attribute's key that `text` starts with: only `\"` and `\\` are
/// escapes there.
pub(crate) fn quoted_key(text: &str) -> Result<(String, usize), Wrong> {
    let mut key = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((key, at + 1)),
            '\\' => match chars.next() {
                Some((_, c @ ('"' | '\\'))) => key.push(c),
                _ => return Err((at, r#"expected \" or \\ in a quoted key"#.to_owned())),
            },
            c => key.push(c),
        }
    }
    Err((
        0,
        "expected a double quote at the end of this key".to_owned(),
    ))
}

/// Reads the number or duration that `text` starts with; gives it and its length in bytes.
pub(crate) fn number(text: &str) -> Result<(Number, usize), Wrong> {
    let end = number_end(text);
    let digits = text.get(..end).unwrap_or("");
    let after = text.get(end..).unwrap_or("");
    if after.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        let units = after.find(|c: char| !c.is_alphanumeric() && c != '.' && c != '_');
        let length = end + units.unwrap_or(after.len());
        let ns = duration(text.get(..length).unwrap_or(""))?;
        return Ok((Number::Duration(ns), length));
    }
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) {
        digits
            .parse()
            .ok()
            .filter(|n| *n <= i64::MIN.unsigned_abs())
            .map(Number::Int)
    } else {
        digits
            .parse()
            .ok()
            .filter(|f: &f64| f.is_finite())
            .map(Number::Float)
    };
    let number = number.ok_or((0, "expected a number that fits 64 bits".to_owned()))?;
    Ok((number, end))
}

/// Where the digits, point and exponent end.
fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let mut end = digits(0);
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    end
}

/// Nanoseconds of each unit; the first of those that fit is taken.
const UNITS: &[(&str, f64)] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3), // the micro sign
    ("μs", 1e3), // the Greek letter
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
    ("d", 86_400e9),
    ("w", 604_800e9),
    ("y", 31_536_000e9),
];

/// Reads all of `text` as a duration: `1h2m3s`, `1.5s`, `100ms`.
///
/// Days, weeks and years are Prometheus's: where one stands all numbers are whole and the units go down, once
/// each. Otherwise it is Go's: fractions and any order.
fn duration(text: &str) -> Result<i64, Wrong> {
    let strict = text.contains(['d', 'w', 'y']);
    let mut before = f64::INFINITY;
    let mut total = 0i64;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|r| !r.is_empty()) {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits).unwrap_or((rest, ""));
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let (Some((unit, scale)), false) = (unit, number.is_empty()) else {
            let units = "ns, us, ms, s, m, h, d, w, y";
            return Err((
                at + digits,
                format!("expected a unit of duration ({units})"),
            ));
        };
        if strict && (number.contains('.') || *scale >= before || *scale < 1e6) {
            let expected = "expected whole numbers of y, w, d, h, m, s and ms in this order";
            return Err((at, expected.to_owned()));
        }
        before = *scale;
        let ns = nanoseconds(number, *scale).and_then(|ns| total.checked_add(ns));
        total = ns.ok_or((0, "expected a duration below 292 years".to_owned()))?;
        at += digits + unit.len();
    }
    Ok(total)
}

#[allow(clippy::cast_possible_truncation)] // checked against i64's range first
fn nanoseconds(number: &str, scale: f64) -> Option<i64> {
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(scale as i64);
    }
    let ns = (number.parse::<f64>().ok()? * scale).round();
    (ns < i64::MAX as f64).then_some(ns as i64)
}
