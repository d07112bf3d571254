//! The classes of text that redaction knows by name. A new one is a row here, and one in
//! `docs/pipeline.md`, which a test compares with this table.

use std::ops::Range;

use regex::Regex;

use crate::card;
use crate::scan::{self, Set, Traits};

/// A class of text that is often hidden.
#[derive(Debug)]
pub struct Class {
    /// Its name in a pipeline's spec.
    pub name: &'static str,
    /// What it stands for.
    pub what: &'static str,
    /// How it is found.
    pub(crate) finder: Finder,
    /// What all text has that has some of it.
    pub(crate) needs: Traits,
    /// How many bytes it has at least.
    pub(crate) least_bytes: usize,
    /// Whether a number can be such text, and from how many digits on.
    pub(crate) number_digits: Option<usize>,
}

/// How a class finds its text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finder {
    /// By itself: it is told each place, in order.
    Scan(fn(&str, &mut dyn FnMut(Range<usize>))),
    /// With a regular expression, in text that may have some.
    Match(Expression),
}

/// The regular expression of a class.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expression {
    pub(crate) source: &'static str,
    /// Whether a text may match, which is much quicker than a match.
    pub(crate) hint: fn(&str) -> bool,
    /// Whether only the expression's group is hidden, where there is one.
    pub(crate) group: bool,
}

impl Expression {
    /// Tells of what is to be hidden, in order.
    pub(crate) fn find(&self, regex: &Regex, text: &str, found: &mut dyn FnMut(Range<usize>)) {
        if !(self.hint)(text) {
            return;
        }
        if !self.group {
            return regex.find_iter(text).for_each(|all| found(all.range()));
        }
        for captures in regex.captures_iter(text) {
            let group = captures.iter().skip(1).flatten().next();
            if let Some(hidden) = group.or_else(|| captures.get(0)) {
                found(hidden.range());
            }
        }
    }
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "email",
        what: "email addresses, also in other alphabets and with `@` escaped as `%40`, `\\u0040` or `&#64;`",
        finder: Finder::Match(Expression {
            source: concat!(
                r#"(?:"[^"@\r\n]{1,64}"|[\p{L}\p{M}\p{N}._%+\-]+(?:['!*~][\p{L}\p{M}\p{N}._%+\-]+)*)"#,
                r"(?:@|%(?:25){0,3}40|\\u0040|&#(?:64|x40);)",
                r"[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}\-]*)(?:\.[\p{L}\p{M}\p{N}\-]+)*",
                r"\.(?:(?i:xn--)[A-Za-z0-9\-]+|\p{L}[\p{L}\p{M}]+)",
            ),
            hint: scan::has_at,
            group: false,
        }),
        needs: Traits::AT.and(Traits::DOT),
        least_bytes: 5,
        number_digits: None,
    },
    Class {
        name: "creditCard",
        what: "payment card numbers: 13 to 19 digits with an issuer's prefix and length and a \
               valid check digit, in groups separated by one or two spaces, dots or hyphens; also \
               integers and doubles",
        finder: Finder::Scan(card::find),
        needs: Traits::DIGIT,
        least_bytes: *card::LENGTHS.start(),
        number_digits: Some(*card::LENGTHS.start()),
    },
    Class {
        name: "ipv4",
        what: "IPv4 addresses: exactly four numbers up to 255, without leading zeros, separated by \
               dots",
        finder: Finder::Scan(ipv4),
        needs: Traits::DIGIT.and(Traits::DOT),
        least_bytes: IPV4_BYTES,
        number_digits: None,
    },
    Class {
        name: "jwt",
        what: "JSON web tokens: three parts separated by dots, the first two of which start with `eyJ`",
        finder: Finder::Match(Expression {
            source: r"eyJ[A-Za-z0-9_\-]+\.eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
            hint: scan::has_token,
            group: false,
        }),
        needs: Traits::J.and(Traits::DOT),
        least_bytes: 10,
        number_digits: None,
    },
    Class {
        name: "credentials",
        what: "`Bearer` and `Basic` credentials of 8 characters or more, also after `%20` or `+`, and the \
               user information of URLs (`https://user:password@…`)",
        finder: Finder::Match(Expression {
            source: concat!(
                r"(?i-u:bearer|basic)(?:[ \t\x{a0}]|%(?:25){0,3}20|\+)+[A-Za-z0-9._~+/=\-%]{8,}",
                r#"|://([^/\s?#"<>\\]+)@"#,
                r#"|%3[Aa]%2[Ff]%2[Ff]([^/\s?#"<>\\&]+?)%40"#,
            ),
            hint: scan::has_credentials,
            group: true,
        }),
        needs: Traits::B_OR_AT,
        least_bytes: 5,
        number_digits: None,
    },
];

