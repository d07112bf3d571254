//! Which spans match: one span with a bit of everything, hundreds of filters.

mod common;

use common::{TestSpan, Value};
use spanloom_traceql::{Filter, Kind, Scope, Status};

fn order() -> TestSpan {
    TestSpan {
        name: "POST /orders",
        status: Status::Error,
        message: "db timeout",
        kind: Kind::Server,
        duration: 180_000_000,
        trace_id: *b"\x0a\xc3\xe0\x87\x85\xc1\x80\x97\x38\x57\xc7\x6a\x27\x91\x0d\xbb",
        span_id: *b"\x00\x15\xfb\xaf\x88\x62\xd6\x8b",
        parent: *b"\x13\x06\x4f\x7f\xda\xeb\x05\x4f",
        scope: ("fastapi", "1.4"),
        events: vec![
            (
                "exception",
                25_000_000,
                vec![("type", "TimeoutError".into()), ("n", 3.into())],
            ),
            (
                "retry",
                30_000_000,
                vec![("n", 1.into()), ("tags", ["x", "y"].into())],
            ),
        ],
        links: vec![(
            [0x8a; 16],
            [0x7b; 8],
            vec![("batch", true.into()), ("m", 3.into())],
        )],
        instrumentation: vec![("scoped", "s".into())],
        ..TestSpan::default()
    }
    .with("http.route", "/orders")
    .with("s", "b")
    .with("n", -12)
    .with("i", 3)
    .with("big", 9_007_199_254_740_993)
    .with("f", 3.25)
    .with("g", 25.0)
    .with("nan", f64::NAN)
    .with("yes", true)
    .with("no", false)
    .with("e", "")
    .with("a b", "c d")
    .with("q\"\\", "quoted")
    .with("dot.ted-dash", "1")
    .with("zone", "span-zone")
    .with("lines", "a\nb")
    .with("bytes", Value::Bytes)
    .with("ints", [7, 8])
    .with("tags", ["t1", "t2"])
    .with("mixed", Value::Array(vec![1.into(), "x".into()]))
    .with("none", Value::Array(vec![]))
    .with("flags", [false, true])
    .resource("service.name", "orders-api")
    .resource("zone", "resource-zone")
    .resource("only", "resource")
}

#[track_caller]
fn matching(filter: &str) {
    let parsed = Filter::parse(filter).unwrap_or_else(|e| panic!("{filter}: {e}"));
    assert!(parsed.matches(&order()), "{filter} should match");
}

#[track_caller]
fn not(filter: &str) {
    let parsed = Filter::parse(filter).unwrap_or_else(|e| panic!("{filter}: {e}"));
    assert!(!parsed.matches(&order()), "{filter} should not match");
}

#[test]
fn constants() {
    matching("{}");
    matching("{ }");
    matching("\n {\t}\n");
    matching("{ true }");
    not("{ false }");
    matching("{ !false }");
    matching("{ 1 = 1 }");
    matching("{ 1 = 1.0 }");
    not("{ 1 = 2 }");
    matching("{ \"a\" < \"b\" }");
    matching("{ 1s = 1000ms }");
    matching("{ 1h2m3s = 3723s }");
    matching("{ 1.5s = 1500ms }");
    matching("{ 1us = 1000ns && 1µs = 1us && 1μs = 1us }");
    matching("{ 1d = 24h && 1w = 7d && 1y = 365d }");
    matching("{ 5 = 5ns }");
    matching("{ .5 = 0.5 && 1. = 1 && 1e3 = 1000 && 1.5e-1 = 0.15 }");
    matching("{ -9223372036854775808 = minInt && 9223372036854775807 = maxInt }");
    matching("{ \"\\\"\\\\\\n\\t\\x41\\101\\u00e9\\U0001F600\" = \"\\\"\\\\\\n\\tAAé😀\" }");
    matching("{ \"\\xc3\\xa9\" = `é` }");
    matching("{ `a\\n` = \"a\\\\n\" }");
    matching("{ ok = ok && server = server && error != ok }");
}

#[test]
fn intrinsics() {
    matching("{ name = \"POST /orders\" }");
    matching("{ span:name = `POST /orders` }");
    not("{ name = \"POST\" }");
    matching("{ name != \"POST\" }");
    matching("{ name > \"A\" && name < \"Z\" }");
    matching("{ status = error }");
    matching("{ span:status = error }");
    matching("{ error = status }");
    not("{ status = ok }");
    matching("{ status != unset }");
    matching("{ statusMessage = \"db timeout\" }");
    matching("{ span:statusMessage != \"\" }");
    matching("{ kind = server }");
    matching("{ span:kind = server || kind = client }");
    not("{ kind = unspecified }");
    not("{ kind = internal || kind = client || kind = producer || kind = consumer }");
    matching("{ duration = 180ms }");
    matching("{ span:duration > 100ms && duration >= 0.18s && duration <= 180ms }");
    not("{ duration > 180ms }");
    matching("{ duration > 5 }");
    matching("{ duration = 180000000 }");
    matching("{ duration / 2 = 90ms }");
    matching("{ duration > 1.5 }");
    matching("{ instrumentation:name = \"fastapi\" && instrumentation:version = \"1.4\" }");
    matching("{ name != nil && status != nil && duration != nil && event:name != nil }");
}

