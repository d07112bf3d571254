//! Errors told whole, and how soon what failed is tried again. Pure.

use std::time::Duration;

use crate::cluster::ErrorClass;

/// An error with what caused it.
pub fn chain(error: &impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// How soon a failed pass is tried again.
pub fn retry_after(class: ErrorClass, failures: u32) -> Duration {
    let seconds = match class {
        ErrorClass::Conflict => 1,
        ErrorClass::Api => 2u64.saturating_pow(failures.min(6)),
        ErrorClass::Forbidden => 60,
        ErrorClass::User => 30,
        ErrorClass::Bug => 300,
    };
    // Not all at once after an outage.
    let jitter = rand::random::<u64>() % (seconds * 250).max(1);
    Duration::from_secs(seconds) + Duration::from_millis(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_api_are_tried_again_later_and_later() {
        let bound = |class, failures, from, to| {
            let after = retry_after(class, failures);
            let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
            assert!(after >= from && after <= to, "{after:?}");
        };
        bound(ErrorClass::Conflict, 9, 1, 2);
        bound(ErrorClass::Api, 0, 1, 2);
        bound(ErrorClass::Api, 3, 8, 10);
        bound(ErrorClass::Api, 99, 64, 80);
    }
}
