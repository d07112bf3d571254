//! What people read: `spanloom search`, `spanloom trace`, the first page, the metrics.

use std::time::Duration;

use serde_json::{Value, json};
use spanloom_e2e::spanloom::{Spanloom, await_condition};
use spanloom_e2e::workspace;

use super::support::{json_span, now_ns, send_json, spanloom, spanloom_prints, store_json, up};

const TRACE: u128 = 0xbbbb_0000_0000_0000_0000_0000_0000_0001;

/// A trace of three services, one of them a database that sends nothing, with one error.
fn store_shop(up: &Spanloom) {
    let api = json_span(TRACE, 1, None, "GET /orders");
    let mut call = json_span(TRACE, 2, Some(1), "call stock");
    call["kind"] = json!(3);
    store_json(up, "shop-api", &[api, call]);
    let mut stock = json_span(TRACE, 3, Some(2), "GET /stock");
    stock["status"] = json!({"code": 2, "message": "out of tea"});
    let mut select = json_span(TRACE, 4, Some(3), "SELECT stock");
    select["kind"] = json!(3);
    select["attributes"] = json!([
        {"key": "db.system.name", "value": {"stringValue": "postgresql"}},
        {"key": "sku", "value": {"stringValue": "tea"}},
    ]);
    store_json(up, "stock", &[stock, select]);
    up.stored().unwrap();
}

#[test]
fn search_and_trace_print_for_people_and_programs() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    store_shop(&up);
    let (url, id) = (up.url(), format!("{TRACE:032x}"));

    let tree = spanloom_prints(&["trace", &id, "--url", &url]);
    for part in [
        "GET /orders",
        "call stock",
        "GET /stock",
        "SELECT stock",
        "shop-api",
        "ms",
    ] {
        assert!(tree.contains(part), "{part} is not in\n{tree}");
    }
    assert!(!tree.contains('\x1b'), "colour where nobody looks:\n{tree}");
    let places: Vec<_> = ["GET /orders", "call stock", "GET /stock", "SELECT stock"]
        .iter()
        .map(|name| tree.find(name).unwrap())
        .collect();
    assert!(places.is_sorted(), "not in tree order:\n{tree}");

    let text = spanloom_prints(&["trace", &id, "-o", "json", "--url", &url]);
    let printed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        printed,
        up.get_json(&format!("/api/v1/traces/{id}")).unwrap()
    );
    // Zeros at the head of an id may be cut, but these may not be.
    let unknown = spanloom(&["trace", "123", "--url", &url]);
    assert!(!unknown.status.success());

    let list = spanloom_prints(&["search", "--service", "stock", "--url", &url]);
    assert!(list.contains(&id) && list.contains("GET /orders"), "{list}");
    let none = spanloom_prints(&["search", "--service", "nobody", "--url", &url]);
    assert!(!none.contains(&id), "{none}");
    let text = spanloom_prints(&["search", "--tag", "sku=tea", "-o", "json", "--url", &url]);
    assert!(text.contains(&id), "{text}");
    let _: Value = serde_json::from_str(&text).unwrap();
}

/// Of five spans that are sent four are stored; the accounts say so, and why the fifth is not.
#[test]
fn accounts_say_where_spans_went() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    store_shop(&up);
    let (status, _) = send_json(&up, "shop", &[json_span(0, 1, None, "a zero trace id")]);
    assert_eq!(status, 200);
    let url = up.url();
    let read = || {
        let text = spanloom_prints(&["accounts", "-o", "json", "--url", &url]);
        serde_json::from_str::<Value>(&text).unwrap()
    };
    // They are written some seconds after the spans.
    let limit = Duration::from_secs(60);
    await_condition("all spans are in the accounts", limit, || {
        read()["total"]["spans"] == 5
    })
    .unwrap();
    let accounts = read();
    let spans = |stage: &str, reason: &str| {
        let all = accounts["accounts"].as_array().unwrap();
        let account = all
            .iter()
            .find(|account| account["stage"] == stage && account["reason"] == reason);
        account.map(|account| account["spans"].clone())
    };
    assert_eq!(spans("store", "stored"), Some(json!(4)), "{accounts}");
    let refused = spans("process", "invalid_trace_id");
    assert_eq!(refused, Some(json!(1)), "{accounts}");
    let table = spanloom_prints(&[
        "accounts", "--stage", "store", "--by", "node", "--url", &url,
    ]);
    let columns = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows: Vec<_> = table.lines().map(columns).collect();
    assert_eq!(
        rows[0],
        ["NODE", "STAGE", "REASON", "SPANS", "SHARE", "BYTES"]
    );
    assert_eq!(
        rows[1][1..6],
        ["store", "stored", "4", "100.0", "%"],
        "{table}"
    );
    assert_eq!(rows[2][..2], ["total", "4"], "{table}");
}

