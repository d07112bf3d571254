//! Trace and span ids as text.

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Reads a trace id in either case; zeros at its head may be cut.
pub fn parse_trace_id(text: &str) -> Option<[u8; 16]> {
    let digits = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let number = digits
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()?;
    Some(number.to_be_bytes())
}

/// The bytes of our own hexadecimal text; what is missing is zeros.
pub fn unhex<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let pairs = text.as_bytes().chunks(2);
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |at: usize| {
            let digit = pair
                .get(at)
                .and_then(|digit| char::from(*digit).to_digit(16));
            digit.unwrap_or(0)
        };
        *byte = u8::try_from(digit(0) * 16 + digit(1)).unwrap_or(0);
    }
    bytes
}

/// A span id as text; none for the id of zeros, which means "no span".
pub fn span_id(id: [u8; 8]) -> Option<String> {
    (id != [0; 8]).then(|| hex(&id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        assert_eq!(
            parse_trace_id(text).map(|id| hex(&id)).as_deref(),
            expect,
            "{text}"
        );
    }

    #[test]
    fn trace_ids() {
        let full = "0123456789abcdef0123456789abcdef";
        check(full, Some(full));
        check(&full.to_uppercase(), Some(full));
        check("123456789abcdef0123456789abcdef", Some(full));
        check("a", Some("0000000000000000000000000000000a"));
        check("0", Some("00000000000000000000000000000000"));
        check("", None);
        check("+a", None);
        check("0x1", None);
        check("g", None);
        check("0123456789abcdef0123456789abcdef0", None);
        check("00123456789abcdef0123456789abcdef", None);
        check("٣", None);
    }

    #[test]
    fn span_ids() {
        assert_eq!(span_id([0; 8]), None);
        assert_eq!(
            span_id([0, 1, 2, 3, 4, 5, 6, 0xff]).as_deref(),
            Some("00010203040506ff")
        );
    }
}
