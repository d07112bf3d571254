//! Values that answers are made of.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};

use crate::eval::Hex;
use crate::span::{Kind, Scalar, Status};

/// A value of its own. Two are equal when they are of one form and say the same; floats by their bits.
#[derive(Debug, Clone)]
pub enum OwnedValue {
    /// None.
    Nil,
    /// Text.
    Str(String),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// Nanoseconds.
    Duration(i64),
    /// A span's status.
    Status(Status),
    /// A span's kind.
    Kind(Kind),
    /// Several values.
    Array(Vec<OwnedValue>),
}

impl OwnedValue {
    /// The value as it is answered: only text, integers, floats, booleans and arrays of them. Nil is `nil`, a
    /// duration as Go writes it, a status and a kind as TraceQL does.
    #[must_use]
    pub fn plain(self) -> Self {
        match self {
            Self::Nil | Self::Duration(_) | Self::Status(_) | Self::Kind(_) => {
                Self::Str(self.to_string())
            }
            Self::Array(list) => Self::Array(list.into_iter().map(Self::plain).collect()),
            plain => plain,
        }
    }

    pub(crate) fn of(scalar: Scalar<'_>) -> Self {
        match scalar {
            Scalar::Str(text) => Self::Str(text.to_owned()),
            Scalar::Int(n) => Self::Int(n),
            Scalar::Float(x) => Self::Float(x),
            Scalar::Bool(b) => Self::Bool(b),
            Scalar::Id(id) => Self::Str(Hex::new(id).text().to_owned()),
            Scalar::Status(status) => Self::Status(status),
            Scalar::Kind(kind) => Self::Kind(kind),
            Scalar::Other => Self::Nil,
        }
    }

    /// An integer of a field of durations is one.
    pub(crate) fn of_field(scalar: Scalar<'_>, is_duration: bool) -> Self {
        match scalar {
            Scalar::Int(n) if is_duration => Self::Duration(n),
            scalar => Self::of(scalar),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Nil => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Duration(_) => 4,
            Self::Status(_) => 5,
            Self::Kind(_) => 6,
            Self::Str(_) => 7,
            Self::Array(_) => 8,
        }
    }
}

impl Ord for OwnedValue {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Str(l), Self::Str(r)) => l.cmp(r),
            (Self::Int(l), Self::Int(r)) | (Self::Duration(l), Self::Duration(r)) => l.cmp(r),
            (Self::Float(l), Self::Float(r)) => l.total_cmp(r),
            (Self::Bool(l), Self::Bool(r)) => l.cmp(r),
            (Self::Status(l), Self::Status(r)) => l.text().cmp(r.text()),
            (Self::Kind(l), Self::Kind(r)) => l.text().cmp(r.text()),
            (Self::Array(l), Self::Array(r)) => l.cmp(r),
            (l, r) => l.rank().cmp(&r.rank()),
        }
    }
}

impl PartialOrd for OwnedValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OwnedValue {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OwnedValue {}

impl Hash for OwnedValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rank().hash(state);
        match self {
            Self::Nil => {}
            Self::Str(text) => text.hash(state),
            Self::Int(n) | Self::Duration(n) => n.hash(state),
            Self::Float(x) => x.to_bits().hash(state),
            Self::Bool(b) => b.hash(state),
            Self::Status(status) => status.hash(state),
            Self::Kind(kind) => kind.hash(state),
            Self::Array(list) => list.hash(state),
        }
    }
}

impl Display for OwnedValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Str(text) => f.write_str(text),
            Self::Int(n) => n.fmt(f),
            Self::Float(x) => x.fmt(f),
            Self::Bool(b) => b.fmt(f),
            Self::Duration(ns) => go_duration(f, *ns),
            Self::Status(status) => f.write_str(status.text()),
            Self::Kind(kind) => f.write_str(kind.text()),
            Self::Array(list) => {
                f.write_str("[")?;
                for (n, value) in list.iter().enumerate() {
                    if n > 0 {
                        f.write_str(", ")?;
                    }
                    value.fmt(f)?;
                }
                f.write_str("]")
            }
        }
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `242.5ms`, `0s`.
fn go_duration(f: &mut Formatter<'_>, ns: i64) -> fmt::Result {
    if ns < 0 {
        f.write_str("-")?;
    }
    let ns = ns.unsigned_abs();
    let (scale, unit) = match ns {
        0 => return f.write_str("0s"),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "µs"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (mut whole, part) = (ns / scale, ns % scale);
    if unit == "s" {
        if whole >= 3_600 {
            write!(f, "{}h", whole / 3_600)?;
        }
        if whole >= 60 {
            write!(f, "{}m", whole / 60 % 60)?;
        }
        whole %= 60;
    }
    if part == 0 {
        return write!(f, "{whole}{unit}");
    }
    let digits = match scale {
        1_000 => 3,
        1_000_000 => 6,
        _ => 9,
    };
    let part = format!("{part:0digits$}");
    write!(f, "{whole}.{}{unit}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::OwnedValue;

    #[test]
    fn durations_are_written_as_in_go() {
        for (ns, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (242_500_000, "242.5ms"),
            (136_666_666, "136.666666ms"),
            (2_036_666_666, "2.036666666s"),
            (60_000_000_000, "1m0s"),
            (3_723_500_000_000, "1h2m3.5s"),
            (-1_000_000, "-1ms"),
        ] {
            assert_eq!(OwnedValue::Duration(ns).to_string(), text);
        }
    }
}
