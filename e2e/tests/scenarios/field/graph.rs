//! Who calls whom: shared span ids, messages, links, self calls, names of peers.

use serde_json::{Value, json};

use super::otlp::texts;
use super::{CLIENT, CONSUMER, Field, INTERNAL, LIMIT, PRODUCER, SERVER, await_condition};

/// What was sent and is looked at later.
pub struct Graph {
    shared: String,
}

pub fn send(field: &Field<'_>) -> Graph {
    messages(field);
    calls(field);
    Graph {
        shared: shared_id(field),
    }
}

pub fn check(field: &Field<'_>, graph: &Graph) {
    shared_id_is_shown(field, &graph.shared);
    let mut expected: Vec<_> = [
        ("zip-web", "zip-api", "", 1, 0),
        ("links", "linked", "messaging_system", 1, 0),
        ("links-inside", "linked-inside", "messaging_system", 1, 0),
        ("fans", "fan-a", "messaging_system", 1, 0),
        ("fans", "fan-b", "messaging_system", 1, 0),
        ("fans-twice", "fan-twice", "messaging_system", 1, 0),
        ("polled", "polls", "messaging_system", 1, 0),
        ("itself", "itself", "", 1, 0),
        ("inner-a", "inner-b", "", 1, 0),
        ("addresses", "addressed", "", 1, 1),
    ]
    .map(|(caller, callee, connection, count, errors)| {
        let ends = format!("{} > {}", field.service(caller), field.service(callee));
        format!("{ends} {connection} {count} {errors}")
    })
    .into();
    for (caller, callee, connection) in [
        ("zip-api", "postgresql", "database"),
        ("old-name", "legacy.example", "virtual_node"),
        ("old-url", "pay.example", "virtual_node"),
        ("new-url", "pay.example", "virtual_node"),
        ("socket", "peer.example", "virtual_node"),
        ("old-socket", "old-peer.example", "virtual_node"),
    ] {
        let caller = field.service(caller);
        expected.push(format!("{caller} > {callee} {connection} 1 0"));
    }
    // Its client span came twice, in two requests.
    let copies = field.service("copies");
    expected.push(format!("{copies} > copied-peer virtual_node 1 1"));
    expected.sort();
    let complete = || edges(field) == expected;
    let came = await_condition("the graph is as it was sent", LIMIT, complete);
    assert!(came.is_ok(), "{:#?}\nand not {expected:#?}", edges(field));
}

/// The edges of this form's services.
fn edges(field: &Field<'_>) -> Vec<String> {
    let list = field.list("/api/v1/dependencies", &[]);
    let ending = format!("-{}", field.form.name());
    let mut edges: Vec<_> = list["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["caller"].as_str().unwrap().ends_with(&ending))
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let ends = format!("{} > {}", text("caller"), text("callee"));
            let connection = text("connectionType");
            format!("{ends} {connection} {} {}", row["count"], row["errorCount"])
        })
        .collect();
    edges.sort();
    edges
}

/// As Zipkin's tracers do: a client and its server in another service have one id.
fn shared_id(field: &Field<'_>) -> String {
    let (trace, root, shared) = (field.trace_id(), field.span_id(), field.span_id());
    let mut call = field.span(&trace, &shared, "call", CLIENT, 1);
    call["parentSpanId"] = json!(root);
    let mut answer = field.span(&trace, &shared, "GET /api", SERVER, 2);
    answer["parentSpanId"] = json!(root);
    let mut select = field.span(&trace, &field.span_id(), "SELECT", CLIENT, 3);
    select["parentSpanId"] = json!(shared);
    select["attributes"] = texts(&[("db.system.name", "postgresql")]);
    let root = field.span(&trace, &root, "GET /", SERVER, 0);
    field.store(&[("zip-web", &[root, call]), ("zip-api", &[answer, select])]);
    trace
}

fn shared_id_is_shown(field: &Field<'_>, trace: &str) {
    let shown = field.trace(trace);
    let spans = shown["spans"].as_array().unwrap();
    let tree = spans.iter().map(|span| {
        assert!(span.get("duplicates").is_none(), "{span}");
        (
            span["depth"].as_u64().unwrap(),
            span["name"].as_str().unwrap(),
        )
    });
    assert_eq!(
        tree.collect::<Vec<_>>(),
        [(0, "GET /"), (1, "call"), (2, "GET /api"), (3, "SELECT")]
    );
    let service = field.service("zip-api");
    let listed = field.found(trace, &[("service", &service)]).unwrap();
    assert_eq!(listed["spanCount"], 4, "{listed}");
    assert_eq!(listed["rootOperation"], "GET /", "{listed}");
}

