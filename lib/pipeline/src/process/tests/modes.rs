//! A processor that is not the first, or not the last, to see a span.

use std::collections::BTreeMap;

use proptest::prelude::*;
use spanloom_otlp::records::RecordWriter;

use super::property::any_request;
use super::*;
use crate::measure::MergeLimits;

/// What came out of a processor as records.
#[derive(Debug, PartialEq)]
struct Out {
    records: Vec<u8>,
    tally: Tally,
    measures: Measures,
    result: Result<(), DecodeError>,
}

fn run(processing: &Processing, mode: Mode, bytes: &[u8]) -> Out {
    let mut processor = Processor::new(processing).unwrap();
    let mut tally = Tally::default();
    let mut sink = RecordWriter::new();
    let mut recorder = Recorder::default();
    let origin = Origin {
        mode,
        ..Origin::default()
    };
    let result = processor.process_from(origin, bytes, NOW, &mut sink, &mut recorder, &mut tally);
    Out {
        records: sink.finish(),
        tally,
        measures: recorder.take(),
        result,
    }
}

fn rules() -> Processing {
    Processing {
        resource: vec![("a".into(), "b".into())],
        rules: RuleSet {
            drop: vec!["{ span.a = 1 }".into()],
            redact_keys: vec![KeyPattern::of("a*"), KeyPattern::of("b")],
            redact_values: vec![ValuePattern::of("[aeiou]{2}")],
            limits: Limits {
                attributes: 3,
                events: 1,
                links: 1,
                value_bytes: 5,
            },
        },
        head_ratio: 0.5,
        ..Processing::default()
    }
}

/// Cells by what they count, and half-edges in an order of their own.
type Counted = (
    BTreeMap<(u32, String, String, u8, u8), (u64, u64, (u64, u64), Vec<(i16, u64)>)>,
    Vec<String>,
);

fn counted(measures: &Measures) -> Counted {
    let cells = measures.red.iter().map(|cell| {
        let key = (
            cell.minute,
            measures.text(cell.service).to_owned(),
            measures.text(cell.name).to_owned(),
            cell.kind as u8,
            cell.status as u8,
        );
        let range = (cell.duration_min_ns, cell.duration_max_ns);
        let buckets = cell.buckets.iter().collect();
        (key, (cell.count, cell.duration_sum_ns, range, buckets))
    });
    let cells: BTreeMap<_, _> = cells.collect();
    assert_eq!(cells.len(), measures.red.len(), "one cell of each kind");
    let halves = measures.half_edges.iter().map(|half| {
        let (service, peer) = (measures.text(half.service), measures.text(half.peer));
        let mut plain = *half;
        (plain.service, plain.peer) = (crate::measure::TextId(0), crate::measure::TextId(0));
        format!("{service:?} {peer:?} {plain:?}")
    });
    let mut halves: Vec<_> = halves.collect();
    halves.sort_unstable();
    (cells, halves)
}

/// What a collector alone does is what a sidecar and its collector do together.
fn check_sidecar(processing: &Processing, bytes: &[u8]) {
    let alone = run(processing, Mode::Full, bytes);
    let sidecar = run(processing, Mode::MeasureSampledOut, bytes);
    assert_eq!(sidecar.records, alone.records);
    assert_eq!(sidecar.tally, alone.tally);
    let mut bundle = Vec::new();
    sidecar.measures.encode(&mut bundle);

    let mut processor = Processor::new(&Processing::default()).unwrap();
    let (mut sink, mut tally) = (RecordWriter::new(), Tally::default());
    let mut recorder = Recorder::default();
    let origin = Origin {
        mode: Mode::Measure,
        ..Origin::default()
    };
    let records = &sidecar.records;
    let result = processor.process_from(origin, records, NOW, &mut sink, &mut recorder, &mut tally);
    assert_eq!(result, Ok(()));
    let limits = MergeLimits {
        max_bytes: usize::MAX,
        oldest_ns: 0,
        newest_ns: u64::MAX,
    };
    let left_out = recorder.merge(&Measures::decode(&bundle).unwrap(), &limits);
    assert_eq!(left_out, Default::default());
    assert_eq!(sink.finish(), alone.records);
    assert_eq!(tally.kept, alone.tally.kept);
    assert_eq!(counted(&recorder.take()), counted(&alone.measures));
}

