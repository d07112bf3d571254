mod bundle;
mod edges;

use spanloom_otlp::record::{Attr, SpanKind, SpanRecord, StatusCode, Value};

use super::*;

fn span<'a>(kind: SpanKind, attributes: &'a [Attr<'a>]) -> SpanRecord<'a> {
    SpanRecord {
        trace_id: [1; 16],
        span_id: [2; 8],
        parent_span_id: [3; 8],
        trace_state: "",
        flags: 0,
        name: "GET /",
        kind,
        start_ns: 61_000_000_000,
        duration_ns: 2_000_000,
        status: StatusCode::Unset,
        status_message: "",
        attributes,
        dropped_attributes_count: 0,
        events: &[],
        dropped_events_count: 0,
        links: &[],
        dropped_links_count: 0,
    }
}

fn recorded(spans: &[SpanRecord<'_>]) -> Measures {
    let mut recorder = Recorder::default();
    let service = recorder.text("shop");
    for span in spans {
        recorder.span(service, span);
    }
    recorder.take()
}

#[test]
fn equal_spans_share_a_cell() {
    let one = span(SpanKind::Internal, &[]);
    let slow = SpanRecord {
        duration_ns: 4_000_000,
        ..one
    };
    let failed = SpanRecord {
        status: StatusCode::Error,
        ..one
    };
    let later = SpanRecord {
        start_ns: 121_000_000_000,
        ..one
    };
    let measures = recorded(&[one, slow, one, failed, later]);
    let cells: Vec<_> = measures
        .red
        .iter()
        .map(|c| {
            (
                c.minute,
                c.status,
                c.count,
                c.duration_sum_ns,
                (c.duration_min_ns, c.duration_max_ns),
                c.buckets.iter().collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(
        cells,
        [
            (
                60,
                StatusCode::Unset,
                3,
                8_000_000,
                (2_000_000, 4_000_000),
                vec![(0, 2), (8, 1)]
            ),
            (
                60,
                StatusCode::Error,
                1,
                2_000_000,
                (2_000_000, 2_000_000),
                vec![(0, 1)]
            ),
            (
                120,
                StatusCode::Unset,
                1,
                2_000_000,
                (2_000_000, 2_000_000),
                vec![(0, 1)]
            ),
        ]
    );
    let cell = &measures.red[0];
    assert_eq!(
        (measures.text(cell.service), measures.text(cell.name)),
        ("shop", "GET /")
    );
    assert_eq!(
        measures.half_edges.len(),
        5,
        "each span may be the end of a call"
    );
}

#[test]
fn take_leaves_nothing_behind() {
    let mut recorder = Recorder::default();
    for _ in 0..2 {
        let service = recorder.text("shop");
        recorder.span(service, &span(SpanKind::Client, &[]));
        let measures = recorder.take();
        assert_eq!((measures.red.len(), measures.half_edges.len()), (1, 1));
        assert_eq!(recorder.bytes(), 0);
    }
}