#[test]
fn services_latency_and_dependencies_tell_of_the_same_spans() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    store_shop(&up);
    let now = now_ns() / 1_000_000_000;
    let window = format!("start={}&end={}", now - 600, now + 60);

    let services = up.get(&format!("/api/v1/services?{window}")).unwrap().1;
    assert!(
        services.contains("shop-api") && services.contains("stock"),
        "{services}"
    );
    let operations = up
        .get(&format!("/api/v1/services/stock/operations?{window}"))
        .unwrap()
        .1;
    assert!(operations.contains("SELECT stock") && !operations.contains("call stock"));

    let latency = up
        .get_json(&format!("/api/v1/latency?service=stock&{window}"))
        .unwrap();
    let get_stock = latency["operations"]
        .as_array()
        .unwrap()
        .iter()
        .find(|operation| operation["operation"] == "GET /stock")
        .unwrap();
    assert_eq!(
        (&get_stock["count"], &get_stock["errorCount"]),
        (&json!(1), &json!(1))
    );
    let p95: f64 = get_stock["p95Ns"].as_str().unwrap().parse().unwrap();
    assert!(
        (p95 - 5e6).abs() <= 5e6 * 0.05,
        "{p95} is more than 5 % off 5 ms"
    );

    // Halves are joined once a minute has gone by.
    let edge = |caller: &str, callee: &str| {
        let list = up
            .get_json(&format!("/api/v1/dependencies?{window}"))
            .unwrap();
        let list = list["dependencies"].as_array().unwrap().clone();
        list.into_iter()
            .find(|edge| edge["caller"] == caller && edge["callee"] == callee)
    };
    await_condition(
        "the calls show as dependencies",
        Duration::from_secs(180),
        || edge("shop-api", "stock").is_some() && edge("stock", "postgresql").is_some(),
    )
    .unwrap();
    let call = edge("shop-api", "stock").unwrap();
    assert_eq!(
        (&call["count"], &call["errorCount"]),
        (&json!(1), &json!(1)),
        "{call}"
    );
    assert_eq!(
        edge("stock", "postgresql").unwrap()["connectionType"],
        "database"
    );
}

#[test]
fn the_first_page_the_metrics_and_the_answers_to_bad_questions() {
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let (status, page) = up.get("/ui/").unwrap();
    assert_eq!(status, 200);
    assert!(
        page.contains("<html") && page.contains("Spanloom"),
        "{page}"
    );
    let (status, page) = up.get("/").unwrap();
    assert!(
        status == 200 && page.contains("<html"),
        "/ does not lead to the page"
    );

    let (status, body) = send_json(&up, "shop", &[json_span(0, 1, None, "a zero trace id")]);
    assert_eq!(status, 200);
    assert!(body.contains("rejectedSpans"), "{body}");
    store_json(&up, "shop", &[json_span(TRACE, 1, None, "good")]);
    up.stored().unwrap();
    let (status, metrics) = up.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let value = |needles: &[&str]| {
        let line = metrics
            .lines()
            .find(|line| needles.iter().all(|needle| line.contains(needle)));
        let line = line.unwrap_or_else(|| panic!("no line with {needles:?} in\n{metrics}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let accepted = value(&["otelcol_receiver_accepted_spans_total{", "http"]);
    let refused = value(&["otelcol_receiver_refused_spans_total{", "trace"]);
    let sent = value(&["otelcol_exporter_sent_spans_total{"]);
    assert_eq!((accepted, refused, sent), (1.0, 1.0, 1.0), "{metrics}");

    every_metric_is_documented(&metrics);
    for (path, status, says) in [
        ("/api/v1/traces", 400, "start"),
        ("/api/v1/traces?start=1&end=2&limit=1000", 400, "limit"),
        ("/api/v1/traces?start=1&end=2&color=red", 400, "color"),
        ("/api/v1/traces/xyz", 400, "id"),
        ("/api/v1/traces/123", 404, "123"),
        ("/api/v1/nothing", 404, "nothing"),
    ] {
        let (answered, body) = up.get(path).unwrap();
        assert_eq!(answered, status, "{path}: {body}");
        assert!(body.contains(says), "{path} does not say {says:?}: {body}");
    }
}

/// Each name on `/metrics` stands in the list of docs/operate.md.
fn every_metric_is_documented(metrics: &str) {
    let page = workspace().join("docs/operate.md");
    let page = std::fs::read_to_string(page).unwrap();
    let names = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let missing: Vec<_> = names
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| !page.contains(&format!("`{name}")))
        .collect();
    assert!(missing.is_empty(), "not in docs/operate.md: {missing:?}");
}

#[test]
fn a_trace_20_000_generations_deep_is_read_whole() {
    // As deep as a program without optimisation answers in seconds; a test of `query` goes to 100,000.
    const DEPTH: u64 = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let up = up(folder.path());
    let spans: Vec<Value> = (1..=DEPTH)
        .map(|span| json_span(TRACE, span, (span > 1).then(|| span - 1), "generation"))
        .collect();
    for part in spans.chunks(10_000) {
        store_json(&up, "deep", part);
    }
    let id = format!("{TRACE:032x}");
    let trace = up.get_json(&format!("/api/v1/traces/{id}")).unwrap();
    let came = trace["spans"].as_array().unwrap();
    assert_eq!(trace["spanCount"], DEPTH);
    assert!(
        came.iter()
            .enumerate()
            .all(|(place, span)| span["depth"] == place)
    );
    let tree = spanloom_prints(&["trace", &id, "--url", &up.url()]);
    assert_eq!(tree.matches("generation").count(), came.len());
}
