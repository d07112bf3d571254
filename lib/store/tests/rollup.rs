//! The edges' rollup on a real engine: every call counts once, whatever the order its halves come in.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_otlp::record::{SpanKind, StatusCode};
use spanloom_store::WriteOutcome;
use spanloom_store::block::{ConnectionType, HalfEdgeRow, RedRow, Side, SpanBlock};

async fn send(db: &Database, halves: &[HalfEdgeRow<'_>]) {
    let mut block = SpanBlock::new(&pool());
    for half in halves {
        block.measures().push_half(half);
    }
    assert_eq!(
        db.writer().write(block.freeze()).await,
        WriteOutcome::Stored
    );
}

async fn refresh(db: &Database) {
    db.execute("SYSTEM REFRESH VIEW edges_rollup").await;
    db.execute("SYSTEM WAIT VIEW edges_rollup").await;
}

const EDGES: &str = "SELECT formatDateTime(minute, '%H:%i'), client, server, connection_type, count, \
    error_count, client_duration_sum_ns, server_duration_sum_ns, client_buckets, server_buckets \
    FROM edges FINAL WHERE (tenant, minute, version) IN \
    (SELECT tenant, minute, max(version) FROM edges GROUP BY tenant, minute) ORDER BY ALL";

fn client(n: u8, minute: u64) -> HalfEdgeRow<'static> {
    HalfEdgeRow {
        time_ns: T0 + minute * MINUTE + u64::from(n) * SECOND / 10,
        trace_id: [n; 16],
        span_id: [n; 8],
        side: Side::Client,
        service: "shop",
        duration_ns: 200_000_000,
        error: false,
        peer: "",
        connection_type: ConnectionType::Unset,
    }
}

fn server(n: u8, minute: u64) -> HalfEdgeRow<'static> {
    HalfEdgeRow {
        side: Side::Server,
        service: "cart",
        duration_ns: 100_000_000,
        ..client(n, minute)
    }
}

#[tokio::test]
async fn halves_in_any_order_count_once() {
    let db = database().await;
    db.execute("SYSTEM STOP VIEW edges_rollup").await;
    db.execute("SYSTEM START VIEW edges_rollup").await;
    // Client first, then a refresh, then the server, a minute later by its clock.
    send(&db, &[client(1, 0)]).await;
    refresh(&db).await;
    assert_eq!(
        db.text(EDGES).await,
        "",
        "without a peer there is no edge yet"
    );
    send(&db, &[server(1, 1)]).await;
    refresh(&db).await;
    let one = "00:00\tshop\tcart\tunset\t1\t0\t200000000\t100000000\t{8:1}\t{0:1}";
    assert_eq!(db.text(EDGES).await, one);
    // Server first; both again, as a client's retry brings them.
    send(&db, &[server(2, 0), server(1, 1)]).await;
    refresh(&db).await;
    assert_eq!(db.text(EDGES).await, one);
    send(&db, &[client(2, 0), client(1, 0), client(1, 0)]).await;
    refresh(&db).await;
    refresh(&db).await;
    let two = "00:00\tshop\tcart\tunset\t2\t0\t400000000\t200000000\t{8:2}\t{0:2}";
    assert_eq!(db.text(EDGES).await, two);
    // Another minute, with an error; the first one stays.
    let failed = HalfEdgeRow {
        error: true,
        ..server(3, 2)
    };
    send(&db, &[failed, client(3, 2)]).await;
    refresh(&db).await;
    let third = "00:02\tshop\tcart\tunset\t1\t1\t200000000\t100000000\t{8:1}\t{0:1}";
    assert_eq!(db.text(EDGES).await, format!("{two}\n{third}"));
}

