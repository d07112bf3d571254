//! What the document asks for: resource attributes, redaction, filters, sampling.

use super::*;

#[test]
fn the_document_names_the_resource() {
    let resource = [
        ("service.name", "store"),
        ("deployment.environment.name", "production"),
    ];
    let resource = resource
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    let processing = Processing {
        resource,
        ..Processing::default()
    };
    let processed = process(&processing, vec![span()]);
    let stored = processed.request.resource_spans[0]
        .resource
        .as_ref()
        .unwrap();
    assert_eq!(
        stored.attributes,
        [
            attr("deployment.environment.name", text("production")),
            attr("service.name", text("store")),
        ]
    );
    let cell = &processed.measures.red[0];
    assert_eq!(processed.measures.text(cell.service), "store");
}

#[test]
fn a_service_without_a_name_is_unknown() {
    let mut sent = request(vec![span()]);
    let check = |sent: &ExportTraceServiceRequest| {
        let processed = process_bytes(&Processing::default(), &sent.encode_to_vec());
        let cell = &processed.measures.red[0];
        assert_eq!(processed.measures.text(cell.service), UNKNOWN_SERVICE);
    };
    sent.resource_spans[0].resource = None;
    check(&sent);
    let attributes = vec![attr("service.name", text(""))];
    sent.resource_spans[0].resource = Some(Resource {
        attributes,
        ..Resource::default()
    });
    check(&sent);
}

fn redacting(keys: &[&str], values: &[&str]) -> RuleSet {
    RuleSet {
        redact_keys: keys.iter().map(|key| KeyPattern::of(key)).collect(),
        redact_values: values.iter().map(|text| ValuePattern::of(text)).collect(),
        ..RuleSet::default()
    }
}

#[test]
fn redaction_reaches_all_five_scopes() {
    let secret = || attr("user.password", text("hunter2"));
    let mut sent = request(vec![Span {
        attributes: vec![secret()],
        events: vec![Event {
            attributes: vec![secret()],
            ..Event::default()
        }],
        links: vec![Link {
            trace_id: vec![3; 16],
            span_id: vec![4; 8],
            attributes: vec![secret()],
            ..Link::default()
        }],
        ..span()
    }]);
    let resource_spans = &mut sent.resource_spans[0];
    resource_spans
        .resource
        .as_mut()
        .unwrap()
        .attributes
        .push(secret());
    resource_spans.scope_spans[0]
        .scope
        .as_mut()
        .unwrap()
        .attributes
        .push(secret());
    let rules = with_rules(redacting(&["*.password"], &[]));
    let processed = process_bytes(&rules, &sent.encode_to_vec());
    let stored = processed.request.encode_to_vec();
    assert_eq!(memchr::memmem::find_iter(&stored, "hunter2").count(), 0);
    assert_eq!(memchr::memmem::find_iter(&stored, "***").count(), 5);
    assert_eq!(processed.tally.changed(Change::Redacted), 5);
}

#[test]
fn redaction_reaches_names_messages_and_nested_text() {
    let mail = "ann@example.com";
    let rules = with_rules(redacting(&["user.token"], &["email"]));
    let processed = process(
        &rules,
        vec![Span {
            name: format!("GET /{mail}"),
            status: Some(Status {
                message: format!("no {mail}"),
                code: 2,
            }),
            events: vec![Event {
                name: format!("sent to {mail}"),
                ..Event::default()
            }],
            ..with_attributes(vec![
                attr("to", text(mail)),
                attr("all", array(vec![text("x"), text(mail), Any::IntValue(5)])),
                attr(
                    "user",
                    list(vec![attr("token", text("t")), attr("id", text("7"))]),
                ),
            ])
        }],
    );
    let stored = processed.spans()[0];
    assert_eq!(stored.name, "GET /***");
    assert_eq!(stored.status.as_ref().unwrap().message, "no ***");
    assert_eq!(stored.events[0].name, "sent to ***");
    assert_eq!(
        stored.attributes,
        [
            attr("to", text("***")),
            attr("all", array(vec![text("x"), text("***"), Any::IntValue(5)])),
            attr(
                "user",
                list(vec![attr("token", text("***")), attr("id", text("7"))])
            ),
        ]
    );
    // Measures know only what is redacted.
    let cell = &processed.measures.red[0];
    assert_eq!(processed.measures.text(cell.name), "GET /***");
}

