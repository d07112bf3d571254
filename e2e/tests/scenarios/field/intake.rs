//! What is told of fields that OTLP does not have, and the name of the service that every limit leaves.

use serde_json::{Value, json};

use super::Field;
use super::otlp::{Form, array, attribute, int, resource_spans, text};

pub fn check(field: &Field<'_>) {
    names_that_are_not_otlps(field);
    the_service_has_a_name(field);
}

/// Protobuf has numbers in the place of names.
fn names_that_are_not_otlps(field: &Field<'_>) {
    if field.form != Form::Json {
        return;
    }
    let before = field.changes("unknown_field");
    let (trace, span) = field.alone("unknown", json!([]));
    let name = attribute("service.name", text("unknown"));
    let whole = resource_spans(vec![name], &[span]);
    let renamed = |of: &Value, from: &str, to: &str| {
        serde_json::from_str::<Value>(&of.to_string().replace(from, to)).unwrap()
    };
    let spans = |text: &str| json!({text: [whole.clone()]});
    for (place, body) in [
        renamed(&spans("resource_spans"), "scopeSpans", "scope_spans"),
        renamed(
            &spans("resourceSpans"),
            "scopeSpans",
            "instrumentationLibrarySpans",
        ),
        renamed(
            &spans("resourceSpans"),
            "startTimeUnixNano",
            "start_time_unix_nano",
        ),
    ]
    .iter()
    .enumerate()
    {
        let answer = super::post_traces(field.up, "application/json", body.to_string().as_bytes());
        assert_eq!(answer.0, 200, "{body}");
        let answer: Value = serde_json::from_slice(&answer.1).unwrap();
        let said = answer["partialSuccess"]["errorMessage"].as_str();
        assert!(
            said.is_some_and(|said| said.contains("unknown names")),
            "{answer}"
        );
        let counted = field.changes("unknown_field") - before;
        assert!(counted > place as f64, "{counted} after {body}");
    }
    let (status, _) = field.up.get(&format!("/api/v1/traces/{trace}")).unwrap();
    assert_eq!(status, 404);
}

fn the_service_has_a_name(field: &Field<'_>) {
    // Last of more attributes than are kept.
    let mut many: Vec<_> = (0..60)
        .map(|place| attribute(&format!("r{place:02}"), text("v")))
        .collect();
    many.push(attribute("service.name", text(&field.service("late-name"))));
    let name = |value: Value| vec![attribute("service.name", value)];
    let cases = [
        (many, field.service("late-name")),
        (name(int(42)), "42".to_owned()),
        (name(array(&[text("a")])), r#"["a"]"#.to_owned()),
        (name(text("")), "unknown_service".to_owned()),
        (vec![], "unknown_service".to_owned()),
    ];
    let mut resources = Vec::new();
    let mut traces = Vec::new();
    for (attributes, _) in &cases {
        let (trace, span) = field.alone("named", json!([]));
        resources.push(resource_spans(attributes.clone(), &[span]));
        traces.push(trace);
    }
    field.store_resources(&resources);
    for ((_, service), trace) in cases.iter().zip(&traces) {
        let span = field.only_span(trace);
        assert_eq!(span["service"], **service, "{span}");
        assert!(
            field.found(trace, &[("service", service)]).is_some(),
            "{service}"
        );
    }
    let cut = &field.only_span(&traces[0])["resource"];
    let kept = cut["attributes"].as_array().unwrap();
    assert_eq!(
        kept.len() as u64 + cut["droppedAttributesCount"].as_u64().unwrap(),
        61,
        "{cut}"
    );
    assert!(kept.len() < 61, "{cut}");
}
