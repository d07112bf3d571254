//! Sizes and durations as Kubernetes and people write them.

use serde::{Deserialize, Serialize};

/// A size as Kubernetes writes it: `8Ki`, `16k`, `1.5Gi` or a plain number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit.
    Text(String),
}

const UNITS: &[(&str, u64)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

impl Quantity {
    /// The size in bytes; `None` when the text is no size, or not a whole number of bytes.
    pub fn bytes(&self) -> Option<u64> {
        let text = match self {
            Self::Bytes(bytes) => return Some(*bytes),
            Self::Text(text) => text,
        };
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
        if fraction.is_empty() {
            return (!number.ends_with('.')).then_some(whole);
        }
        let places = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = fraction
            .parse::<u128>()
            .ok()?
            .checked_mul(u128::from(scale))?;
        if part % places != 0 {
            return None;
        }
        whole.checked_add(u64::try_from(part / places).ok()?)
    }
}

/// The seconds of `7d`, `36h`, `1d12h30m`; `None` for anything else.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() || total == 0 {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let scale = match after.chars().next()? {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let part = number.parse::<u64>().ok()?.checked_mul(scale)?;
        total = total.checked_add(part)?;
        rest = after.get(1..)?;
        if total == 0 && rest.is_empty() {
            return Some(0);
        }
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let bytes = |text: &str| Quantity::Text(text.to_owned()).bytes();
        assert_eq!(bytes("8Ki"), Some(8192));
        assert_eq!(bytes("16k"), Some(16_000));
        assert_eq!(bytes("50Gi"), Some(50 << 30));
        assert_eq!(bytes("1.5Ki"), Some(1536));
        assert_eq!(bytes("0.5k"), Some(500));
        assert_eq!(bytes("8192"), Some(8192));
        assert_eq!(bytes("2M"), Some(2_000_000));
        assert_eq!(Quantity::Bytes(7).bytes(), Some(7));
        for wrong in [
            "",
            "Ki",
            "8ki",
            "8 Ki",
            "-1",
            "1.",
            ".5k",
            "1.2.3k",
            "0.1",
            "8KiB",
            "99999999999Pi",
            "1.00000000000000000000000000000000000000000000001Ki",
            "m",
            "1e3",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(seconds("7d"), Some(604_800));
        assert_eq!(seconds("36h"), Some(129_600));
        assert_eq!(seconds("30m"), Some(1_800));
        assert_eq!(seconds("1d12h"), Some(129_600));
        assert_eq!(seconds("2w"), Some(1_209_600));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("0h"), Some(0));
        assert_eq!(seconds("0d1h"), Some(3_600));
        for wrong in [
            "",
            "7",
            "d",
            "7 d",
            "1.5h",
            "7days",
            "-1h",
            "99999999999999999999d",
            "1h30",
            "1ż",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
