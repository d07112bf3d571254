//! From text to tokens. Where a name ends is Tempo's rule: an attribute goes on until white space
//! or one of `{}()=~!<>&|^,`, so `.a-b` is one attribute and `.a - .b` is two.

use crate::ast::Literal;
use crate::error::{Error, ErrorKind, Position};
use crate::field::{Field, Intrinsic, Scope};
use crate::literal;
use crate::span::{Kind, Status};

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tok {
    /// An operator or a bracket.
    Symbol(&'static str),
    /// A constant other than an integer.
    Literal(Literal),
    /// An integer without its sign, so that the smallest `i64` can be written.
    Int(u64),
    /// An attribute or intrinsic.
    Field(Field),
    /// A word that means nothing where values stand.
    Word,
    /// The end of the text.
    End,
}

/// A token and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) at: Position,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Longest first, so that the first that fits is the right one.
const SYMBOLS: &[&str] = &[
    "&>>", "&<<", "!>>", "!<<", "&&", "||", "=~", "!~", "!=", ">=", "<=", ">>", "<<", "!>", "!<",
    "&>", "&<", "&~", "{", "}", "(", ")", "=", "<", ">", "+", "-", "*", "/", "%", "^", "!", "|",
    "~", ",",
];

/// Cuts a text into tokens, one at a time.
pub(crate) struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Where the last token starts, so that the next one's place is counted on from there.
    last: Position,
}

