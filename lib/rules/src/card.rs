//! Numbers of payment cards in text.
//!
//! A card is a sequence of whole groups of digits with an issuer's prefix and length and a valid check
//! digit. Between two groups stand one or two blanks, dots or dashes; a digit directly beside a group
//! belongs to it.

use std::ops::Range;

use crate::scan::{self, Set};

/// The lengths that cards may have, in digits. Shorter ones, which a few issuers of debit cards have
/// given out, cannot be told from order numbers.
pub(crate) const LENGTHS: std::ops::RangeInclusive<usize> = 13..=19;

/// An issuer's numbers: prefixes of one length, and how many digits a number may have.
struct Issuer {
    /// The first and last prefix.
    from: u32,
    to: u32,
    digits: u32,
    lengths: &'static [usize],
}

const fn issuer(from: u32, to: u32, digits: u32, lengths: &'static [usize]) -> Issuer {
    Issuer {
        from,
        to,
        digits,
        lengths,
    }
}

const FROM_16: &[usize] = &[16, 17, 18, 19];
const FROM_13: &[usize] = &[13, 14, 15, 16, 17, 18, 19];

/// Visa, Mastercard, American Express, Discover, JCB, Diners Club, UnionPay, Maestro, RuPay, Mir, Troy.
const ISSUERS: &[Issuer] = &[
    issuer(4, 4, 1, &[13, 16, 19]),
    issuer(51, 55, 2, &[16]),
    issuer(2221, 2720, 4, &[16]),
    issuer(34, 34, 2, &[15]),
    issuer(37, 37, 2, &[15]),
    issuer(3528, 3589, 4, FROM_16),
    issuer(300, 305, 3, &[14, 16, 17, 18, 19]),
    issuer(3095, 3095, 4, &[14, 16, 17, 18, 19]),
    issuer(36, 36, 2, &[14, 15, 16, 17, 18, 19]),
    issuer(38, 39, 2, &[14, 16, 17, 18, 19]),
    // Discover, UnionPay, RuPay and Maestro share these.
    issuer(50, 50, 2, FROM_13),
    issuer(56, 69, 2, FROM_13),
    issuer(81, 82, 2, FROM_16),
    issuer(2200, 2205, 4, FROM_16),
    issuer(9792, 9792, 4, &[16]),
];

/// Tells where cards stand in a text, in order and apart from each other.
pub(crate) fn find(text: &str, found: &mut dyn FnMut(Range<usize>)) {
    // All bytes that cards are written with.
    let set = Set {
        has: |byte| {
            matches!(
                byte,
                b'0'..=b'9' | b' ' | b'.' | b'-' | 0xc2 | 0xa0 | 0xe2 | 0x80 | 0x87 | 0xaf
            )
        },
        mark: |bytes| {
            let blanks = scan::between(bytes, b' ', b' ') | scan::not_ascii(bytes);
            scan::between(bytes, b'-', b'9') | blanks
        },
    };
    for run in scan::runs(text, *LENGTHS.start(), set) {
        let bytes = text.as_bytes().get(run.clone()).unwrap_or_default();
        let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
        if digits >= *LENGTHS.start() {
            find_among(text, run, found);
        }
    }
}

/// The same, of the digits in a range of the text.
fn find_among(text: &str, range: Range<usize>, found: &mut dyn FnMut(Range<usize>)) {
    let groups = groups(text, range);
    let mut last: Option<Range<usize>> = None;
    for (first, start) in groups.iter().enumerate() {
        let mut digits = Digits::default();
        for group in groups.get(first..).unwrap_or_default() {
            let joined = digits.len == 0 || group.joined;
            if !joined || !digits.push(text.get(group.range.clone()).unwrap_or_default()) {
                break;
            }
            if digits.is_card() {
                let card = start.range.start..group.range.end;
                match last.as_mut().filter(|last| last.end > card.start) {
                    // Two readings that share groups: whichever is the card is hidden.
                    Some(last) => last.end = last.end.max(card.end),
                    None => last.replace(card).into_iter().for_each(&mut *found),
                }
            }
        }
    }
    last.into_iter().for_each(found);
}

/// A group of digits, and whether it may belong to the one before it.
struct Group {
    range: Range<usize>,
    joined: bool,
}

fn groups(text: &str, range: Range<usize>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let bytes = text.as_bytes().get(..range.end).unwrap_or_default();
    let mut at = range.start;
    while let Some(start) = bytes
        .get(at..)
        .and_then(|rest| rest.iter().position(u8::is_ascii_digit))
        .map(|offset| at + offset)
    {
        let len = bytes.get(start..).map_or(0, |rest| {
            rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
        });
        let between = groups
            .last()
            .and_then(|last| text.get(last.range.end..start));
        groups.push(Group {
            range: start..start + len,
            joined: between.is_some_and(is_separator),
        });
        at = start + len;
    }
    groups
}

/// One or two characters that may stand between the groups of a card.
fn is_separator(between: &str) -> bool {
    let mut characters = between.chars();
    let joins = |c: char| matches!(c, ' ' | '.' | '-' | '\u{a0}' | '\u{2007}' | '\u{202f}');
    characters.next().is_some_and(joins)
        && characters.next().is_none_or(joins)
        && characters.next().is_none()
}

/// Digits of groups that are read as one number.
#[derive(Default)]
struct Digits {
    digits: [u8; *LENGTHS.end()],
    len: usize,
}

impl Digits {
    /// Adds a group, unless that makes the number too long.
    fn push(&mut self, group: &str) -> bool {
        let end = self.len + group.len();
        let Some(place) = self.digits.get_mut(self.len..end) else {
            return false;
        };
        for (digit, byte) in place.iter_mut().zip(group.bytes()) {
            *digit = byte - b'0';
        }
        self.len = end;
        true
    }

    fn is_card(&self) -> bool {
        let digits = self.digits.get(..self.len).unwrap_or_default();
        let prefix = |count: u32| {
            let first = digits.iter().take(count as usize);
            first.fold(0, |number, &digit| number * 10 + u32::from(digit))
        };
        LENGTHS.contains(&self.len)
            && ISSUERS.iter().any(|issuer| {
                issuer.lengths.contains(&self.len)
                    && (issuer.from..=issuer.to).contains(&prefix(issuer.digits))
            })
            && luhn(digits)
    }
}

/// The check digit of payment cards.
fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match place % 2 {
            1 => doubled(u32::from(digit)),
            _ => u32::from(digit),
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is skipped has no cards.
        #[test]
        fn nothing_is_skipped(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just("4111111111111111"), Just("3782"), Just("822463"), Just("10005"), Just(" "),
                    Just("-"), Just("\u{a0}"), Just("\u{2007}"), Just("\u{202f}"), Just("x"),
                    Just("é"), Just("à"), Just("4111"), Just("1111"),
                ],
                0..12,
            ),
        ) {
            let text = pieces.concat();
            let (mut found, mut expect) = (Vec::new(), Vec::new());
            find(&text, &mut |range| found.push(range));
            find_among(&text, 0..text.len(), &mut |range| expect.push(range));
            prop_assert_eq!(found, expect);
        }
    }
}
