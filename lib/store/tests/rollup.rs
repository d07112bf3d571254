//! The edges' rollup on a real engine: every call counts once, whatever the order its halves come in.
#![allow(clippy::expect_used)] // a test stops on the first surprise

mod common;

use common::*;
use spanloom_otlp::record::{SpanKind, StatusCode};
use spanloom_store::WriteOutcome;
use spanloom_store::block::{ConnectionType, HalfEdgeRow, RedRow, SpanBlock};

async fn send(db: &Database, halves: &[HalfEdgeRow<&str>]) {
    let mut block = SpanBlock::new(&pool());
    for half in halves {
        block.measures().push_half(half);
    }
    assert_eq!(
        db.writer().write(block.freeze()).await,
        WriteOutcome::Stored
    );
}

/// The sums of one minute's calls end at the greatest number.
#[tokio::test]
async fn calls_longer_than_64_bits_together_do_not_wrap() {
    let db = database().await;
    let mut block = SpanBlock::new(&pool());
    for n in 1..4 {
        let long = HalfEdgeRow {
            duration_ns: (1 << 63) + u64::from(n),
            peer: "bank",
            ..client(n, 0)
        };
        block.measures().push_half(&long);
    }
    assert_eq!(
        db.writer().write(block.freeze()).await,
        WriteOutcome::Stored
    );
    refresh(&db).await;
    let edges = "SELECT count, client_duration_sum_ns, client_duration_min_ns, client_duration_max_ns, \
        server_duration_sum_ns, server_duration_min_ns, server_duration_max_ns FROM edges FINAL";
    let half = 1_u64 << 63;
    assert_eq!(
        db.text(edges).await,
        format!("3\t{}\t{}\t{}\t0\t0\t0", u64::MAX, half + 1, half + 3)
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

fn client(n: u8, minute: u64) -> HalfEdgeRow<&'static str> {
    HalfEdgeRow {
        time_ns: T0 + minute * MINUTE + u64::from(n) * SECOND / 10,
        trace_id: [n; 16],
        span_id: [n; 8],
        parent_span_id: [0; 8],
        kind: SpanKind::Client,
        service: "shop",
        duration_ns: 200_000_000,
        error: false,
        peer: "",
        connection_type: ConnectionType::Unset,
    }
}

fn server(n: u8, minute: u64) -> HalfEdgeRow<&'static str> {
    HalfEdgeRow {
        span_id: [n + 100; 8],
        parent_span_id: [n; 8],
        kind: SpanKind::Server,
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
        parent_span_id: [0; 8],
        ..server(4, 0)
    };
    let itself = HalfEdgeRow {
        peer: "shop",
        ..client(7, 0)
    };
    send(
        &db,
        &[
            database,
            queue,
            unknown,
            client(5, 0),
            root,
            server(6, 0),
            itself,
        ],
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
                duration_min_ns: n,
                duration_max_ns: n * 1_000,
                buckets: &[(-168, 1), (n as i16 % 50, n)],
            });
        }
        assert_eq!(
            db.writer().write(block.freeze()).await,
            WriteOutcome::Stored
        );
    }
    // As collectors before schema version 5 write, by the view.
    db.execute(
        "INSERT INTO red (minute, service, name, kind, status, count, duration_sum_ns, buckets, \
         duration_min_ns, duration_max_ns) SELECT minute, service, name, kind, status, count + 1, \
         duration_sum_ns, buckets, duration_min_ns, duration_max_ns FROM red",
    )
    .await;
    let minutes = "SELECT toStartOfHour(minute) AS hour, service, name, kind, sum(r.count), \
        sumIf(r.count, status = 'ERROR'), sum(r.duration_sum_ns), sumMap(r.buckets), \
        sum(r.duration_total_ns), min(r.duration_min_ns), max(r.duration_max_ns) FROM red AS r \
        GROUP BY hour, service, name, kind ORDER BY ALL";
    let hours = "SELECT hour, service, name, kind, sum(h.count), sum(h.error_count), \
        sum(h.duration_sum_ns), sumMap(h.buckets), \
        sum(h.duration_total_ns), min(h.duration_min_ns), max(h.duration_max_ns) FROM red_hours AS h \
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

/// A half-edge by its trace, span, parent, kind and service.
fn half(trace: u8, span: u8, parent: u8, kind: SpanKind, service: &str) -> HalfEdgeRow<&str> {
    HalfEdgeRow {
        trace_id: [trace; 16],
        span_id: [span; 8],
        parent_span_id: [parent; 8],
        kind,
        service,
        connection_type: match kind {
            SpanKind::Producer | SpanKind::Consumer => ConnectionType::MessagingSystem,
            _ => ConnectionType::Unset,
        },
        peer: match kind {
            SpanKind::Producer => "orders",
            _ => "",
        },
        ..client(span, 0)
    }
}

const CALLS: &str = "SELECT concat(client, '>', server, ' ', toString(connection_type), ' ', \
    toString(sum(count))) FROM edges WHERE (tenant, minute, version) IN \
    (SELECT tenant, minute, max(version) FROM edges GROUP BY tenant, minute) \
    GROUP BY client, server, connection_type ORDER BY ALL";

