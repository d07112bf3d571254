//! Who sends: pods, probes, and pipelines that are not enabled.

use super::*;
use crate::peers::Pod;

fn pod(containers: &[&str]) -> Pod {
    let attributes = [("k8s.pod.name", "web-1"), ("k8s.pod.uid", "u-1")];
    Pod {
        attributes: attributes.map(|(k, v)| (k.into(), v.into())).into(),
        service: Some("web".into()),
        containers: containers.iter().map(|name| (*name).into()).collect(),
        is_partial: false,
    }
}

fn dropping(filter: &str) -> RuleSet {
    RuleSet {
        drop: vec![filter.to_owned()],
        ..RuleSet::default()
    }
}

fn sent(resource: &[(&str, &str)]) -> Vec<u8> {
    let attributes = resource.iter().map(|(k, v)| attr(k, text(v))).collect();
    let resource_spans = ResourceSpans {
        resource: Some(Resource {
            attributes,
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: vec![span()],
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
    .encode_to_vec()
}

fn process_from(pod: Option<&Pod>, rules: &Processing, bytes: &[u8]) -> Processed {
    let mut processor = Processor::new(rules).unwrap();
    let mut tally = Tally::default();
    let mut sink = OtlpSink::new();
    let mut recorder = Recorder::default();
    let result = processor.process_from(pod, bytes, NOW, &mut sink, &mut recorder, &mut tally);
    Processed {
        request: ExportTraceServiceRequest::decode(&*sink.into_bytes()).unwrap(),
        tally,
        measures: recorder.take(),
        result,
    }
}

/// The resource's attributes, sorted.
fn resource(processed: &Processed) -> Vec<(String, String)> {
    let resource = processed.request.resource_spans[0].resource.as_ref();
    let mut pairs: Vec<_> = resource
        .unwrap()
        .attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|any| any.value.clone());
            let Some(Any::StringValue(value)) = value else {
                panic!("{attribute:?}");
            };
            (attribute.key.clone(), value)
        })
        .collect();
    pairs.sort();
    pairs
}

#[track_caller]
fn check(containers: &[&str], resource_sent: &[(&str, &str)], expect: &[(&str, &str)]) {
    let rules = Processing {
        resource: vec![("k8s.cluster.name".into(), "ours".into())],
        ..Processing::default()
    };
    let pod = pod(containers);
    let processed = process_from(Some(&pod), &rules, &sent(resource_sent));
    let always = [
        ("k8s.cluster.name", "ours"),
        ("k8s.pod.name", "web-1"),
        ("k8s.pod.uid", "u-1"),
    ];
    let mut expected: Vec<_> = [&always, expect].concat();
    expected.sort_unstable();
    let expected: Vec<_> = expected
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(resource(&processed), expected);
}

#[test]
fn a_pod_signs_its_resources() {
    let one = ("k8s.container.name", "app");
    check(&["app"], &[], &[("service.name", "web"), one]);
    // What is nobody's claim stays, a name of its own too.
    check(
        &["app"],
        &[("service.name", "cart"), ("host.name", "h")],
        &[("service.name", "cart"), ("host.name", "h"), one],
    );
    // Names that are none.
    for unnamed in ["", "unknown_service", "unknown_service:node"] {
        let named = [("service.name", "web"), one];
        check(&["app"], &[("service.name", unnamed)], &named);
    }
    let close = [("service.name", "unknown_services"), one];
    check(&["app"], &[("service.name", "unknown_services")], &close);
    // Claims are replaced or taken out.
    check(
        &["app"],
        &[
            ("k8s.pod.name", "x"),
            ("k8s.node.name", "x"),
            ("k8s.container.name", "x"),
            ("k8s.cluster.name", "x"),
        ],
        &[("service.name", "web"), one],
    );
    // Of several containers, one that is there.
    let both = ["app", "proxy"];
    for (says, expect) in [("proxy", Some("proxy")), ("other", None)] {
        let mut expected = vec![("service.name", "web")];
        expected.extend(expect.map(|name| ("k8s.container.name", name)));
        check(&both, &[("k8s.container.name", says)], &expected);
    }
}

