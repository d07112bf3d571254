//! Any bytes are refused as records or read; what was read is written and read again the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanloom_otlp::records::{RecordWriter, read, read_request};

fuzz_target!(|bytes: &[u8]| {
    let mut first = RecordWriter::new();
    let strict = read(bytes, &mut first);
    let spans = first.spans();
    let records = first.finish();
    if let Ok(read) = strict {
        assert_eq!(read, spans);
    }
    let mut second = RecordWriter::new();
    assert_eq!(read(&records, &mut second), Ok(spans));
    assert_eq!(second.finish(), records);

    // With spans left out where they are invalid: at least as many.
    let mut lenient = RecordWriter::new();
    let _ = read_request(bytes, &mut lenient, |_, _| ());
    assert!(strict.is_err() || lenient.spans() == spans);
});
