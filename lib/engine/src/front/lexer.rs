//! ClickHouse SQL cut into tokens, as far as the front needs: where strings, comments and quoted
//! names end, so that a word inside one of them is never taken for a keyword.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A bare word: keyword, name or number.
    Word,
    /// A name in backticks or double quotes.
    Quoted,
    /// A string literal or heredoc.
    Text,
    /// One character of punctuation.
    Mark(u8),
}

/// A token and where it is in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its bytes, quotes included.
    pub(crate) text: &'a [u8],
    /// Where it starts.
    pub(crate) start: usize,
}

impl Token<'_> {
    /// Where it ends.
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this keyword, in any case.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(keyword.as_bytes())
    }

    /// Whether it is this punctuation.
    pub(crate) fn is_mark(&self, mark: u8) -> bool {
        self.kind == Kind::Mark(mark)
    }

    /// The name it spells, without quotes; none for literals and punctuation.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        match self.kind {
            Kind::Word => Some(self.text),
            Kind::Quoted => self.text.get(1..self.text.len().saturating_sub(1)),
            Kind::Text | Kind::Mark(_) => None,
        }
    }
}

/// Gives the tokens one by one; comments and white space are skipped. Unfinished strings and
/// comments reach to the end of the text: the engine will say what is wrong with them.
pub(crate) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of the text.
    pub(crate) fn new(text: &'a [u8]) -> Lexer<'a> {
        Lexer { text, at: 0 }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves past white space and comments.
    fn skip(&mut self) {
        while let Some(byte) = self.peek(0) {
            match (byte, self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'-', Some(b'-')) | (b'#', Some(b' ' | b'!')) => {
                    let line = memchr(self.rest(), b'\n').unwrap_or(self.rest().len());
                    self.at += line;
                }
                (b'/', Some(b'*')) => {
                    self.at += 2;
                    let end = find(self.rest(), b"*/").map_or(self.rest().len(), |n| n + 2);
                    self.at += end;
                }
                // A no-break space, as editors paste it.
                (0xc2, Some(0xa0)) => self.at += 2,
                _ => return,
            }
        }
    }

    /// The length of a quoted token that starts here, with `\` escapes and doubled quotes.
    fn quoted(&self, quote: u8) -> usize {
        let rest = self.rest();
        let mut n = 1;
        while let Some(&byte) = rest.get(n) {
            if byte == b'\\' {
                n += 2;
            } else if byte == quote {
                if rest.get(n + 1) == Some(&quote) {
                    n += 2;
                } else {
                    return n + 1;
                }
            } else {
                n += 1;
            }
        }
        rest.len()
    }

    /// The length of a heredoc (`$tag$ … $tag$`) that starts here, if one does.
    fn heredoc(&self) -> Option<usize> {
        let rest = self.rest();
        let tag = rest.get(1..)?.iter().take_while(|b| is_word(**b)).count();
        if rest.get(tag + 1) != Some(&b'$') {
            return None;
        }
        let open = rest.get(..tag + 2)?;
        let close = find(rest.get(tag + 2..)?, open)?;
        Some(close + 2 * open.len())
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let start = self.at;
        let (kind, length) = match self.peek(0)? {
            b'\'' => (Kind::Text, self.quoted(b'\'')),
            quote @ (b'"' | b'`') => (Kind::Quoted, self.quoted(quote)),
            b'$' if self.heredoc().is_some() => (Kind::Text, self.heredoc().unwrap_or(1)),
            byte if is_word(byte) => (
                Kind::Word,
                self.rest().iter().take_while(|b| is_word(**b)).count(),
            ),
            mark => (Kind::Mark(mark), 1),
        };
        let end = (start + length).min(self.text.len());
        self.at = end;
        Some(Token {
            kind,
            text: self.text.get(start..end)?,
            start,
        })
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn memchr(text: &[u8], byte: u8) -> Option<usize> {
    text.iter().position(|b| *b == byte)
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    text.windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &[&str]) {
        let tokens: Vec<String> = Lexer::new(input.as_bytes())
            .map(|t| String::from_utf8_lossy(t.text).into_owned())
            .collect();
        assert_eq!(tokens, expect, "{input}");
    }

    #[test]
    fn tokens() {
        check("select 1", &["select", "1"]);
        check("a.b, c(1)", &["a", ".", "b", ",", "c", "(", "1", ")"]);
        check("-- note\nx /* y; */ z", &["x", "z"]);
        check("#! note\nx # y", &["x"]);
        check("'it''s' 'a\\'b'", &["'it''s'", "'a\\'b'"]);
        check("`a;b` \"c`d\"", &["`a;b`", "\"c`d\""]);
        check("$$a;'$$ b", &["$$a;'$$", "b"]);
        check("$x$a$$b$x$ c", &["$x$a$$b$x$", "c"]);
        check("$1", &["$", "1"]);
        check("'open", &["'open"]);
        check("'open\\", &["'open\\"]);
        check("/* open", &[]);
        check("", &[]);
    }
}