impl<'t> Lexer<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            last: Position {
                offset: 0,
                line: 1,
                column: 1,
            },
        }
    }

    /// The place of byte `offset`, not before the last token.
    fn position(&self, offset: usize) -> Position {
        let mut at = self.last;
        let passed = self.text.get(at.offset as usize..offset).unwrap_or("");
        for c in passed.chars() {
            if c == '\n' {
                at.line += 1;
                at.column = 1;
            } else {
                at.column += 1;
            }
        }
        at.offset = u32::try_from(offset).unwrap_or(u32::MAX);
        at
    }

    /// The text of a token, for error messages.
    pub(crate) fn shown(&self, token: &Token) -> String {
        match token.tok {
            Tok::End => "the end".to_owned(),
            _ => format!("`{}`", self.text_of(token)),
        }
    }

    /// The text of a token.
    pub(crate) fn text_of(&self, token: &Token) -> &'t str {
        self.text.get(token.start..token.end).unwrap_or("")
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn token(&self, start: usize, tok: Tok) -> Token {
        Token {
            tok,
            at: self.last,
            start,
            end: self.at,
        }
    }

    fn syntax(&self, offset: usize, expected: &str, found: impl Into<String>) -> Error {
        Error::new(ErrorKind::Syntax, self.position(offset), expected, found)
    }

    /// The next token; the end again and again at the end.
    pub(crate) fn next(&mut self) -> Result<Token, Error> {
        self.skip_blanks()?;
        let start = self.at;
        self.last = self.position(start);
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(self.token(start, Tok::End));
        };
        let second = rest.as_bytes().get(1).copied().unwrap_or(b' ');
        if first.is_ascii_digit() || (first == '.' && second.is_ascii_digit()) {
            return self.number(start);
        }
        match first {
            '"' | '`' => {
                let (text, length) =
                    literal::string(rest).map_err(|(at, e)| self.syntax(start + at, &e, ""))?;
                self.at += length;
                Ok(self.token(start, Tok::Literal(Literal::Str(text))))
            }
            '.' => {
                self.at += 1;
                self.attribute(start, false, Scope::Unscoped)
            }
            c if c.is_alphabetic() || c == '_' => self.word(start),
            _ => self.symbol(start, first),
        }
    }

    /// White space and Go's comments, which Tempo skips too.
    fn skip_blanks(&mut self) -> Result<(), Error> {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                let Some(end) = rest.get(2..).and_then(|rest| rest.find("*/")) else {
                    return Err(self.syntax(
                        self.at,
                        "expected `*/` at the end of this comment",
                        "",
                    ));
                };
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }

    fn symbol(&mut self, start: usize, first: char) -> Result<Token, Error> {
        let rest = self.rest();
        if let Some(symbol) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            self.at += symbol.len();
            return Ok(self.token(start, Tok::Symbol(symbol)));
        }
        let e = self.syntax(
            start,
            "expected a value or an operator",
            format!("`{first}`"),
        );
        Err(match first {
            '\'' => e.hint("strings are written in double quotes or backquotes"),
            '&' => e.hint("\"and\" is written &&"),
            ':' => e.hint("a colon is only allowed in intrinsics such as span:id, without spaces"),
            _ => e,
        })
    }

    fn number(&mut self, start: usize) -> Result<Token, Error> {
        let (number, length) =
            literal::number(self.rest()).map_err(|(at, e)| self.syntax(start + at, &e, ""))?;
        self.at += length;
        let tok = match number {
            literal::Number::Int(n) => Tok::Int(n),
            literal::Number::Float(f) => Tok::Literal(Literal::Float(f)),
            literal::Number::Duration(ns) => Tok::Literal(Literal::Duration(ns)),
        };
        Ok(self.token(start, tok))
    }

    /// A keyword, an intrinsic, or the scope of an attribute.
    fn word(&mut self, start: usize) -> Result<Token, Error> {
        let word = self.take_word();
        match self.rest().as_bytes().first() {
            Some(b'.') if word == "parent" => {
                self.at += 1;
                let scope = [Scope::Span, Scope::Resource]
                    .into_iter()
                    .find(|s| self.rest().starts_with(s.prefix()));
                self.at += scope.map_or(0, |s| s.prefix().len());
                return self.attribute(start, true, scope.unwrap_or(Scope::Unscoped));
            }
            Some(b'.') => {
                if let Some(scope) = Scope::named(word) {
                    self.at += 1;
                    return self.attribute(start, false, scope);
                }
            }
            Some(b':') => return self.colon(start, word),
            _ => {}
        }
        let tok = match keyword(word) {
            Some(literal) => Tok::Literal(literal),
            None => match Intrinsic::named(word) {
                Some(intrinsic) => Tok::Field(Field::Intrinsic(intrinsic)),
                None => Tok::Word,
            },
        };
        Ok(self.token(start, tok))
    }

    fn take_word(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    /// `span:id` and its like, from the colon on.
    fn colon(&mut self, start: usize, scope: &str) -> Result<Token, Error> {
        self.at += 1;
        let property_at = self.at;
        let property = self.take_word();
        let name = format!("{scope}:{property}");
        if let Some(intrinsic) = Intrinsic::named(&name) {
            return Ok(self.token(start, Tok::Field(Field::Intrinsic(intrinsic))));
        }
        let known = Intrinsic::list(&format!("{scope}:"));
        Err(if known.is_empty() {
            self.syntax(
                start,
                "expected a scope with intrinsics",
                format!("`{scope}:`"),
            )
            .hint("these are span:, trace:, event:, link: and instrumentation:")
        } else {
            self.syntax(property_at, "expected an intrinsic", format!("`{name}`"))
                .hint(format!(
                    "known here: {known}; an attribute has a dot: {scope}.{property}"
                ))
        })
    }

    /// The key of an attribute, in parts that may each be quoted: `a."b c".d`.
    fn attribute(&mut self, start: usize, parent: bool, scope: Scope) -> Result<Token, Error> {
        let name_at = self.at;
        let mut name = String::new();
        while let Some(c) = self.rest().chars().next() {
            if c == '"' {
                let quoted = self.at;
                let (part, length) = literal::quoted_key(self.rest())
                    .map_err(|(at, e)| self.syntax(quoted + at, &e, ""))?;
                name.push_str(&part);
                self.at += length;
            } else if is_attribute_char(c) {
                name.push(c);
                self.at += c.len_utf8();
            } else {
                break;
            }
        }
        if self.at == name_at {
            let found = self.rest().chars().next();
            let found = found.map_or("the end".to_owned(), |c| format!("`{c}`"));
            return Err(self
                .syntax(name_at, "expected the key of an attribute", found)
                .hint("as in span.http.route, or quoted: span.\"a key\""));
        }
        Ok(self.token(
            start,
            Tok::Field(Field::Attribute {
                parent,
                scope,
                name,
            }),
        ))
    }
}

/// True for what may stand in an attribute's key without quotes.
pub(crate) fn is_attribute_char(c: char) -> bool {
    !c.is_whitespace()
        && !matches!(
            c,
            '{' | '}' | '(' | ')' | '=' | '~' | '!' | '<' | '>' | '&' | '|' | '^' | ','
        )
}

/// The constants that are words.
fn keyword(word: &str) -> Option<Literal> {
    Some(match word {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "nil" => Literal::Nil,
        "minInt" => Literal::Int(i64::MIN),
        "maxInt" => Literal::Int(i64::MAX),
        "ok" => Literal::Status(Status::Ok),
        "error" => Literal::Status(Status::Error),
        "unset" => Literal::Status(Status::Unset),
        "unspecified" => Literal::Kind(Kind::Unspecified),
        "internal" => Literal::Kind(Kind::Internal),
        "server" => Literal::Kind(Kind::Server),
        "client" => Literal::Kind(Kind::Client),
        "producer" => Literal::Kind(Kind::Producer),
        "consumer" => Literal::Kind(Kind::Consumer),
        _ => return None,
    })
}
