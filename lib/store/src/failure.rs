//! What a failed request to ClickHouse means, by the class of its error.

use hyper_util::client::legacy;
use spanloom_program::causes;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It passes: send the same again, later.
    Retry,
    /// Some row is at fault: find it, store the others.
    BadRows,
    /// The rows are of more days than one insert may have: insert them in parts.
    TooWide,
    /// The schema or our credentials are at fault: hold everything and call for help.
    Fault,
}

impl Class {
    /// The class as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::BadRows => "bad_rows",
            Self::TooWide => "too_wide",
            Self::Fault => "fault",
        }
    }
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do.
    pub class: Class,
    /// ClickHouse's number for the error; `None` when the answer had none, or there was no answer.
    pub code: Option<u32>,
    /// Whether nothing of the request was stored for certain.
    pub absent: bool,
    /// The error in words.
    pub message: String,
}

/// Errors of a row's values: parsing, conversion, ranges, constraints.
const BAD_ROWS: [u32; 17] = [
    6, 26, 27, 38, 41, 53, 69, 70, 72, 117, 128, 131, 321, 349, 395, 469, 691,
];

/// Those that never are the schema's or the connection's: a constraint is violated, or a view of the user's throws.
const OF_ROWS_ALONE: [u32; 2] = [395, 469];

/// Errors that no repetition cures: tables, columns, settings, users, rights.
const FAULTS: [u32; 20] = [
    8, 10, 16, 20, 36, 44, 46, 47, 50, 60, 62, 81, 115, 164, 192, 193, 194, 291, 497, 516,
];

/// Errors that pass and come before anything is written: too many queries, too many parts.
const REFUSED_EARLY: [u32; 2] = [202, 252];

/// The setting that bounds how many partitions an insert makes parts in; its error has a number that also
/// means too many parts in all.
pub(crate) const MAX_PARTITIONS: &str = "max_partitions_per_insert_block";

/// Longest error text that is kept: ClickHouse may repeat a whole query.
const MAX_MESSAGE: usize = 600;

/// The number in `Code: N.`, the first if errors are nested.
pub fn exception_code(text: &str) -> Option<u32> {
    text.match_indices("Code: ").find_map(|(at, found)| {
        let rest = text.get(at + found.len()..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest.get(..digits)?.parse().ok()
    })
}

fn shorten(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let cut = message.floor_char_boundary(MAX_MESSAGE);
        message.truncate(cut);
        message.push('…');
    }
    message
}

fn is_connect(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<legacy::Error>()
        .is_some_and(legacy::Error::is_connect)
}

impl Failure {
    /// Whether other rows would have been stored, however many these are.
    pub(crate) fn is_of_rows_alone(&self) -> bool {
        self.code.is_some_and(|code| OF_ROWS_ALONE.contains(&code))
    }

    /// What this error means.
    pub fn of(error: &clickhouse::error::Error) -> Self {
        use clickhouse::error::Error;
        let text = error.to_string();
        let code = match error {
            Error::BadResponse(answer) => exception_code(answer),
            // The crate could not read the end of an answer that broke off with an exception.
            Error::Other(_) | Error::Custom(_) => exception_code(&text),
            _ => None,
        };
        let (class, absent) = match (error, code) {
            (_, Some(252)) if text.contains(MAX_PARTITIONS) => (Class::TooWide, true),
            (_, Some(code)) if BAD_ROWS.contains(&code) => (Class::BadRows, true),
            (_, Some(code)) if FAULTS.contains(&code) => (Class::Fault, true),
            (_, Some(code)) => (Class::Retry, REFUSED_EARLY.contains(&code)),
            (Error::InvalidParams(_) | Error::Unsupported(_), None) => (Class::Fault, true),
            (Error::Network(cause), None) => (Class::Retry, is_connect(cause.as_ref())),
            _ => (Class::Retry, false),
        };
        Self {
            class,
            code,
            absent,
            message: shorten(causes(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clickhouse::error::Error;

    use super::*;

    #[test]
    fn codes_are_found_in_what_servers_say() {
        let check =
            |text: &str, expect: Option<u32>| assert_eq!(exception_code(text), expect, "{text}");
        check(
            "Code: 60. DB::Exception: Unknown table (UNKNOWN_TABLE)",
            Some(60),
        );
        check(
            "Code: 33. DB::Exception: Code: 27. DB::Exception: x",
            Some(33),
        );
        check("Code: 241", Some(241));
        check("std::exception. Code: 1001, type: x", Some(1001));
        check("Code: . Code: 7. x", Some(7));
        check("<html>502 Bad Gateway</html>", None);
        check("Code: 99999999999999999999.", None);
        check("", None);
    }

    #[test]
    fn classes() {
        let check = |answer: &str, class: Class, absent: bool| {
            let failure = Failure::of(&Error::BadResponse(answer.to_owned()));
            assert_eq!((failure.class, failure.absent), (class, absent), "{answer}");
        };
        for code in [159, 209, 210, 241, 242, 285, 319, 999, 4_242] {
            check(&format!("Code: {code}. x"), Class::Retry, false);
        }
        for code in [202, 252] {
            check(&format!("Code: {code}. x"), Class::Retry, true);
        }
        for code in [6, 27, 53, 117, 469] {
            check(&format!("Code: {code}. x"), Class::BadRows, true);
        }
        for code in [16, 60, 81, 497, 516] {
            check(&format!("Code: {code}. x"), Class::Fault, true);
        }
        let too_wide = "Code: 252. DB::Exception: Too many partitions for single INSERT block (more than \
                        100). The limit is controlled by 'max_partitions_per_insert_block' setting.";
        check(too_wide, Class::TooWide, true);
        check("503 Service Unavailable", Class::Retry, false);
        check("429 Too Many Requests", Class::Retry, false);
        let timed_out = Failure::of(&Error::TimedOut);
        assert_eq!((timed_out.class, timed_out.absent), (Class::Retry, false));
        let long = Failure::of(&Error::BadResponse("é".repeat(5_000)));
        assert!(long.message.len() < 700);
    }
}
