//! A pull parser for JSON: no tree, no recursion, text borrowed where it has no escapes.
//!
//! It is ours because errors name their byte and field, 64-bit integers stay exact, and the depth is
//! counted where it matters.

use std::borrow::Cow;

use super::{JsonError, JsonErrorKind as Kind};

/// How deep skipped values may nest.
const MAX_SKIPPED_DEPTH: usize = 512;

/// The start of a value; of arrays and objects only the bracket.
#[derive(Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Null,
    Bool(bool),
    /// A number as written; its grammar has been checked.
    Number(&'a str),
    String(Cow<'a, str>),
    Array,
    Object,
}

/// Stands in the middle of a JSON text.
pub(crate) struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    #[cold]
    pub(crate) fn fail(&self, kind: Kind) -> JsonError {
        JsonError::new(kind, self.at)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn peek_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    fn eat(&mut self, byte: u8, problem: &'static str) -> Result<(), JsonError> {
        if self.peek_token() != Some(byte) {
            return Err(self.fail(Kind::Syntax(problem)));
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but white space may be left.
    pub(crate) fn end(&mut self) -> Result<(), JsonError> {
        match self.peek_token() {
            None => Ok(()),
            Some(_) => Err(self.fail(Kind::Syntax("text after the value"))),
        }
    }

    /// The start of the next value.
    pub(crate) fn value(&mut self) -> Result<Token<'a>, JsonError> {
        match self.peek_token() {
            Some(b'"') => self.string().map(Token::String),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b'{') => {
                self.at += 1;
                Ok(Token::Object)
            }
            Some(b'[') => {
                self.at += 1;
                Ok(Token::Array)
            }
            Some(b't') => self.word("true", Token::Bool(true)),
            Some(b'f') => self.word("false", Token::Bool(false)),
            Some(b'n') => self.word("null", Token::Null),
            Some(_) => Err(self.fail(Kind::Syntax("a value was expected"))),
            None => Err(self.fail(Kind::Syntax("the text ends where a value was expected"))),
        }
    }

    fn word(&mut self, word: &str, token: Token<'a>) -> Result<Token<'a>, JsonError> {
        if !self
            .text
            .as_bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            return Err(self.fail(Kind::Syntax("a value was expected")));
        }
        self.at += word.len();
        Ok(token)
    }

    /// Whether an array has another item; `first` is true before the first and kept by this.
    pub(crate) fn next_item(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        let fresh = std::mem::take(first);
        match self.peek_token() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if fresh => Ok(true),
            _ => {
                self.eat(b',', "`,` or `]` was expected")?;
                Ok(true)
            }
        }
    }

    /// An object's next key; `first` is true before the first and kept by this.
    pub(crate) fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, JsonError> {
        let fresh = std::mem::take(first);
        match self.peek_token() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(_) if fresh => {}
            _ => self.eat(b',', "`,` or `}` was expected")?,
        }
        if self.peek_token() != Some(b'"') {
            return Err(self.fail(Kind::Syntax("a key in quotes was expected")));
        }
        let key = self.string()?;
        self.eat(b':', "`:` was expected")?;
        Ok(Some(key))
    }

    /// Skips a whole value, and returns its text.
    pub(crate) fn skipped_value(&mut self) -> Result<&'a str, JsonError> {
        self.peek_token();
        let start = self.at;
        self.skip_value()?;
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    /// Skips a whole value.
    pub(crate) fn skip_value(&mut self) -> Result<(), JsonError> {
        // One entry per open bracket: whether it is an object, and whether it is still empty.
        let mut open: Vec<(bool, bool)> = Vec::new();
        loop {
            match self.value()? {
                Token::Object => open.push((true, true)),
                Token::Array => open.push((false, true)),
                _ => {}
            }
            if open.len() > MAX_SKIPPED_DEPTH {
                return Err(self.fail(Kind::TooDeep(MAX_SKIPPED_DEPTH)));
            }
            loop {
                let Some((object, first)) = open.last_mut() else {
                    return Ok(());
                };
                let more = if *object {
                    self.next_key(first)?.is_some()
                } else {
                    self.next_item(first)?
                };
                if more {
                    break;
                }
                open.pop();
            }
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.fail(Kind::Syntax("a digit was expected")));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.fail(Kind::Syntax("a number may not begin with 0")));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    /// A string; the parser stands at its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut start = self.at;
        let mut owned: Option<String> = None;
        loop {
            let Some(byte) = self.plain_run() else {
                return Err(self.fail(Kind::Syntax("the text ends inside a string")));
            };
            let run = self.text.get(start..self.at).unwrap_or_default();
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(run),
                        Some(mut text) => {
                            text.push_str(run);
                            Cow::Owned(text)
                        }
                    });
                }
                b'\\' => {
                    let text = owned.get_or_insert_default();
                    text.push_str(run);
                    let character = self.escape()?;
                    text.push(character);
                    start = self.at;
                }
                _ => return Err(self.fail(Kind::Syntax("a control character in a string"))),
            }
        }
    }

    /// Moves to the next quote, backslash or control character and returns it.
    fn plain_run(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let len = rest
            .iter()
            .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')?;
        self.at += len;
        rest.get(len).copied()
    }

    /// An escape; the parser stands at its backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let character = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.fail(Kind::Syntax("unknown escape"))),
        };
        self.at += 1;
        Ok(character)
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .text
            .as_bytes()
            .get(self.at..self.at + 4)
            .unwrap_or_default();
        let number = digits.iter().try_fold(0, |n, &byte| {
            Some(n << 4 | u32::from(crate::ids::hex_digit(byte)?))
        });
        match number {
            Some(number) if digits.len() == 4 => {
                self.at += 4;
                Ok(number)
            }
            _ => Err(self.fail(Kind::Syntax("four hexadecimal digits were expected"))),
        }
    }

    /// The digits of `\u`. Half a surrogate pair, which JavaScript can send, becomes U+FFFD.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.four_digits()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self
            .text
            .as_bytes()
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(b"\\u"))
        {
            self.at += 2;
            let second = self.four_digits()?;
            if (0xdc00..0xe000).contains(&second) {
                let scalar = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
        }
        self.at = before;
        Ok(char::REPLACEMENT_CHARACTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn skip(text: &str) -> Result<(), JsonError> {
        let mut parser = Parser::new(text);
        parser.skip_value()?;
        parser.end()
    }

    fn string(text: &str) -> Option<String> {
        let mut parser = Parser::new(text);
        match (parser.value(), parser.end()) {
            (Ok(Token::String(text)), Ok(())) => Some(text.into_owned()),
            _ => None,
        }
    }

    #[test]
    fn strings() {
        let check = |text, expect: Option<&str>| assert_eq!(string(text).as_deref(), expect);
        check(r#""""#, Some(""));
        check(r#""aé€😀""#, Some("aé€😀"));
        check(r#""a\"\\\/\b\f\n\r\tz""#, Some("a\"\\/\u{8}\u{c}\n\r\tz"));
        check(r#""\u0041\u00e9\u20AC""#, Some("Aé€"));
        check(r#""\ud83d\ude00!""#, Some("😀!"));
        check(r#""\ud83d""#, Some("\u{fffd}"));
        check(r#""\ude00x""#, Some("\u{fffd}x"));
        check(r#""\ud83d\u0041""#, Some("\u{fffd}A"));
        check(r#""\ud83d\ud83d\ude00""#, Some("\u{fffd}😀"));
        check(r#""\u004""#, None);
        check(r#""\u00g0""#, None);
        check(r#""\u00é""#, None);
        check(r#""\x""#, None);
        check("\"\n\"", None);
        check("\"a", None);
        check("\"\\", None);
    }

    #[test]
    fn skipping() {
        let ok = |text: &str| assert_eq!(skip(text), Ok(()), "{text}");
        let bad = |text: &str| assert!(skip(text).is_err(), "{text}");
        ok(" {\"a\" : [1, 2.5e-3, {}, [], null, true, false, \"x\"] , \"b\":{\"c\":{}}}\n");
        ok("-0");
        ok("0.0");
        ok("1E+5");
        for text in [
            "", " ", "{", "[", "[1", "[1,", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{a:1}",
        ] {
            bad(text);
        }
        for text in [
            "01", "1.", ".5", "+1", "-", "1e", "1e+", "nul", "truth", "1 2", "{}}", "[}",
        ] {
            bad(text);
        }
        ok(&format!("{}{}", "[".repeat(512), "]".repeat(512)));
        bad(&format!("{}{}", "[".repeat(513), "]".repeat(513)));
        bad(&"[".repeat(1_000_000));
        bad(&"{\"a\":".repeat(100_000));
    }

    proptest! {
        /// Ours takes what serde_json takes, but for half surrogate pairs and numbers out of range.
        #[test]
        fn agrees_with_serde_json(text in r#"([\[\]{},:"\\ 0-9.eE+-]|true|null|"a"|\{"k":){0,12}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert_eq!(skip(&text).is_ok(), theirs.is_ok(), "{:?} {:?}", text, theirs);
        }

        #[test]
        fn any_text_survives(text in ".*") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string(&json), Some(text));
        }
    }
}
