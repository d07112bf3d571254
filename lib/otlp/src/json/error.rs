//! Why JSON text could not be read.

use thiserror::Error;

/// The JSON is malformed, or is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid JSON at byte {offset}{}{path}: {kind}", if path.is_empty() { "" } else { ", " })]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, in bytes from the start.
    pub offset: usize,
    /// The field, as in `resourceSpans[0].scopeSpans[1].spans[2].kind`; empty at the top.
    pub path: String,
}

/// What is wrong with the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JsonErrorKind {
    /// The input is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text is not JSON.
    #[error("not JSON: {0}")]
    Syntax(&'static str),
    /// Nested deeper than this reader follows.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// The result would be larger than allowed.
    #[error("larger than {0} bytes as protobuf")]
    TooLarge(usize),
    /// A value of the wrong type.
    #[error("expected {0}")]
    Expected(&'static str),
    /// An enumeration by name.
    #[error("expected an integer: OTLP/JSON sends enumerations as numbers, not names")]
    EnumName,
    /// A field given twice, or a second field of a value that holds one.
    #[error("more than one value of a oneof field")]
    Repeated,
}

impl JsonError {
    pub(crate) fn new(kind: JsonErrorKind, offset: usize) -> Self {
        Self {
            kind,
            offset,
            path: String::new(),
        }
    }

    /// The same error, seen from the message that has the field `name`.
    #[cold]
    pub(crate) fn inside(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }
}