/// Whatever the rules are, records pass as they are, and nothing is measured.
fn check_processed(processing: &Processing, bytes: &[u8]) {
    let first = run(processing, Mode::Full, bytes);
    for later in [Processing::default(), rules(), off()] {
        let again = run(&later, Mode::Processed, &first.records);
        assert_eq!(again.result, Ok(()));
        assert_eq!(again.records, first.records);
        assert_eq!(again.tally.kept, first.tally.kept);
        assert!(again.measures.is_empty() && again.measures.texts.is_empty());
    }
}

/// Rules that take nothing.
fn off() -> Processing {
    Processing {
        enabled: false,
        head_ratio: 0.0,
        retention: Duration::ZERO,
        ..rules()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_sidecar_and_its_collector_measure_what_a_collector_alone_would(request in any_request()) {
        let bytes = request.encode_to_vec();
        for ratio in [0.0, 0.5, 1.0] {
            check_sidecar(&Processing { head_ratio: ratio, ..rules() }, &bytes);
            check_sidecar(&Processing { head_ratio: ratio, ..Processing::default() }, &bytes);
        }
    }

    #[test]
    fn what_was_processed_passes_as_it_is(request in any_request()) {
        let bytes = request.encode_to_vec();
        check_processed(&Processing::default(), &bytes);
        check_processed(&rules(), &bytes);
    }
}

#[test]
fn only_what_is_sampled_out_is_measured_beside_a_collector() {
    let bytes = request(vec![span(), span()]).encode_to_vec();
    let check = |ratio: f64, written: u64, measured: u64| {
        let processing = Processing {
            head_ratio: ratio,
            ..Processing::default()
        };
        let out = run(&processing, Mode::MeasureSampledOut, &bytes);
        assert_eq!((out.tally.kept, out.tally.sampled_out), (written, measured));
        let counted: u64 = out.measures.red.iter().map(|cell| cell.count).sum();
        assert_eq!(counted, measured);
    };
    check(1.0, 2, 0);
    check(0.0, 0, 2);
}

/// Probes are written and never measured, wherever they pass.
#[test]
fn probes_are_not_measured_on_the_way() {
    let processing = Processing {
        probe: Some("uid".into()),
        ..Processing::default()
    };
    let mut request = request(vec![span()]);
    request.resource_spans[0].resource = Some(Resource {
        attributes: vec![
            attr("service.name", text(PROBE_SERVICE)),
            attr(PROBE_ATTRIBUTE, text("uid")),
        ],
        ..Resource::default()
    });
    let bytes = request.encode_to_vec();
    for mode in [Mode::MeasureSampledOut, Mode::Measure, Mode::Processed] {
        let out = run(&processing, mode, &bytes);
        assert_eq!((out.tally.kept, out.tally.probes), (1, 1), "{mode:?}");
        assert!(out.measures.is_empty(), "{mode:?}");
    }
}

#[test]
fn spans_that_cannot_be_taken_are_refused_and_the_others_are_not() {
    let check = |span: Span, why: Rejection| {
        let bytes = request(vec![self::span(), span, self::span()]).encode_to_vec();
        let out = run(&Processing::default(), Mode::Measure, &bytes);
        assert_eq!(out.result, Ok(()));
        assert_eq!((out.tally.kept, out.tally.rejected_for(why)), (2, 1));
        let counted: u64 = out.measures.red.iter().map(|cell| cell.count).sum();
        assert_eq!(counted, 2);
    };
    let good = span;
    check(
        Span {
            trace_id: vec![0; 16],
            ..good()
        },
        Rejection::TraceId,
    );
    check(
        Span {
            span_id: vec![1; 7],
            ..good()
        },
        Rejection::SpanId,
    );
    check(
        Span {
            parent_span_id: vec![1; 9],
            ..good()
        },
        Rejection::ParentSpanId,
    );
    check(
        Span {
            links: vec![Link::default()],
            ..good()
        },
        Rejection::Malformed,
    );
    check(
        Span {
            start_time_unix_nano: 0,
            ..good()
        },
        Rejection::NoStart,
    );
    check(
        Span {
            start_time_unix_nano: 1,
            ..good()
        },
        Rejection::TooOld,
    );
    check(
        Span {
            start_time_unix_nano: NOW + 25 * HOUR,
            ..good()
        },
        Rejection::InTheFuture,
    );
}

#[test]
fn a_pipeline_that_is_off_takes_nothing_new() {
    let bytes = request(vec![span()]).encode_to_vec();
    for mode in [Mode::Full, Mode::MeasureSampledOut, Mode::Measure] {
        let out = run(&off(), mode, &bytes);
        assert_eq!((out.tally.kept, out.tally.disabled), (0, 1), "{mode:?}");
    }
}

fn run_as(pod: &Pod, processing: &Processing, mode: Mode, bytes: &[u8]) -> Out {
    let mut processor = Processor::new(processing).unwrap();
    let mut tally = Tally::default();
    let mut sink = RecordWriter::new();
    let mut recorder = Recorder::default();
    let origin = Origin {
        mode,
        pod: Some(pod),
        claims: Claims::Replaced,
    };
    let result = processor.process_from(origin, bytes, NOW, &mut sink, &mut recorder, &mut tally);
    Out {
        records: sink.finish(),
        tally,
        measures: recorder.take(),
        result,
    }
}

fn pod_of(pairs: &[(&str, &str)]) -> Pod {
    let pairs = pairs.iter();
    Pod {
        attributes: pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect(),
        service: Some("shop".into()),
        containers: vec!["app".into()],
        is_partial: false,
    }
}

fn web() -> Pod {
    pod_of(&[
        ("k8s.pod.name", "web-1"),
        ("k8s.pod.uid", "u-1"),
        ("k8s.pod.label.b", "to be hidden"),
        ("k8s.pod.label.mail", "queue"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_pod_that_both_know_is_the_same_as_from_a_collector_alone(request in any_request()) {
        let bytes = request.encode_to_vec();
        for rules in [Processing::default(), rules()] {
            let alone = run_as(&web(), &rules, Mode::Full, &bytes);
            let sidecar = run_as(&web(), &rules, Mode::MeasureSampledOut, &bytes);
            let collector = run_as(&web(), &rules, Mode::Check, &sidecar.records);
            prop_assert_eq!(&collector.records, &alone.records);
            prop_assert!(collector.measures.is_empty());
        }
    }

    #[test]
    fn what_a_collector_does_once_more_changes_nothing(request in any_request()) {
        let bytes = request.encode_to_vec();
        let processing = Processing { head_ratio: 1.0, ..rules() };
        let once = run_as(&web(), &processing, Mode::MeasureSampledOut, &bytes);
        let twice = run_as(&web(), &processing, Mode::Full, &once.records);
        prop_assert_eq!(twice.tally.kept, once.tally.kept);
        prop_assert_eq!(twice.measures.red.iter().map(|cell| cell.count).sum::<u64>(), once.tally.kept);
    }
}

#[test]
fn what_a_sidecar_says_of_its_pod_is_corrected() {
    let lies = [
        ("k8s.pod.name", "somebody-else"),
        ("k8s.cronjob.name", "never"),
        ("k8s.container.name", "other"),
        ("k8s.cluster.name", "blue"),
        ("service.name", "checkout"),
    ];
    let mut message = request(vec![span()]);
    let resource = message.resource_spans[0].resource.get_or_insert_default();
    resource.attributes = lies
        .iter()
        .map(|(key, value)| attr(key, text(value)))
        .collect();
    let bytes = message.encode_to_vec();
    let check = |pod: &Pod, expected: &[(&str, &str)]| {
        let out = run_as(pod, &Processing::default(), Mode::Measure, &bytes);
        let said = ExportTraceServiceRequest::decode(&*out.records).unwrap();
        let resource = said.resource_spans[0].resource.clone().unwrap();
        let mut have: Vec<_> = resource.attributes;
        have.sort_by(|a, b| a.key.cmp(&b.key));
        let expected: Vec<_> = expected.iter().map(|(k, v)| attr(k, text(v))).collect();
        assert_eq!(have, expected);
        assert_eq!(out.tally.kept, 1);
    };
    let known = [("k8s.pod.name", "web-1"), ("k8s.pod.uid", "u-1")];
    check(
        &pod_of(&known),
        &[
            ("k8s.cluster.name", "blue"),
            ("k8s.container.name", "app"),
            ("k8s.pod.name", "web-1"),
            ("k8s.pod.uid", "u-1"),
            ("service.name", "checkout"),
        ],
    );
    // Of a pod on another node only the token is known.
    let partial = Pod {
        is_partial: true,
        ..pod_of(&known)
    };
    check(
        &partial,
        &[
            ("k8s.cluster.name", "blue"),
            ("k8s.container.name", "other"),
            ("k8s.cronjob.name", "never"),
            ("k8s.pod.name", "web-1"),
            ("k8s.pod.uid", "u-1"),
            ("service.name", "checkout"),
        ],
    );
}
