//! Consistent probability sampling: the `ot` member of `tracestate` with its threshold (`th`) and
//! explicit randomness (`rv`).
//!
//! A trace has a random number R of 56 bits; a sampler of probability p has the threshold
//! T = 2^56 (1 - p) and keeps the trace where R >= T. Each sampler of a trace sees the same R, so a
//! smaller probability keeps a subset of what a larger one keeps, and the largest threshold that a
//! span passed says how many spans it stands for.

use std::fmt;

use crate::ids::hex_digit;
use crate::tracestate::{self, MAX_MEMBERS, MAX_VALUE, Member};

/// R and T are below this.
const RANGE: u64 = 1 << 56;
/// Hexadecimal digits of 56 bits.
const DIGITS: u32 = 14;
/// The Collector's precision; equal settings must give equal thresholds everywhere.
const DEFAULT_PRECISION: u32 = 4;

/// What a sampler rejects: traces whose randomness is below this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u64);

impl Threshold {
    /// Rejects nothing.
    pub const ALWAYS: Self = Self(0);

    /// The threshold that keeps this part of all traces, as the OpenTelemetry Collector rounds it.
    /// `None` unless `2^-56 <= ratio <= 1`: no threshold keeps nothing.
    pub fn from_ratio(ratio: f64) -> Option<Self> {
        Self::from_ratio_with_precision(ratio, DEFAULT_PRECISION)
    }

    /// Like [`Self::from_ratio`], rounded to `precision` (1 to 14) hexadecimal digits after those that
    /// only say how close to 0 or 1 the ratio is.
    pub fn from_ratio_with_precision(ratio: f64, precision: u32) -> Option<Self> {
        // Also false for NaN.
        if !(ratio >= 1.0 / RANGE as f64 && ratio <= 1.0) {
            return None;
        }
        if ratio == 1.0 {
            return Some(Self::ALWAYS);
        }
        let leading = leading_digits(ratio).max(leading_digits(1.0 - ratio));
        let digits = (precision.max(1) + leading).min(DIGITS);
        let kept = (ratio * RANGE as f64).round() as u64;
        let threshold = RANGE.saturating_sub(kept);
        let shift = 4 * (DIGITS - digits);
        let half = if shift == 0 { 0 } else { 1 << (shift - 1) };
        let rounded = (threshold + half) >> shift << shift;
        // Rounding up to "keep nothing" would lose the trace: keep the smallest part instead.
        Some(Self(rounded.min(RANGE - 1)))
    }

    /// Reads the value of `th`: 1 to 14 lower-case digits, the first the highest.
    pub fn parse(text: &str) -> Option<Self> {
        if !(1..=DIGITS as usize).contains(&text.len()) {
            return None;
        }
        let missing = 4 * (DIGITS as usize - text.len());
        Some(Self(lower_hex(text)? << missing))
    }

    /// How many traces each kept one stands for.
    pub fn adjusted_count(self) -> f64 {
        RANGE as f64 / (RANGE - self.0) as f64
    }

    /// The threshold as a number below 2^56.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The value of `th`: trailing zeros cut, `0` for [`Threshold::ALWAYS`].
impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        let zeros = self.0.trailing_zeros() / 4;
        let width = (DIGITS - zeros) as usize;
        write!(f, "{:0width$x}", self.0 >> (4 * zeros))
    }
}

/// Hexadecimal digits before the first that tells `ratio` from zero: what `frexp` says, by 4.
fn leading_digits(ratio: f64) -> u32 {
    // ratio = m * 2^e with m in [0.5, 1): e is one more than the exponent of the leading bit.
    let exponent = (ratio.to_bits() >> 52 & 0x7ff) as i64 - 1022;
    u32::try_from(-exponent / 4).unwrap_or(0)
}

fn lower_hex(text: &str) -> Option<u64> {
    text.bytes().try_fold(0, |n: u64, byte| {
        if byte.is_ascii_uppercase() {
            None
        } else {
            Some(n << 4 | u64::from(hex_digit(byte)?))
        }
    })
}

