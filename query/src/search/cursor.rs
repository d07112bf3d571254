//! The opaque cursor: the place of the last trace of a page, and a mark of the question it belongs
//! to.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::problem::Problem;

/// The first byte; another layout gets another one, and old cursors are refused by name.
const VERSION: u8 = 1;

/// A trace's place in the order of answers, which is newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The start of the trace; of one that is still to be looked at, the start of its newest span that may match.
    pub time_ns: i64,
    /// Sorts traces of the same nanosecond.
    pub trace_id: [u8; 16],
}

/// Writes the cursor that continues behind `place`.
pub fn encode(place: Place, question: u64) -> String {
    let mut bytes = Vec::with_capacity(33);
    bytes.push(VERSION);
    bytes.extend_from_slice(&place.time_ns.to_be_bytes());
    bytes.extend_from_slice(&place.trace_id);
    bytes.extend_from_slice(&question.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor.
///
/// # Errors
/// When it is not one of ours, or belongs to another question.
pub fn decode(text: &str, question: u64) -> Result<Place, Problem> {
    let bad = |detail: &str| Problem::parameter("cursor", detail);
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| {
        bad("not a valid cursor; use the nextCursor of the previous page, unchanged")
    })?;
    let (version, rest) = bytes.split_first().unwrap_or((&0, &[]));
    if *version != VERSION {
        return Err(bad(
            "the cursor was created by another version; start again without a cursor",
        ));
    }
    let parts = rest
        .split_first_chunk()
        .and_then(|(time, rest)| Some((time, rest.split_first_chunk()?)))
        .and_then(|(time, (id, rest))| Some((time, id, <&[u8; 8]>::try_from(rest).ok()?)));
    let Some((time, trace_id, mark)) = parts else {
        return Err(bad(
            "not a valid cursor; use the nextCursor of the previous page, unchanged",
        ));
    };
    if u64::from_be_bytes(*mark) != question {
        return Err(bad(
            "the cursor belongs to another search; only limit may change between pages",
        ));
    }
    Ok(Place {
        time_ns: i64::from_be_bytes(*time),
        trace_id: *trace_id,
    })
}

/// FNV-1a over what makes a question: stable across replicas and versions of the compiler.
#[derive(Debug)]
pub struct Question(u64);

impl Question {
    /// No parts yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part; its length keeps "ab","c" from being "a","bc".
    pub fn part(&mut self, part: &[u8]) -> &mut Self {
        for byte in part.len().to_be_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self
    }

    /// The mark of all parts.
    pub fn mark(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        time_ns: 1_700_000_000_123_456_789,
        trace_id: [0xab; 16],
    };

    #[test]
    fn a_cursor_comes_back() {
        let text = encode(PLACE, 7);
        assert_eq!(text.len(), 44);
        assert_eq!(decode(&text, 7), Ok(PLACE));
    }

    #[track_caller]
    fn check_refused(text: &str) {
        let problem = decode(text, 7).unwrap_err();
        assert_eq!(problem.at_parameter(), Some("cursor"), "{text}");
    }

    #[test]
    fn others_are_refused() {
        let good = encode(PLACE, 7);
        check_refused("");
        check_refused("x");
        check_refused("💡");
        check_refused("AQ");
        check_refused(&good[1..]);
        check_refused(&good[..43]);
        check_refused(&format!("{good}AAAA"));
        check_refused(&format!("{good}="));
        check_refused(&encode(PLACE, 8));
        check_refused(&good.replacen("AR", "Ag", 1));
    }

    #[test]
    fn parts_do_not_run_together() {
        let mark = |parts: &[&str]| {
            let mut question = Question::new();
            for part in parts {
                question.part(part.as_bytes());
            }
            question.mark()
        };
        assert_ne!(mark(&["ab", "c"]), mark(&["a", "bc"]));
        assert_ne!(mark(&["a"]), mark(&["a", ""]));
        assert_eq!(mark(&["a", "b"]), mark(&["a", "b"]));
    }
}