impl Class {
    /// The class of this name.
    pub fn of_name(name: &str) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.name == name)
    }

    /// Whether a text of these traits and bytes may have some.
    #[inline]
    pub(crate) fn may_be_in(&self, traits: Traits, bytes: usize) -> bool {
        bytes >= self.least_bytes && traits.have(self.needs)
    }
}

/// The shortest address: `0.0.0.0`.
const IPV4_BYTES: usize = 7;

/// Where IPv4 addresses stand: among digits and single dots between them, there is nothing else.
fn ipv4(text: &str, found: &mut dyn FnMut(Range<usize>)) {
    let digits_and_dots = Set {
        has: |byte| byte.is_ascii_digit() || byte == b'.',
        mark: |bytes| scan::between(bytes, b'.', b'9'),
    };
    for run in scan::runs(text, IPV4_BYTES, digits_and_dots) {
        let bytes = text.as_bytes().get(..run.end).unwrap_or_default();
        let mut start = run.start;
        while let Some(rest) = bytes.get(start..).filter(|rest| rest.len() >= IPV4_BYTES) {
            // As far as single dots go.
            let two = rest.windows(2).position(|two| two == b"..");
            let end = two.map_or(bytes.len(), |two| start + two);
            let first = usize::from(rest.starts_with(b"."));
            let last = usize::from(two.is_none() && rest.ends_with(b"."));
            let address = start + first..end.saturating_sub(last);
            if bytes.get(address.clone()).is_some_and(is_ipv4) {
                found(address);
            }
            start = end + 2;
        }
    }
}

/// Whether this is an IPv4 address. It has only digits and dots.
fn is_ipv4(bytes: &[u8]) -> bool {
    let (mut dots, mut digits, mut number) = (0, 0, 0_u32);
    for &byte in bytes {
        if byte == b'.' {
            if digits == 0 {
                return false;
            }
            (dots, digits, number) = (dots + 1, 0, 0);
            continue;
        }
        let has_leading_zero = digits == 1 && number == 0;
        number = number * 10 + u32::from(byte.wrapping_sub(b'0'));
        digits += 1;
        if has_leading_zero || number > 255 {
            return false;
        }
    }
    dots == 3 && digits > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ipv4_addresses_are_what_std_says(text in "[0-9]{1,3}(\\.{1,2}[0-9]{0,3}){0,5}\\.?") {
            let parts = text.split("..").map(|part| part.trim_matches('.'));
            let expect: Vec<_> = parts
                .filter(|part| part.parse::<std::net::Ipv4Addr>().is_ok())
                .collect();
            let mut found = Vec::new();
            ipv4(&text, &mut |range| found.push(text.get(range).unwrap()));
            prop_assert_eq!(found, expect);
        }

        /// What a hint rules out would not have matched.
        #[test]
        fn hints_miss_nothing(
            pieces in prop::collection::vec(
                prop_oneof![
                    "[a-zé0-9]{1,9}", Just("@".into()), Just("%40".into()), Just("%2540".into()),
                    Just("\\u0040".into()), Just("&#64;".into()), Just("&#x40;".into()),
                    Just("%20".into()), Just("%3a%2F%2f".into()), Just("://".into()),
                    Just(".example".into()), Just("eyJ".into()), Just(".".into()), Just(" ".into()),
                    "(?i)bearer|basic|ba\u{17f}ic", ".",
                ],
                0..9,
            ),
        ) {
            let text = pieces.concat();
            for class in CLASSES {
                if let Finder::Match(expression) = class.finder {
                    let regex = Regex::new(expression.source).unwrap();
                    prop_assert!((expression.hint)(&text) || !regex.is_match(&text), "{}", class.name);
                }
            }
        }
    }

    #[test]
    fn the_docs_name_every_class() {
        let docs = include_str!("../../../docs/pipeline.md");
        for Class { name, what, .. } in CLASSES {
            let row = format!("| `{name}` | {what} |");
            assert!(docs.contains(&row), "docs/pipeline.md has no row {row}");
        }
        let heading = "| redaction class | what it matches |\n|---|---|\n";
        let rows = docs.split_once(heading).map(|(_, rest)| {
            let table = rest.lines().take_while(|line| line.starts_with('|'));
            table.count()
        });
        assert_eq!(rows, Some(CLASSES.len()), "rows of the table in the docs");
    }

    #[test]
    fn a_name_is_a_word_and_stands_for_one_class() {
        for class in CLASSES {
            assert!(class.name.bytes().all(|b| b.is_ascii_alphanumeric()));
            let found = Class::of_name(class.name).unwrap();
            assert_eq!(found.what, class.what, "{}", class.name);
        }
    }
}