#[test]
fn ids() {
    matching("{ trace:id = \"0ac3e08785c180973857c76a27910dbb\" }");
    matching("{ trace:id = \"ac3e08785c180973857c76a27910dbb\" }");
    matching("{ trace:id = \"AC3E08785C180973857C76A27910DBB\" }");
    matching("{ \"0ac3e08785c180973857c76a27910dbb\" = trace:id }");
    not("{ trace:id = \"1ac3e08785c180973857c76a27910dbb\" }");
    not("{ trace:id = \"\" }");
    matching("{ trace:id != \"x\" }");
    matching("{ trace:id =~ \"0ac3.*\" }");
    matching("{ span:id = \"0015fbaf8862d68b\" }");
    matching("{ span:id = \"15fbaf8862d68b\" }");
    not("{ span:id != \"15fbaf8862d68b\" }");
    matching("{ span:parentID = \"13064f7fdaeb054f\" }");
    not("{ span:parentID = \"\" }");
    matching("{ link:traceID = \"8a8a8a8a8a8a8a8a8a8a8a8a8a8a8a8a\" }");
    matching("{ link:spanID = \"7b7b7b7b7b7b7b7b\" }");
    matching("{ link:spanID =~ \"7b.*\" }");
    not("{ link:spanID = \"7b\" }");
    let root = TestSpan::default();
    assert!(
        Filter::parse("{ span:parentID = \"\" }")
            .unwrap()
            .matches(&root)
    );
}

#[test]
fn attributes() {
    matching("{ span.http.route = \"/orders\" }");
    matching("{ .http.route = \"/orders\" }");
    not("{ resource.http.route = \"/orders\" }");
    matching("{ \"/orders\" = span.http.route }");
    not("{ span.http.route = \"/Orders\" }");
    matching("{ span.\"a b\" = \"c d\" }");
    matching("{ .\"a b\" = \"c d\" }");
    matching("{ span.\"q\\\"\\\\\" = \"quoted\" }");
    matching("{ span.http.\"route\" = \"/orders\" }");
    matching("{ span.dot.ted-dash = \"1\" }");
    matching("{ span.e = \"\" }");
    matching("{ .zone = \"span-zone\" }");
    not("{ .zone = \"resource-zone\" }");
    matching("{ resource.zone = \"resource-zone\" }");
    matching("{ .only = \"resource\" }");
    matching("{ .service.name = \"orders-api\" }");
    not("{ .scoped = \"s\" }");
    matching("{ instrumentation.scoped = \"s\" }");
    matching("{ resource.service.name =~ \"orders-.*\" }");
    matching("{ .s = .s && .s != .e && .f < .g }");
    matching("{ .s > \"a\" && .s < \"c\" && .s >= \"b\" && .s <= \"b\" }");
}

#[test]
fn numbers_meet_by_value() {
    matching("{ .i = 3 }");
    matching("{ .i = 3.0 }");
    matching("{ .f > 3 }");
    matching("{ .f = 3.25 }");
    matching("{ .g = 25 }");
    matching("{ 25 = .g }");
    matching("{ .n = -12 }");
    matching("{ -.n = 12 }");
    matching("{ .n < -5 }");
    matching("{ .n < -11.5 && .n > -12.5 }");
    not("{ .i = \"3\" }");
    not("{ .i != \"3\" }");
    not("{ .s = 1 }");
    not("{ .s != 1 }");
    not("{ .yes = 1 }");
    not("{ .yes = \"true\" }");
    not("{ .s = error }");
    matching("{ .big = 9007199254740993 }");
    not("{ .big = 9007199254740992.0 }");
    matching("{ .big > 9007199254740992.0 }");
    not("{ .nan = .nan }");
    matching("{ .nan != 1 }");
    not("{ .nan < 1 || .nan >= 1 }");
    matching(
        "{ maxInt < 9223372036854775808.0 && minInt > -9.3e18 && minInt = -9223372036854775808.0 }",
    );
}

