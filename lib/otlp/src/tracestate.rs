//! W3C `tracestate` (Trace Context level 2): a list of at most 32 `key=value` members.

use thiserror::Error;

/// Members that a list may have.
pub const MAX_MEMBERS: usize = 32;
/// Characters that a key may have.
pub const MAX_KEY: usize = 256;
/// Characters that a value may have.
pub const MAX_VALUE: usize = 256;

/// Why text is not a `tracestate`. Whoever gets such text must drop all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TraceStateError {
    /// More than [`MAX_MEMBERS`].
    #[error("a tracestate must have at most {MAX_MEMBERS} members")]
    TooManyMembers,
    /// A member without `=`, or with characters or lengths that are not allowed.
    #[error("member {0} of the tracestate is malformed")]
    Member(usize),
}

/// One member of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// The vendor's key.
    pub key: &'a str,
    /// The vendor's value.
    pub value: &'a str,
}

/// Reads a list. Empty members are allowed and left out; a key that comes twice is left to the
/// reader, as the specification does.
pub fn parse(text: &str) -> Result<Vec<Member<'_>>, TraceStateError> {
    let mut members = Vec::new();
    for (i, part) in text.split(',').enumerate() {
        let part = part.trim_matches([' ', '\t']);
        if part.is_empty() {
            continue;
        }
        let (key, value) = part.split_once('=').ok_or(TraceStateError::Member(i))?;
        if !is_key(key) || !is_value(value) {
            return Err(TraceStateError::Member(i));
        }
        if members.len() >= MAX_MEMBERS {
            return Err(TraceStateError::TooManyMembers);
        }
        members.push(Member { key, value });
    }
    Ok(members)
}

fn is_key(key: &str) -> bool {
    let first = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    key.len() <= MAX_KEY
        && key.as_bytes().first().is_some_and(first)
        && key
            .bytes()
            .all(|byte| first(&byte) || b"_-*/@".contains(&byte))
}

fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE).contains(&value.len())
        && value
            .bytes()
            .all(|byte| matches!(byte, 0x20..=0x7e) && byte != b',' && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&[(&str, &str)]>) {
        let members = parse(text).ok();
        let members = members.map(|m| m.iter().map(|m| (m.key, m.value)).collect::<Vec<_>>());
        assert_eq!(members.as_deref(), expect, "{text:?}");
    }

    #[test]
    fn lists() {
        check("", Some(&[]));
        check(" , \t,", Some(&[]));
        check("foo=1", Some(&[("foo", "1")]));
        check("foo=1,bar=2", Some(&[("foo", "1"), ("bar", "2")]));
        check(" foo=1 \t,\tbar=2 ", Some(&[("foo", "1"), ("bar", "2")]));
        check("foo=1,,bar=2", Some(&[("foo", "1"), ("bar", "2")]));
        check("foo=1,foo=2", Some(&[("foo", "1"), ("foo", "2")]));
        check("foo=a b", Some(&[("foo", "a b")]));
        check("foo= a", Some(&[("foo", " a")]));
        check("0a_-*/=!~", Some(&[("0a_-*/", "!~")]));
        check("tenant@vendor=1", Some(&[("tenant@vendor", "1")]));
        check("foo@=1", Some(&[("foo@", "1")]));
        for bad in [
            "foo",
            "=1",
            "foo=",
            "foo =1",
            "FOO=1",
            "fooÄ=1",
            "foo.bar=1",
            "@foo=1",
            "_a=1",
        ] {
            check(bad, None);
        }
        for bad in [
            "foo=bar=baz",
            "foo=,bar=3",
            "foo=\u{7f}",
            "foo=a\tb",
            "foo=é",
            "foo=1;=2",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn limits() {
        let list = |n| {
            (0..n)
                .map(|i| format!("k{i}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(parse(&list(32)).map(|m| m.len()), Ok(32));
        assert_eq!(parse(&list(33)), Err(TraceStateError::TooManyMembers));
        let ok = |key, value| parse(&format!("{}={}", "k".repeat(key), "v".repeat(value))).is_ok();
        assert!(ok(256, 256));
        assert!(!ok(257, 1));
        assert!(!ok(1, 257));
    }
}
