//! Requests made at random.

use proptest::prelude::*;

use super::*;

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z.]{1,12}", 1 => any::<String>()]
}

fn any_any() -> impl Strategy<Value = Option<Any>> {
    let leaf = prop_oneof![
        any_text().prop_map(Any::StringValue),
        any::<bool>().prop_map(Any::BoolValue),
        any::<i64>().prop_map(Any::IntValue),
        (-1e300..1e300).prop_map(Any::DoubleValue),
        any::<Vec<u8>>().prop_map(Any::BytesValue),
    ];
    let value = leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(array),
            prop::collection::vec((any_text(), inner), 0..4).prop_map(|pairs| {
                list(
                    pairs
                        .into_iter()
                        .map(|(key, value)| attr(&key, value))
                        .collect(),
                )
            }),
        ]
    });
    prop::option::weighted(0.95, value)
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    prop::collection::btree_map(any_text(), any_any(), 0..6).prop_map(|map| {
        let pair = |(key, value)| KeyValue {
            key,
            value: Some(AnyValue { value }),
            ..KeyValue::default()
        };
        map.into_iter().map(pair).collect()
    })
}

fn any_id<const N: usize>() -> impl Strategy<Value = Vec<u8>> {
    prop::array::uniform::<_, N>(any::<u8>()).prop_map(|mut id| {
        id[0] |= 1;
        id.to_vec()
    })
}

prop_compose! {
    fn any_event()(
        time_unix_nano in any::<u64>(),
        name in any_text(),
        attributes in any_attributes(),
        dropped_attributes_count in any::<u32>(),
    ) -> Event {
        Event { time_unix_nano, name, attributes, dropped_attributes_count }
    }
}

prop_compose! {
    fn any_link()(
        trace_id in any_id::<16>(),
        span_id in any_id::<8>(),
        trace_state in any_text(),
        attributes in any_attributes(),
        dropped_attributes_count in any::<u32>(),
        flags in any::<u32>(),
    ) -> Link {
        Link { trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags }
    }
}

prop_compose! {
    fn any_span()(
        (trace_id, span_id, parent) in (any_id::<16>(), any_id::<8>(), prop::option::of(any_id::<8>())),
        (trace_state, name, message) in (any_text(), any_text(), any_text()),
        (flags, kind, code) in (any::<u32>(), 0i32..6, 0i32..3),
        (ago, duration) in (0u64..48 * HOUR, any::<u32>()),
        attributes in any_attributes(),
        events in prop::collection::vec(any_event(), 0..3),
        links in prop::collection::vec(any_link(), 0..3),
        dropped in any::<[u32; 3]>(),
    ) -> Span {
        Span {
            trace_id,
            span_id,
            parent_span_id: parent.unwrap_or_default(),
            trace_state,
            flags,
            name,
            kind,
            start_time_unix_nano: NOW - ago,
            end_time_unix_nano: NOW - ago + u64::from(duration),
            attributes,
            dropped_attributes_count: dropped[0],
            events,
            dropped_events_count: dropped[1],
            links,
            dropped_links_count: dropped[2],
            // An empty status is the same as none.
            status: Some(Status { message, code }).filter(|status| *status != Status::default()),
        }
    }
}

prop_compose! {
    pub(super) fn any_request()(
        scopes in prop::collection::vec(prop::collection::vec(any_span(), 1..4), 1..3),
        resource in any_attributes(),
        scope in any_attributes(),
        (name, version, urls) in (any_text(), any_text(), any::<[bool; 2]>()),
        dropped in any::<[u32; 2]>(),
    ) -> ExportTraceServiceRequest {
        let url = |set: bool| if set { "https://example.com/schema".to_owned() } else { String::new() };
        let scope = InstrumentationScope {
            name,
            version,
            attributes: scope,
            dropped_attributes_count: dropped[0],
        };
        let scope_spans = scopes.into_iter().map(|spans| ScopeSpans {
            scope: Some(scope.clone()),
            spans,
            schema_url: url(urls[0]),
        });
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: resource,
                    dropped_attributes_count: dropped[1],
                    ..Resource::default()
                }),
                scope_spans: scope_spans.collect(),
                schema_url: url(urls[1]),
            }],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn without_rules_everything_is_kept(request in any_request()) {
        let processed = process_bytes(&Processing::default(), &request.encode_to_vec());
        prop_assert_eq!(processed.result, Ok(()));
        prop_assert_eq!(processed.tally.message(), "");
        prop_assert_eq!(processed.request, request);
    }

    #[test]
    fn all_rules_together_never_panic(request in any_request(), bytes in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
        let rules = Processing {
            resource: vec![("a".into(), "b".into())],
            rules: RuleSet {
                drop: vec!["{ span.a = 1 || event.b > 2 }".into()],
                redact_keys: vec![KeyPattern::of("a*"), KeyPattern::of("b")],
                redact_values: vec![ValuePattern::of("[aeiou]{2}")],
                limits: Limits { attributes: 3, events: 1, links: 1, value_bytes: 5 },
            },
            head_ratio: 0.5,
            ..Processing::default()
        };
        let mut encoded = request.encode_to_vec();
        process_bytes(&rules, &encoded);
        let at = at.index(encoded.len());
        encoded.splice(at..(at + bytes.len()).min(encoded.len()), bytes);
        process_bytes(&rules, &encoded);
    }
}
