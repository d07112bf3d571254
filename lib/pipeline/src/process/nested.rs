//! Values nested in arrays and key-value lists: read in place, and written anew where something in
//! them must change.

use spanloom_otlp::DecodeError;
use spanloom_otlp::nested::{MAX_NESTING_DEPTH, Nested};
use spanloom_otlp::record::{RawValue, Value};
use spanloom_otlp::write;
use spanloom_rules::{HIDDEN, Redactor};

use super::redact::{self, Decisions, KeyDecision};
use super::text;

/// What a nested value needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing.
    Clean,
    /// Some of its text is not UTF-8.
    InvalidText,
    /// It is nested too deep.
    TooDeep,
}

/// Looks through a value.
pub(super) fn inspect(value: RawValue<'_>) -> Result<Finding, DecodeError> {
    inspect_at(value, 0)
}

fn inspect_at(value: RawValue<'_>, depth: usize) -> Result<Finding, DecodeError> {
    let text = |bytes| match text::utf8(bytes) {
        Some(_) => Finding::Clean,
        None => Finding::InvalidText,
    };
    let mut worst = Finding::Clean;
    let mut note = |found: Finding| {
        if found == Finding::TooDeep || worst == Finding::Clean {
            worst = found;
        }
        worst != Finding::TooDeep
    };
    match value {
        Value::Str(bytes) => return Ok(text(bytes)),
        Value::Array(_) | Value::KvList(_) if depth == MAX_NESTING_DEPTH => {
            return Ok(Finding::TooDeep);
        }
        Value::Array(items) => {
            for item in items.array_items() {
                if !note(inspect_at(item?, depth + 1)?) {
                    break;
                }
            }
        }
        Value::KvList(items) => {
            for item in items.kv_items() {
                let item = item?;
                if !note(text(item.key)) || !note(inspect_at(item.value, depth + 1)?) {
                    break;
                }
            }
        }
        Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) => {}
    }
    Ok(worst)
}

/// Writes a nested value anew: text repaired and redacted, all of it within `limit` bytes.
pub(super) struct Rewriter<'w> {
    pub(super) redactor: Option<(&'w Redactor, &'w mut Decisions)>,
    pub(super) limit: usize,
    /// Whether something did not fit.
    pub(super) cut: bool,
    /// How many texts were repaired.
    pub(super) repaired: u64,
    /// How many values were redacted.
    pub(super) redacted: u64,
    /// The key of what is being written, with dots.
    pub(super) path: String,
    /// Where in it the keys of the maps begin.
    pub(super) starts: Vec<usize>,
}

/// What an item needs beside its content: two keys and two lengths.
const ITEM_OVERHEAD: usize = 12;

