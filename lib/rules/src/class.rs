//! The classes of text that redaction knows by name. A new one is a row here, and one in
//! `docs/pipeline.md`, which a test compares with this table.

/// A class of text that is often hidden.
#[derive(Debug)]
pub struct Class {
    /// Its name in a pipeline's spec.
    pub name: &'static str,
    /// What it stands for.
    pub what: &'static str,
    /// The regular expression of what may be such text.
    pub(crate) expression: &'static str,
    /// Whether what the expression matched is such text.
    pub(crate) is_valid: fn(&str) -> bool,
}

/// All classes.
pub const CLASSES: &[Class] = &[
    Class {
        name: "email",
        what: "e-mail addresses",
        expression: r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9][A-Za-z0-9\-]*(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,}",
        is_valid: always,
    },
    Class {
        name: "creditCard",
        what: "numbers of payment cards with a valid check digit",
        expression: r"[0-9](?:[ \-]?[0-9]){12,18}",
        is_valid: luhn,
    },
    Class {
        name: "ipv4",
        what: "IPv4 addresses",
        expression: r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}",
        is_valid: ipv4,
    },
    Class {
        name: "jwt",
        what: "JSON web tokens",
        expression: r"eyJ[A-Za-z0-9_\-]+\.eyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*",
        is_valid: always,
    },
    Class {
        name: "credentials",
        what: "`Bearer` and `Basic` credentials",
        expression: r"(?i:bearer|basic) +[A-Za-z0-9._~+/=\-]{8,}",
        is_valid: always,
    },
];

impl Class {
    /// The class of this name.
    pub fn of_name(name: &str) -> Option<&'static Self> {
        CLASSES.iter().find(|class| class.name == name)
    }
}

pub(crate) fn always(_: &str) -> bool {
    true
}

/// The check digit of payment cards.
fn luhn(number: &str) -> bool {
    let digits = number
        .bytes()
        .rev()
        .filter(u8::is_ascii_digit)
        .map(|byte| u32::from(byte - b'0'));
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| {
            if place % 2 == 1 {
                doubled(digit)
            } else {
                digit
            }
        })
        .sum();
    sum > 0 && sum.is_multiple_of(10)
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
        let heading = "| class | what it hides |\n|---|---|\n";
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
