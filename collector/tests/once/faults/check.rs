//! The checker: reads what ClickHouse has, request by request, and counts what is not there, what is there more
//! than once, and spans that were never sent.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::super::SPANS;
use super::load::{Ledger, id_seed};

/// Calls between a client and a server in each request.
const CALLS: u64 = SPANS / 3;

/// What is wrong with one table, in spans (of `edges`: in calls).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Faulty {
    pub lost: u64,
    pub doubled: u64,
    pub invented: u64,
}

impl Faulty {
    fn compare(&mut self, expected: u64, found: u64) {
        self.lost += expected.saturating_sub(found);
        self.doubled += found.saturating_sub(expected);
    }
}

/// What was found of a phase.
#[derive(Debug, Default, Clone)]
pub struct Counts {
    pub sent: u64,
    pub acknowledged: u64,
    pub stored: u64,
    /// By table.
    pub tables: BTreeMap<&'static str, Faulty>,
}

impl Counts {
    fn of(&mut self, table: &'static str) -> &mut Faulty {
        self.tables.entry(table).or_default()
    }

    /// What is wrong with all tables together.
    pub fn total(&self) -> Faulty {
        let add = |sum: Faulty, one: &Faulty| Faulty {
            lost: sum.lost + one.lost,
            doubled: sum.doubled + one.doubled,
            invented: sum.invented + one.invented,
        };
        self.tables.values().fold(Faulty::default(), add)
    }

    /// What is wrong, in words; nothing where nothing is.
    pub fn complaints(&self) -> String {
        let mut text = String::new();
        for (table, faulty) in &self.tables {
            if *faulty != Faulty::default() {
                let _ = write!(text, " {table}: {faulty:?}");
            }
        }
        text
    }
}

/// What the ids of a row say: the number that its request's ids are made of, and the row's own.
const SEED: &str = "reinterpretAsUInt64(reverse(substring(trace_id, 1, 8))) AS seed";
const ROW: &str = "reinterpretAsUInt64(reverse(substring(trace_id, 9, 8))) AS trace, \
    bitXor(seed, reinterpretAsUInt64(reverse(span_id))) AS row";

/// Tables with a row for each span.
const SPAN_TABLES: [&str; 2] = ["spans", "half_edges"];
/// Tables with a count for each service.
const SERVICE_TABLES: [(&str, &str); 4] = [
    ("red", "sum(count)"),
    ("red buckets", "sum(arraySum(mapValues(buckets)))"),
    ("red_hours", "sum(count)"),
    ("red_hours buckets", "sum(arraySum(mapValues(buckets)))"),
];

/// Calls by service: of a minute only its highest version counts.
const EDGES: &str = "SELECT client, toUInt64(sum(count)) FROM edges FINAL \
    WHERE client = server AND (tenant, minute, version) IN \
    (SELECT tenant, minute, max(version) FROM edges GROUP BY tenant, minute) GROUP BY client";

/// How many rows are of a request, how many of these are different, and how many are not as they were sent.
type ByRequest = BTreeMap<u64, (u64, u64, u64)>;

/// Compares what ClickHouse has with what was sent, phase by phase.
pub async fn check(client: &clickhouse::Client, ledger: &Ledger) -> Vec<Counts> {
    let mut phases = vec![Counts::default(); ledger.phases.len()];
    let [spans, halves] = SPAN_TABLES.map(|table| {
        format!(
            "WITH {SEED}, {ROW} SELECT seed, count(), uniqExact(span_id), \
             countIf(row NOT BETWEEN 1 AND {SPANS} OR trace != intDiv(row - 1, 3) + 1) \
             FROM {table} GROUP BY seed"
        )
    });
    let index = format!(
        "WITH {SEED} SELECT seed, toUInt64(sum(span_count)) AS rows, rows, toUInt64(0) \
         FROM trace_index GROUP BY seed"
    );
    let mut spans = by_request(client, &spans).await;
    let mut others = [
        ("half_edges", by_request(client, &halves).await),
        ("trace_index", by_request(client, &index).await),
    ];
    for (number, sent) in ledger.requests.iter().enumerate() {
        let counts = &mut phases[sent.phase];
        counts.sent += SPANS;
        let (rows, unique, invented) = spans.remove(&id_seed(number)).unwrap_or_default();
        let stored = unique.saturating_sub(invented);
        counts.stored += stored;
        // What was not acknowledged may be stored or not, in all tables alike.
        let expected = if sent.acknowledged { SPANS } else { stored };
        if sent.acknowledged {
            counts.acknowledged += SPANS;
        }
        let table = counts.of("spans");
        table.lost += expected - stored.min(expected);
        table.doubled += rows - unique;
        table.invented += invented;
        for (table, by_request) in &mut others {
            let (rows, ..) = by_request.remove(&id_seed(number)).unwrap_or_default();
            counts.of(table).compare(expected, rows);
        }
    }
    // What is left is of no request.
    if let Some(last) = phases.last_mut() {
        let left = |by_request: ByRequest| by_request.values().map(|(rows, ..)| rows).sum::<u64>();
        last.of("spans").invented += left(spans);
        for (table, by_request) in others {
            last.of(table).invented += left(by_request);
        }
    }
    check_services(client, ledger, &mut phases).await;
    phases
}

/// The same for tables that know services only, which phases are.
async fn check_services(client: &clickhouse::Client, ledger: &Ledger, phases: &mut [Counts]) {
    let expected: Vec<u64> = phases
        .iter()
        .map(|counts| counts.stored + counts.tables.get("spans").map_or(0, |spans| spans.lost))
        .collect();
    for (name, count) in SERVICE_TABLES {
        let table = name.split(' ').next().unwrap_or(name);
        let sql = format!("SELECT service, toUInt64({count}) FROM {table} GROUP BY service");
        let found = by_service(client, &sql).await;
        compare(ledger, phases, name, &found, &expected);
    }
    for sql in [
        "SYSTEM REFRESH VIEW edges_rollup",
        "SYSTEM WAIT VIEW edges_rollup",
    ] {
        client.query(sql).execute().await.unwrap();
    }
    let found = by_service(client, EDGES).await;
    let expected: Vec<u64> = expected.iter().map(|spans| spans / SPANS * CALLS).collect();
    compare(ledger, phases, "edges", &found, &expected);
}

fn compare(
    ledger: &Ledger,
    phases: &mut [Counts],
    table: &'static str,
    found: &BTreeMap<String, u64>,
    expected: &[u64],
) {
    let mut total: u64 = found.values().sum();
    for ((counts, phase), expected) in phases.iter_mut().zip(&ledger.phases).zip(expected) {
        let found = found.get(&phase.name).copied().unwrap_or(0);
        counts.of(table).compare(*expected, found);
        total -= found;
    }
    if let Some(last) = phases.last_mut() {
        last.of(table).invented += total;
    }
}

async fn by_request(client: &clickhouse::Client, sql: &str) -> ByRequest {
    let rows = client.query(sql).fetch_all::<(u64, u64, u64, u64)>();
    let rows = rows.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let pair = |(seed, rows, unique, invented)| (seed, (rows, unique, invented));
    rows.into_iter().map(pair).collect()
}

async fn by_service(client: &clickhouse::Client, sql: &str) -> BTreeMap<String, u64> {
    let rows = client.query(sql).fetch_all::<(String, u64)>();
    let rows = rows.await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.into_iter().collect()
}
