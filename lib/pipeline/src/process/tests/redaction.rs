//! Redaction in every place where OTLP carries text or numbers.

use proptest::prelude::*;

use super::*;
use crate::tally::Change;

const CARD: &str = "4111111111111111";

fn redacting(keys: &[&str], values: &[&str]) -> Processing {
    with_rules(RuleSet {
        redact_keys: keys.iter().map(|key| KeyPattern::of(key)).collect(),
        redact_values: values.iter().map(|text| ValuePattern::of(text)).collect(),
        ..RuleSet::default()
    })
}

/// A request with this text in each place that has text, and this value beside it.
fn everywhere(secret: &str, value: &Any) -> ExportTraceServiceRequest {
    let attributes = || {
        vec![
            attr("text", text(secret)),
            attr(
                "bytes",
                Any::BytesValue([b"\xff", secret.as_bytes()].concat()),
            ),
            attr("value", value.clone()),
            attr(
                "array",
                array(vec![
                    text(secret),
                    value.clone(),
                    array(vec![value.clone()]),
                ]),
            ),
            attr(
                "map",
                list(vec![
                    attr("inner", text(secret)),
                    attr(secret, text("kept")),
                ]),
            ),
            attr(
                "deep",
                list(vec![attr(
                    "list",
                    array(vec![list(vec![attr("value", value.clone())])]),
                )]),
            ),
            attr(secret, text("kept")),
            attr(&format!("2 {secret}"), text("kept")),
        ]
    };
    let mut sent = request(vec![Span {
        name: secret.to_owned(),
        trace_state: format!("a=b,v={secret}"),
        attributes: attributes(),
        status: Some(Status {
            code: 2,
            message: secret.to_owned(),
        }),
        events: vec![Event {
            name: secret.to_owned(),
            attributes: attributes(),
            ..Event::default()
        }],
        links: vec![Link {
            trace_id: vec![3; 16],
            span_id: vec![4; 8],
            trace_state: format!("v={secret}"),
            attributes: attributes(),
            ..Link::default()
        }],
        ..span()
    }]);
    let of_resource = &mut sent.resource_spans[0];
    of_resource.schema_url = format!("https://x/{secret}");
    let resource = of_resource.resource.as_mut().unwrap();
    resource.attributes = attributes();
    resource.attributes.push(attr("service.name", text(secret)));
    let of_scope = &mut of_resource.scope_spans[0];
    of_scope.schema_url = format!("https://x/{secret}");
    let scope = of_scope.scope.as_mut().unwrap();
    scope.name = secret.to_owned();
    scope.version = secret.to_owned();
    scope.attributes = attributes();
    sent
}

