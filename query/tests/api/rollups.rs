//! Services, operations, latency and dependencies.

use serde_json::{Value, json};

use crate::harness::{Service, Span, T0, span};

fn traffic() -> Vec<Span> {
    let mut spans: Vec<_> = (0..100)
        .map(|n| {
            let status = if n % 10 == 0 { "ERROR" } else { "UNSET" };
            // 1 ms to 100 ms, in the second minute.
            span(1, n + 1, 0, 60_000)
                .takes_ms(n + 1)
                .is("SERVER", status)
        })
        .collect();
    spans.push(
        span(2, 1, 0, 0)
            .service("a/b")
            .name("x y")
            .is("CLIENT", "OK"),
    );
    spans.push(
        span(2, 2, 0, 0)
            .service("a/b")
            .name("x y")
            .is("SERVER", "OK"),
    );
    spans
}

fn window(from: i64, to: i64) -> String {
    format!("start={}&end={}", T0 + from, T0 + to)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_operations_and_latency() {
    let service = Service::start().await;
    service.insert(&traffic()).await;
    let services = service.get("/api/v1/services", "/api/v1/services").await;
    let expect = json!({"truncated": false, "services": [
        {"name": "a/b", "spanCount": 2, "errorCount": 0},
        {"name": "cart", "spanCount": 100, "errorCount": 10},
    ]});
    assert_eq!(services, expect);
    let path = format!("/api/v1/services?{}", window(60, 60));
    let later = service.get("/api/v1/services", &path).await;
    assert_eq!(later["services"].as_array().unwrap().len(), 1);

    let route = "/api/v1/services/{service}/operations";
    let operations = service
        .get(route, "/api/v1/services/a%2Fb/operations")
        .await;
    let expect = json!({"service": "a/b", "truncated": false, "operations": [
        {"name": "x y", "kind": "server", "spanCount": 1, "errorCount": 0},
        {"name": "x y", "kind": "client", "spanCount": 1, "errorCount": 0},
    ]});
    assert_eq!(operations, expect);
    let unknown = service
        .get(route, "/api/v1/services/nobody/operations")
        .await;
    assert_eq!(unknown["operations"], json!([]));

    let path = format!(
        "/api/v1/latency?{}&service=cart&operation=GET%20/cart",
        window(0, 119)
    );
    let latency = service.get("/api/v1/latency", &path).await;
    assert_eq!(
        latency["window"],
        json!({"start": "2026-05-28T20:27:00.000000000Z", "end": "2026-05-28T20:29:00.000000000Z"})
    );
    let row = &latency["operations"][0];
    assert_eq!(
        (&row["count"], &row["errorCount"]),
        (&json!(100), &json!(10))
    );
    assert_eq!(row["averageNs"], "50500000");
    for (name, exact) in [("p50Ns", 50e6), ("p95Ns", 95e6), ("p99Ns", 99e6)] {
        let told: f64 = row[name].as_str().unwrap().parse().unwrap();
        assert!((told - exact).abs() <= exact * 0.05, "{name}: {told}");
    }
    let all = service
        .get(
            "/api/v1/latency",
            &format!("/api/v1/latency?{}", window(0, 119)),
        )
        .await;
    // Kinds of one name are told apart, and can be asked for.
    let kinds = |answer: &Value| {
        let rows = answer["operations"].as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["service"], row["kind"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&all), ["a/b server", "a/b client", "cart server"]);
    let path = format!("/api/v1/latency?{}&kind=client", window(0, 119));
    let clients = service.get("/api/v1/latency", &path).await;
    assert_eq!(kinds(&clients), ["a/b client"]);
    // A single value is its own percentile.
    assert_eq!(clients["operations"][0]["p99Ns"], "5000000");
    let none = service
        .get(
            "/api/v1/latency",
            &format!("/api/v1/latency?{}", window(300, 400)),
        )
        .await;
    assert_eq!(none["operations"], json!([]));
}

/// Of durations that together are more than 64 bits hold, and that are not the middle of their buckets.
#[tokio::test(flavor = "multi_thread")]
async fn sums_do_not_wrap_and_percentiles_stay_within_what_was_seen() {
    let service = Service::start().await;
    service.sql("SYSTEM STOP VIEW edges_rollup").await;
    // Three writers say that one span took 2^63 ns: the minutes, the hour and the calls.
    const HALF: u64 = 1 << 63;
    for minute in 0..3 {
        let at = T0 + minute * 60;
        service
            .sql(&format!(
                "INSERT INTO red (minute, service, name, kind, status, count, duration_sum_ns, buckets, \
                 duration_min_ns, duration_max_ns) SELECT toDateTime({at}), 'web', 'long', 'SERVER', \
                 'UNSET', 1, {HALF}, map(toInt16(240), toUInt64(1)), {HALF}, {HALF}"
            ))
            .await;
        service
            .sql(&format!(
                "INSERT INTO edges (minute, client, server, version, first_version, count, \
                 client_duration_sum_ns, server_duration_sum_ns, client_buckets, server_buckets, \
                 client_duration_min_ns, client_duration_max_ns, server_duration_min_ns, \
                 server_duration_max_ns) SELECT toDateTime({at}), 'web', 'cart', 1, 1, 1, {HALF}, {HALF}, \
                 map(toInt16(240), toUInt64(1)), map(toInt16(240), toUInt64(1)), {HALF}, {HALF}, \
                 {HALF}, {HALF}"
            ))
            .await;
    }
    // A release before schema version 4 still writes: what it does not say is not known.
    service
        .sql(&format!(
            "INSERT INTO red (minute, service, name, kind, status, count, duration_sum_ns, buckets) \
             SELECT toDateTime({T0}), 'web', 'earlier', 'SERVER', 'UNSET', 2, 30000000, \
             map(toInt16(16), toUInt64(1), toInt16(24), toUInt64(1))"
        ))
        .await;
    service.sql("OPTIMIZE TABLE red FINAL").await;
    service.sql("OPTIMIZE TABLE red_hours FINAL").await;
    // Minutes; and a whole hour with minutes around it.
    for (from, to) in [(0, 179), (-3_600, 7_200)] {
        let path = format!("/api/v1/latency?{}", window(from, to));
        let answer = service.get("/api/v1/latency", &path).await;
        let rows = answer["operations"].as_array().unwrap();
        let (earlier, long) = (&rows[0], &rows[1]);
        assert_eq!(long["averageNs"], (u64::MAX / 3).to_string(), "{answer}");
        for percentile in ["p50Ns", "p95Ns", "p99Ns"] {
            assert_eq!(long[percentile], HALF.to_string(), "{answer}");
        }
        assert_eq!(earlier["averageNs"], "15000000", "{answer}");
        let p99: f64 = earlier["p99Ns"].as_str().unwrap().parse().unwrap();
        assert!((14e6..17e6).contains(&p99), "{answer}");
    }
    let route = "/api/v1/dependencies";
    let answer = service
        .get(route, &format!("{route}?{}", window(0, 179)))
        .await;
    let row = &answer["dependencies"][0];
    assert_eq!(row["averageNs"], (u64::MAX / 3).to_string(), "{answer}");
    assert_eq!(row["p95Ns"], HALF.to_string(), "{answer}");
}

/// Whole hours come from one table and the minutes around them from another; no minute may be lost
/// between them or counted twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_the_sum_of_its_minutes_wherever_it_is_cut() {
    const MINUTE: i64 = 60;
    let service = Service::start().await;
    // A span in the third minute of each five, over five hours; every fourth one failed.
    let spans: Vec<_> = (0..60)
        .map(|n| {
            let status = if n % 4 == 0 { "ERROR" } else { "UNSET" };
            let minute = 5 * n as i64 + 2;
            span(1, n + 1, 0, minute * MINUTE * 1_000)
                .takes_ms(1 + n)
                .is("SERVER", status)
        })
        .collect();
    service.insert(&spans).await;
    let to_hour = (T0 / 3600 + 1) * 3600 - T0;
    for (from, to) in [
        (0, 300 * MINUTE),
        (to_hour, to_hour + 3600),
        (to_hour, to_hour + 2 * 3600),
        (to_hour - MINUTE, to_hour + 3600 + MINUTE),
        (to_hour - 22 * MINUTE, to_hour + 2 * 3600 + 38 * MINUTE),
        (to_hour + MINUTE, to_hour + 59 * MINUTE),
        (to_hour - 7 * MINUTE, to_hour + 7 * MINUTE),
    ] {
        // The end is inclusive: the last second before it.
        let window = window(from, to - 1);
        let begin = (T0 + from).div_euclid(MINUTE) * MINUTE;
        let end = (T0 + to - 1).div_euclid(MINUTE) * MINUTE + MINUTE;
        let inside = |n: &i64| (begin..end).contains(&(T0 + (5 * n + 2) * MINUTE));
        let numbers: Vec<i64> = (0..60).filter(inside).collect();
        assert!(!numbers.is_empty(), "{window}");
        let path = format!("/api/v1/latency?{window}");
        let latency = service.get("/api/v1/latency", &path).await;
        let row = &latency["operations"][0];
        let failed = numbers.iter().filter(|n| *n % 4 == 0).count();
        assert_eq!(row["count"], numbers.len(), "{window}");
        assert_eq!(row["errorCount"], failed, "{window}");
        let total: i64 = numbers.iter().map(|n| (1 + n) * 1_000_000).sum();
        let average = total / numbers.len() as i64;
        assert_eq!(row["averageNs"], average.to_string(), "{window}");
        let path = format!("/api/v1/services?{window}");
        let services = service.get("/api/v1/services", &path).await;
        assert_eq!(services["services"][0]["spanCount"], numbers.len());
        let path = format!("/api/v1/services/cart/operations?{window}");
        let route = "/api/v1/services/{service}/operations";
        let operations = service.get(route, &path).await;
        assert_eq!(operations["operations"][0]["errorCount"], failed);
    }
}

