//! What became of spans.

use serde_json::{Value, json};

use crate::harness::{Service, T0};

const ROUTE: &str = "/api/v1/accounts";

/// A row: the minute after `T0`'s, node, agent, stage, reason, spans and bytes.
type Row = (
    i64,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u64,
    u64,
);

const ROWS: [Row; 9] = [
    (0, "n1", "collector", "store", "stored", 70, 7_000),
    (0, "n1", "collector", "store", "stored", 10, 1_000),
    (0, "n1", "collector", "sample", "head_sampling", 15, 1_500),
    (0, "n1", "collector", "process", "drop", 4, 400),
    (0, "n1", "collector", "process", "too_old", 1, 100),
    (0, "n1", "collector", "receive", "memory", 0, 5_000),
    (1, "n1", "collector", "store", "stored", 20, 2_000),
    (1, "n2", "sidecar", "store", "stored", 30, 3_000),
    (5, "n2", "sidecar", "process", "disabled", 40, 4_000),
];

async fn filled() -> Service {
    let service = Service::start().await;
    for (minute, node, agent, stage, reason, spans, bytes) in ROWS {
        let minute = T0 + 60 * minute;
        service
            .sql(&format!(
                "INSERT INTO accounts (minute, node, agent, stage, reason, spans, bytes) SELECT \
                 toDateTime({minute}), '{node}', '{agent}', '{stage}', '{reason}', {spans}, {bytes}"
            ))
            .await;
    }
    service
}

/// `node/agent stage/reason spans bytes` of each account of the minutes from `T0` on, the total at the end.
async fn accounts(service: &Service, minutes: i64, query: &str) -> Vec<String> {
    let answer = get(service, minutes, query).await;
    assert_eq!(answer["truncated"], false);
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let line = |row: &Value| {
        format!(
            "{}/{} {}/{} {} {}",
            text(row, "node"),
            text(row, "agent"),
            text(row, "stage"),
            text(row, "reason"),
            row["spans"],
            row["bytes"]
        )
    };
    let rows = answer["accounts"].as_array().unwrap().iter();
    let mut lines: Vec<_> = rows.map(line).collect();
    let total = &answer["total"];
    lines.push(format!("{} {}", total["spans"], total["bytes"]));
    lines
}

async fn get(service: &Service, minutes: i64, query: &str) -> Value {
    let end = T0 + 60 * minutes - 1;
    let path = format!("{ROUTE}?start={T0}&end={end}&{query}");
    service.get(ROUTE, &path).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_span_is_in_one_account() {
    let service = filled().await;
    assert_eq!(
        accounts(&service, 1, "").await,
        [
            "/ store/stored 80 8000",
            "/ sample/head_sampling 15 1500",
            "/ process/drop 4 400",
            "/ process/too_old 1 100",
            "/ receive/memory 0 5000",
            "100 15000",
        ]
    );
    assert_eq!(
        accounts(&service, 2, "stage=store").await,
        ["/ store/stored 130 13000", "130 13000"]
    );
    assert_eq!(
        accounts(&service, 10, "by=node&by=agent&stage=store").await,
        [
            "n1/collector store/stored 100 10000",
            "n2/sidecar store/stored 30 3000",
            "130 13000",
        ]
    );
    assert_eq!(
        accounts(&service, 10, "by=node&node=n2").await,
        [
            "n2/ process/disabled 40 4000",
            "n2/ store/stored 30 3000",
            "70 7000",
        ]
    );
    for (filter, expect) in [
        ("agent=sidecar&reason=disabled", "40 4000"),
        ("reason=memory", "0 5000"),
        ("agent=nobody", "0 0"),
        ("stage=store&node=n%27", "0 0"),
    ] {
        let lines = accounts(&service, 10, filter).await;
        assert_eq!(lines.last().map(String::as_str), Some(expect), "{filter}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_series_has_a_point_for_each_step_with_spans() {
    let service = filled().await;
    // T0 is 20:27 UTC.
    let answer = get(&service, 10, "step=1m&reason=stored").await;
    assert_eq!(
        answer["accounts"][0]["series"],
        json!([
            {"start": "2026-05-28T20:27:00.000000000Z", "spans": 80, "bytes": 8000},
            {"start": "2026-05-28T20:28:00.000000000Z", "spans": 50, "bytes": 5000},
        ])
    );
    let refused = get(&service, 10, "step=5m&reason=memory").await;
    assert_eq!(
        refused["accounts"][0]["series"],
        json!([{"start": "2026-05-28T20:25:00.000000000Z", "spans": 0, "bytes": 5000}])
    );
    let answer = get(&service, 10, "step=5m&node=n2&by=agent").await;
    assert_eq!(
        answer["accounts"],
        json!([
            {"agent": "sidecar", "stage": "process", "reason": "disabled", "spans": 40, "bytes": 4000,
             "series": [{"start": "2026-05-28T20:30:00.000000000Z", "spans": 40, "bytes": 4000}]},
            {"agent": "sidecar", "stage": "store", "reason": "stored", "spans": 30, "bytes": 3000,
             "series": [{"start": "2026-05-28T20:25:00.000000000Z", "spans": 30, "bytes": 3000}]},
        ])
    );
}

/// The total is of all accounts, also of those that an answer has no room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_list_is_cut_and_its_total_is_not() {
    let service = filled().await;
    service
        .sql(&format!(
            "INSERT INTO accounts (minute, node, agent, stage, reason, spans, bytes) SELECT \
             toDateTime({}), concat('many-', toString(number)), 'sidecar', 'store', 'stored', 2, 3 \
             FROM numbers(10005)",
            T0 + 6_000
        ))
        .await;
    for (query, rows) in [
        ("by=node", 10_000),
        ("by=node&step=1h", 10_000),
        ("by=node&step=1m", 492),
    ] {
        let answer = get(&service, 202, query).await;
        assert_eq!(
            answer["accounts"].as_array().unwrap().len(),
            rows,
            "{query}"
        );
        assert_eq!(answer["truncated"], true, "{query}");
        let spans = 190 + 2 * 10_005;
        assert_eq!(answer["total"]["spans"], spans, "{query}");
    }
    let answer = get(&service, 202, "stage=store").await;
    assert_eq!(answer["accounts"][0]["spans"], 130 + 2 * 10_005);
}
