//! Any bytes are refused as measures or read; what was read is written and read again the same, and takes
//! no more memory than it may where it is merged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanloom_pipeline::measure::{LeftOut, Measures, MergeLimits, Recorder};

const MAX_BYTES: usize = 4 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Ok(measures) = Measures::decode(bytes) else {
        return;
    };
    let mut encoded = Vec::new();
    measures.encode(&mut encoded);
    assert_eq!(Measures::decode(&encoded).as_ref(), Ok(&measures));

    let mut limits = MergeLimits {
        max_bytes: MAX_BYTES,
        oldest_ns: 1 << 40,
        newest_ns: 1 << 62,
    };
    let mut recorder = Recorder::default();
    for _ in 0..3 {
        recorder.merge(&measures, &limits);
        assert!(recorder.bytes() <= MAX_BYTES);
    }
    limits = MergeLimits {
        max_bytes: usize::MAX,
        oldest_ns: 0,
        newest_ns: u64::MAX,
    };
    let mut recorder = Recorder::default();
    assert_eq!(recorder.merge(&measures, &limits), LeftOut::default());
    let merged = recorder.take();
    assert_eq!(merged.half_edges.len(), measures.half_edges.len());
    let spans = |measures: &Measures| {
        let counts = measures.red.iter().map(|cell| cell.count);
        counts.fold(0, u64::saturating_add)
    };
    assert!(spans(&merged) <= spans(&measures));
});