impl Rewriter<'_> {
    /// The list's new bytes.
    pub(super) fn list(&mut self, list: Nested<'_>, pairs: bool) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::with_capacity(list.0.len().min(self.limit));
        self.items(&mut out, list, pairs)?;
        Ok(out)
    }

    fn items(
        &mut self,
        out: &mut Vec<u8>,
        list: Nested<'_>,
        pairs: bool,
    ) -> Result<(), DecodeError> {
        if pairs {
            let mut hidden_keys = 0;
            for pair in list.kv_items() {
                let pair = pair?;
                let before = self.path.len();
                let mut key = self.repair(pair.key).into_owned();
                self.path.push('.');
                self.starts.push(self.path.len());
                self.path.push_str(&key);
                let decision = self.key_decision(&key);
                if decision == KeyDecision::HideBoth {
                    key = hidden_name(&mut hidden_keys, list);
                }
                let fits = self.item(out, |this, out| {
                    let key = this.shorten(out, &key);
                    write::bytes(out, 1, key.as_bytes());
                    if decision != KeyDecision::Keep {
                        this.redacted += 1;
                        write::message(out, 2, |any| write::value(any, &Value::Str(HIDDEN)));
                        return Ok(());
                    }
                    this.message(out, 2, |this, out| this.value(out, pair.value))
                });
                self.path.truncate(before);
                self.starts.pop();
                if !fits? {
                    break;
                }
            }
        } else {
            for item in list.array_items() {
                let item = item?;
                if !self.item(out, |this, out| this.value(out, item))? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Writes one item as field 1, unless it does not fit.
    fn item(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        let before = out.len();
        let fits = before < self.limit;
        if fits {
            self.message(out, 1, write)?;
        }
        if !fits || out.len() > self.limit {
            out.truncate(before);
            self.cut = true;
            return Ok(false);
        }
        Ok(true)
    }

    fn message(
        &mut self,
        out: &mut Vec<u8>,
        field: u32,
        write: impl FnOnce(&mut Self, &mut Vec<u8>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut result = Ok(());
        write::message(out, field, |out| result = write(self, out));
        result
    }

    /// What is done with the key at the end of the path. A rule names it alone, or with those of the
    /// maps around it.
    fn key_decision(&mut self, key: &str) -> KeyDecision {
        let Some((redactor, decisions)) = &mut self.redactor else {
            return KeyDecision::Keep;
        };
        let decision = decisions.key(redactor, key);
        if decision != KeyDecision::Keep {
            return decision;
        }
        let mut paths = self
            .starts
            .iter()
            .filter_map(|&start| self.path.get(start..));
        match paths.any(|path| decisions.hides_key(redactor, path)) {
            true => KeyDecision::HideValue,
            false => KeyDecision::Keep,
        }
    }

    fn value(&mut self, out: &mut Vec<u8>, value: RawValue<'_>) -> Result<(), DecodeError> {
        match value {
            Value::Str(bytes) => {
                let text = self.repair(bytes);
                let hidden = match &mut self.redactor {
                    Some((redactor, decisions)) => decisions.hidden(redactor, &text),
                    None => None,
                };
                self.redacted += u64::from(hidden.is_some());
                let text = self.shorten(out, hidden.as_deref().unwrap_or(&text));
                write::value(out, &Value::Str(text));
            }
            Value::Array(list) => {
                self.message(out, 5, |this, out| this.items(out, list, false))?;
            }
            Value::KvList(list) => {
                self.message(out, 6, |this, out| this.items(out, list, true))?;
            }
            number @ (Value::Int(_) | Value::Double(_)) => {
                let hidden = match &mut self.redactor {
                    Some((redactor, decisions)) => decisions.hidden_number(redactor, &number),
                    None => None,
                };
                match hidden {
                    Some(hidden) => {
                        self.redacted += 1;
                        write::value(out, &Value::Str(hidden.as_ref()));
                    }
                    None => write::value(out, &number),
                }
            }
            Value::Bytes(bytes) => {
                let hidden = match &mut self.redactor {
                    Some((redactor, decisions)) => decisions.hidden_bytes(redactor, bytes),
                    None => None,
                };
                self.redacted += u64::from(hidden.is_some());
                let bytes = hidden.as_deref().unwrap_or(bytes);
                let room = self.room(out);
                self.cut |= bytes.len() > room;
                let kept = bytes.get(..room).unwrap_or(bytes);
                write::value::<&str>(out, &Value::Bytes(kept));
            }
            other => write::value(out, &other),
        }
        Ok(())
    }

    fn repair<'a>(&mut self, bytes: &'a [u8]) -> std::borrow::Cow<'a, str> {
        let text = String::from_utf8_lossy(bytes);
        self.repaired += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
        text
    }

    fn shorten<'t>(&mut self, out: &[u8], text: &'t str) -> &'t str {
        let short = text::cut(text, self.room(out));
        self.cut |= short.len() < text.len();
        short
    }

    fn room(&self, out: &[u8]) -> usize {
        self.limit.saturating_sub(out.len() + ITEM_OVERHEAD)
    }
}

/// The name of the next hidden key of a map, which no other key has.
#[cold]
fn hidden_name(so_far: &mut usize, list: Nested<'_>) -> String {
    loop {
        *so_far += 1;
        let name = redact::hidden_key(*so_far);
        let mut keys = list.kv_items().map_while(Result::ok);
        if keys.all(|pair| pair.key != name.as_bytes()) {
            return name;
        }
    }
}
