//! Numbers as protobuf's JSON writes them: as numbers or in strings.

use super::parser::Token;

/// The digits of a number, also of one in a string.
fn text<'t>(token: &'t Token<'_>) -> Option<&'t str> {
    match token {
        Token::Number(text) => Some(text),
        // What Rust would read and JSON would not write: a leading plus, `inf`, `nan`.
        Token::String(text)
            if text.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) =>
        {
            Some(text)
        }
        _ => None,
    }
}

/// An integer written with a point or exponent, as in `1e3`, if it is one and below 2^64.
fn whole(text: &str) -> Option<i128> {
    if !text.contains(['.', 'e', 'E']) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    (value.fract() == 0.0 && value.abs() <= 18_446_744_073_709_551_616.0).then_some(value as i128)
}

pub(super) fn signed(token: &Token<'_>) -> Option<i64> {
    let text = text(token)?;
    text.parse()
        .ok()
        .or_else(|| i64::try_from(whole(text)?).ok())
}

/// A whole number that 64 bits cannot hold, sent as a number. The exporter of the OpenTelemetry SDK for
/// JavaScript, which knows one kind of number, writes `1e300` as an `intValue`: it can only mean a
/// double, and one attribute must not cost the whole request.
pub(super) fn beyond_int64(token: &Token<'_>) -> Option<f64> {
    match token {
        Token::Number(_) if signed(token).is_none() => {
            double(token).filter(|value| value.fract() == 0.0)
        }
        _ => None,
    }
}

pub(super) fn unsigned(token: &Token<'_>) -> Option<u64> {
    let text = text(token)?;
    text.parse()
        .ok()
        .or_else(|| u64::try_from(whole(text)?).ok())
}

pub(super) fn unsigned32(token: &Token<'_>) -> Option<u32> {
    unsigned(token).and_then(|n| u32::try_from(n).ok())
}

pub(super) fn double(token: &Token<'_>) -> Option<f64> {
    if let Token::String(text) = token {
        match text.as_ref() {
            "NaN" => return Some(f64::NAN),
            "Infinity" => return Some(f64::INFINITY),
            "-Infinity" => return Some(f64::NEG_INFINITY),
            _ => {}
        }
    }
    text(token)?
        .parse()
        .ok()
        .filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: Token<'_>, int: Option<i64>, uint: Option<u64>, float: Option<f64>) {
        assert_eq!(signed(&token), int, "{token:?}");
        assert_eq!(unsigned(&token), uint, "{token:?}");
        assert_eq!(double(&token), float, "{token:?}");
    }

    #[test]
    fn numbers() {
        let number = Token::Number;
        check(number("0"), Some(0), Some(0), Some(0.0));
        check(number("-1"), Some(-1), None, Some(-1.0));
        check(number("1.5"), None, None, Some(1.5));
        check(number("1e3"), Some(1000), Some(1000), Some(1000.0));
        check(number("-2.0"), Some(-2), None, Some(-2.0));
        check(number("1e400"), None, None, None);
        check(
            number("9223372036854775807"),
            Some(i64::MAX),
            Some(i64::MAX as u64),
            Some(2f64.powi(63)),
        );
        check(
            number("18446744073709551615"),
            None,
            Some(u64::MAX),
            Some(2f64.powi(64)),
        );
        check(
            number("18446744073709551616"),
            None,
            None,
            Some(2f64.powi(64)),
        );
        check(
            number("1.8446744073709551616e19"),
            None,
            None,
            Some(2f64.powi(64)),
        );
    }

    #[test]
    fn numbers_in_strings() {
        let string = |text: &'static str| Token::String(text.into());
        check(
            string("-9223372036854775808"),
            Some(i64::MIN),
            None,
            Some(-(2f64.powi(63))),
        );
        check(string("12"), Some(12), Some(12), Some(12.0));
        for bad in [
            "", " 1", "1 ", "+1", "0x1", "inf", "nan", "infinity", "-inf", "1_0", "abc",
        ] {
            check(string(bad), None, None, None);
        }
        assert!(double(&string("NaN")).is_some_and(f64::is_nan));
        assert_eq!(double(&string("Infinity")), Some(f64::INFINITY));
        assert_eq!(double(&string("-Infinity")), Some(f64::NEG_INFINITY));
        check(Token::Bool(true), None, None, None);
        check(Token::Object, None, None, None);
    }
}
