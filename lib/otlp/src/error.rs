//! Why bytes could not be read as OTLP protobuf.

use thiserror::Error;

/// The bytes are not the protobuf message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("invalid OTLP protobuf at byte {offset}: {kind}")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// Where: bytes from the start of what the outermost view was made of. Inside an array or a
    /// key-value list it counts from the start of that list.
    pub offset: usize,
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeErrorKind {
    /// The bytes end inside a field.
    #[error("the bytes end in the middle of a field")]
    Truncated,
    /// A varint of more than ten bytes or 64 bits.
    #[error("a varint is longer than 64 bits")]
    VarintTooLong,
    /// A field number of zero or beyond 2^29.
    #[error("the field number is out of range")]
    InvalidFieldNumber,
    /// Wire types 6 and 7 do not exist.
    #[error("unknown wire type")]
    UnknownWireType,
    /// A field of OTLP with a wire type that is not its own.
    #[error("field {0} has the wrong wire type")]
    WrongWireType(u32),
    /// The end of a group that was not begun.
    #[error("end of a group that was not begun")]
    UnexpectedEndGroup,
    /// Text that is not UTF-8, where it must be.
    #[error("text is not UTF-8")]
    NotUtf8,
    /// Unknown groups nested beyond [`MAX_GROUP_DEPTH`](crate::view::MAX_GROUP_DEPTH).
    #[error("groups are nested too deep")]
    GroupTooDeep,
    /// Values nested beyond [`MAX_NESTING_DEPTH`](crate::nested::MAX_NESTING_DEPTH).
    #[error("values are nested too deep")]
    NestingTooDeep,
    /// A list and then a further piece of it, which protobuf would join, or another value, which
    /// would replace it; no encoder is known to write either.
    #[error("an array or key-value list is followed by another value in its place")]
    SplitValue,
}