/// A trace's random number, 56 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Randomness(u64);

impl Randomness {
    /// The low 56 bits of the trace id, which the W3C random flag promises to be random.
    pub fn from_trace_id(trace_id: &[u8; 16]) -> Self {
        Self((u128::from_be_bytes(*trace_id) as u64) & (RANGE - 1))
    }

    /// Reads the value of `rv`: exactly 14 lower-case digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == DIGITS as usize {
            lower_hex(text).map(Self)
        } else {
            None
        }
    }

    /// The number, below 2^56.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The value of `rv`.
impl fmt::Display for Randomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014x}", self.0)
    }
}

/// Whether a sampler of this threshold keeps a trace of this randomness.
pub fn should_sample(randomness: Randomness, threshold: Threshold) -> bool {
    randomness.0 >= threshold.0
}

/// What the `ot` member says. A subkey that is missing or malformed is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OtelState {
    /// What the span has passed so far; `None`: unknown.
    pub threshold: Option<Threshold>,
    /// Randomness that replaces the trace id's.
    pub randomness: Option<Randomness>,
}

impl OtelState {
    /// Reads a `tracestate`. One that is malformed, or has no `ot`, says nothing.
    pub fn parse(tracestate: &str) -> Self {
        // Most spans have none: no list is made for them.
        if tracestate.is_empty() {
            return Self::default();
        }
        let Ok(members) = tracestate::parse(tracestate) else {
            return Self::default();
        };
        Self::of(&members)
    }