#[tokio::test]
async fn peers_without_instrumentation_are_virtual_nodes() {
    let db = database().await;
    let database = HalfEdgeRow {
        peer: "mysql",
        connection_type: ConnectionType::Database,
        ..client(1, 0)
    };
    let queue = HalfEdgeRow {
        peer: "orders",
        connection_type: ConnectionType::MessagingSystem,
        ..client(2, 0)
    };
    let unknown = HalfEdgeRow {
        peer: "example.com",
        ..client(3, 0)
    };
    let root = HalfEdgeRow {
        span_id: [0; 8],
        ..server(4, 0)
    };
    send(
        &db,
        &[database, queue, unknown, client(5, 0), root, server(6, 0)],
    )
    .await;
    refresh(&db).await;
    assert_eq!(
        db.text(EDGES).await,
        "00:00\tshop\texample.com\tvirtual_node\t1\t0\t200000000\t0\t{8:1}\t{}\n\
         00:00\tshop\tmysql\tdatabase\t1\t0\t200000000\t0\t{8:1}\t{}\n\
         00:00\tshop\torders\tmessaging_system\t1\t0\t200000000\t0\t{8:1}\t{}"
    );
    // The queue has two consumers after all, and the unknown peer answers for itself.
    let consumers = [
        server(2, 0),
        HalfEdgeRow {
            service: "mail",
            ..server(2, 9)
        },
        HalfEdgeRow {
            service: "example",
            ..server(3, 0)
        },
    ];
    send(&db, &consumers).await;
    refresh(&db).await;
    assert_eq!(
        db.text(EDGES).await,
        "00:00\tshop\tcart\tmessaging_system\t1\t0\t200000000\t100000000\t{8:1}\t{0:1}\n\
         00:00\tshop\texample\tunset\t1\t0\t200000000\t100000000\t{8:1}\t{0:1}\n\
         00:00\tshop\tmail\tmessaging_system\t1\t0\t200000000\t100000000\t{8:1}\t{0:1}\n\
         00:00\tshop\tmysql\tdatabase\t1\t0\t200000000\t0\t{8:1}\t{}"
    );
}

#[tokio::test]
async fn an_hour_is_the_sum_of_its_minutes() {
    let db = database().await;
    // Three batches, across the change of an hour and of a day.
    for batch in 0..3u64 {
        let mut block = SpanBlock::new(&pool());
        for n in 0..400u64 {
            let minute = T0 / SECOND - 7_200 + 60 * ((batch * 97 + n) % 240);
            block.measures().push_red(&RedRow {
                minute: minute as u32,
                service: ["shop", "cart"][n as usize % 2],
                name: ["a", "b", "c"][n as usize % 3],
                kind: [SpanKind::Server, SpanKind::Client][n as usize % 2],
                status: [StatusCode::Unset, StatusCode::Ok, StatusCode::Error][n as usize / 7 % 3],
                count: n + 1,
                duration_sum_ns: n * 1_000,
                buckets: &[(-168, 1), (n as i16 % 50, n)],
            });
        }
        assert_eq!(
            db.writer().write(block.freeze()).await,
            WriteOutcome::Stored
        );
    }
    let minutes = "SELECT toStartOfHour(minute) AS hour, service, name, kind, sum(r.count), \
        sumIf(r.count, status = 'ERROR'), sum(r.duration_sum_ns), sumMap(r.buckets) FROM red AS r \
        GROUP BY hour, service, name, kind ORDER BY ALL";
    let hours = "SELECT hour, service, name, kind, sum(h.count), sum(h.error_count), \
        sum(h.duration_sum_ns), sumMap(h.buckets) FROM red_hours AS h \
        GROUP BY hour, service, name, kind ORDER BY ALL";
    let expected = db.text(minutes).await;
    assert_eq!(expected.lines().count(), 4 * 6, "{expected}");
    assert_eq!(db.text(hours).await, expected);
    // Merged to one row each, the same.
    db.execute("OPTIMIZE TABLE red FINAL").await;
    db.execute("OPTIMIZE TABLE red_hours FINAL").await;
    assert_eq!(
        db.text("SELECT count() FROM red_hours").await,
        (4 * 6).to_string()
    );
    assert_eq!(db.text(hours).await, expected);
    assert_eq!(db.text(minutes).await, expected);
}
