//! The JSON text in which values lie in the store.
//!
//! | value | text |
//! |---|---|
//! | string | `"…"` |
//! | bool | `true`, `false` |
//! | int | `123`, exact to 64 bits, never with `.` or an exponent |
//! | double | always with `.` or an exponent: `1.0`, `1e300` |
//! | NaN, ±∞ | `{"doubleValue":"NaN"}`, `"Infinity"`, `"-Infinity"` |
//! | bytes | `{"bytesValue":"<base64>"}` |
//! | empty | `null` |
//! | array | `[…]` |
//! | key-value list | `{"kvlistValue":{…}}` |
//!
//! So an object with any other key never appears as a value, and each text has one reading. A set of
//! attributes is one object; keys given twice are written twice and read twice.

mod read;
mod write;

pub use read::{OwnedValue, parse_attributes, parse_value};
pub(crate) use write::print;
pub use write::{escape, write_attributes, write_value};
