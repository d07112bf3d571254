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

/// A time in seconds or nanoseconds since 1970, or RFC 3339; none where it is not given, or 0.
///
/// # Errors
/// When it is none of these.
pub fn time(params: &Params, name: &str) -> Result<Option<i64>, Problem> {
    /// More digits are nanoseconds.
    const SECONDS_DIGITS_MAX: usize = 11;
    let Some(text) = params.one(name) else {
        return Ok(None);
    };
    let is_integer = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_integer && text.len() > SECONDS_DIGITS_MAX {
        let ns = text.parse().ok().filter(|ns| *ns <= TIME_MAX_NS);
        let wrong = || Problem::parameter(name, "is not a valid time in nanoseconds since 1970");
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
