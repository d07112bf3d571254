//! The names in a log's folder.

use std::path::{Path, PathBuf};

/// The file that is locked while a process has the log open.
pub(crate) const LOCK: &str = "lock";
/// The file of rows that the store refused for good.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
/// Is locked while that file is changed.
pub(crate) const DEAD_LETTERS_LOCK: &str = "dead-letters.lock";
/// What takes its place.
pub(crate) const DEAD_LETTERS_NEW: &str = "dead-letters.new";
/// The folder of bytes that could not be read as what they should be.
pub(crate) const DAMAGED: &str = "damaged";

/// The file whose room only records that settle requests may use.
pub(crate) const RESERVE: &str = "reserve";

/// The file that says what was found to be damaged by earlier starts.
pub(crate) const TOLD: &str = "told";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    /// Ours, and not a segment.
    Own,
    Foreign,
}

impl Name {
    pub(crate) fn parse(name: &str) -> Self {
        const OWN: [&str; 7] = [
            LOCK,
            DEAD_LETTERS,
            DEAD_LETTERS_LOCK,
            DEAD_LETTERS_NEW,
            DAMAGED,
            RESERVE,
            TOLD,
        ];
        if OWN.contains(&name) {
            return Self::Own;
        }
        let number = name
            .strip_suffix(".seg")
            .and_then(|digits| digits.parse().ok());
        match number {
            // Each number has one name, so that no two files have the same number.
            Some(number) if number > 0 && segment_name(number) == name => Self::Segment(number),
            _ => Self::Foreign,
        }
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:08}.seg")
}

pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(segment_name(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_name() {
        let check = |name: &str, expected| assert_eq!(Name::parse(name), expected, "{name}");
        check("00000001.seg", Name::Segment(1));
        check("123456789.seg", Name::Segment(123_456_789));
        check("000000001.seg", Name::Foreign);
        check("1.seg", Name::Foreign);
        check("00000000.seg", Name::Foreign);
        check("+0000001.seg", Name::Foreign);
        check("00000001.seg.bak", Name::Foreign);
        check("lock", Name::Own);
        check("damaged", Name::Own);
        check("dead-letters", Name::Own);
        check("reserve", Name::Own);
        check("dead-letters.new", Name::Own);
    }
}
