//! Regular expressions are written in Go's syntax (RE2), and run by the `regex` crate, whose syntax differs
//! in a few places: what a brace or an inner bracket means, `\Q…\E`, and that `\d`, `\w`, `\s` and `\b` know
//! ASCII only.

/// `pattern` in the syntax of the `regex` crate. What is wrong stays wrong.
pub(crate) fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or("");
        rest = match c {
            '\\' => escape(after, &mut out),
            '[' => class(after, &mut out),
            '{' if !is_repetition(after) => {
                out.push_str("\\{");
                after
            }
            c => {
                out.push(c);
                after
            }
        };
    }
    out
}

/// Whether `{` before this starts a repetition: `2}`, `2,}` or `2,5}`. Otherwise it is a brace.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else {
        return false;
    };
    let (least, most) = inside.split_once(',').unwrap_or((inside, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !least.is_empty() && digits(least) && digits(most)
}

/// The ranges of a class that is one letter after a backslash.
fn ranges(c: char) -> Option<&'static str> {
    Some(match c.to_ascii_lowercase() {
        'd' => "0-9",
        's' => "\\t\\n\\f\\r ",
        'w' => "0-9A-Za-z_",
        _ => return None,
    })
}

/// Writes what follows a backslash outside of brackets; gives what is left.
fn escape<'p>(after: &'p str, out: &mut String) -> &'p str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = after.get(c.len_utf8()..).unwrap_or("");
    match c {
        'Q' => {
            let (literal, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return rest;
        }
        'b' => out.push_str("(?-u:\\b)"),
        // There these are the starts and ends of words.
        '<' | '>' => out.push(c),
        c => match ranges(c) {
            Some(ranges) => {
                out.push_str(if c.is_ascii_uppercase() { "[^" } else { "[" });
                out.push_str(ranges);
                out.push(']');
            }
            None => out.extend(['\\', c]),
        },
    }
    rest
}

/// Writes a class in brackets, from behind the first one; gives what is left.
fn class<'p>(after: &'p str, out: &mut String) -> &'p str {
    out.push('[');
    let mut rest = after;
    if let Some(negated) = rest.strip_prefix('^') {
        out.push('^');
        rest = negated;
    }
    if let Some(first) = rest.strip_prefix(']') {
        out.push_str("\\]");
        rest = first;
    }
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or("");
        let mut left = after;
        match c {
            ']' => {
                out.push(']');
                return after;
            }
            '[' => match named_class(rest) {
                Some((name, behind)) => {
                    out.push_str(name);
                    left = behind;
                }
                None => out.push_str("\\["),
            },
            '\\' => left = class_escape(after, out),
            // Two of these would be an operation on classes.
            '&' | '~' => out.extend(['\\', c]),
            '-' if after.starts_with('-') => {
                out.push_str("-\\-");
                left = after.get(1..).unwrap_or("");
            }
            c => out.push(c),
        }
        rest = left;
    }
    rest
}

/// `[:alpha:]` at the start of `text`, and what is behind it.
fn named_class(text: &str) -> Option<(&str, &str)> {
    let end = text.strip_prefix("[:")?.find(":]")? + 4;
    text.split_at_checked(end)
}

/// Writes what follows a backslash within brackets; gives what is left.
fn class_escape<'p>(after: &'p str, out: &mut String) -> &'p str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    match ranges(c) {
        Some(ranges) if c.is_ascii_uppercase() => {
            out.push_str("[^");
            out.push_str(ranges);
            out.push(']');
        }
        Some(ranges) => out.push_str(ranges),
        None => out.extend(['\\', c]),
    }
    after.get(c.len_utf8()..).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[track_caller]
    fn matches(pattern: &str, yes: &[&str], no: &[&str]) {
        let regex = regex::Regex::new(&format!("^(?s:{})$", translated(pattern)));
        let regex = regex.unwrap_or_else(|e| panic!("{pattern}: {e}"));
        for text in yes {
            assert!(regex.is_match(text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(!regex.is_match(text), "{pattern} should not match {text:?}");
        }
    }

    #[test]
    fn as_go_reads_them() {
        matches("/users/{id}", &["/users/{id}"], &["/users/id"]);
        matches("a{2}b{1,}c{0,1}{", &["aabc{", "aabb{"], &["a{2}"]);
        matches("{a,b}", &["{a,b}"], &["a"]);
        matches("[[]x", &["[x"], &["x"]);
        matches("[]a]+", &["]a"], &["b"]);
        matches("[^]a]", &["b"], &["]", "a"]);
        matches("[[:digit:]x]+", &["1x"], &[":", "d"]);
        matches("[a&&b~~]+", &["a&b~"], &["c"]);
        matches("[+--]+", &["+,-"], &["."]);
        matches("\\Qa.b*\\E+", &["a.b*", "a.b**"], &["axb*"]);
        matches("\\Qa.b", &["a.b"], &["axb"]);
        matches("\\w+", &["ab_1"], &["ż"]);
        matches("[\\d\\s]+", &["1 2"], &["٣"]);
        matches("[\\Da]", &["a", "ż"], &["1"]);
        matches("\\S\\D\\W", &["az."], &[" z.", "a1.", "azz"]);
        matches("a\\b.*", &["a b", "aż"], &["ab"]);
        matches("\\<x\\>", &["<x>"], &["x"]);
        matches("(?i)\\x41\\.\\pL", &["a.ż"], &["axż"]);
    }

    #[test]
    fn what_is_wrong_stays_wrong() {
        for pattern in [
            "[", "[a", "(", "a\\", "[\\", "*", "{2}", "[z-a]", "\\Q(\\E(",
        ] {
            assert!(
                regex::Regex::new(&translated(pattern)).is_err(),
                "{pattern}"
            );
        }
    }
}
