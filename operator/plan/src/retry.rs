//! How soon what failed is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::owned::Key;

/// What kind of help an error needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Someone else wrote at the same time: soon again.
    Conflict,
    /// The API is away or busy: again, later and later.
    Api,
    /// A right is missing: the release has to give it.
    Forbidden,
    /// The spec or an object of the user's stands in the way.
    User,
    /// What should not happen.
    Bug,
}

impl ErrorClass {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Api => "api",
            Self::Forbidden => "forbidden",
            Self::User => "user",
            Self::Bug => "bug",
        }
    }

    /// The first pause and the longest one, in seconds.
    fn pauses(self) -> (u64, u64) {
        match self {
            Self::Conflict => (1, 16),
            Self::Api => (1, 64),
            Self::Forbidden => (15, 240),
            Self::User => (15, 480),
            Self::Bug => (60, 960),
        }
    }
}

/// How long to wait after so many failures in a row: twice as long each time, up to a bound.
pub fn pause(class: ErrorClass, failures: u32) -> Duration {
    let (first, longest) = class.pauses();
    doubled(first, longest, failures)
}

/// `first` seconds, doubled with each of `failures` after the first, at most `longest`.
pub fn doubled(first: u64, longest: u64, failures: u32) -> Duration {
    let factor = 2u64.saturating_pow(failures.saturating_sub(1));
    Duration::from_secs(first.saturating_mul(factor).min(longest))
}

/// Objects whose last apply failed: each is tried again after a pause of its own, or at once when
/// something else is wanted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Key, Refusal>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Refusal {
    wanted: String,
    failures: u32,
    until: Instant,
    why: String,
}

impl Refusals {
    /// An apply of the object that `wanted` names failed.
    pub fn failed(&mut self, key: Key, wanted: &str, class: ErrorClass, why: &str, now: Instant) {
        let before = self.0.get(&key).filter(|before| before.wanted == wanted);
        let failures = before.map_or(0, |before| before.failures).saturating_add(1);
        let refusal = Refusal {
            wanted: wanted.to_owned(),
            failures,
            until: now + pause(class, failures),
            why: why.to_owned(),
        };
        self.0.insert(key, refusal);
    }

    /// An apply of the object went well.
    pub fn succeeded(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// Why the object that `wanted` names is not applied now.
    pub fn holds(&self, key: &Key, wanted: &str, now: Instant) -> Option<&str> {
        let refusal = self.0.get(key)?;
        (refusal.wanted == wanted && now < refusal.until).then_some(refusal.why.as_str())
    }

    /// Forgets objects that are no longer wanted.
    pub fn keep(&mut self, is_wanted: impl Fn(&Key) -> bool) {
        self.0.retain(|key, _| is_wanted(key));
    }

    /// When the next of them is tried again.
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let until = self.0.values().map(|refusal| refusal.until).min()?;
        Some(until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let check = |class, failures, seconds| {
            assert_eq!(pause(class, failures), Duration::from_secs(seconds));
        };
        check(ErrorClass::Conflict, 1, 1);
        check(ErrorClass::Conflict, 9, 16);
        check(ErrorClass::Api, 0, 1);
        check(ErrorClass::Api, 4, 8);
        check(ErrorClass::Api, 99, 64);
        check(ErrorClass::Forbidden, 1, 15);
        check(ErrorClass::Forbidden, 3, 60);
        check(ErrorClass::User, 6, 480);
        check(ErrorClass::User, 60, 480);
        check(ErrorClass::Bug, 1, 60);
        check(ErrorClass::Bug, 5, 960);
    }

    #[test]
    fn an_object_that_was_refused_waits_alone_and_not_for_another_form() {
        let key = |name: &str| ("Job".to_owned(), name.to_owned());
        let start = Instant::now();
        let at = |second: u64| start + Duration::from_secs(second);
        let mut refusals = Refusals::default();
        assert_eq!(refusals.next(at(0)), None);
        refusals.failed(key("a"), "1", ErrorClass::User, "quota", at(0));
        assert_eq!(refusals.holds(&key("a"), "1", at(14)), Some("quota"));
        assert_eq!(refusals.holds(&key("a"), "1", at(15)), None);
        assert_eq!(refusals.holds(&key("a"), "2", at(1)), None);
        assert_eq!(refusals.holds(&key("b"), "1", at(1)), None);
        assert_eq!(refusals.next(at(5)), Some(Duration::from_secs(10)));
        refusals.failed(key("a"), "1", ErrorClass::User, "quota", at(20));
        assert_eq!(refusals.next(at(20)), Some(Duration::from_secs(30)));
        refusals.failed(key("a"), "2", ErrorClass::User, "quota", at(21));
        assert_eq!(refusals.next(at(21)), Some(Duration::from_secs(15)));
        assert_eq!(refusals.next(at(99)), Some(Duration::ZERO));
        refusals.failed(key("b"), "1", ErrorClass::Api, "away", at(21));
        refusals.keep(|key| key.1 == "b");
        assert_eq!(refusals.next(at(21)), Some(Duration::from_secs(1)));
        refusals.succeeded(&key("b"));
        assert_eq!(refusals, Refusals::default());
    }
}
