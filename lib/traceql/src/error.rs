//! What is wrong with a filter, and where.

use std::fmt;

/// A place in a filter's text.
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

/// Why a filter was refused. `Display` is one line.
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, OneLine(&self.expected))?;
        if !self.found.is_empty() {
            write!(f, ", found {}", OneLine(&self.found))?;
        }
        match &self.hint {
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