#[test]
fn a_long_annotation_is_cut_and_filters_see_the_pod() {
    let mut signed = pod(&[]);
    let long: String = "x".repeat(9_000);
    signed
        .attributes
        .push(("k8s.pod.annotation.a".into(), long.as_str().into()));
    let processed = process_from(Some(&signed), &Processing::default(), &sent(&[]));
    let cut = resource(&processed)
        .into_iter()
        .find(|(key, _)| key == "k8s.pod.annotation.a");
    assert_eq!(cut.unwrap().1.len(), 8 << 10);
    let rules = Processing {
        rules: dropping("{ resource.k8s.pod.name = \"web-1\" }"),
        ..Processing::default()
    };
    for (pod, dropped) in [(Some(&signed), 1), (None, 0)] {
        let forged = sent(&[("k8s.pod.name", if dropped == 1 { "other" } else { "mine" })]);
        assert_eq!(process_from(pod, &rules, &forged).tally.dropped, dropped);
    }
}

#[test]
fn probes_pass_every_rule_and_are_not_measured() {
    let rules = Processing {
        probe: Some("uid".into()),
        resource: vec![("service.name".into(), "other".into())],
        rules: dropping("{ }"),
        head_ratio: 0.0,
        ..Processing::default()
    };
    let is_probe = |rules: &Processing, uid: &str, service: &str| {
        let bytes = sent(&[("spanloom.probe", uid), ("service.name", service)]);
        let processed = process_from(Some(&pod(&["app"])), rules, &bytes);
        let Tally { kept, probes, .. } = processed.tally;
        assert_eq!(kept, probes, "of others nothing is kept");
        assert!(kept == 0 || processed.measures.is_empty());
        kept == 1
    };
    assert!(is_probe(&rules, "uid", "spanloom-probe"));
    assert!(!is_probe(&rules, "another", "spanloom-probe"));
    assert!(!is_probe(&rules, "uid", "shop"));
    let without = Processing {
        probe: None,
        ..rules
    };
    assert!(!is_probe(&without, "uid", "spanloom-probe"));
}

#[test]
fn what_is_not_enabled_is_counted_and_not_kept() {
    let rules = Processing {
        enabled: false,
        ..Processing::default()
    };
    let processed = process(&rules, vec![span(), span()]);
    assert_eq!((processed.tally.disabled, processed.tally.kept), (2, 0));
    assert_eq!(
        (processed.tally.accepted(), processed.tally.rejected()),
        (2, 0)
    );
    assert!(processed.request.resource_spans.is_empty() && processed.measures.is_empty());
    assert!(process_bytes(&rules, &[0xff, 0xff]).result.is_err());
}

fn claimed(origin: Origin<'_>, said: &[(&str, &str)]) -> (Vec<(String, String)>, u64) {
    let mut processor = Processor::new(&Processing::default()).unwrap();
    let mut tally = Tally::default();
    let mut sink = OtlpSink::new();
    let mut recorder = Recorder::default();
    let bytes = sent(said);
    let result = processor.process_from(origin, &bytes, NOW, &mut sink, &mut recorder, &mut tally);
    let processed = Processed {
        request: ExportTraceServiceRequest::decode(&*sink.into_bytes()).unwrap(),
        tally,
        measures: recorder.take(),
        result,
    };
    let changed = processed.tally.changed(Change::Claim);
    (resource(&processed), changed)
}

#[test]
fn who_is_not_identified_cannot_say_who_it_is() {
    let said = [
        ("k8s.cluster.name", "east"),
        ("k8s.namespace.name", "payments"),
        ("k8s.pod.label.team", "blue"),
        ("service.name", "shop"),
    ];
    let removed = Origin {
        claims: Claims::Removed,
        ..Origin::default()
    };
    let kept = [("k8s.cluster.name", "east"), ("service.name", "shop")];
    let owned = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.collect::<Vec<_>>()
    };
    assert_eq!(claimed(removed, &said), (owned(&kept), 2));
    // Where nobody is identified, as on a laptop, what is said counts.
    assert_eq!(claimed(Origin::default(), &said), (owned(&said), 0));
    // A gateway speaks for others, and for itself where it says nothing.
    let pod = pod(&["web"]);
    let gateway = Origin {
        pod: Some(&pod),
        claims: Claims::Believed,
        ..Origin::default()
    };
    assert_eq!(claimed(gateway, &said), (owned(&said), 0));
    let own = [
        ("k8s.container.name", "web"),
        ("k8s.pod.name", "web-1"),
        ("k8s.pod.uid", "u-1"),
        ("service.name", "shop"),
    ];
    assert_eq!(
        claimed(gateway, &[("service.name", "shop")]),
        (owned(&own), 0)
    );
}
