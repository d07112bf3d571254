//! Half-edges: what names the other end, links, and parents that are no callers.

use spanloom_otlp::record::{LinkRecord, Value};

use super::*;

#[track_caller]
fn check_peer(kind: SpanKind, attributes: &[(&str, Value<'_>)], peer: &str, connection: u8) {
    let attributes: Vec<_> = attributes
        .iter()
        .map(|&(key, value)| Attr { key, value })
        .collect();
    let measures = recorded(&[span(kind, &attributes)]);
    let half = measures.half_edges[0];
    let found = (measures.text(half.peer), half.connection_type as u8);
    assert_eq!(found, (peer, connection), "{attributes:?}");
    assert_eq!((half.span_id, half.parent_span_id), ([2; 8], [3; 8]));
    assert_eq!(half.kind, kind);
}

const UNSET: u8 = ConnectionType::Unset as u8;
const MESSAGING: u8 = ConnectionType::MessagingSystem as u8;
const DATABASE: u8 = ConnectionType::Database as u8;

#[test]
fn clients_name_the_other_end() {
    let client = |attributes: &[(&str, &str)], peer, connection| {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|&(key, value)| (key, Value::Str(value)))
            .collect();
        check_peer(SpanKind::Client, &attributes, peer, connection);
    };
    client(&[], "", UNSET);
    let both = [("server.address", "api"), ("peer.service", "auth")];
    client(&both, "auth", UNSET);
    client(&[("service.peer.name", "auth")], "auth", UNSET);
    client(&[("server.address", "api")], "api", UNSET);
    let redis = [("db.system", "redis"), ("server.address", "r")];
    client(&redis, "redis", DATABASE);
    let orders = [("db.system.name", "postgresql"), ("db.namespace", "orders")];
    client(&orders, "orders", DATABASE);
    let numbered = [("db.system.name", "redis"), ("db.namespace", "0")];
    client(&numbered, "redis", DATABASE);
    client(
        &[("db.system", "mysql"), ("db.name", "old")],
        "old",
        DATABASE,
    );
    // Names of earlier conventions, and what is left without any.
    client(&[("net.peer.name", "legacy")], "legacy", UNSET);
    client(
        &[("peer.hostname", "h"), ("peer.ipv4", "10.0.0.1")],
        "h",
        UNSET,
    );
    client(
        &[("url.full", "https://u:p@pay.example:8443/x?y=a@b#z")],
        "pay.example",
        UNSET,
    );
    client(&[("http.url", "http://old.example")], "old.example", UNSET);
    client(
        &[("url.full", "/relative"), ("net.peer.ip", "10.0.0.9")],
        "10.0.0.9",
        UNSET,
    );
    client(&[("url.full", "http://")], "", UNSET);
    let better = [("url.full", "http://a/"), ("server.address", "b")];
    client(&better, "b", UNSET);
    // The service's own name is never the other end.
    client(&[("peer.service", "shop")], "", UNSET);
    let own = [("db.system", "mysql"), ("peer.service", "shop")];
    client(&own, "", DATABASE);
    // What sends messages names where they go; what receives them does not call who sent them.
    let sends = |operation| {
        [
            ("messaging.system", "kafka"),
            ("messaging.destination.name", "orders"),
            ("messaging.operation.type", operation),
        ]
    };
    client(&sends("send"), "orders", MESSAGING);
    client(&sends("receive"), "", UNSET);
    let broker = [("messaging.system", "kafka"), ("server.address", "broker")];
    client(&broker, "broker", UNSET);
}

#[test]
fn addresses_are_told_apart_by_their_ports() {
    let check = |attributes: &[(&str, Value<'_>)], peer| {
        check_peer(SpanKind::Client, attributes, peer, UNSET);
    };
    let (ip, name) = (Value::Str("10.0.0.7"), Value::Str("api"));
    check(
        &[("server.address", ip), ("server.port", Value::Int(80))],
        "10.0.0.7:80",
    );
    check(
        &[("server.address", name), ("server.port", Value::Int(80))],
        "api",
    );
    check(
        &[("net.peer.name", ip), ("net.peer.port", Value::Str("80"))],
        "10.0.0.7:80",
    );
    check(&[("network.peer.address", ip)], "10.0.0.7");
    let peer = [
        ("network.peer.port", Value::Int(5432)),
        ("network.peer.address", ip),
    ];
    check(&peer, "10.0.0.7:5432");
    let six = [
        ("server.address", Value::Str("fd00::1")),
        ("server.port", Value::Int(80)),
    ];
    check(&six, "[fd00::1]:80");
    check(
        &[("url.full", Value::Str("http://10.0.0.7:81/x"))],
        "10.0.0.7:81",
    );
    check(
        &[("url.full", Value::Str("http://[fd00::1]:81/x"))],
        "[fd00::1]:81",
    );
    check(
        &[("server.address", ip), ("server.port", Value::Bool(true))],
        "10.0.0.7",
    );
}

#[test]
fn producers_name_where_messages_go() {
    let producer = |attributes: &[(&str, &str)], peer| {
        let attributes: Vec<_> = attributes
            .iter()
            .map(|&(key, value)| (key, Value::Str(value)))
            .collect();
        check_peer(SpanKind::Producer, &attributes, peer, MESSAGING);
    };
    let kafka = ("messaging.system", "kafka");
    producer(&[kafka, ("messaging.destination.name", "orders")], "orders");
    producer(&[kafka, ("messaging.destination", "old")], "old");
    producer(&[kafka], "kafka");
    let kafka = [("messaging.system", Value::Str("kafka"))];
    check_peer(SpanKind::Consumer, &kafka, "", MESSAGING);
    let me = [("server.address", Value::Str("me"))];
    check_peer(SpanKind::Server, &me, "", UNSET);
    check_peer(SpanKind::Internal, &me, "", UNSET);
}

/// The ids of the ends, as (trace, span, parent).
fn ends(measures: &Measures) -> Vec<(u8, u8, u8)> {
    let halves = measures.half_edges.iter();
    halves
        .map(|half| (half.trace_id[0], half.span_id[0], half.parent_span_id[0]))
        .collect()
}

#[test]
fn a_consumer_is_joined_with_what_it_links_to() {
    let link = |trace: u8, span: u8| LinkRecord {
        trace_id: [trace; 16],
        span_id: [span; 8],
        trace_state: "",
        flags: 0,
        attributes: &[],
        dropped_attributes_count: 0,
    };
    // A trace of another's, the parent again, and none.
    let links = [link(8, 7), link(1, 3), link(0, 7), link(8, 0), link(1, 9)];
    let linked = |kind| SpanRecord {
        links: &links,
        ..span(kind, &[])
    };
    let consumer = recorded(&[linked(SpanKind::Consumer)]);
    assert_eq!(ends(&consumer), [(1, 2, 3), (8, 2, 7), (1, 2, 9)]);
    assert_eq!(ends(&recorded(&[linked(SpanKind::Server)])), [(1, 2, 3)]);
    let many = vec![link(8, 7); 1_000];
    let batch = SpanRecord {
        links: &many,
        ..span(SpanKind::Consumer, &[])
    };
    assert_eq!(ends(&recorded(&[batch])).len(), 1 + 128);
}

#[test]
fn a_parent_of_the_same_service_and_batch_is_no_caller() {
    let child = |kind, id: u8, parent: u8| SpanRecord {
        span_id: [id; 8],
        parent_span_id: [parent; 8],
        ..span(kind, &[])
    };
    let mut recorder = Recorder::default();
    let (shop, cart) = (recorder.text("shop"), recorder.text("cart"));
    // The child comes first, as SDKs send it.
    recorder.span(shop, &child(SpanKind::Client, 2, 1));
    recorder.span(shop, &child(SpanKind::Server, 1, 9));
    // A service may call itself, and another's parent is a caller.
    recorder.span(shop, &child(SpanKind::Server, 3, 2));
    recorder.span(cart, &child(SpanKind::Internal, 4, 2));
    // One that is not in this batch may be anyone's.
    recorder.span(shop, &child(SpanKind::Internal, 5, 8));
    let expect = [(1, 2, 0), (1, 1, 9), (1, 3, 2), (1, 4, 2), (1, 5, 8)];
    assert_eq!(ends(&recorder.take()), expect);
}
