//! Time ranges as Tempo's clients give them.

use crate::params::{Params, TIME_MAX_NS};
use crate::problem::Problem;

const SECOND_NS: i64 = 1_000_000_000;

/// A range of time in nanoseconds since 1970, bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first nanosecond.
    pub start_ns: i64,
    /// The last nanosecond.
    pub end_ns: i64,
}

impl Range {
    /// All that may be stored.
    pub const ALL: Self = Self {
        start_ns: 0,
        end_ns: TIME_MAX_NS,
    };

    /// The range of `start` and `end`; none where neither is given.
    ///
    /// # Errors
    /// When only one is given, or one is not a time, or they are in the wrong order.
    pub fn read(params: &Params) -> Result<Option<Self>, Problem> {
        let (start, end) = (time(params, "start")?, time(params, "end")?);
        let (start_ns, end_ns) = match (start, end) {
            (None, None) => return Ok(None),
            (Some(start), Some(end)) => (start, end),
            (None, Some(_)) => return Err(alone("start")),
            (Some(_), None) => return Err(alone("end")),
        };
        if start_ns > end_ns {
            return Err(Problem::parameter("end", "end is before start"));
        }
        Ok(Some(Self { start_ns, end_ns }))
    }
}

fn alone(name: &str) -> Problem {
    Problem::parameter(name, "start and end must be given together")
}

/// A time in seconds, milliseconds or nanoseconds since 1970, told apart by their digits, or RFC 3339; none
/// where it is not given, or 0.
///
/// # Errors
/// When it is none of these.
pub fn time(params: &Params, name: &str) -> Result<Option<i64>, Problem> {
    /// More digits are milliseconds.
    const SECONDS_DIGITS_MAX: usize = 11;
    /// More digits are nanoseconds.
    const MILLISECONDS_DIGITS_MAX: usize = 14;
    let Some(text) = params.one(name) else {
        return Ok(None);
    };
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_integer && text.len() > SECONDS_DIGITS_MAX {
        let scale = match text.len() {
            ..=MILLISECONDS_DIGITS_MAX => SECOND_NS / 1_000,
            _ => 1,
        };
        let ns = text.parse::<i64>().ok().and_then(|n| n.checked_mul(scale));
        let ns = ns.filter(|ns| *ns <= TIME_MAX_NS);
        let wrong = || {
            let detail = "is not a valid time: seconds, milliseconds or nanoseconds since 1970";
            Problem::parameter(name, detail)
        };
        return ns.map(Some).ok_or_else(wrong);
    }
    Ok(params.time(name)?.filter(|ns| *ns != 0))
}

/// A duration: a number of seconds, or with a unit (`30s`, `1m`).
///
/// # Errors
/// When it is neither.
pub fn step(params: &Params, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = params.one(name) else {
        return Ok(None);
    };
    let seconds = text.parse::<f64>().ok().filter(|s| *s >= 0.0 && *s < 1e9);
    match seconds {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within bounds
        Some(seconds) => Ok(Some((seconds * SECOND_NS as f64) as u64)),
        None => params.duration(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        #[track_caller]
        fn check(text: &str, expect: Result<Option<i64>, ()>) {
            let params = Params::of_others(&format!("/x?t={text}").parse().unwrap()).unwrap();
            assert_eq!(time(&params, "t").map_err(drop), expect, "{text}");
        }
        check("", Ok(None));
        check("0", Ok(None));
        check("1780000000", Ok(Some(1_780_000_000_000_000_000)));
        check("1780000000.5", Ok(Some(1_780_000_000_500_000_000)));
        check("1780000000123", Ok(Some(1_780_000_000_123_000_000)));
        check("1780000000123456789", Ok(Some(1_780_000_000_123_456_789)));
        check("2026-05-28T20:26:40Z", Ok(Some(1_780_000_000_000_000_000)));
        check("99999999999999999999", Err(()));
        check("-1", Err(()));
        check("x", Err(()));
    }

    #[test]
    fn ranges_and_steps() {
        let range = |query: &str| {
            let params = Params::of_others(&format!("/x?{query}").parse().unwrap()).unwrap();
            let range = Range::read(&params).map_err(drop)?;
            Ok(range.map(|range| (range.start_ns / SECOND_NS, range.end_ns / SECOND_NS)))
        };
        assert_eq!(range(""), Ok(None));
        assert_eq!(range("start=5&end=7&start=9"), Ok(Some((5, 7))));
        for wrong in ["start=5", "end=5", "start=7&end=5"] {
            assert_eq!(range(wrong), Err(()), "{wrong}");
        }
        let params = Params::of_others(&"/x?a=30s&b=30&c=0.5&d=x&e=-1".parse().unwrap()).unwrap();
        let ns = |name: &str| step(&params, name).map_err(drop);
        assert_eq!(ns("a"), Ok(Some(30_000_000_000)));
        assert_eq!(ns("b"), Ok(Some(30_000_000_000)));
        assert_eq!(ns("c"), Ok(Some(500_000_000)));
        assert_eq!((ns("d"), ns("e"), ns("f")), (Err(()), Err(()), Ok(None)));
    }
}
