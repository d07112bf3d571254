//! What a class of redaction promises is hidden wherever it stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::otlp::{array, attribute, bytes, double, int, map, resource_spans, text, texts};
use super::{Field, attribute_of};

pub fn check(field: &Field<'_>) {
    cards(field);
    places(field);
}

const CARD: &str = "4111111111111111";

fn cards(field: &Field<'_>) {
    let number = CARD.parse::<i64>().unwrap();
    let texts = [
        ("plain", CARD, "***"),
        ("blanks", "4111 1111 1111 1111", "***"),
        ("expiry", "4111 1111 1111 1111 12/29", "*** 12/29"),
        ("expiry without slash", "4111111111111111 1229", "*** 1229"),
        (
            "check number",
            "card 4111111111111111 123 ok",
            "card *** 123 ok",
        ),
        ("order before", "order 17 4111111111111111", "order 17 ***"),
        ("part after", "4111111111111111-01", "***-01"),
        ("two", "4111111111111111 5555555555554444", "*** ***"),
        (
            "json",
            r#"{"pan":"4111111111111111","exp":"1229"}"#,
            r#"{"pan":"***","exp":"1229"}"#,
        ),
        ("csv", "4111111111111111,12,29", "***,12,29"),
        ("fifteen digits", "3782 822463 10005", "***"),
        ("two blanks", "4111  1111  1111  1111", "***"),
        ("dots", "4111.1111.1111.1111", "***"),
        (
            "no-break blanks",
            "4111\u{a0}1111\u{a0}1111\u{a0}1111",
            "***",
        ),
        ("path", "/pay/4111111111111111/now", "/pay/***/now"),
        ("between letters", "x4111111111111111y", "x***y"),
        // Not a card: another check digit, another number of digits.
        ("no card", "4111111111111112", "4111111111111112"),
        ("longer", "14111111111111111", "14111111111111111"),
    ];
    let others = [
        ("int", int(number)),
        ("double", double(number as f64)),
        ("bytes", bytes(CARD.as_bytes())),
        ("array", array(&[text(CARD), int(number), text("ok")])),
        (
            "map",
            map(&[
                ("pan", text(CARD)),
                ("number", int(number)),
                ("list", array(&[text(CARD)])),
            ]),
        ),
    ];
    let all = texts
        .iter()
        .map(|(key, value, _)| attribute(key, text(value)));
    let all: Vec<_> = all
        .chain(
            others
                .iter()
                .map(|(key, value)| attribute(key, value.clone())),
        )
        .collect();
    let (trace, mut span) = field.alone(&format!("charge {CARD}"), json!(all));
    span["status"] = json!({"code": 2, "message": format!("declined {CARD} 1229")});
    span["events"] = json!([{
        "timeUnixNano": span["startTimeUnixNano"],
        "name": format!("event {CARD} 42"),
        "attributes": [attribute("e", text(&format!("{CARD} 99"))), attribute("n", int(number))],
    }]);
    field.store(&[("cards", &[span])]);

    let shown = field.only_span(&trace);
    for (key, sent, hidden) in texts {
        let (_, value) = attribute_of(&shown, key).unwrap();
        assert_eq!(value, hidden, "{key}: {sent}");
    }
    assert_eq!(shown["name"], "charge ***");
    assert_eq!(shown["statusMessage"], "declined *** 1229");
    assert_eq!(shown["events"][0]["name"], "event *** 42");
    for (key, _) in others {
        let (_, value) = attribute_of(&shown, key).unwrap();
        hides(&value, &[CARD, &STANDARD.encode(CARD), "4.111"]);
    }
    let array = attribute_of(&shown, "array").unwrap().1;
    assert_eq!(array[2]["value"], "ok", "{array}");
    hides(&shown["events"], &[CARD]);
}

#[track_caller]
fn hides(answer: &Value, secrets: &[&str]) {
    let answer = answer.to_string();
    for secret in secrets {
        assert!(!answer.contains(secret), "{secret} is in {answer}");
    }
}

/// What must be nowhere, in the order of the attributes below.
const SECRETS: &[&str] = &[
    "ann@example.com",
    "ann%40",
    "ann%2540",
    "exämple",
    "jörg@",
    "a+b@",
    "ANN@",
    "QGV4YW1wbGUu",
    "u0040",
    "Bearer abc",
    "one-secret",
    "two-secret",
    "three-secret",
    "7302615489",
    "four-secret",
    "five-secret",
    "six-secret",
    "abcdefgh12345",
    "dXNlcjpw",
    "sk_live",
    "hunter2",
    "10.1.2.3",
    "10.4.5.6",
    "eyJzdWIi",
];

