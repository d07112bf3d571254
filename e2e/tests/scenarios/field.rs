//! Inputs that go wrong in tracing systems, by their kinds: sent over OTLP/HTTP as JSON and as protobuf to one
//! `spanloom up`, and read back through the API.

mod graph;
mod intake;
mod otlp;
mod redaction;
mod search;
mod times;

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use spanloom_e2e::spanloom::{Spanloom, await_condition};

use super::support::{now_ns, options, post_traces, up_with};
use otlp::{Form, attribute, resource_spans, text};

/// The limit of attributes is large enough for all spans here, and too small for one resource.
const DOCUMENT: &str = "\
apiVersion: spanloom.dev/v1alpha1
kind: TracingPipeline
metadata: {name: field}
spec:
  processing:
    redact:
      - keys: [\"http.request.header.authorization\", \"*.password\", \"password\"]
      - values: email
      - values: creditCard
      - values: credentials
      - values: ipv4
      - values: jwt
      - values: 'sk_live_[A-Za-z0-9]{8,}'
    limits: {attributesPerSpan: 40}
";

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn inputs_from_the_field_have_the_right_answers() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("pipeline.yaml");
    std::fs::write(&document, DOCUMENT).unwrap();
    let mut options = options(&folder.path().join("data"));
    options.arguments = vec!["-f".to_owned(), document.display().to_string()];
    let up = up_with(&options);
    let forms = [Form::Json, Form::Protobuf].map(|form| Field::new(&up, form));
    // Their edges take the longest to be there, so they are looked at last.
    let graphs = forms.each_ref().map(graph::send);
    for field in &forms {
        search::check(field);
        times::check(field);
        redaction::check(field);
        intake::check(field);
    }
    for (field, graph) in forms.iter().zip(&graphs) {
        graph::check(field, graph);
    }
}

/// What the checks of one form share.
struct Field<'a> {
    up: &'a Spanloom,
    form: Form,
    /// When the first spans start: some seconds ago, so that none ends after now.
    begun_ns: u64,
    ids: Cell<u64>,
}

impl<'a> Field<'a> {
    fn new(up: &'a Spanloom, form: Form) -> Self {
        Self {
            up,
            form,
            begun_ns: now_ns() - 60_000_000_000,
            ids: Cell::new(0),
        }
    }

    /// A service of this form.
    fn service(&self, name: &str) -> String {
        format!("{name}-{}", self.form.name())
    }

    fn next(&self) -> u64 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }

    fn trace_id(&self) -> String {
        format!(
            "{:016x}{:016x}",
            0xf1e1_d000 + self.form as u64,
            self.next()
        )
    }

    fn span_id(&self) -> String {
        format!("{:016x}", self.next())
    }

    /// A span of a millisecond that started so many milliseconds after the first.
    fn span(&self, trace: &str, id: &str, name: &str, kind: u8, after_ms: u64) -> Value {
        let start = self.begun_ns + after_ms * 1_000_000;
        json!({
            "traceId": trace,
            "spanId": id,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": start.to_string(),
            "endTimeUnixNano": (start + 1_000_000).to_string(),
        })
    }

    /// A span that is alone in its trace, whose id comes with it.
    fn alone(&self, name: &str, attributes: Value) -> (String, Value) {
        let trace = self.trace_id();
        let mut span = self.span(&trace, &self.span_id(), name, INTERNAL, 0);
        span["attributes"] = attributes;
        (trace, span)
    }

    /// The status and the text of the answer to a request.
    fn send(&self, resources: &[Value]) -> (u16, String) {
        let body = self.form.encode(&json!({"resourceSpans": resources}));
        let (status, answer) = post_traces(self.up, self.form.content_type(), &body);
        (status, String::from_utf8_lossy(&answer).into_owned())
    }

    /// Sends a request of which everything must be taken, without a word.
    #[track_caller]
    fn store_resources(&self, resources: &[Value]) {
        let (status, answer) = self.send(resources);
        assert_eq!(status, 200, "{answer}");
        assert!(["", "{}"].contains(&&*answer), "{answer}");
    }

    /// The same, with spans of services of this form.
    #[track_caller]
    fn store(&self, services: &[(&str, &[Value])]) {
        let resources = services.iter().map(|(service, spans)| {
            let name = attribute("service.name", text(&self.service(service)));
            resource_spans(vec![name], spans)
        });
        self.store_resources(&resources.collect::<Vec<_>>());
    }

    #[track_caller]
    fn trace(&self, id: &str) -> Value {
        self.up.get_json(&format!("/api/v1/traces/{id}")).unwrap()
    }

    /// The only span of a trace.
    #[track_caller]
    fn only_span(&self, id: &str) -> Value {
        let trace = self.trace(id);
        assert_eq!(trace["spanCount"], 1, "{trace}");
        trace["spans"][0].clone()
    }

    /// A list of the API over the hour around now.
    #[track_caller]
    fn list(&self, path: &str, query: &[(&str, &str)]) -> Value {
        self.list_since(path, 3600, query)
    }

    #[track_caller]
    fn list_since(&self, path: &str, seconds: u64, query: &[(&str, &str)]) -> Value {
        let now = now_ns() / 1_000_000_000;
        let mut path = format!("{path}?start={}&end={}", now - seconds, now + 60);
        for (key, value) in query {
            path += &format!("&{key}={}", encode(value));
        }
        self.up.get_json(&path).unwrap()
    }

    /// What the list of traces says of this one, when it is found.
    #[track_caller]
    fn found(&self, trace: &str, query: &[(&str, &str)]) -> Option<Value> {
        let list = self.list("/api/v1/traces", &[query, &[("limit", "100")]].concat());
        let traces = list["traces"].as_array().unwrap();
        traces.iter().find(|it| it["traceId"] == trace).cloned()
    }

    /// Whether a trace is found by a tag.
    #[track_caller]
    fn has_tag(&self, trace: &str, tag: &str) -> bool {
        self.found(trace, &[("tag", tag)]).is_some()
    }

    /// The rows of one service's latency.
    #[track_caller]
    fn latency(&self, service: &str, more: &[(&str, &str)]) -> Vec<Value> {
        let service = self.service(service);
        let query = [&[("service", &*service)][..], more].concat();
        let list = self.list("/api/v1/latency", &query);
        list["operations"].as_array().unwrap().clone()
    }

    /// How often spans were changed for this reason.
    fn changes(&self, reason: &str) -> f64 {
        let (_, metrics) = self.up.get("/metrics").unwrap();
        let head = format!("spanloom_processing_changes_total{{reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&head));
        value.map_or(0.0, |value| value.parse().unwrap())
    }
}

const INTERNAL: u8 = 1;
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const PRODUCER: u8 = 4;
const CONSUMER: u8 = 5;

/// Type and value of an attribute of a span, a resource or an event.
fn attribute_of(owner: &Value, key: &str) -> Option<(String, Value)> {
    let attributes = owner["attributes"].as_array().unwrap();
    let found = attributes
        .iter()
        .find(|attribute| attribute["key"] == key)?;
    Some((
        found["type"].as_str().unwrap().to_owned(),
        found["value"].clone(),
    ))
}

/// Percent-encodes everything.
fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