#[test]
fn a_value_is_redacted_before_it_is_cut() {
    let rules = with_rules(RuleSet {
        limits: Limits {
            value_bytes: 8,
            ..Limits::default()
        },
        ..redacting(&[], &["email"])
    });
    let processed = process(
        &rules,
        vec![with_attributes(vec![attr("k", text("ann@example.com"))])],
    );
    assert_eq!(processed.attributes(), [attr("k", text("***"))]);
}

#[test]
fn drop_filters_see_spans_as_they_were_sent() {
    // The limit leaves no more of a span than this.
    let first = || attr("first", text("x"));
    let sent = vec![
        Span {
            name: "a".into(),
            ..with_attributes(vec![first(), attr("http.route", text("/healthz"))])
        },
        Span {
            name: "b".into(),
            ..with_attributes(vec![first(), attr("http.route", text("/shop"))])
        },
    ];
    let check = |filter: &str, kept: &[&str]| {
        let rules = with_rules(RuleSet {
            drop: vec![filter.to_owned()],
            limits: Limits {
                attributes: 1,
                ..Limits::default()
            },
            ..redacting(&["http.route"], &[])
        });
        let processed = process(&rules, sent.clone());
        let names: Vec<_> = processed.spans().iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, kept, "{filter}");
        assert_eq!(processed.tally.dropped as usize, 2 - kept.len());
        // Dropped spans are not measured.
        let measured: u64 = processed.measures.red.iter().map(|cell| cell.count).sum();
        assert_eq!(measured as usize, kept.len());
    };
    check(r#"{ span.http.route = "/healthz" }"#, &["b"]);
    check(r#"{ resource.service.name = "shop" }"#, &[]);
    check(r#"{ instrumentation:name = "lib" && name = "b" }"#, &["a"]);
    check("{ duration > 1s }", &["a", "b"]);
}

#[test]
fn head_sampling_is_consistent_and_measured() {
    let spans: Vec<_> = (0..2000u64)
        .map(|i| {
            let low = i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            Span {
                trace_id: [[1; 8], low].concat(),
                ..span()
            }
        })
        .collect();
    let rules = |head_ratio| Processing {
        head_ratio,
        ..Processing::default()
    };
    let half = process(&rules(0.5), spans.clone());
    let quarter = process(&rules(0.25), spans.clone());
    let ids = |p: &Processed| {
        p.spans()
            .iter()
            .map(|s| s.trace_id.clone())
            .collect::<Vec<_>>()
    };
    assert!(
        (900..1100).contains(&half.spans().len()),
        "{}",
        half.spans().len()
    );
    assert_eq!(half.tally.kept + half.tally.sampled_out, 2000);
    assert_eq!(
        half.measures.red.iter().map(|cell| cell.count).sum::<u64>(),
        2000
    );
    let half_ids = ids(&half);
    assert!(ids(&quarter).iter().all(|id| half_ids.contains(id)));
    assert!(half.spans().iter().all(|s| s.trace_state == "ot=th:8"));
    // A span that was sampled more strictly keeps its threshold, one that was not gets ours.
    let again = process_bytes(&rules(0.5), &quarter.request.encode_to_vec());
    assert_eq!(again.spans().len(), quarter.spans().len());
    assert!(again.spans().iter().all(|s| s.trace_state == "ot=th:c"));
    let all = process(&rules(1.0), spans);
    assert_eq!((all.spans().len(), all.tally.sampled_out), (2000, 0));
    assert!(all.spans().iter().all(|s| s.trace_state.is_empty()));
    let none = process_bytes(&rules(0.0), &all.request.encode_to_vec());
    assert_eq!((none.spans().len(), none.tally.sampled_out), (0, 2000));
    let measured = none.measures.red.iter().map(|cell| cell.count);
    assert_eq!(measured.sum::<u64>(), 2000);
}

#[test]
fn impossible_ratios_are_refused() {
    for ratio in [-1.0, 1.5, f64::NAN] {
        let rules = Processing {
            head_ratio: ratio,
            ..Processing::default()
        };
        assert!(Processor::new(&rules).is_err(), "{ratio}");
    }
}