fn places(field: &Field<'_>) {
    const MAIL: &str = "ann@example.com";
    let of = |words: &str| words.replace("MAIL", MAIL);
    let mut all = texts(&[
        ("plain", &of("hello MAIL")),
        ("escaped", "q=ann%40example.com"),
        ("escaped twice", "q=ann%2540example.com"),
        ("other alphabet", "ann@exämple.de"),
        ("other local part", "jörg@example.de"),
        ("plus", "a+b@example.co.uk"),
        ("capitals", "ANN@EXAMPLE.COM"),
        ("json", r#"{"email":"ann\u0040example.com"}"#),
        (&of("key.MAIL"), "v"),
        ("http.request.header.authorization", "Bearer abc"),
        ("user.password", "one-secret"),
        ("bearer", "Authorization: bearer abcdefgh12345"),
        ("basic", "Basic dXNlcjpwYXNzd29yZA=="),
        ("bearer escaped", "Bearer%20abcdefgh12345"),
        ("token", "sk_live_abcdefgh123"),
        ("url", "postgres://u:hunter2@db/x"),
        ("addresses", "client 10.1.2.3, 10.4.5.6:8080"),
        ("jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.sig"),
    ]);
    all.as_array_mut().unwrap().extend([
        attribute("bytes", bytes(of("to=MAIL").as_bytes())),
        attribute("array", array(&[text(MAIL), array(&[text(MAIL)])])),
        attribute("map", map(&[("to", text(MAIL)), (MAIL, text("v"))])),
        attribute(
            "user",
            map(&[("password", text("two-secret")), ("name", text("kept"))]),
        ),
        attribute(
            "users",
            array(&[map(&[("password", text("three-secret"))])]),
        ),
        attribute("password", int(7_302_615_489)),
        attribute("old.password", array(&[text("four-secret")])),
        attribute("new.password", map(&[("x", text("five-secret"))])),
        attribute(
            "x",
            map(&[("http.request.header.authorization", text("six-secret"))]),
        ),
    ]);
    let (trace, mut span) = field.alone(&of("mail MAIL"), all);
    let inner = || {
        json!([
            attribute("inner", text(MAIL)),
            attribute("n", map(&[("password", text("two-secret"))]))
        ])
    };
    span["traceState"] = json!(of("v=MAIL"));
    span["status"] = json!({"code": 2, "message": of("no MAIL")});
    span["events"] = json!([{
        "timeUnixNano": span["startTimeUnixNano"], "name": of("event MAIL"), "attributes": inner(),
    }]);
    span["links"] = json!([{
        "traceId": field.trace_id(), "spanId": field.span_id(), "traceState": of("v=MAIL"), "attributes": inner(),
    }]);
    let resource = vec![
        attribute("service.name", text(&field.service(&of("red MAIL")))),
        attribute("owner", text(MAIL)),
        attribute("owners", array(&[text(MAIL)])),
    ];
    let mut sent = resource_spans(resource, &[span]);
    sent["schemaUrl"] = json!(of("https://example.com/MAIL"));
    sent["scopeSpans"][0]["schemaUrl"] = json!(of("https://example.com/MAIL"));
    sent["scopeSpans"][0]["scope"] =
        json!({"name": of("lib MAIL"), "version": MAIL, "attributes": inner()});
    field.store_resources(&[sent]);

    let shown = field.only_span(&trace);
    hides(&shown, SECRETS);
    let service = shown["service"].as_str().unwrap();
    assert!(service.starts_with("red ***"), "{service}");
    // What is not secret is there.
    assert_eq!(shown["name"], "mail ***");
    assert_eq!(
        attribute_of(&shown, "user").unwrap().1[1]["value"],
        "kept",
        "{shown}"
    );
    for path in [
        "/api/v1/services",
        "/api/v1/latency",
        "/api/v1/dependencies",
        "/api/v1/traces",
    ] {
        hides(&field.list(path, &[]), SECRETS);
    }
    let (_, metrics) = field.up.get("/metrics").unwrap();
    assert!(!metrics.contains(MAIL), "{metrics}");
}