fn message(field: &Field<'_>, span: &mut Value) {
    span["attributes"] = texts(&[
        ("messaging.system", "kafka"),
        ("messaging.destination.name", &field.service("queue")),
    ]);
}

/// A producer that is alone so far: its trace, its id and its span.
fn producer(field: &Field<'_>, after_ms: u64) -> (String, String, Value) {
    let (trace, id) = (field.trace_id(), field.span_id());
    let mut span = field.span(&trace, &id, "send", PRODUCER, after_ms);
    message(field, &mut span);
    (trace, id, span)
}

fn child(field: &Field<'_>, (trace, parent): (&str, &str), kind: u8, after_ms: u64) -> Value {
    let mut span = field.span(trace, &field.span_id(), "handle", kind, after_ms);
    span["parentSpanId"] = json!(parent);
    span
}

fn messages(field: &Field<'_>) {
    // A consumer that begins a trace of its own and links to the producer, in a request of its own.
    let (trace, id, sent) = producer(field, 0);
    field.store(&[("links", &[sent])]);
    let link = json!([{"traceId": trace, "spanId": id}]);
    let mut taken = field.span(&field.trace_id(), &field.span_id(), "handle", CONSUMER, 100);
    taken["links"] = link;
    message(field, &mut taken);
    field.store(&[("linked", &[taken])]);

    // The same within one trace, where both have the same parent.
    let (trace, id, mut sent) = producer(field, 1);
    let root = field.span_id();
    let top = field.span(&trace, &root, "root", INTERNAL, 0);
    sent["parentSpanId"] = json!(root);
    let mut taken = child(field, (&trace, &root), CONSUMER, 100);
    taken["links"] = json!([{"traceId": trace, "spanId": id}]);
    field.store(&[("links-inside", &[top, sent]), ("linked-inside", &[taken])]);

    let (trace, id, sent) = producer(field, 0);
    let taken = |after_ms| child(field, (&trace, &id), CONSUMER, after_ms);
    field.store(&[
        ("fans", &[sent]),
        ("fan-a", &[taken(10)]),
        ("fan-b", &[taken(20)]),
    ]);
    let (trace, id, sent) = producer(field, 0);
    let taken = |after_ms| child(field, (&trace, &id), CONSUMER, after_ms);
    field.store(&[
        ("fans-twice", &[sent]),
        ("fan-twice", &[taken(10), taken(20)]),
    ]);

    // A consumer whose own client span, with which it asked the broker, lies between.
    let (trace, id, sent) = producer(field, 0);
    let mut receive = child(field, (&trace, &id), CLIENT, 10);
    message(field, &mut receive);
    let received = receive["spanId"].as_str().unwrap().to_owned();
    let handled = child(field, (&trace, &received), CONSUMER, 20);
    field.store(&[("polled", &[sent]), ("polls", &[receive, handled])]);
}

fn calls(field: &Field<'_>) {
    let (trace, id) = (field.trace_id(), field.span_id());
    let call = field.span(&trace, &id, "call", CLIENT, 0);
    field.store(&[("itself", &[call, child(field, (&trace, &id), SERVER, 1)])]);

    // A server below a span that is no client.
    let (trace, id) = (field.trace_id(), field.span_id());
    let inner = field.span(&trace, &id, "work", INTERNAL, 0);
    field.store(&[
        ("inner-a", &[inner]),
        ("inner-b", &[child(field, (&trace, &id), SERVER, 1)]),
    ]);

    // Nobody is known to call this one.
    let entry = field.span(&field.trace_id(), &field.span_id(), "GET /", SERVER, 0);
    field.store(&[("entry", &[entry])]);

    // The address names a service that sends spans itself, which fails.
    let (trace, id) = (field.trace_id(), field.span_id());
    let mut call = field.span(&trace, &id, "call", CLIENT, 0);
    call["attributes"] = texts(&[("server.address", "api.example")]);
    let mut answer = child(field, (&trace, &id), SERVER, 1);
    answer["status"] = json!({"code": 2});
    field.store(&[("addresses", &[call]), ("addressed", &[answer])]);

    for (service, key, value) in [
        ("old-name", "net.peer.name", "legacy.example"),
        ("old-url", "http.url", "https://pay.example/x"),
        ("new-url", "url.full", "https://pay.example/x"),
        ("socket", "network.peer.address", "peer.example"),
        ("old-socket", "net.sock.peer.addr", "old-peer.example"),
    ] {
        let mut call = field.span(&field.trace_id(), &field.span_id(), "call", CLIENT, 0);
        call["attributes"] = texts(&[(key, value)]);
        field.store(&[(service, &[call])]);
    }
}