/// `caller>callee(type) calls/errors average p95 side` of each edge.
fn edges(answer: &Value) -> Vec<String> {
    let rows = answer["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let ms = |name: &str| text(name).parse::<f64>().unwrap() / 1e6;
            format!(
                "{}>{}({}) {}/{} avg {:.0} p95 {:.0} {}",
                text("caller"),
                text("callee"),
                text("connectionType"),
                row["count"],
                row["errorCount"],
                ms("averageNs"),
                ms("p95Ns"),
                text("measuredBy")
            )
        });
    rows.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dependencies_from_the_rollup_and_what_it_lacks() {
    let service = Service::start().await;
    // The test decides what is rolled up.
    service.sql("SYSTEM STOP VIEW edges_rollup").await;
    let edge = |minute: i64, version: u64, callee: &str, kind: &str, count: u64, server: &str| {
        format!(
            "INSERT INTO edges (minute, client, server, connection_type, version, first_version, \
             count, error_count, client_duration_sum_ns, server_duration_sum_ns, client_buckets, \
             server_buckets) SELECT toDateTime({}), 'web', '{callee}', '{kind}', {version}, {version}, \
             {count}, 1, {count} * 200000000, {count} * 100000000, map(toInt16(8), toUInt64({count})), \
             {server}",
            T0 + minute * 60
        )
    };
    let server = "map(toInt16(0), toUInt64(10))";
    service.sql(&edge(0, 1, "gone", "unset", 99, server)).await;
    service.sql(&edge(0, 2, "cart", "unset", 10, server)).await;
    service.sql(&edge(1, 1, "cart", "unset", 10, server)).await;
    service
        .sql(&edge(
            1,
            1,
            "pg",
            "database",
            5,
            "CAST(map(), 'Map(Int16, UInt64)')",
        ))
        .await;
    let route = "/api/v1/dependencies";
    let answer = service
        .get(route, &format!("{route}?{}", window(0, 119)))
        .await;
    assert_eq!(
        edges(&answer),
        [
            "web>cart() 20/2 avg 100 p95 100 server",
            "web>pg(database) 5/1 avg 200 p95 200 client",
        ]
    );

    // Halves of now that no rollup has seen.
    let half = |id: u64, side: &str, name: &str, peer: &str, kind: &str, duration_ms: u64| {
        format!(
            "INSERT INTO half_edges (time, trace_id, span_id, side, service, duration_ns, error, peer, \
             connection_type) SELECT now64(9), toFixedString(unhex('{:032x}'), 16), \
             toFixedString(unhex('{id:016x}'), 8), '{side}', '{name}', {duration_ms} * 1000000, \
             {id} = 2 AND '{side}' = 'server', '{peer}', '{kind}'",
            7
        )
    };
    for statement in [
        half(1, "client", "web", "", "unset", 100),
        half(1, "server", "cart", "", "unset", 90),
        half(2, "client", "web", "", "unset", 100),
        half(2, "server", "cart", "", "unset", 90),
        half(3, "client", "cart", "redis", "database", 50),
        half(4, "client", "cart", "partner", "unset", 50),
        half(5, "client", "cart", "", "unset", 50),
        half(6, "server", "web", "", "unset", 50),
    ] {
        service.sql(&statement).await;
    }
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let path = format!("{route}?start={}&end={now}", now - 300);
    let expect = [
        "cart>partner(virtual_node) 1/0 avg 50 p95 50 client",
        "cart>redis(database) 1/0 avg 50 p95 50 client",
        "web>cart() 2/1 avg 90 p95 90 server",
    ];
    assert_eq!(edges(&service.get(route, &path).await), expect);
    // Rolled up, they are told once all the same.
    service.sql("SYSTEM START VIEW edges_rollup").await;
    service.sql("SYSTEM REFRESH VIEW edges_rollup").await;
    service.sql("SYSTEM WAIT VIEW edges_rollup").await;
    assert_eq!(edges(&service.get(route, &path).await), expect);
}
