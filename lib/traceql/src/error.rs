//! What is wrong with a filter or a query, and where.

use std::fmt;

/// A place in a query's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Bytes from the start.
    pub offset: u32,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// The class of an [`Error`], for callers that answer each differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is not TraceQL.
    Syntax,
    /// It is TraceQL, but not one spanset filter; or a part that no version of ours runs.
    Unsupported,
    /// A field that only a whole trace knows, in a filter on single spans.
    WholeTrace,
    /// An operator on types that it is not for.
    Type,
    /// A regular expression that does not compile or is too large.
    Regex,
    /// The text is longer or deeper than the limits.
    TooLarge,
}

/// The classes of errors that every version of TraceQL knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is not TraceQL.
    ParseError,
    /// It is TraceQL that cannot be meant, or over a limit.
    Invalid,
    /// It is valid TraceQL that is not implemented.
    Unsupported,
}

impl Verdict {
    /// Its name, as `spanloom traceql check` prints it.
    pub fn text(self) -> &'static str {
        match self {
            Self::ParseError => "parse_error",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Why a filter or query was refused. `Display` is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// The class of the error.
    pub kind: ErrorKind,
    /// Where it is.
    pub at: Position,
    /// What stands there.
    pub found: String,
    /// What should stand there, or the rule that it breaks.
    pub expected: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        at: Position,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            at,
            found: found.into(),
            expected: expected.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// As [`Self::hint`], unless there is a better one.
    pub(crate) fn or_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// What it says without the place, in one line.
    pub fn message(&self) -> String {
        Message(self).to_string()
    }

    /// What a caller does with it.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            ErrorKind::Syntax => Verdict::ParseError,
            ErrorKind::Unsupported => Verdict::Unsupported,
            ErrorKind::WholeTrace | ErrorKind::Type | ErrorKind::Regex | ErrorKind::TooLarge => {
                Verdict::Invalid
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, Message(self))
    }
}

/// An error without its place.
struct Message<'a>(&'a Error);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(error) = self;
        write!(f, "{}", OneLine(&error.expected))?;
        if !error.found.is_empty() {
            write!(f, ", found {}", OneLine(&error.found))?;
        }
        match &error.hint {
            Some(hint) => write!(f, " ({})", OneLine(hint)),
            None => Ok(()),
        }
    }
}

/// The most of a user's text that an error repeats, in characters.
const SHOWN_CHARS: usize = 200;

/// Text on one line: control characters escaped, the far end cut.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, c) in self.0.chars().enumerate() {
            if n == SHOWN_CHARS {
                return f.write_str("…");
            }
            if c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}
