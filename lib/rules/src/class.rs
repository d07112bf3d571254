//! The classes of text that redaction knows by name. A new one is a row here, and one in
//! `docs/pipeline.md`, which a test compares with this table.

use std::ops::Range;

use regex::Regex;

use crate::card;

/// A class of text that is often hidden.
#[derive(Debug)]
pub struct Class {
    /// Its name in a pipeline's spec.
    pub name: &'static str,
    /// What it stands for.
    pub what: &'static str,
    /// The regular expression of what may be such text.
    pub(crate) expression: &'static str,
    /// What of it is.
    pub(crate) finder: Finder,
    /// What text must have to match at all: one of these.
    pub(crate) needs: &'static [Traits],
    /// Whether a number can be such text, and from how many digits on.
    pub(crate) number_digits: Option<usize>,
}

/// How a class finds its text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finder {
    /// All that the expression matches.
    Matches,
    /// What the expression matches, if that is valid.
    If(fn(&str) -> bool),
    /// The expression's group, or all where there is none.
    Group,
    /// Places in the whole text, which the expression only hints at.
    Find(fn(&str) -> Vec<Range<usize>>),
}

impl Finder {
    /// What is to be hidden, in order.
    pub(crate) fn find(self, regex: &Regex, text: &str) -> Vec<Range<usize>> {
        let all = || regex.find_iter(text);
        match self {
            Self::Matches => all().map(|found| found.range()).collect(),
            Self::If(is_valid) => {
                let valid = all().filter(|found| is_valid(found.as_str()));
                valid.map(|found| found.range()).collect()
            }
            Self::Group => {
                let inner = regex.captures_iter(text).filter_map(|found| {
                    let group = found.iter().skip(1).flatten().next();
                    group.or_else(|| found.get(0)).map(|found| found.range())
                });
                inner.collect()
            }
            Self::Find(find) => find(text),
        }
    }
}

/// What can be seen of a text in one pass: how often it has some characters. It is much quicker than a
/// match, and most text has too few of them for any class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Digits.
    pub(crate) digits: usize,
    /// Dots.
    pub(crate) dots: usize,
    /// What stands for `@`, or begins what does: `@`, `%`, `\`, `&`.
    pub(crate) ats: usize,
    /// What stands for a colon: `:`, `%`.
    pub(crate) colons: usize,
    /// What stands for a blank: blanks, `%`, `+`, and what is not ASCII.
    pub(crate) blanks: usize,
    /// The letter J.
    pub(crate) js: usize,
}

/// How wide a counter is while it is one of six in a word, and how much text such a word counts.
const LANE: u32 = 10;
const LANE_MAX: usize = (1 << LANE) - 1;

/// What a byte adds to each counter.
const COUNTS: [u64; 256] = {
    const fn lane(n: u32) -> u64 {
        1 << (n * LANE)
    }
    let mut counts = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        counts[byte] = match byte as u8 {
            b'0'..=b'9' => lane(0),
            b'.' => lane(1),
            b'@' | b'\\' | b'&' => lane(2),
            b'%' => lane(2) + lane(3) + lane(4),
            b':' => lane(3),
            b' ' | b'\t' | b'+' | 0x80.. => lane(4),
            b'J' => lane(5),
            _ => 0,
        };
        byte += 1;
    }
    counts
};

impl Traits {
    const NONE: Self = Self {
        digits: 0,
        dots: 0,
        ats: 0,
        colons: 0,
        blanks: 0,
        js: 0,
    };

    /// Counts what a text has.
    pub(crate) fn of(text: &str) -> Self {
        let mut traits = Self::default();
        for chunk in text.as_bytes().chunks(LANE_MAX) {
            let mut sum = 0_u64;
            for &byte in chunk {
                sum += COUNTS.get(usize::from(byte)).copied().unwrap_or(0);
            }
            let lane = |n: u32| (sum >> (n * LANE)) as usize & LANE_MAX;
            traits.digits += lane(0);
            traits.dots += lane(1);
            traits.ats += lane(2);
            traits.colons += lane(3);
            traits.blanks += lane(4);
            traits.js += lane(5);
        }
        traits
    }

