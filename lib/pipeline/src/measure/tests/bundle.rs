//! Measures that travel: as bytes, and into those of another batch.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spanloom_otlp::write;

use super::*;
use crate::measure::bundle::VERSION;

const NO_LIMITS: MergeLimits = MergeLimits {
    max_bytes: usize::MAX,
    oldest_ns: 0,
    newest_ns: u64::MAX,
};

/// A span by a few numbers, its service aside.
type Made = (u8, u8, u64, u64);

fn made((kind, text, start_ns, duration_ns): Made, peer: &[Attr<'_>]) -> Measures {
    let mut recorder = Recorder::default();
    record(&mut recorder, (kind, text, start_ns, duration_ns), peer);
    recorder.take()
}

fn record(recorder: &mut Recorder, made: Made, peer: &[Attr<'_>]) {
    let (kind, text, start_ns, duration_ns) = made;
    let service = recorder.text(["shop", "cart", ""][usize::from(text % 3)]);
    recorder.span(
        service,
        &SpanRecord {
            name: ["GET /", "", "ü"][usize::from(text / 3 % 3)],
            start_ns,
            duration_ns,
            status: StatusCode::from_i32(i32::from(text % 4)),
            ..span(SpanKind::from_i32(i32::from(kind % 6)), peer)
        },
    );
}

fn account(n: u32) -> AccountRow {
    AccountRow {
        minute: n * 60,
        node: "node".into(),
        agent: "agent".into(),
        stage: "process".into(),
        reason: "ü".into(),
        spans: u64::from(n),
        bytes: u64::MAX,
    }
}

fn spans() -> impl Strategy<Value = Vec<Made>> {
    let start = prop_oneof![0u64..400_000_000_000, any::<u64>()];
    let duration = prop_oneof![0u64..10_000_000, any::<u64>()];
    prop::collection::vec((any::<u8>(), any::<u8>(), start, duration), 0..40)
}

fn peer() -> [Attr<'static>; 1] {
    [Attr {
        key: "peer.service",
        value: Value::Str("auth"),
    }]
}

fn recorder(spans: &[Made]) -> Recorder {
    let mut recorder = Recorder::default();
    for &made in spans {
        record(&mut recorder, made, &peer());
    }
    recorder
}

fn encoded(measures: &Measures) -> Vec<u8> {
    let mut bytes = Vec::new();
    measures.encode(&mut bytes);
    bytes
}

type Sums = BTreeMap<String, (u64, u64, (u64, u64), Vec<(i16, u64)>)>;

/// What measures count, whatever their order and the numbers of their texts.
fn sums(measures: &Measures) -> (Sums, Vec<String>) {
    let cells = measures.red.iter().map(|cell| {
        let texts = (measures.text(cell.service), measures.text(cell.name));
        let key = format!(
            "{} {texts:?} {:?} {:?}",
            cell.minute, cell.kind, cell.status
        );
        let range = (cell.duration_min_ns, cell.duration_max_ns);
        let buckets = cell.buckets.iter().collect();
        (key, (cell.count, cell.duration_sum_ns, range, buckets))
    });
    let halves = measures.half_edges.iter().map(|half| {
        let texts = (measures.text(half.service), measures.text(half.peer));
        let bare = HalfEdge {
            service: TextId(0),
            peer: TextId(0),
            ..*half
        };
        format!("{texts:?} {bare:?}")
    });
    let mut halves: Vec<_> = halves.collect();
    halves.sort_unstable();
    (cells.collect(), halves)
}

proptest! {
    #[test]
    fn bytes_hold_all_of_it(spans in spans(), accounts in 0u32..4) {
        let mut measures = recorder(&spans).take();
        measures.accounts.extend((0..accounts).map(account));
        prop_assert_eq!(Measures::decode(&encoded(&measures)), Ok(measures));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read(
        spans in spans(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&recorder(&spans).take());
        for (index, byte) in damage {
            *index.get_mut(&mut bytes) = byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(measures) = Measures::decode(bytes) {
                prop_assert_eq!(Measures::decode(&encoded(&measures)), Ok(measures));
            }
        }
    }

    /// However spans are shared among recorders: merged, they count as if one had seen them all.
    #[test]
    fn merged_measures_count_as_one(here in spans(), there in spans()) {
        let all = recorder(&[here.clone(), there.clone()].concat()).take();
        let mut merged = recorder(&here);
        let foreign = Measures::decode(&encoded(&recorder(&there).take())).unwrap();
        prop_assert_eq!(merged.merge(&foreign, &NO_LIMITS), LeftOut::default());
        prop_assert_eq!(sums(&merged.take()), sums(&all));
    }

    #[test]
    fn what_does_not_fit_is_counted(here in spans(), there in spans(), more in 0usize..20_000) {
        let mut merged = recorder(&here);
        let before = merged.bytes();
        let limits = MergeLimits { max_bytes: before + more, ..NO_LIMITS };
        let foreign = recorder(&there).take();
        let left_out = merged.merge(&foreign, &limits);
        prop_assert!(merged.bytes() <= limits.max_bytes);
        let count = |measures: &Measures| measures.red.iter().map(|cell| cell.count).sum::<u64>();
        let merged = merged.take();
        prop_assert_eq!(count(&merged) + left_out.spans, (here.len() + there.len()) as u64);
        let halves = recorder(&here).take().half_edges.len() + foreign.half_edges.len();
        prop_assert_eq!(merged.half_edges.len() as u64 + left_out.half_edges, halves as u64);
    }
}

#[test]
fn other_times_are_left_out() {
    const MINUTE: u64 = 60_000_000_000;
    let limits = MergeLimits {
        oldest_ns: 3 * MINUTE + 1,
        newest_ns: 5 * MINUTE,
        ..NO_LIMITS
    };
    let check = |start_ns: u64, cell: bool, half: bool| {
        let client = SpanKind::Client as u8;
        let mut foreign = made((client, 0, start_ns, 5), &[]);
        foreign.accounts.push(AccountRow {
            minute: u32::try_from(start_ns / MINUTE * 60).unwrap(),
            ..account(1)
        });
        let mut recorder = Recorder::default();
        let left_out = recorder.merge(&foreign, &limits);
        let expect = LeftOut {
            spans: u64::from(!cell),
            half_edges: u64::from(!half),
            accounts: u64::from(!cell),
        };
        assert_eq!(left_out, expect, "at {start_ns}");
        let merged = recorder.take();
        assert_eq!(merged.red.len(), usize::from(cell));
        assert_eq!(merged.half_edges.len(), usize::from(half));
        assert_eq!(merged.texts.is_empty(), !cell && !half);
    };
    check(0, false, false);
    check(3 * MINUTE - 1, false, false);
    // The minute may hold spans that are new enough.
    check(3 * MINUTE, true, false);
    check(3 * MINUTE + 1, true, true);
    check(5 * MINUTE, true, true);
    check(5 * MINUTE + 1, true, false);
    check(6 * MINUTE, false, false);
}

fn fails(bytes: &[u8], expect: BundleError) {
    assert_eq!(Measures::decode(bytes), Err(expect), "{bytes:?}");
}

#[test]
fn versions() {
    fails(&[], BundleError::NoVersion);
    fails(&[0x12, 0], BundleError::NoVersion);
    fails(&[0x08], BundleError::NoVersion);
    fails(&[0x08, 0], BundleError::Version(0));
    fails(&[0x08, 2], BundleError::Version(2));
    assert_eq!(VERSION, 1);
    // What a later version adds is skipped.
    let measures = recorder(&[(3, 0, 5, 5)]).take();
    let mut later = encoded(&measures);
    write::bytes(&mut later, 100, b"new");
    assert_eq!(Measures::decode(&later), Ok(measures));
}

#[test]
fn values_out_of_range() {
    let with = |field: u32, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![0x08, 1, 0x12, 0];
        write::message(&mut bytes, field, |out| write(out));
        bytes
    };
    let red = |write: &dyn Fn(&mut Vec<u8>)| with(3, write);
    let no_text = |out: &mut Vec<u8>| {
        write::uint(out, 2, 1);
        write::bytes(out, 8, &[1]);
    };
    fails(&red(&no_text), BundleError::NoText(1));
    let bucket = BundleError::OutOfRange("a bucket");
    fails(&red(&|_| {}), bucket);
    fails(&red(&|out| write::bytes(out, 8, &[0, 0])), bucket);
    // Bucket 240 is the last one.
    let counts = |first: u64, counts: &'static [u8]| {
        red(&move |out| {
            write::uint(out, 7, first);
            write::bytes(out, 8, counts);
        })
    };
    assert!(Measures::decode(&counts(480, &[1])).is_ok());
    assert!(Measures::decode(&counts(335, &[1])).is_ok());
    fails(&counts(480, &[1, 1]), bucket);
    fails(&counts(337, &[1]), bucket);
    fails(&counts(u64::MAX, &[1]), bucket);
    let large = |field: u32, value: u64| {
        red(&move |out| {
            write::uint(out, field, value);
            write::bytes(out, 8, &[1]);
        })
    };
    let minute = BundleError::OutOfRange("a minute");
    fails(&large(1, 1 << 32), minute);
    let half = |id: &'static [u8], parent: &'static [u8], kind: u64| {
        with(4, &move |out| {
            write::bytes(out, 2, id);
            write::bytes(out, 3, &[1; 8]);
            write::uint(out, 10, kind);
            write::bytes(out, 11, parent);
        })
    };
    assert!(Measures::decode(&half(&[1; 16], &[1; 8], 2)).is_ok());
    let trace = BundleError::OutOfRange("a trace id");
    fails(&half(&[1; 15], &[1; 8], 1), trace);
    let parent = BundleError::OutOfRange("a parent's span id");
    fails(&half(&[1; 16], &[1; 7], 1), parent);
    fails(
        &half(&[1; 16], &[1; 8], 1 << 40),
        BundleError::OutOfRange("a kind"),
    );
    fails(&[0x08, 1, 0x12, 1, 0xff], BundleError::Text(0));
}