#[test]
fn what_is_missing() {
    not("{ .x = 1 }");
    not("{ .x != 1 }");
    not("{ .x < 1 }");
    not("{ .x =~ \".*\" }");
    not("{ .x !~ \".*\" }");
    not("{ .x + 1 != 5 }");
    not("{ -.x != 5 }");
    matching("{ !(.x = 1) }");
    matching("{ .x = nil }");
    not("{ .x != nil }");
    matching("{ nil = .x && nil != .s }");
    matching("{ .s != nil && .bytes != nil && .e != nil && .none != nil && .no != nil }");
    not("{ .s = nil }");
    matching("{ span.only = nil && resource.only != nil }");
    not("{ .x }");
    not("{ !.x }");
    matching("{ .x || true }");
    not("{ .x && true }");
    not("{ .x = .x }");
    not("{ .x = .y }");
    not("{ .bytes = \"\" }");
    not("{ .bytes != \"\" }");
    matching("{ .x + 1 = nil }");
    matching("{ event.x = nil && event.n != nil && link.x = nil }");
}

#[test]
fn booleans() {
    matching("{ .yes }");
    not("{ .no }");
    not("{ !.yes }");
    matching("{ !.no }");
    matching("{ .yes = true && .no = false && .yes != .no }");
    not("{ .s }");
    not("{ !.s }");
    matching("{ .yes && !.no }");
    matching("{ .yes || .no }");
    matching("{ (.i = 3) = true }");
    matching("{ (.i = 4) = .no }");
    matching("{ !(.i = 4) }");
    matching("{ !!.yes }");
    matching("{ !.no = true }");
    not("{ .yes = nil }");
}

#[test]
fn precedence() {
    // `&&` and `||` bind alike, from the left, as in Tempo.
    not("{ true || true && false }");
    not("{ (true || true) && false }");
    matching("{ true || (true && false) }");
    matching("{ false && false || true }");
    matching("{ 1 + 2 * 3 = 7 }");
    matching("{ (1 + 2) * 3 = 9 }");
    matching("{ 2 ^ 3 ^ 2 = 512 }");
    matching("{ 2 * 3 ^ 2 = 18 }");
    matching("{ 10 - 3 - 2 = 5 }");
    matching("{ 100 / 10 / 2 = 5 }");
    matching("{ -2 ^ 2 = -4 }");
    matching("{ -2 * 3 = -6 && -2 + 3 = 1 }");
    matching("{ 2 - -3 = 5 && 2 - - 3 = 5 }");
    matching("{ 1 < 2 = true }");
    matching("{ .i = 3 && .s = \"b\" || .x = 1 }");
}

#[test]
fn arithmetic() {
    matching("{ .i + 1 = 4 && .i - 1 = 2 && .i * 2 = 6 && .i % 2 = 1 && .i ^ 2 = 9 }");
    matching("{ 7 / 2 = 3 && 7.0 / 2 = 3.5 && -7 / 2 = -3 && -7 % 3 = -1 }");
    matching("{ .f * 4 = 13 && .f + .i = 6.25 && .f - .i = .25 }");
    matching("{ 2 ^ -1 = 0.5 && 2 ^ 0.5 > 1.41 && 2 ^ 0.5 < 1.42 }");
    not("{ .i / 0 = 1 || .i / 0 != 1 || .i % 0 != 1 }");
    matching("{ 1 / 0.0 > 1e300 }");
    matching("{ maxInt + 1 = 9223372036854775808.0 && 3 ^ 100 > 1e47 }");
    matching("{ -minInt = 9223372036854775808.0 && minInt / -1 > 9e18 }");
    not("{ .s + 1 = 1 }");
    not("{ .s + 1 != 1 }");
    not("{ .ints + 1 = 8 }");
    not("{ -.s = 1 }");
    not("{ -.ints != 1 }");
    matching("{ duration * 2 > 300ms && duration - 80ms = 100ms }");
    matching("{ .i * 10ms = 30ms }");
    not("{ .i + .f }");
}

#[test]
fn regexes() {
    matching("{ name =~ \"POST.*\" }");
    not("{ name =~ \"POST\" }");
    not("{ name =~ \"/orders\" }");
    matching("{ name =~ \".*orders|x\" }");
    not("{ name =~ \"x|POST\" }");
    matching("{ name !~ \"POST\" }");
    not("{ name !~ \"POST.*\" }");
    matching("{ name =~ \"(?i)post.*\" }");
    // A comment ends with the expression.
    matching("{ name =~ `(?x) POST .* # the method` }");
    not("{ name =~ `(?x) POST # the method` }");
    matching("{ .http.route =~ `/\\w+` }");
    matching("{ .lines =~ \"a.b\" }");
    not("{ .i =~ \"3\" }");
    not("{ .i !~ \"4\" }");
    matching("{ .e =~ \"\" && .s !~ \"\" }");
    matching("{ \"abc\" =~ \"a.c\" }");
}

