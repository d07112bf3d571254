//! Whose spans they are: no limit cuts it, and its name is text.

use super::*;

fn sent(attributes: Vec<KeyValue>) -> Vec<u8> {
    let mut sent = request(vec![span()]);
    sent.resource_spans[0].resource = Some(Resource {
        attributes,
        ..Resource::default()
    });
    sent.encode_to_vec()
}

fn resource(processed: &Processed) -> &Resource {
    processed.request.resource_spans[0]
        .resource
        .as_ref()
        .unwrap()
}

#[test]
fn identity_survives_the_limit_wherever_it_stands() {
    const IDENTITY: [&str; 4] = [
        "service.name",
        "service.namespace",
        "service.version",
        "service.instance.id",
    ];
    for limit in [1, 3, 10] {
        let others = (0..40).map(|n| attr(&format!("a{n}"), text("x")));
        let own = IDENTITY.map(|key| attr(key, text("shop")));
        let processing = Processing {
            resource: vec![("team".into(), "blue".into()), ("zone".into(), "a".into())],
            ..with_limits(Limits {
                attributes: limit,
                ..Limits::default()
            })
        };
        let processed = process_bytes(&processing, &sent(others.chain(own).collect()));
        let resource = resource(&processed);
        for key in IDENTITY.iter().chain(&["team", "zone"]) {
            let kept = resource
                .attributes
                .iter()
                .any(|attribute| attribute.key == *key);
            assert!(kept, "{key} at {limit}");
        }
        assert_eq!(resource.attributes.len(), limit.max(6));
        let cut = u32::try_from(46 - limit.max(6)).unwrap();
        assert_eq!(resource.dropped_attributes_count, cut);
        let cell = &processed.measures.red[0];
        assert_eq!(processed.measures.text(cell.service), "shop");
    }
}

#[test]
fn a_service_name_of_another_type_becomes_text() {
    let check = |value: Any, expect: &str| {
        let processed = process_bytes(
            &Processing::default(),
            &sent(vec![attr("service.name", value)]),
        );
        assert_eq!(
            resource(&processed).attributes,
            [attr("service.name", text(expect))]
        );
        let cell = &processed.measures.red[0];
        assert_eq!(processed.measures.text(cell.service), expect);
    };
    check(Any::IntValue(-7), "-7");
    check(Any::BoolValue(true), "true");
    check(Any::DoubleValue(1.5), "1.5");
    check(Any::BytesValue(b"shop".to_vec()), "shop");
    check(array(vec![text("a"), Any::IntValue(1)]), "[\"a\",1]");
    check(text("shop"), "shop");
}

#[test]
fn an_end_far_ahead_is_repaired_and_counted() {
    const DAY: u64 = 24 * HOUR;
    let ends = [NOW + DAY, NOW + DAY + 1, u64::MAX, NOW - HOUR - 1];
    let spans = ends.map(|end_time_unix_nano| Span {
        end_time_unix_nano,
        ..span()
    });
    let processed = process(&Processing::default(), spans.to_vec());
    let durations = processed.spans();
    let durations = durations
        .iter()
        .map(|span| span.end_time_unix_nano - span.start_time_unix_nano);
    assert_eq!(durations.collect::<Vec<_>>(), [DAY + HOUR, 0, 0, 0]);
    assert_eq!(processed.tally.changed(Change::EndInTheFuture), 2);
    assert_eq!(processed.tally.changed(Change::EndBeforeStart), 1);
    let sum: u64 = processed
        .measures
        .red
        .iter()
        .map(|cell| cell.duration_sum_ns)
        .sum();
    assert_eq!(sum, DAY + HOUR);
}