/// What each group of spans makes; in this order and in the other, a refresh between them.
#[tokio::test]
async fn what_is_a_call() {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    let kafka = |half| HalfEdgeRow {
        connection_type: ConnectionType::MessagingSystem,
        ..half
    };
    let groups: &[(&[HalfEdgeRow<&str>], &[&str])] = &[
        // A service that is in its caller's process, without a server span of its own.
        (
            &[
                half(1, 1, 0, Server, "customer"),
                HalfEdgeRow {
                    peer: "mysql",
                    connection_type: ConnectionType::Database,
                    ..half(1, 2, 1, Client, "mysql")
                },
            ],
            &["customer>mysql unset 1"],
        ),
        (
            &[
                half(2, 1, 0, Server, "driver"),
                half(2, 2, 1, Client, "redis"),
                half(2, 3, 1, Client, "redis"),
                half(2, 4, 1, Internal, "driver"),
            ],
            &["driver>redis unset 2"],
        ),
        (
            &[half(3, 1, 0, Internal, "a"), half(3, 2, 1, Server, "b")],
            &["a>b unset 1"],
        ),
        (
            &[half(4, 1, 0, Client, "a"), half(4, 2, 1, Internal, "b")],
            &["a>b unset 1"],
        ),
        // A client and a server that share an id, and what the server does.
        (
            &[
                half(5, 1, 0, Server, "web"),
                HalfEdgeRow {
                    peer: "api.example",
                    ..half(5, 2, 1, Client, "web")
                },
                half(5, 2, 1, Server, "api"),
                half(5, 3, 2, Client, "api"),
                half(5, 4, 2, Internal, "web"),
            ],
            &["web>api unset 1"],
        ),
        // A service that calls itself, and spans that only lie below each other.
        (
            &[half(6, 1, 0, Client, "self"), half(6, 2, 1, Server, "self")],
            &["self>self unset 1"],
        ),
        (
            &[
                half(7, 1, 0, Server, "one"),
                half(7, 2, 1, Client, "one"),
                half(7, 3, 2, Internal, "one"),
                half(7, 4, 3, Consumer, "one"),
            ],
            &[],
        ),
        // By a link, from another trace, and in the same one beside a parent of the same service.
        (
            &[
                half(8, 1, 0, Producer, "p"),
                half(9, 5, 0, Consumer, "c"),
                half(8, 5, 1, Consumer, "c"),
            ],
            &["p>c messaging_system 1"],
        ),
        (
            &[
                half(10, 1, 0, Internal, "p"),
                half(10, 2, 1, Producer, "p"),
                half(10, 3, 1, Consumer, "c"),
                half(10, 3, 2, Consumer, "c"),
            ],
            &["p>c messaging_system 1"],
        ),
        // Several consumers; two messages that one consumer takes at once.
        (
            &[
                half(11, 1, 0, Producer, "p"),
                half(11, 2, 1, Consumer, "c"),
                half(11, 3, 1, Consumer, "d"),
                half(11, 4, 1, Consumer, "d"),
            ],
            &["p>c messaging_system 1", "p>d messaging_system 1"],
        ),
        (
            &[
                half(12, 1, 0, Producer, "p"),
                half(13, 1, 0, Producer, "p"),
                half(12, 9, 1, Consumer, "c"),
                half(13, 9, 1, Consumer, "c"),
            ],
            &["p>c messaging_system 2"],
        ),
        // Receive and process.
        (
            &[
                half(14, 1, 0, Producer, "p"),
                half(14, 2, 1, Client, "c"),
                half(14, 3, 2, Consumer, "c"),
                half(14, 3, 1, Consumer, "c"),
            ],
            &["p>c messaging_system 1"],
        ),
        // Nobody takes the message; a peer that is only the service's own name.
        (
            &[half(15, 1, 0, Producer, "p")],
            &["p>orders messaging_system 1"],
        ),
        (
            &[kafka(HalfEdgeRow {
                peer: "x",
                ..half(16, 1, 0, Client, "x")
            })],
            &[],
        ),
        // Twice delivered.
        (
            &[
                half(17, 1, 0, Client, "a"),
                half(17, 1, 0, Client, "a"),
                half(17, 2, 1, Server, "b"),
                half(17, 2, 1, Server, "b"),
                half(17, 3, 9, Server, "b"),
            ],
            &["a>b unset 1"],
        ),
    ];
    let db = database().await;
    db.execute("SYSTEM STOP VIEW edges_rollup").await;
    db.execute("SYSTEM START VIEW edges_rollup").await;
    for (halves, expect) in groups {
        for reversed in [false, true] {
            db.execute("TRUNCATE TABLE half_edges").await;
            db.execute("TRUNCATE TABLE edges").await;
            let mut halves = halves.to_vec();
            if reversed {
                halves.reverse();
            }
            let (first, second) = halves.split_at(halves.len() / 2);
            for part in [first, second] {
                send(&db, part).await;
                refresh(&db).await;
            }
            let calls = db.text(CALLS).await;
            let lines: Vec<_> = calls.lines().collect();
            assert_eq!(&lines, expect, "reversed {reversed}: {halves:#?}");
        }
    }
}

/// Writers of before schema version 4 sent a client's half and a server's, by the parent's id.
#[tokio::test]
async fn halves_of_earlier_writers() {
    let db = database().await;
    let insert = |side: &str, span: u8, service: &str, peer: &str| {
        format!(
            "INSERT INTO half_edges (time, trace_id, span_id, side, service, duration_ns, error, peer, \
             connection_type) SELECT fromUnixTimestamp64Nano({T0}), toFixedString('{}', 16), \
             toFixedString('{span:08}', 8), '{side}', '{service}', 1, false, '{peer}', 'unset'",
            "t".repeat(16)
        )
    };
    for statement in [
        insert("client", 1, "a", "b.example"),
        insert("server", 1, "b", ""),
        insert("client", 2, "a", "c.example"),
        insert("server", 3, "b", ""),
    ] {
        db.execute(&statement).await;
    }
    refresh(&db).await;
    let expect = "a>b unset 1\na>c.example virtual_node 1";
    assert_eq!(db.text(CALLS).await, expect);
}