    fn of(members: &[Member<'_>]) -> Self {
        let mut state = Self::default();
        for (key, value) in subkeys(members) {
            match key {
                "th" => state.threshold = Threshold::parse(value),
                "rv" => state.randomness = Randomness::parse(value),
                _ => {}
            }
        }
        state
    }
}

/// The subkeys of the first `ot` member; none if it is malformed.
fn subkeys<'a>(members: &[Member<'a>]) -> Vec<(&'a str, &'a str)> {
    let Some(member) = members.iter().find(|member| member.key == "ot") else {
        return Vec::new();
    };
    let valid = |&(key, value): &(&str, &str)| {
        key.starts_with(|c: char| c.is_ascii_lowercase())
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let pairs = member
        .value
        .split(';')
        .map(|pair| pair.split_once(':').filter(valid));
    pairs.collect::<Option<Vec<_>>>().unwrap_or_default()
}

/// Decides on a span by equalizing: a sampler never lowers the threshold that the span has passed.
/// Returns the threshold to write with [`update_tracestate`], or `None` to drop the span.
///
/// A threshold above the trace's randomness cannot have been passed: it is ignored.
pub fn sample(tracestate: &str, trace_id: &[u8; 16], own: Threshold) -> Option<Threshold> {
    let state = OtelState::parse(tracestate);
    let randomness = state
        .randomness
        .unwrap_or_else(|| Randomness::from_trace_id(trace_id));
    if !should_sample(randomness, own) {
        return None;
    }
    let passed = state
        .threshold
        .filter(|&passed| should_sample(randomness, passed));
    Some(passed.map_or(own, |passed| passed.max(own)))
}

/// The `tracestate` with this threshold: `ot` goes first, as the W3C asks of whoever changes a
/// member, with its other subkeys kept; so are the other members, of which the last goes where there
/// would be more than 32. The randomness stays with the threshold, since one means nothing without
/// the other; further subkeys go where `ot` would be longer than 256 characters. A malformed list is
/// dropped.
pub fn update_tracestate(tracestate: &str, threshold: Threshold) -> String {
    let members = tracestate::parse(tracestate).unwrap_or_default();
    let mut value = format!("th:{threshold}");
    if let Some(randomness) = OtelState::of(&members).randomness {
        value.push_str(&format!(";rv:{randomness}"));
    }
    for (key, sub) in subkeys(&members) {
        if key != "th" && key != "rv" && value.len() + key.len() + sub.len() + 2 <= MAX_VALUE {
            value.push_str(&format!(";{key}:{sub}"));
        }
    }
    let mut out = format!("ot={value}");
    let others = members.iter().filter(|member| member.key != "ot");
    for member in others.take(MAX_MEMBERS - 1) {
        out.push_str(&format!(",{}={}", member.key, member.value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn thresholds_of_ratios() {
        let check = |ratio, precision, text: &str| {
            let threshold = Threshold::from_ratio_with_precision(ratio, precision);
            assert_eq!(
                threshold.unwrap().to_string(),
                text,
                "{ratio} at {precision}"
            );
        };
        check(1.0, 4, "0");
        check(0.5, 4, "8");
        check(0.25, 4, "c");
        check(0.75, 4, "4");
        check(0.125, 4, "e");
        check(0.1, 4, "e666");
        check(0.1, 5, "e6666");
        check(1.0 / 3.0, 3, "aab");
        check(1.0 / 3.0, 4, "aaab");
        check(2.0 / 3.0, 14, "55555555555558"); // a double has 53 bits
        check(0.01, 3, "fd71");
        check(0.01, 4, "fd70a");
        check(0.01, 5, "fd70a4");
        check(0.001, 4, "ffbe77");
        check(1.0 / RANGE as f64, 4, "ffffffffffffff");
        assert_eq!(Threshold::from_ratio(0.01).unwrap().to_string(), "fd70a");
        for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY, 1e-18] {
            assert_eq!(Threshold::from_ratio(ratio), None, "{ratio}");
        }
    }

    #[test]
    fn threshold_text() {
        let check =
            |text, value| assert_eq!(Threshold::parse(text).map(|t| t.0), value, "{text:?}");
        check("0", Some(0));
        check("8", Some(1 << 55));
        check("80", Some(1 << 55));
        check("08", Some(1 << 51));
        check("fd70a", Some(0xfd70a << 36));
        check("ffffffffffffff", Some(RANGE - 1));
        for bad in ["", "000000000000000", "FD", "g", "-1", "0x1", "é"] {
            check(bad, None);
        }
        assert_eq!(Threshold(1 << 51).to_string(), "08");
        assert_eq!(Threshold(1).to_string(), "00000000000001");
    }

    #[test]
    fn randomness() {
        let mut id = [0xff; 16];
        id[9..].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(Randomness::from_trace_id(&id).to_string(), "01020304050607");
        assert_eq!(
            Randomness::parse("01020304050607"),
            Some(Randomness::from_trace_id(&id))
        );
        for bad in [
            "",
            "0102030405060",
            "010203040506070",
            "0102030405060A",
            "0102030405060g",
        ] {
            assert_eq!(Randomness::parse(bad), None, "{bad:?}");
        }
        let half = Threshold::from_ratio(0.5).unwrap();
        assert!(should_sample(Randomness(1 << 55), half));
        assert!(!should_sample(Randomness((1 << 55) - 1), half));
        assert!(should_sample(Randomness(0), Threshold::ALWAYS));
    }

    #[test]
    fn adjusted_counts() {
        let count = |th| Threshold::parse(th).unwrap().adjusted_count();
        assert_eq!(count("0"), 1.0);
        assert_eq!(count("8"), 2.0);
        assert_eq!(count("c"), 4.0);
        assert!((count("fd70a4") - 100.0).abs() < 0.001);
    }

    #[test]
    fn states() {
        let check = |text, th: Option<&str>, rv: Option<&str>| {
            let state = OtelState::parse(text);
            assert_eq!(
                state.threshold.map(|t| t.to_string()).as_deref(),
                th,
                "{text:?}"
            );
            assert_eq!(
                state.randomness.map(|r| r.to_string()).as_deref(),
                rv,
                "{text:?}"
            );
        };
        check("", None, None);
        check("ot=th:c", Some("c"), None);
        check(
            "a=1, ot=rv:0123456789abcd;th:0 ,b=2",
            Some("0"),
            Some("0123456789abcd"),
        );
        check("ot=xx:1.-_Z;th:8", Some("8"), None);
        check("ot=th:C;rv:0123456789abcd", None, Some("0123456789abcd"));
        check("ot=th:8;rv:12", Some("8"), None);
        check("ot=th:8;", None, None);
        check("ot=th8", None, None);
        check("ot=th:8;A:1", None, None);
        check("ot=th:8;a:?", None, None);
        check("vendor=th:8", None, None);
        check("ot=th:8,BAD", None, None);
    }

    #[test]
    fn updates() {
        let check = |text: &str, expect: &str| {
            let threshold = Threshold::from_ratio(0.01).unwrap();
            assert_eq!(update_tracestate(text, threshold), expect, "{text:?}");
        };
        check("", "ot=th:fd70a");
        check("a=1", "ot=th:fd70a,a=1");
        check("a=1,ot=th:8,b=2", "ot=th:fd70a,a=1,b=2");
        check(
            "ot=rv:0123456789abcd;th:8;xy:z",
            "ot=th:fd70a;rv:0123456789abcd;xy:z",
        );
        check("ot=broken,b=2", "ot=th:fd70a,b=2");
        check("not a list", "ot=th:fd70a");
        check("ot=th:0,ot=th:8", "ot=th:fd70a");
    }

    #[test]
    fn update_limits() {
        let list = |n| {
            (0..n)
                .map(|i| format!("k{i}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        let updated = update_tracestate(&list(32), Threshold::ALWAYS);
        assert_eq!(updated, format!("ot=th:0,{}", list(31)));
        let long = format!("ot=a:{};b:1", "x".repeat(250));
        assert_eq!(update_tracestate(&long, Threshold::ALWAYS), "ot=th:0;b:1");
        let fits = format!("a:{}", "x".repeat(249));
        let updated = update_tracestate(&format!("ot={fits}"), Threshold::ALWAYS);
        assert_eq!(updated, format!("ot=th:0;{fits}"));
    }

    #[test]
    fn decisions() {
        let check = |state: &str, own: &str, expect: Option<&str>| {
            let own = Threshold::parse(own).unwrap();
            let mut id = [0; 16];
            id[9] = 0xa0; // R = a0…
            let kept = sample(state, &id, own).map(|t| t.to_string());
            assert_eq!(kept.as_deref(), expect, "{state:?} {own}");
        };
        check("", "8", Some("8"));
        check("", "a", Some("a"));
        check("", "a1", None);
        check("ot=th:4", "8", Some("8"));
        check("ot=th:9", "8", Some("9"));
        check("ot=th:b", "8", Some("8"));
        check("ot=rv:f0000000000000", "e", Some("e"));
        check("ot=rv:00000000000000", "1", None);
    }

    proptest! {
        #[test]
        fn threshold_text_survives(value in 0..RANGE) {
            let threshold = Threshold(value);
            prop_assert_eq!(Threshold::parse(&threshold.to_string()), Some(threshold));
        }

        #[test]
        fn ratios_are_close(ratio in 1e-12..1f64) {
            let kept = 1.0 / Threshold::from_ratio(ratio).unwrap().adjusted_count();
            prop_assert!((kept / ratio - 1.0).abs() < 1e-3, "{} {}", kept, ratio);
        }

        #[test]
        fn updates_parse(text in "[a-z@=;:,0-9 \t]{0,80}", value in 0..RANGE) {
            let updated = update_tracestate(&text, Threshold(value));
            prop_assert!(tracestate::parse(&updated).is_ok(), "{}", updated);
            prop_assert_eq!(OtelState::parse(&updated).threshold, Some(Threshold(value)));
            prop_assert_eq!(update_tracestate(&updated, Threshold(value)), updated);
        }
    }
}
