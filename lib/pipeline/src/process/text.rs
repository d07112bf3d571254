//! Cuts of text that do not split a character.

pub(crate) use spanloom_otlp::text::utf8;

/// The longest start of `text` that has at most `max` bytes and ends with a whole character.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_between_characters() {
        let check = |text, max, expect| assert_eq!(cut(text, max), expect);
        check("abc", 3, "abc");
        check("abc", 2, "ab");
        check("abc", 0, "");
        check("aé", 2, "a");
        check("aé", 3, "aé");
        check("😀", 3, "");
        check("", 5, "");
    }
}