    /// Whether this is at least what is needed.
    fn have(&self, needs: &Self) -> bool {
        self.digits >= needs.digits
            && self.dots >= needs.dots
            && self.ats >= needs.ats
            && self.colons >= needs.colons
            && self.blanks >= needs.blanks
            && self.js >= needs.js
    }
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "email",
        what: "email addresses, also in other alphabets and with `@` escaped as `%40`, `\\u0040` or `&#64;`",
        expression: concat!(
            r#"(?:"[^"@\r\n]{1,64}"|[\p{L}\p{M}\p{N}._%+\-]+(?:['!*~][\p{L}\p{M}\p{N}._%+\-]+)*)"#,
            r"(?:@|%(?:25){0,3}40|\\u0040|&#(?:64|x40);)",
            r"[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}\-]*)(?:\.[\p{L}\p{M}\p{N}\-]+)*",
            r"\.(?:(?i:xn--)[A-Za-z0-9\-]+|\p{L}[\p{L}\p{M}]+)",
        ),
        finder: Finder::Matches,
        needs: &[Traits {
            dots: 1,
            ats: 1,
            ..Traits::NONE
        }],
        number_digits: None,
    },
    Class {
        name: "creditCard",
        what: "payment card numbers: 13 to 19 digits with an issuer's prefix and length and a \
               valid check digit, in groups separated by one or two spaces, dots or hyphens; also \
               integers and doubles",
        expression: "[0-9](?:[ .\\-\u{a0}\u{2007}\u{202f}]{0,2}[0-9]){12}",
        finder: Finder::Find(card::find),
        needs: &[Traits {
            digits: *card::LENGTHS.start(),
            ..Traits::NONE
        }],
        number_digits: Some(*card::LENGTHS.start()),
    },
    Class {
        name: "ipv4",
        what: "IPv4 addresses: exactly four numbers up to 255, without leading zeros, separated by \
               dots",
        expression: r"[0-9]+(?:\.[0-9]+){3,}",
        finder: Finder::If(ipv4),
        needs: &[Traits {
            digits: 4,
            dots: 3,
            ..Traits::NONE
        }],
        number_digits: None,
    },
    Class {
        name: "jwt",
        what: "JSON web tokens: three parts separated by dots, the first two of which start with `eyJ`",
        expression: r"eyJ[A-Za-z0-9_\-]+\.eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
        finder: Finder::Matches,
        needs: &[Traits {
            dots: 2,
            js: 2,
            ..Traits::NONE
        }],
        number_digits: None,
    },
    Class {
        name: "credentials",
        what: "`Bearer` and `Basic` credentials of 8 characters or more, also after `%20` or `+`, and the \
               user information of URLs (`https://user:password@…`)",
        expression: concat!(
            r"(?i:bearer|basic)(?:[ \t\x{a0}]|%(?:25){0,3}20|\+)+[A-Za-z0-9._~+/=\-%]{8,}",
            r#"|://([^/\s?#"<>\\]+)@"#,
            r#"|%3[Aa]%2[Ff]%2[Ff]([^/\s?#"<>\\&]+?)%40"#,
        ),
        finder: Finder::Group,
        needs: &[
            Traits {
                blanks: 1,
                ..Traits::NONE
            },
            Traits {
                colons: 1,
                ats: 1,
                ..Traits::NONE
            },
        ],
        number_digits: None,
    },
];

impl Class {
    /// The class of this name.
    pub fn of_name(name: &str) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.name == name)
    }

    /// Whether a text with these traits may have some.
    pub(crate) fn may_be_in(&self, traits: &Traits) -> bool {
        self.needs.iter().any(|needs| traits.have(needs))
    }
}

fn ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(found.expression, class.expression, "{}", class.name);
        }
    }
}
