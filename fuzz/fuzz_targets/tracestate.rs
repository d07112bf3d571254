//! Any trace state is read without a panic, and what is written is valid, bounded and says what was
//! asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanloom_otlp::sampling::{OtelState, Threshold, sample, update_tracestate};
use spanloom_otlp::tracestate::{MAX_MEMBERS, MAX_VALUE, parse};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let before = OtelState::parse(text);
    let threshold = before.threshold.unwrap_or(Threshold::ALWAYS);
    let updated = update_tracestate(text, threshold);
    let members = parse(&updated).expect("what was written can be read");
    assert!(members.len() <= MAX_MEMBERS);
    assert!(members.iter().all(|member| member.value.len() <= MAX_VALUE));
    let after = OtelState::parse(&updated);
    assert_eq!(after.threshold, Some(threshold));
    assert_eq!(after.randomness, before.randomness);
    assert_eq!(update_tracestate(&updated, threshold), updated);
    if let Some(passed) = sample(text, &[0xff; 16], threshold) {
        assert!(passed >= threshold);
    }
});