#[test]
fn arrays() {
    matching("{ .ints = 8 }");
    matching("{ 8 = .ints }");
    not("{ .ints = 9 }");
    not("{ .ints != 8 }");
    matching("{ .ints != 9 }");
    not("{ 8 != .ints }");
    matching("{ .ints > 7 && .ints < 8 }");
    matching("{ 7 < .ints }");
    not("{ .ints > 8 }");
    matching("{ .ints = 7.0 }");
    matching("{ .tags = \"t1\" && .tags = \"t2\" }");
    matching("{ .tags =~ \"t[23]\" }");
    not("{ .tags !~ \"t[23]\" }");
    matching("{ .tags !~ \"t[03]\" }");
    not("{ .tags = 1 }");
    not("{ .tags != 1 }");
    matching("{ .mixed = 1 && .mixed = \"x\" }");
    not("{ .mixed != 2 }");
    not("{ .none = 1 }");
    matching("{ .none != 1 }");
    not("{ .ints = .ints }");
    not("{ .ints != .tags }");
    matching("{ .flags }");
    not("{ !.flags }");
    not("{ .ints }");
    matching("{ !(.ints = 9) }");
}

#[test]
fn events_and_links() {
    matching("{ event:name = \"exception\" }");
    matching("{ event:name = \"retry\" }");
    not("{ event:name = \"x\" }");
    not("{ event:name != \"exception\" }");
    matching("{ event:name != \"x\" }");
    matching("{ event:name =~ \"ex.*\" }");
    not("{ event:name !~ \"ex.*\" }");
    matching("{ event.type = \"TimeoutError\" && event.n = 1 && event.n = 3 }");
    not("{ event.type = \"x\" }");
    matching("{ event.n > 2 && event.n < 2 }");
    matching("{ event.n + 1 = 4 }");
    not("{ event.n + 1 = 3 }");
    not("{ event.n + 1 != 4 }");
    matching("{ event.n + 1 != 5 }");
    matching("{ event.tags = \"x\" && event.tags = \"y\" }");
    not("{ event.tags != \"x\" }");
    matching("{ event:timeSinceStart >= 25ms }");
    matching("{ event:timeSinceStart = 30ms }");
    not("{ event:timeSinceStart > 30ms }");
    matching("{ event:timeSinceStart < duration }");
    matching("{ link.batch = true }");
    matching("{ link.batch }");
    not("{ !link.batch }");
    matching("{ event.n = link.m }");
    not("{ event.n = event.n + 1 }");
    matching("{ event.n - link.m = -2 }");
    not("{ link.x != 1 }");
    not("{ event.x }");
    matching("{ (event.n = 1) = true }");
    let lone = TestSpan::default();
    for text in [
        "{ event:name != \"x\" }",
        "{ link.a !~ \"x\" }",
        "{ event:name != nil }",
    ] {
        assert!(!Filter::parse(text).unwrap().matches(&lone), "{text}");
    }
}

#[test]
fn what_a_filter_reads() {
    let filter = |text: &str| Filter::parse(text).unwrap();
    let keys = |text: &str| -> Vec<(Scope, String)> {
        filter(text)
            .keys()
            .iter()
            .map(|k| (k.scope, k.name.clone()))
            .collect()
    };
    assert_eq!(keys("{ name = \"x\" }"), []);
    assert_eq!(
        keys("{ .b = 1 && (span.a = 2 || !(.b + resource.c > -span.a)) && event.d != nil }"),
        [
            (Scope::Unscoped, "b".to_owned()),
            (Scope::Span, "a".to_owned()),
            (Scope::Resource, "c".to_owned()),
            (Scope::Event, "d".to_owned()),
        ]
    );
    let needs = |text: &str| {
        (
            filter(text).may_need_events(),
            filter(text).may_need_links(),
        )
    };
    assert_eq!(needs("{ .a = 1 && name = \"event\" }"), (false, false));
    assert_eq!(needs("{ event.a = 1 }"), (true, false));
    assert_eq!(needs("{ !(event:timeSinceStart > 1s) }"), (true, false));
    assert_eq!(
        needs("{ link:spanID = \"x\" || event:name = \"x\" }"),
        (true, true)
    );
}

#[test]
fn the_deepest_filters_run() {
    let nested = |inner: &str, around: &str, levels: usize| {
        let text = format!(
            "{}{inner}{}",
            "(".repeat(levels),
            format!(") {around}").repeat(levels)
        );
        format!("{{ {text} }}")
    };
    matching(&nested(".i = 3", "= true", 98));
    matching(&nested("event.n = 3", "!= false", 98));
    matching(&nested(".i", "+ 0", 97).replace(" }", " = 3 }"));
    matching(&format!("{{ {}.yes }}", "!".repeat(98)));
}