#[track_caller]
fn check_nowhere(processed: &Processed, secret: &str) {
    let stored = processed.request.encode_to_vec();
    let found = memchr::memmem::find(&stored, secret.as_bytes());
    assert_eq!(found, None, "{:#?}", processed.request);
    for cell in &processed.measures.red {
        assert!(!processed.measures.text(cell.service).contains(secret));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_class_promises_is_hidden_in_every_place(
        instance in prop::sample::select(&[
            ("email", "ann@example.com"),
            ("email", "ann%40example.com"),
            ("creditCard", CARD),
            ("creditCard", "5555 5555 5555 4444"),
            ("ipv4", "10.1.2.3"),
            ("jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.c2ln"),
            ("credentials", "Bearer abcdefgh12345"),
        ][..]),
        before in prop::sample::select(&["", "order 7 ", "(", "é "][..]),
        after in prop::sample::select(&["", " 12/29", ")", " é"][..]),
    ) {
        let (class, secret) = instance;
        let sent = everywhere(&format!("{before}{secret}{after}"), &text(secret));
        let processed = process_bytes(&redacting(&[], &[class]), &sent.encode_to_vec());
        check_nowhere(&processed, secret);
        check_nowhere(&processed, "kept");
    }

    #[test]
    fn cards_that_are_numbers_are_hidden(double in prop::bool::ANY, others in prop::num::i32::ANY) {
        let number: i64 = CARD.parse().unwrap();
        let value = match double {
            true => Any::DoubleValue(number as f64),
            false => Any::IntValue(number),
        };
        let sent = everywhere("nothing", &value);
        let mut wire = Vec::new();
        prost::encoding::encode_varint(number.cast_unsigned(), &mut wire);
        let bits = (number as f64).to_le_bytes();
        let processed = process_bytes(&redacting(&[], &["creditCard"]), &sent.encode_to_vec());
        let stored = processed.request.encode_to_vec();
        for wire in [&wire[..], &bits] {
            prop_assert_eq!(memchr::memmem::find(&stored, wire), None);
        }
        check_nowhere(&processed, CARD);
        // Other numbers stay numbers.
        let plain = everywhere("nothing", &Any::IntValue(others.into()));
        let processed = process_bytes(&redacting(&[], &["creditCard"]), &plain.encode_to_vec());
        prop_assert_eq!(processed.tally.changed(Change::Redacted), 0);
        prop_assert_eq!(&processed.attributes()[2], &attr("value", Any::IntValue(others.into())));
    }
}

#[test]
fn keys_that_are_hidden_keep_apart() {
    let secret = |n: usize| format!("ann{n}@example.com");
    let pairs = || {
        vec![
            attr(&secret(1), text("v1")),
            attr("***", text("its own")),
            attr(&secret(2), Any::IntValue(2)),
            attr("x", text("stays")),
            attr(&secret(3), text("v3")),
        ]
    };
    let hidden = vec![
        attr("***2", text("***")),
        attr("***", text("its own")),
        attr("***3", text("***")),
        attr("x", text("stays")),
        attr("***4", text("***")),
    ];
    let sent = [pairs(), vec![attr("map", list(pairs()))]].concat();
    let expected = [hidden.clone(), vec![attr("map", list(hidden))]].concat();
    // The second span finds what was decided for the first.
    let spans = vec![with_attributes(sent.clone()), with_attributes(sent)];
    let processed = process(&redacting(&[], &["email"]), spans);
    for span in processed.spans() {
        assert_eq!(span.attributes, expected);
    }
}

#[test]
fn a_key_is_hidden_in_maps_at_any_depth() {
    let rules = redacting(
        &[
            "password",
            "http.request.header.authorization",
            "*.token",
            "card.pan",
        ],
        &[],
    );
    let inner = || {
        list(vec![
            attr("password", Any::IntValue(1)),
            attr("http.request.header.authorization", text("p6secret")),
            attr("token", text("t1")),
            attr(
                "card",
                list(vec![attr("pan", text("c1")), attr("name", text("stays"))]),
            ),
        ])
    };
    let sent = vec![
        attr("password", text("p1")),
        attr("user", inner()),
        attr("all", array(vec![list(vec![attr("deep", inner())])])),
    ];
    let processed = process(&rules, vec![with_attributes(sent)]);
    let hidden = || {
        list(vec![
            attr("password", text("***")),
            attr("http.request.header.authorization", text("***")),
            attr("token", text("***")),
            attr(
                "card",
                list(vec![attr("pan", text("***")), attr("name", text("stays"))]),
            ),
        ])
    };
    let expected = [
        attr("password", text("***")),
        attr("user", hidden()),
        attr("all", array(vec![list(vec![attr("deep", hidden())])])),
    ];
    assert_eq!(processed.attributes(), expected);
}

#[test]
fn an_expression_also_looks_at_numbers() {
    let processed = process(
        &redacting(&[], &["[0-9]{3}-?[0-9]{3}"]),
        vec![with_attributes(vec![
            attr("ssn", Any::IntValue(123_456)),
            attr("other", Any::IntValue(12)),
            attr("half", Any::DoubleValue(0.5)),
        ])],
    );
    let expected = [
        attr("ssn", text("***")),
        attr("other", Any::IntValue(12)),
        attr("half", Any::DoubleValue(0.5)),
    ];
    assert_eq!(processed.attributes(), expected);
}

#[test]
fn what_sampling_reads_of_a_trace_state_stays() {
    let mut processing = redacting(&[], &["creditCard", "[0-9a-f]{14}"]);
    processing.head_ratio = 0.5;
    let sent = Span {
        trace_state: format!("ot=rv:ffffffffffffff;x:{CARD},v={CARD}"),
        ..span()
    };
    let processed = process(&processing, vec![sent]);
    let state = &processed.spans()[0].trace_state;
    assert!(
        state.contains("rv:ffffffffffffff") && state.contains("th:8"),
        "{state}"
    );
    check_nowhere(&processed, CARD);
}
