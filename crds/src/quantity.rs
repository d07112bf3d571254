//! Sizes and durations as Kubernetes and people write them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A size as Kubernetes writes it: `8Ki`, `16k`, `1.5Gi` or a plain number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Quantity {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit.
    Text(String),
}

/// An amount of a resource as Kubernetes writes it: `100m`, `0.5`, `256Mi` or a whole number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Amount {
    /// A whole number.
    Number(u64),
    /// A number with a unit.
    Text(String),
}

impl Amount {
    /// The amount as Kubernetes takes it, in an object of ours.
    pub fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// The amount in thousandths; `None` when the text is none.
    pub fn milli(&self) -> Option<u128> {
        let text = match self {
            Self::Number(number) => return Some(u128::from(*number) * 1_000),
            Self::Text(text) => text,
        };
        if let Some(digits) = text.strip_suffix('m') {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            return plain.then(|| digits.parse().ok()).flatten();
        }
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at_checked(digits)?;
        let scale = u128::from(UNITS.iter().find(|(name, _)| *name == unit)?.1);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = u128::from(whole.parse::<u64>().ok()?);
        if number.ends_with('.') || fraction.len() > 9 {
            return None;
        }
        let places = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part = match fraction {
            "" => 0,
            fraction => fraction.parse::<u128>().ok()?,
        };
        (whole * places + part)
            .checked_mul(scale * 1_000)
            .map(|scaled| scaled / places)
    }
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
    /// The size in bytes; `None` when the text is not a valid size, or not a whole number of bytes.
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
    fn amounts() {
        let milli = |text: &str| Amount::Text(text.to_owned()).milli();
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("0.5"), Some(500));
        assert_eq!(milli("2"), Some(2_000));
        assert_eq!(milli("1Ki"), Some(1_024_000));
        assert_eq!(milli("1.5Gi"), Some(1_610_612_736_000));
        assert_eq!(Amount::Number(3).milli(), Some(3_000));
        for wrong in [
            "",
            "m",
            "1.5m",
            "1.",
            "-1",
            "1 Gi",
            "Gi",
            "1gi",
            "0.1234567890",
        ] {
            assert_eq!(milli(wrong), None, "{wrong}");
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
