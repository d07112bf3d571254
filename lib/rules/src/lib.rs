//! What is done to spans by rule: drop filters, redaction and limits.
//!
//! A [`RuleSet`] is the rules as they are written and sent. [`RuleSet::compile`] is the only way to
//! [`Rules`], which are ready to be applied: the operator validates a pipeline with it and each
//! collector loads its configuration with it, so what the one accepts the other can load. It
//! reports everything that is wrong, each error with its place in the set.
//!
//! * `class`: the classes of text that redaction knows by name, one table; `card`: numbers of payment cards;
//!   `scan`: quick looks at text.
//! * `pattern`: what a rule names: attribute keys, and text.
//! * `redact`: keys and text, compiled.
//! * `filters`: drop filters, compiled.
//! * `limits`: how large a span may be.
//! * `set`: all of it together; `error`: what can be wrong with it.

mod card;
mod class;
mod error;
mod filters;
mod limits;
mod pattern;
mod redact;
mod scan;
mod set;

pub use class::{CLASSES, Class};
pub use error::{Place, Problem, RuleError, RuleErrors};
pub use filters::{MAX_FILTER_CHARS, MAX_FILTER_REGEXES, MAX_FILTERS};
pub use limits::{Limits, MAX_COUNT, MAX_VALUE_BYTES};
pub use pattern::{KeyPattern, MAX_KEY_CHARS, MAX_KEYS, MAX_VALUE_CHARS, MAX_VALUES, ValuePattern};
pub use redact::{HIDDEN, MAX_REGEX_BYTES, MAX_REGEXES_BYTES, Redactor};
pub use set::{RuleSet, Rules};
